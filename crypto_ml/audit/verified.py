"""What a look at the whole record found, as people, checks and alarms are told it, and what it keeps for the next look.

Belongs here: findings, verdict and state. Does not belong here: how they are come by, which is `verify`.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any, Final

from crypto_ml.audit.published import Stands
from crypto_ml.errors import Refused
from crypto_ml.forecasting.evaluation import Verdict
from crypto_ml.ledger.alarms import Condition
from crypto_ml.ledger.chain import Head
from crypto_ml.ledger.formats.chain_v1 import Record
from crypto_ml.ledger.formats.reading import RecordDamaged, read_record

STATE_FORMAT: Final = 2
"""Since 0.7.1, where it knows the order of forecasts; what an earlier release kept is not used."""


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong. kind: a word for programs. key: the object. link, since: the number and the time of the
    link that vouches for how it was; None where none does."""

    kind: str
    key: str
    what: str
    link: int | None = None
    since: str | None = None

    def __str__(self) -> str:
        of = f" of {self.since}" if self.since else ""
        since = f" (link {self.link}{of})" if self.link is not None else ""
        return f"{self.kind}: {self.key}: {self.what}{since}"


class Findings:
    """What is wrong, in the order in which it was found. keys: all that something is wrong with. links, times: those of
    the chain as far as it was walked, by which a finding tells since when."""

    def __init__(self, links: Mapping[str, int], times: Mapping[int, str]) -> None:
        self.found: list[Finding] = []
        self.keys: set[str] = set()
        self._links = links
        self._times = times

    def add(self, kind: str, key: str, what: str, link: int | None = None) -> None:
        """Note something that is wrong. link: the number of the one that vouches for how it was, where it is another
        than the first that named the record."""
        number = link if link is not None else self._links.get(key)
        self.keys.add(key)
        self.found.append(Finding(kind, key, what, number, self._times.get(number) if number else None))


@dataclass(frozen=True)
class State:
    """What was verified before. head: the last link then. records: those that its chain names; links: in which one;
    times: when each link was made. objects: key → sha256, ETag and LastModified of what records vouch for. published:
    what may stand where answers are published; stood: what did, as objects. began_with, complete: up to which moment
    the first look and the last one at everything took in what there was. first_look: the number of its last link.
    first_written: of records that were written again with the same bytes, and taken in again, when S3 says that they
    were first."""

    head: Head
    records: Mapping[str, Record]
    links: Mapping[str, int]
    times: Mapping[int, str]
    objects: Mapping[str, tuple[str, str, str]]
    published: Mapping[str, Sequence[Stands]]
    stood: Mapping[str, tuple[str, str, str]]
    began_with: str | None = None
    complete: str | None = None
    first_look: int = 0
    first_written: Mapping[str, str] = field(default_factory=dict)
    format: int = STATE_FORMAT

    def rendered(self) -> bytes:
        """The state as it is kept."""
        return json.dumps(asdict(self), separators=(",", ":")).encode()

    @classmethod
    def read(cls, content: bytes) -> "State | None":
        """A state that was kept; None where it cannot be used, and everything is verified."""
        try:
            found = read_record(State, json.loads(content), "the state of an earlier look")
        except (ValueError, RecordDamaged):
            return None
        return found if found.format == STATE_FORMAT else None


NOTHING: Final = State(Head(0, "", ""), {}, {}, {}, {}, {}, {})
"""What was verified of a store before the first look."""


@dataclass(frozen=True)
class Verified:
    """What a look found. began: when the first link was made; what is in links taken in by the first look was there
    before. waiting: records that no link names yet. records, objects, bytes_read: how many were read.
    known: how many records are in the chain. versions_compared: whether the bucket keeps versions, and they were looked
    at. notes: what is no fault, and worth knowing. state: for the next look, None where what was read is not right."""

    findings: Sequence[Finding]
    notes: Sequence[str]
    head: Head | None
    began: str | None
    links: int
    known: int
    records: int
    objects: int
    bytes_read: int
    waiting: int
    versions_compared: bool = False
    state: State | None = field(default=None, repr=False)

    @property
    def whole(self) -> bool:
        return not self.findings

    def document(self) -> dict[str, Any]:
        """As JSON has it."""
        found = {name: value for name, value in asdict(self).items() if name != "state"}
        return {"whole": self.whole, **found}


class NoChain(Refused):
    """A store whose evidence was never chained."""


def verdict(found: Verified) -> Verdict:
    """Whether the evidence is whole, as a check has it."""
    numbers: dict[str, float | None] = {"findings": len(found.findings), "records": found.known, "links": found.links}
    if found.whole:
        return Verdict(True, numbers, 0, f"{found.known:,} records in {counted(found.links, 'link')} are as they were")
    since = first_link(found.findings)
    told = f", the first since link {since.link} of {since.since}" if since else ""
    first = found.findings[0]
    return Verdict(False, numbers, 0, f"{_things(found.findings)} not as recorded{told}: {first.key}: {first.what}")


def conditions(found: Verified, now: datetime) -> list[Condition]:
    """What of it may be an alarm."""
    one = verdict(found)
    since = first_link(found.findings)
    todo = "`crypto-ml verify` lists it; keep the bucket as it is, and look at its versions, backups and access logs"
    bad = float(len(found.findings))
    day = now.date().isoformat()
    return [Condition("evidence_changed", one.passed, one.explanation, bad, todo, day, since.since if since else None)]


def first_link(findings: Sequence[Finding]) -> Finding | None:
    """The finding that the earliest link vouches for; None where none does."""
    return min((one for one in findings if one.link is not None), key=lambda one: one.link or 0, default=None)


def counted(count: int, what: str) -> str:
    """So many of something, in words."""
    return f"1 {what}" if count == 1 else f"{count:,} {what}s"


def _things(findings: Sequence[Finding]) -> str:
    return "1 thing is" if len(findings) == 1 else f"{len(findings):,} things are"
