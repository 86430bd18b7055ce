"""Objects of a cache, named by their content, and what of them a process keeps in memory.

An object that is gone, or that is not what its name says, is damaged: whoever reads it does without. Nothing here is
evidence, so writing may repeat and removing is allowed.
"""

import logging
from collections import OrderedDict
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import Any, Final, TypeVar

from crypto_ml.digest import sha256_of
from crypto_ml.storage.failures import ObjectMissing, named_failures
from crypto_ml.storage.objects import ObjectStore

log = logging.getLogger(__name__)

Item = TypeVar("Item")
Result = TypeVar("Result")

AT_ONCE: Final = 8
"""Requests at the same time."""

MOST_REMOVED_AT_ONCE: Final = 1_000
"""Keys that one request may remove."""


class CacheDamaged(Exception):  # noqa: N818 - reads as what happened
    """An object of the cache is gone, or is not what its name says. Never leaves the cache.

    dealt_with: whether what named it is not used any more.
    """

    dealt_with = False


def at_once(act: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    """`act` on each of the items, some at the same time; results in their order."""
    if len(items) < 2:
        return [act(item) for item in items]
    with ThreadPoolExecutor(min(AT_ONCE, len(items))) as pool:
        return list(pool.map(act, items))


class KeptInMemory:
    """What was used last, up to so many bytes; safe to share between threads."""

    def __init__(self, most_bytes: int) -> None:
        self.most_bytes = most_bytes
        self._lock = Lock()
        self._kept: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()
        self._bytes = 0

    def get(self, key: Hashable) -> Any:
        """What is kept under `key`; None where nothing is."""
        with self._lock:
            if key not in self._kept:
                return None
            self._kept.move_to_end(key)
            return self._kept[key][0]

    def keep(self, key: Hashable, value: Any, size: int) -> None:
        """Keep a value that takes `size` bytes, which is never changed; the least used ones make room."""
        with self._lock:
            if key in self._kept or size > self.most_bytes // 4:
                return
            self._kept[key] = value, size
            self._bytes += size
            while self._bytes > self.most_bytes:
                self._bytes -= self._kept.popitem(last=False)[1][1]


class KeptObjects:
    """Objects under `prefix` of a store, each named by the sha256 of its bytes."""

    def __init__(self, store: ObjectStore, prefix: str) -> None:
        self.store = store
        self.prefix = prefix

    def put(self, body: bytes) -> str:
        """Write an object, or write it again; returns its name."""
        name = sha256_of(body)
        self.store.replace(self.prefix + name, body)
        return name

    def read(self, name: str) -> bytes:
        """The bytes of an object, which are those that were put. Raises CacheDamaged."""
        return verified(self.store, self.prefix + name, name)

    def remove(self, names: Collection[str]) -> None:
        """Remove objects; those that are not there already are as good as removed."""
        removed(self.store, [self.prefix + name for name in names])


def verified(store: ObjectStore, key: str, sha256: str) -> bytes:
    """The bytes under `key`, which have this sha256. Raises CacheDamaged."""
    for _ in range(2):  # what a network damaged comes whole the second time
        try:
            body = store.read(key)
        except ObjectMissing:
            break
        if sha256_of(body) == sha256:
            return body
    raise CacheDamaged(f"{store.uri(key)} is gone, or is not what its name says")


def removed(store: ObjectStore, keys: Iterable[str]) -> None:
    """Remove objects of a cache. Raises StoreUnavailable, StoreRefused."""
    left = list(keys)
    while left:
        some, left = left[:MOST_REMOVED_AT_ONCE], left[MOST_REMOVED_AT_ONCE:]
        named: Sequence[Mapping[str, str]] = [{"Key": store.physical(key)} for key in some]
        with named_failures(store.client, "remove", store.uri(some[0])):
            store.client.delete_objects(Bucket=store.bucket, Delete={"Objects": named, "Quiet": True})  # type: ignore[typeddict-item]
