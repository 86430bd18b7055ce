"""What the cache beside the market history says of itself: small documents, one for each state of it.

A manifest is named by the version of the history that it is of and by the sha256 of its bytes, newest first in a
listing, and is written once. It names the sha256 of that version's commit, by which a manifest of another history
shows. `newest.json` says which ones were written last; it is a hint that spares a listing, and may be late, wrong or
missing.
"""

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from threading import Lock
from typing import Any, Final, Generic, TypeVar

from crypto_ml.digest import sha256_of
from crypto_ml.storage.failures import ObjectMissing, StoreRefused
from crypto_ml.storage.objects import ObjectStore, rendered
from crypto_ml.storage.series.kept_objects import CacheDamaged, removed, verified
from crypto_ml.storage.series.sorted_parts import Part

log = logging.getLogger(__name__)

MOST_KNOWN: Final = 32
LAST_VERSION: Final = 10**19
ENDING: Final = ".json"
HINT: Final = "newest.json"


@dataclass(frozen=True)
class BookPart(Part):
    """A piece of a book: `states_size` bytes of Parquet with states, and behind them Parquet with the rows kept."""

    states_size: int


@dataclass(frozen=True)
class Book:
    """The folded form of all series at a version. retracted: uploads that had void rows by then."""

    version: int
    commit: str
    parts: tuple[BookPart, ...]
    retracted: tuple[str, ...]

    def names(self) -> set[str]:
        """The objects that it names."""
        return {part.name for part in self.parts}


@dataclass(frozen=True)
class Segment:
    """Some rows of the history. index: the object that lists its parts (`Part`, as JSON)."""

    rows: int
    index: str


@dataclass(frozen=True)
class Segments:
    """All rows that the history had at a version.

    segments: those that may count at the version or later, as long as nothing more is retracted. outranked: the others,
    see `forecasting.current_rows.are_outranked`. retracted: uploads that had void rows by then.
    """

    version: int
    commit: str
    segments: tuple[Segment, ...] = ()
    outranked: tuple[Segment, ...] = ()
    retracted: tuple[str, ...] = ()

    @property
    def all_segments(self) -> tuple[Segment, ...]:
        """Those of all rows."""
        return (*self.segments, *self.outranked)

    @property
    def rows(self) -> int:
        """How many may count."""
        return sum(segment.rows for segment in self.segments)


Manifest = TypeVar("Manifest", bound=Book | Segments)


@dataclass(frozen=True)
class Listed:
    """The key of a manifest as it was listed."""

    key: str
    version: int
    written: datetime


class Manifests(Generic[Manifest]):
    """The manifests of one kind, under `prefix` of a store."""

    def __init__(self, store: ObjectStore, prefix: str, parse: Callable[[Mapping[str, Any]], Manifest]) -> None:
        self.store = store
        self.prefix = prefix
        self._parse = parse

    def listed(self, version: int | None = None) -> Iterator[Listed]:
        """Those of a version (None: any) and earlier ones, newest first."""
        after = None if version is None else f"{self.prefix}{LAST_VERSION - version:020d}"
        for found in self.store.list(self.prefix, start_after=after):
            if (of := self.version_of(found.key)) is not None:
                yield Listed(found.key, of, found.last_modified)

    def version_of(self, key: str) -> int | None:
        """The version that a key names; None where it is none of a manifest here."""
        number, _, sha256 = key.removeprefix(self.prefix).removesuffix(ENDING).partition("-")
        well = key.startswith(self.prefix) and key.endswith(ENDING) and number.isdecimal() and len(sha256) == 64
        return LAST_VERSION - int(number) if well else None

    def read(self, key: str) -> Manifest:
        """Raises CacheDamaged."""
        body = verified(self.store, key, key.removesuffix(ENDING)[-64:])
        try:
            manifest = self._parse(json.loads(body))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise CacheDamaged(f"{self.store.uri(key)} is not a manifest: {error!r}") from error
        if manifest.version != self.version_of(key):
            raise CacheDamaged(f"{self.store.uri(key)} is of another version")
        return manifest

    def put(self, manifest: Manifest) -> str:
        """Write a manifest, or write it again; returns its key."""
        key = self.key(manifest)
        self.store.replace(key, rendered(asdict(manifest)), content_type="application/json")
        return key

    def key(self, manifest: Manifest) -> str:
        """Where a manifest stands."""
        sha256 = sha256_of(rendered(asdict(manifest)))
        return f"{self.prefix}{LAST_VERSION - manifest.version:020d}-{sha256}{ENDING}"

    def remove(self, key: str) -> None:
        """Remove a manifest."""
        removed(self.store, [key])


