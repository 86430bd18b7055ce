"""Model bundles in S3, and for each environment the one pointer that decides which of them serves.

Bundles are written once under their version. A pointer is a log: its last entry is the champion, the entries before it
say who made what champion, when, why, and what the gates said. A decision has an id, and the same id decides once.
`prod` takes only what `preprod` serves.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime
from typing import Any, Final, Literal

from crypto_ml.errors import Blocked, Refused
from crypto_ml.forecasting.bundle import MANIFEST, ModelBundle
from crypto_ml.ledger.clock import not_before
from crypto_ml.ledger.formats import pointer_v1, pointer_v2
from crypto_ml.ledger.formats.reading import RecordDamaged, read_record, too_new
from crypto_ml.ledger.layout import MODELS, Environment, bundle_prefix, champions_prefix
from crypto_ml.ledger.log import AppendOnlyLog, Entry
from crypto_ml.storage.caller import Caller, who
from crypto_ml.storage.failures import AlreadyExists
from crypto_ml.storage.objects import ObjectStore


class UnknownModel(Blocked):
    """A version that the registry does not have."""


class NothingToRollBackTo(Refused):
    """A champion with none before it, or none but those that were rolled back from."""


class UnexplainedPromotion(Refused):
    """A promotion without who or why."""


class PromotionLost(Refused):
    """Another promotion came first."""


class PromotionRefused(Refused):
    """A candidate that did not pass its gates, or that the environment before has not served."""


MOST_TOLD: Final = 10
"""Versions that are named where one is asked for that is not there."""

FORMATS: Final[Mapping[int, Any]] = {
    pointer_v1.FORMAT: pointer_v1.PointerEntry,
    pointer_v2.FORMAT: pointer_v2.PointerEntry,
}

Action = Literal["first start", "promotion", "rollback"]


@dataclass(frozen=True)
class Gate:
    """One thing a candidate has to pass before it may serve, the numbers it was decided on, and why in a sentence."""

    name: str
    passed: bool
    explanation: str
    numbers: Mapping[str, float | None] = field(default_factory=dict)


@dataclass(frozen=True)
class Champion:
    """One entry of the pointer: which bundle serves from `at` on (ISO 8601, UTC), who decided so and why.

    gates: what the gates said. override: why it serves although some of them failed. decision: the id of the decision
    that it came about by, where it has one. acted_as: whose credentials or user decided, where that is recorded.
    recorded: the entry exactly as it is stored, in whichever format.
    """

    pointer: int
    version: str
    sha256: str
    by: str
    why: str
    at: str
    action: Action = "promotion"
    gates: Sequence[Mapping[str, Any]] = field(default_factory=list)
    override: str | None = None
    decision: str | None = None
    acted_as: Mapping[str, str] | None = None
    recorded: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def decided_by(self) -> str:
        """Who decided, in words: the name that was given, and who acted under it."""
        return who(self.by, self.acted_as)

    def repeated(self) -> dict[str, Any]:
        """The recorded entry and its number: what a receipt repeats."""
        return {"pointer": self.pointer, **self.recorded}

    def is_repeated_by(self, document: Mapping[str, Any]) -> bool:
        """Whether what a receipt repeats, of today or of 0.1, is this entry as it is recorded."""
        if "format" in self.recorded:
            return dict(document) == self.repeated()
        return dict(document) in (self.repeated(), pointer_v1.repeated(self.pointer, self.recorded))


def repeated_champion(document: Mapping[str, Any]) -> Champion:
    """The entry that a receipt repeats. Raises RecordTooNew, RecordDamaged."""
    recorded = {name: value for name, value in document.items() if name != "pointer"}
    return _champion(document["pointer"], recorded, f"entry {document['pointer']} of the champion pointer")


class Registry:
    """The bundles of one store, and the champion of one environment."""

    def __init__(self, store: ObjectStore, environment: Environment = "dev") -> None:
        self.store = store
        self.environment = environment
        self._pointer = AppendOnlyLog(store, champions_prefix(environment))

    def add(self, bundle: ModelBundle) -> None:
        """Keep a bundle under its version; adding the same bundle again changes nothing. The manifest goes last.

        The first manifest stands: one of a later run differs from it in no more than when the run was.
        """
        prefix = bundle_prefix(bundle.version)
        if self.store.head(prefix + MANIFEST) is not None:
            return
        for name, content in bundle.files.items():
            if name != MANIFEST:
                self.store.create_or_same(prefix + name, content)
        with suppress(AlreadyExists):
            self.store.create(prefix + MANIFEST, bundle.files[MANIFEST])

    def versions(self) -> list[str]:
        """The versions of all complete bundles, in order of their names."""
        return [version for version, _ in self._written()]

    def newest_first(self) -> list[str]:
        """The versions of all complete bundles, those written last first."""
        return [version for version, _ in sorted(self._written(), key=lambda one: (one[1], one[0]), reverse=True)]

    def told_versions(self) -> str:
        """Which versions there are, in words: the last ones by name, where there are many."""
        versions = self.versions()
        if not versions:
            return "there is none yet"
        more = f", and {len(versions) - MOST_TOLD} before them" if len(versions) > MOST_TOLD else ""
        return f"there are {', '.join(versions[-MOST_TOLD:])}{more} (`crypto-ml models` lists all)"

    def load(self, version: str) -> ModelBundle:
        """A bundle, checked against its manifest. Raises UnknownModel, BundleDamaged."""
        prefix = bundle_prefix(version)
        names = [found.key.removeprefix(prefix) for found in self.store.list(prefix)]
        if MANIFEST not in names:
            raise UnknownModel(f"there is no model {version}; {self.told_versions()}")
        with ThreadPoolExecutor(8) as pool:
            contents = list(pool.map(lambda name: self.store.read(prefix + name), names))
        return ModelBundle.from_files(dict(zip(names, contents, strict=True)))

    def champion(self) -> Champion | None:
        """Who serves now; None on a deployment that has not started yet."""
        last = self._pointer.last()
        return self._read(last) if last else None

    def is_last(self, pointer: int) -> bool:
        """Whether nobody has moved the pointer since this entry."""
        return self._pointer.is_last(pointer)

    def champions(self) -> Iterator[Champion]:
        """Every entry of the pointer, oldest first."""
        return map(self._read, self._pointer.entries())

    def champion_at(self, time: datetime) -> Champion | None:
        """Who served at `time` (aware); None before the first.

        The order of the pointer is the order of time: an entry of 0.1 that is dated before one it follows, by a clock
        that was behind, served from when that one did.
        """
        served = None
        for entry in self.champions():
            if datetime.fromisoformat(entry.at) > time:  # from here on the latest date so far is past `time`
                break
            served = entry
        return served

    def decided(self, decision: str) -> Champion | None:
        """The entry that a decision led to, None where it was not carried out."""
        return _of_decision(self.champions(), decision)

    def pointer_key(self, pointer: int) -> str:
        """The key of an entry of the pointer."""
        return self._pointer.key(pointer)

    def entry(self, pointer: int) -> Champion:
        """An entry of the pointer. Raises ObjectMissing, RecordTooNew, RecordDamaged."""
        return self._read(self._pointer.read(pointer))

    def promote(
        self,
        version: str,
        *,
        by: str,
        why: str,
        at: datetime,
        gates: Sequence[Gate] = (),
        override: str | None = None,
        decision: str | None = None,
        after: int | None = None,
        acted_as: Caller | None = None,
    ) -> Champion:
        """Make a bundle the champion. Of two promotions at the same time one succeeds.

        `gates` is what `stages.promotion` found; where one failed, only an `override` reason lets the bundle through,
        and it is kept. `decision` is the id of the decision: where an entry has it, that entry comes back and nothing
        is written. `after` is the number of the entry that the decision is meant to follow, the last one by default.
        Raises UnknownModel, BundleDamaged, UnexplainedPromotion, PromotionRefused; PromotionLost with the name of who
        was first.
        """
        entries = list(self.champions())
        if carried_out := _of_decision(entries, decision):
            return carried_out
        bundle = self._explained(version, by, why)
        if self.environment == "prod":
            self._refuse_unproven(version)
        failed = [gate for gate in gates if not gate.passed]
        if failed and not (override or "").strip():
            raise PromotionRefused(
                f"{version} was not promoted: {' '.join(gate.explanation for gate in failed)} "
                "To promote it all the same, give the reason as override; it is recorded"
            )
        behind = entries if after is None else entries[:after]
        return self._point(
            bundle,
            behind,
            action="promotion",
            by=by,
            why=why,
            at=at,
            gates=[asdict(gate) for gate in gates],
            override=override if failed else None,
            decision=decision,
            acted_as=acted_as,
        )

    def roll_back(
        self, *, by: str, why: str, at: datetime, decision: str | None = None, acted_as: Caller | None = None
    ) -> Champion:
        """Make the model champion again that served before. Raises as `promote`, and NothingToRollBackTo.

        No gate is asked: what served before is the way out of a problem. A rollback is an entry like any other, and
        rolling back again, by another decision, walks further back (see `succession`).
        """
        entries = list(self.champions())
        if carried_out := _of_decision(entries, decision):
            return carried_out
        served = succession(entries)
        if len(served) < 2:
            raise NothingToRollBackTo(_why_nothing_is_before(entries))
        bundle = self._explained(served[-2], by, why)
        return self._point(
            bundle, entries, action="rollback", by=by, why=why, at=at, decision=decision, acted_as=acted_as
        )

    def champion_or_first(self, first: Callable[[], ModelBundle], at: datetime) -> Champion:
        """The champion, which on a fresh deployment becomes the bundle that `first` gives."""
        if found := self.champion():
            return found
        bundle = first()
        self.add(bundle)
        try:
            why = "first start of this deployment"
            return self._point(bundle, [], action="first start", by="crypto_ml", why=why, at=at)
        except PromotionLost:
            return self.entry(1)

    def _written(self) -> list[tuple[str, datetime]]:
        """Each complete bundle, in order of their names, and when its manifest was written."""
        root = f"{MODELS}bundles/"
        return [
            (found.key.removeprefix(root).removesuffix(f"/{MANIFEST}"), found.last_modified)
            for found in self.store.list(root)
            if found.key.endswith(f"/{MANIFEST}")
        ]

    def _explained(self, version: str, by: str, why: str) -> ModelBundle:
        if not by.strip() or not why.strip():
            raise UnexplainedPromotion("a promotion names who decided it and why; give both")
        return self.load(version)

    def _refuse_unproven(self, version: str) -> None:
        proven = Registry(self.store, "preprod").champion()
        if proven is None or proven.version != version:
            serves = f"preprod serves {proven.version}" if proven else "preprod serves nothing yet"
            raise PromotionRefused(
                f"{version} was not promoted: prod takes only what preprod serves, and {serves}; promote it in preprod "
                "first"
            )

    def _point(
        self,
        bundle: ModelBundle,
        behind: Sequence[Champion],
        *,
        action: Action,
        by: str,
        why: str,
        at: datetime,
        gates: Sequence[Mapping[str, Any]] = (),
        override: str | None = None,
        decision: str | None = None,
        acted_as: Caller | None = None,
    ) -> Champion:
        """Write the entry that follows those of `behind`; after the write nothing can fail any more."""
        entry = pointer_v2.PointerEntry(
            version=bundle.version,
            sha256=bundle.sha256,
            by=by,
            why=why,
            at=not_before(at, *(before.at for before in behind)),
            action=action,
            gates=list(gates),
            override=override,
            decision=decision,
            acted_as=asdict(acted_as) if acted_as else None,
        )
        written = self._pointer.append(pointer_v2.written(entry), after=len(behind))
        if written:
            return self._read(written)
        overtaken_by = list(map(self._read, self._pointer.entries(len(behind))))
        if carried_out := _of_decision(overtaken_by, decision):
            return carried_out
        raise PromotionLost(_who_was_first(overtaken_by, bundle.version))

    def _read(self, entry: Entry) -> Champion:
        return _champion(entry.number, entry.document, self.store.uri(self.pointer_key(entry.number)))


def succession(entries: Iterable[Champion]) -> list[str]:
    """The versions that a rollback walks back along, the champion's last; none is there twice.

    A promotion (and the first start) puts its version at the end, and takes it from wherever it stood before. A
    rollback cuts off what stands behind the version it names: what was rolled back from is never gone back to, until it
    is promoted again. One of an earlier release, which undid the one before it, puts its version at the end again.
    """
    versions: list[str] = []
    for entry in entries:
        if entry.action == "rollback" and entry.version in versions:
            del versions[versions.index(entry.version) + 1 :]
        else:
            versions = [*(version for version in versions if version != entry.version), entry.version]
    return versions


def _why_nothing_is_before(entries: Sequence[Champion]) -> str:
    if not entries:
        return "nothing has served here yet, so there is nothing to go back to"
    champion = entries[-1].version
    left = sorted({entry.version for entry in entries} - {champion})
    if not left:
        return f"no other model has served before the champion {champion}, so there is nothing to go back to"
    each, one = ("", "it") if len(left) == 1 else ("each ", "one of them")
    return (
        f"nothing is left before the champion {champion}: {', '.join(left)} served as well, and {each}was rolled back "
        f"from; to have {one} serve again, promote it by its version"
    )


def _champion(number: int, document: Mapping[str, Any], where: str) -> Champion:
    found = document.get("format", pointer_v1.FORMAT)
    if found not in FORMATS:
        raise too_new("pointer", where, found, max(FORMATS))
    entry = read_record(FORMATS[found], document, where)
    known = {one.name for one in fields(Champion)}
    said = {name: value for name, value in vars(entry).items() if name in known}
    return Champion(pointer=number, recorded=document, **said)


def champion_in(number: int, content: bytes, where: str) -> Champion:
    """The entry of a pointer that stands somewhere, from its bytes. Raises RecordTooNew, RecordDamaged."""
    try:
        document = json.loads(content)
    except ValueError as error:
        raise RecordDamaged(f"{where} is not as it was written; restore it") from error
    return _champion(number, document, where)


def _of_decision(entries: Iterable[Champion], decision: str | None) -> Champion | None:
    return next((entry for entry in entries if entry.decision == decision), None) if decision else None


def _who_was_first(overtaken_by: Sequence[Champion], version: str) -> str:
    if not overtaken_by:
        return f"{version} was not promoted: another promotion came first"
    first = overtaken_by[0]
    return (
        f"{version} was not promoted: {first.by} promoted {first.version} first ({first.why}); look at it and try again"
    )
