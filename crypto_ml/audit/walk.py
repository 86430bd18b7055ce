"""The walk along the links of the chain: each held against the one before it, and what all of them say together.

Belongs here: what a link has to be where it stands, and what may be in it. Does not belong here: what the records that
it names are now, which is in `recorded`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final

from crypto_ml.audit.listing import Listing
from crypto_ml.audit.tolerance import Tolerance
from crypto_ml.audit.verified import Findings, NoChain, State
from crypto_ml.audit.vouching import Claim
from crypto_ml.digest import sha256_of
from crypto_ml.errors import CryptoMLError
from crypto_ml.forecasting.progress import Progress, Tell
from crypto_ml.ledger.chain import EvidenceChain, Head
from crypto_ml.ledger.deliveries import number_in
from crypto_ml.ledger.formats.chain_v1 import Link, Record
from crypto_ml.ledger.layout import ANSWERED, CHAIN, DELIVERIES
from crypto_ml.storage.objects import ObjectStore, StoredObject

NO_HEAD: Final = Head(0, "None", "")
"""As it is told where every link is gone."""


@dataclass
class Chained:
    """What the links say together; most of it is what a `State` keeps. deliveries: how many there were up to the last
    link."""

    records: dict[str, Record] = field(default_factory=dict)
    links: dict[str, int] = field(default_factory=dict)
    times: dict[int, str] = field(default_factory=dict)
    deliveries: int = 0
    began_with: str | None = None
    complete: str | None = None
    first_look: int = 0
    first_written: dict[str, str] = field(default_factory=dict)

    def take_up(self, state: State) -> None:
        """Go on from what was verified before."""
        self.records |= state.records
        self.links |= state.links
        self.times |= state.times
        self.deliveries = max((number_in(key) for key in self.records if key.startswith(DELIVERIES)), default=0)
        self.began_with, self.complete = state.began_with, state.complete
        self.first_look = state.first_look
        self.first_written |= state.first_written

    def first_link(self, since: int | datetime | None) -> int | None:
        """The number from which on links are asked for; None where all are."""
        if isinstance(since, datetime):
            return min((n for n, at in self.times.items() if datetime.fromisoformat(at) >= since), default=1 << 60)
        return since

    def begin(self, since: int | datetime | None) -> datetime | None:
        """The moment from which on it is asked; None where there is none."""
        if isinstance(since, int) and (before := [at for number, at in self.times.items() if number < since]):
            return datetime.fromisoformat(max(before))
        return since if isinstance(since, datetime) else None


class Walk:
    """The links of a store, one after the other. head: the one that was reached; began: when the first was made;
    count: how many there are."""

    def __init__(
        self, store: ObjectStore, listing: Listing, chained: Chained, findings: Findings, tolerance: Tolerance
    ) -> None:
        self.head: Head | None = None
        self.began = ""
        self.count = 0
        self._listing = listing
        self._chain = EvidenceChain(store)
        self._chained = chained
        self._findings = findings
        self._tolerance = tolerance

    def along(self, state: State | None, tell: Tell) -> State | None:
        """Every link behind those that were verified before; returns what was, where that still stands. Raises
        NoChain."""
        listed = self._chain.listed()
        self.count = len(listed)
        if not listed and state is None and not self._listing.knows_what_is_gone(CHAIN):
            raise NoChain(
                "no evidence was chained here yet: the asset evidence_chain does it, or `crypto-ml verify --extend`"
            )
        if state and self._stands(state.head, listed):
            self._chained.take_up(state)
            self.head = state.head
        else:
            state = None
        self.began = self._chained.times.get(1, "")
        behind = [one for one in listed if self.head is None or one.key > self._chain.key(self.head.number)]
        for done, (found, content) in enumerate(self._chain.contents(behind), 1):
            tell(Progress("links", done, len(behind), "links"))
            self._step(found, content)
        if not listed:
            self._findings.add("chain", self._chain.key(1), "every link is gone")
        return state

    def _stands(self, head: Head, listed: Sequence[StoredObject]) -> bool:
        """Whether the head up to which everything was verified before still does; else everything is read."""
        key = self._chain.key(head.number)
        there = {one.key: one for one in listed}.get(key)
        if there is None:
            self._findings.add("chain", key, f"link {head.number} was verified before, and is gone")
        elif self._chain.sha256_at(there) != head.sha256:
            self._findings.add("chain", key, f"link {head.number} is not the one that was verified before")
        else:
            return True
        return False

    def _step(self, found: StoredObject, content: bytes) -> None:
        """Go to the next link, by its bytes."""
        number, at = (self.head.number + 1, self.head.at) if self.head else (1, "")
        try:
            stored = self._chain.parsed(found, content)
        except CryptoMLError as error:
            self._findings.add("chain", found.key, str(error), number)
            self.head = Head(number, sha256_of(content), at)
            return
        link = stored.link
        self._chained.times[link.number] = link.at
        self._hold(link, found, number)
        for record in link.records:
            self._note(record, link.number)
            if record.key.startswith(DELIVERIES):
                self._chained.deliveries = max(self._chained.deliveries, number_in(record.key))
        self._sum_up(link, found.key)
        self.head = Head(link.number, stored.sha256, link.at)
        self.began = self.began or link.at

    def _hold(self, link: Link, found: StoredObject, number: int) -> None:
        """A link against its place, the one before it, and S3's time."""
        previous, at = (self.head.sha256, self.head.at) if self.head else (None, "")
        expected = self._chain.key(number)
        if link.number != number or found.key != expected:
            self._findings.add("chain", expected, f"link {number} is missing: behind it comes {found.key}", number)
        if link.previous != previous:
            self._findings.add("chain", found.key, "it does not name the link that stands before it", link.number)
        if at and datetime.fromisoformat(link.at) < datetime.fromisoformat(at):
            self._findings.add("chain", found.key, f"it says {link.at}, and the link before it {at}", link.number)
        if wrong := self._tolerance.refuted(Claim("it was made", link.at), found.last_modified):
            self._findings.add("chain", found.key, wrong, link.number)

    def _note(self, record: Record, number: int) -> None:
        """A record that a link names, against what those before it say of it."""
        chained, findings = self._chained, self._findings
        before = chained.records.get(record.key)
        if record.open and not record.key.startswith(ANSWERED):
            findings.add("chain", record.key, f"link {number} says that it may be replaced, and no such record may")
            record = replace(record, open=False)
        elif before and (before.sha256, before.open) == (record.sha256, not record.open):
            findings.add("chain", record.key, f"link {number} says otherwise than before whether it may be replaced")
            record = before
        if before and before.sha256 != record.sha256 and not before.open:
            first = chained.links[record.key]
            findings.add("changed", record.key, f"it was changed between link {first} and link {number}", first)
            return
        if before is None or before.sha256 != record.sha256:
            chained.links[record.key] = number
        elif before.written != record.written:  # taken in again, as what was put back from a backup is
            chained.first_written.setdefault(record.key, before.written)
        chained.records[record.key] = record

    def _sum_up(self, link: Link, key: str) -> None:
        """What a link says of all that came up to it."""
        chained = self._chained
        if link.deliveries != chained.deliveries:
            what = f"it counts {link.deliveries} deliveries, and its records and those before it {chained.deliveries}"
            self._findings.add("chain", key, what, link.number)
        if link.taken_in and chained.complete:
            what = "it says that it took in what was there before the chain began, and that had been taken in"
            self._findings.add("chain", key, what, link.number)
        elif link.taken_in:
            chained.first_look = link.number
        if link.complete and link.seen_until:
            chained.complete = link.seen_until
            chained.began_with = chained.began_with or link.seen_until