class KnownManifests(Generic[Manifest]):
    """The manifests of one kind, with what this process knows of them already.

    is_of_history: whether a manifest is of the history that it is asked about.
    """

    def __init__(self, manifests: Manifests[Manifest], is_of_history: Callable[[Manifest], bool]) -> None:
        self.manifests = manifests
        self._is_of_history = is_of_history
        self._lock = Lock()
        self._known: dict[str, Manifest] = {}
        self._unusable: set[str] = set()

    def at(
        self, version: int, behind: int, hint: Callable[[], Sequence[str]], *, later: bool = False
    ) -> Manifest | None:
        """The newest that is of a version or an earlier one, or of any with `later`; None where none is.

        One that is known and at most so many versions `behind` is taken without a look at the store.
        """
        known = self._newest_known(version, later)
        if known is not None and known.version >= version - behind:
            return known
        for key in hint():
            of = self.manifests.version_of(key)
            if of is not None and (later or of <= version) and (known is None or of >= known.version):
                found = self.read(key)
                if found is not None:
                    return found
        for listed in self.manifests.listed(None if later else version):
            found = self.read(listed.key)
            if found is not None:
                return found
        return None

    def read(self, key: str) -> Manifest | None:
        """The manifest under a key; None where it is gone, damaged, or of another history: then it is removed."""
        with self._lock:
            if key in self._unusable:
                return None
            if key in self._known:
                return self._known[key]
        try:
            found = self.manifests.read(key)
        except CacheDamaged as damaged:
            self._discard(key, str(damaged))
            return None
        if not self._is_of_history(found):
            self._discard(key, f"{self.manifests.store.uri(key)} is not of this history")
            return None
        self._know(key, found)
        return found

    def put(self, manifest: Manifest) -> str:
        """Write a manifest; returns its key."""
        key = self.manifests.put(manifest)
        self._know(key, manifest)
        return key

    def remove(self, key: str) -> None:
        """Remove a manifest that is not needed any more."""
        with self._lock:
            self._known.pop(key, None)
        self.manifests.remove(key)

    def discard(self, why: str) -> None:
        """Use none of those that there are any more."""
        for listed in list(self.manifests.listed()):
            self._discard(listed.key, why)

    @contextmanager
    def using(self, manifest: Manifest) -> Iterator[None]:
        """Where something that a manifest names is damaged, that one is removed, and not used again."""
        try:
            yield
        except CacheDamaged as damaged:
            if not damaged.dealt_with:
                damaged.dealt_with = True
                self._discard(self.manifests.key(manifest), str(damaged))
            raise

    def _newest_known(self, version: int, later: bool) -> Manifest | None:
        with self._lock:
            fitting = [one for one in self._known.values() if later or one.version <= version]
        return max(fitting, key=lambda one: one.version, default=None)

    def _know(self, key: str, manifest: Manifest) -> None:
        with self._lock:
            self._unusable.discard(key)
            self._known[key] = manifest
            while len(self._known) > MOST_KNOWN:
                del self._known[min(self._known, key=lambda one: self._known[one].version)]

    def _discard(self, key: str, why: str) -> None:
        log.warning(
            "A part of the cache beside the market history is not used any more, and will be made anew: %s", why
        )
        with self._lock:
            self._unusable.add(key)
            self._known.pop(key, None)
        with suppress(StoreRefused):  # who may only read goes on without it
            self.manifests.remove(key)


def read_book(document: Mapping[str, Any]) -> Book:
    """What `asdict` made of a book."""
    parts = tuple(BookPart(**part) for part in document["parts"])
    return Book(document["version"], document["commit"], parts, tuple(document["retracted"]))


def read_segments(document: Mapping[str, Any]) -> Segments:
    """What `asdict` made of segments."""
    segments, outranked = (
        tuple(Segment(**segment) for segment in document[which]) for which in ("segments", "outranked")
    )
    return Segments(document["version"], document["commit"], segments, outranked, tuple(document["retracted"]))


def read_hint(store: ObjectStore, prefix: str) -> Mapping[str, str]:
    """By kind, the key of the manifest that was written last; empty where nothing says."""
    with suppress(ObjectMissing, StoreRefused):
        found = store.read_json(prefix + HINT)
        if isinstance(found, dict):
            return {str(kind): str(key) for kind, key in found.items()}
    return {}


def write_hint(store: ObjectStore, prefix: str, keys: Mapping[str, str]) -> None:
    """Say which manifests were written last."""
    store.replace(prefix + HINT, rendered(dict(keys)), content_type="application/json")
