"""Model bundles in S3, and the one pointer that decides which of them serves.

Bundles are written once under their version. The pointer is a log: its last entry is the champion, the entries before
it say who made what champion, when and why.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from crypto_ml.errors import Refused
from crypto_ml.forecasting.bundle import MANIFEST, ModelBundle
from crypto_ml.ledger.layout import CHAMPIONS, MODELS, bundle_prefix
from crypto_ml.ledger.log import AppendOnlyLog, Entry
from crypto_ml.storage.failures import AlreadyExists, ObjectMissing
from crypto_ml.storage.objects import ObjectStore


class UnknownModel(Refused):
    """A version that the registry does not have."""


class NothingToRollBackTo(Refused):
    """A pointer that has never named another model."""


class UnexplainedPromotion(Refused):
    """A promotion without who or why."""


class PromotionLost(Refused):
    """Another promotion came first."""


@dataclass(frozen=True)
class Champion:
    """One entry of the pointer: which bundle serves from `at` on, who decided so and why."""

    pointer: int
    version: str
    sha256: str
    by: str
    why: str
    at: str


class Registry:
    """The bundles and the champion of one store."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._pointer = AppendOnlyLog(store, CHAMPIONS)

    def add(self, bundle: ModelBundle) -> None:
        """Keep a bundle under its version; adding the same bundle again changes nothing. The manifest goes last.

        The first manifest stands: one of a later run differs from it in no more than when the run was.
        """
        prefix = bundle_prefix(bundle.version)
        if self._store.head(prefix + MANIFEST) is not None:
            return
        for name, content in bundle.files.items():
            if name != MANIFEST:
                self._store.create_or_same(prefix + name, content)
        with suppress(AlreadyExists):
            self._store.create(prefix + MANIFEST, bundle.files[MANIFEST])

    def versions(self) -> list[str]:
        """The versions of all complete bundles, in order of their names."""
        root = f"{MODELS}bundles/"
        return [
            found.key.removeprefix(root).removesuffix(f"/{MANIFEST}")
            for found in self._store.list(root)
            if found.key.endswith(f"/{MANIFEST}")
        ]

    def load(self, version: str) -> ModelBundle:
        """A bundle, checked against its manifest. Raises UnknownModel, BundleDamaged."""
        prefix = bundle_prefix(version)
        names = [found.key.removeprefix(prefix) for found in self._store.list(prefix)]
        if MANIFEST not in names:
            raise UnknownModel(f"there is no model {version}; `crypto-ml models` lists those there are")
        with ThreadPoolExecutor(8) as pool:
            contents = list(pool.map(lambda name: self._store.read(prefix + name), names))
        return ModelBundle.from_files(dict(zip(names, contents, strict=True)))

    def champion(self) -> Champion | None:
        """Who serves now; None on a deployment that has not started yet."""
        last = self._pointer.last()
        return _champion(last) if last else None

    def champions(self) -> Iterator[Champion]:
        """Every entry of the pointer, oldest first."""
        return map(_champion, self._pointer.entries())

    def promote(self, version: str, *, by: str, why: str, at: datetime) -> Champion:
        """Make a bundle the champion. Of two promotions at the same time one succeeds.

        Raises UnknownModel, BundleDamaged, UnexplainedPromotion; PromotionLost with the name of who was first.
        """
        if not by.strip() or not why.strip():
            raise UnexplainedPromotion("a promotion names who decided it and why; give both")
        bundle = self.load(version)
        after = self._pointer.last_number()
        return self._point(bundle, after, by=by, why=why, at=at)

    def roll_back(self, *, by: str, why: str, at: datetime) -> Champion:
        """Make the model champion again that served before. Raises as `promote`, and NothingToRollBackTo.

        A rollback is an entry like any other: rolling back twice undoes the first.
        """
        entries = list(self.champions())
        earlier = [entry for entry in entries if entry.version != entries[-1].version]
        if not earlier:
            raise NothingToRollBackTo(
                "no other model has served before the champion, so there is nothing to go back to"
            )
        return self.promote(earlier[-1].version, by=by, why=why, at=at)

    def champion_or_first(self, first: Callable[[], ModelBundle], at: datetime) -> Champion:
        """The champion, which on a fresh deployment becomes the bundle that `first` gives."""
        if found := self.champion():
            return found
        bundle = first()
        self.add(bundle)
        try:
            return self._point(bundle, 0, by="crypto_ml", why="first start of this deployment", at=at)
        except PromotionLost:
            return _champion(self._pointer.read(1))

    def _point(self, bundle: ModelBundle, after: int, *, by: str, why: str, at: datetime) -> Champion:
        document: dict[str, Any] = {
            "version": bundle.version,
            "sha256": bundle.sha256,
            "by": by,
            "why": why,
            "at": at.isoformat(),
        }
        entry = self._pointer.append(document, after=after)
        if entry is None:
            raise PromotionLost(_who_was_first(self._pointer, after + 1, bundle.version))
        return _champion(entry)


def _who_was_first(pointer: AppendOnlyLog, number: int, version: str) -> str:
    try:
        first = _champion(pointer.read(number))
    except ObjectMissing:
        return f"{version} was not promoted: another promotion came first"
    return (
        f"{version} was not promoted: {first.by} promoted {first.version} first ({first.why}); look at it and try again"
    )


def _champion(entry: Entry) -> Champion:
    return Champion(pointer=entry.number, **entry.document)
