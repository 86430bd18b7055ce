"""The whole record held against the chain of evidence: every link, every record it names, what those vouch for.

What S3 itself says is believed: whoever writes an object cannot choose when it was written (LastModified), and of what
was replaced or deleted the versions stay, where the bucket keeps them. What a record claims about its own time is
held against that.

A record or an object that was read and found right is not read again as long as S3 says that it was not written since
(`verified.State`). What that state says only saves time; whoever does not trust where it was kept verifies without it.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Final

from crypto_ml.audit.notices import wrong_notices
from crypto_ml.audit.published import Standing
from crypto_ml.audit.verified import USUAL, Finding, NoChain, State, Tolerance, Verified, counted
from crypto_ml.audit.versions import Versions
from crypto_ml.audit.vouching import Claim, Said, repeated_otherwise, said_by
from crypto_ml.digest import sha256_of
from crypto_ml.errors import CryptoMLError, Unavailable
from crypto_ml.forecasting.ahead import ahead
from crypto_ml.forecasting.progress import Progress, Tell, tell_nobody
from crypto_ml.ledger.chain import EvidenceChain, Head, Stored, is_record, moment, records_listed
from crypto_ml.ledger.deliveries import delivery_id, delivery_key, number_in
from crypto_ml.ledger.formats.chain_v1 import Record
from crypto_ml.ledger.formats.outcomes_v1 import may_be_replaced
from crypto_ml.ledger.formats.reading import RecordDamaged
from crypto_ml.ledger.layout import (
    ANSWERED,
    ANSWERS,
    CHAIN,
    DELIVERIES,
    FORECAST_RECEIPTS,
    FORECASTS,
    MODELS,
    PREDICTIONS,
    RAW,
    answered_key,
)
from crypto_ml.storage.failures import ObjectChanged, ObjectMissing
from crypto_ml.storage.objects import ObjectStore, StoredObject
from crypto_ml.storage.probe import PROBES

AT_ONCE: Final = 16
RECORDED_IN: Final = ("receipts/", RAW, MODELS)
COMMITS: Final = ("market_history/_delta_log/0", ".json")
WRITTEN_ONCE_IN: Final = (*RECORDED_IN, "market_history/")
"""Where nothing is ever replaced or deleted, but for what `_is_written_once` leaves out."""

VOUCHED_ONLY: Final = (
    COMMITS,
    (COMMITS[0], ".checkpoint.parquet"),
    (f"{MODELS}bundles/", ""),
    (PREDICTIONS, ".csv"),
    (FORECASTS, ".csv"),
)
"""What nothing writes before a record vouches for it, or soon after: prefix and ending. Runs that died leave other
objects behind, such as data files that no commit names."""


def verify(
    store: ObjectStore,
    *,
    state: State | None = None,
    since: int | datetime | None = None,
    tolerance: Tolerance = USUAL,
    tell: Tell = tell_nobody,
    now: datetime | None = None,
) -> Verified:
    """Look at everything. state: of an earlier look, None: read it all. since: only what came with the links from this
    number, or time, on. now: None: by the clock. Raises StoreUnavailable, NoChain."""
    return _Look(store, state, tolerance, tell, now or datetime.now(UTC)).verified(since)


@dataclass
class _Look:
    store: ObjectStore
    state: State | None
    tolerance: Tolerance
    tell: Tell
    now: datetime
    findings: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    records: dict[str, Record] = field(default_factory=dict)
    links: dict[str, int] = field(default_factory=dict)
    times: dict[int, str] = field(default_factory=dict)
    first_look: int = 0
    first_written: dict[str, str] = field(default_factory=dict)
    deliveries: int = 0
    objects: dict[str, tuple[str, str, str]] = field(default_factory=dict)
    stood: dict[str, tuple[str, str, str]] = field(default_factory=dict)
    there: dict[str, StoredObject] = field(default_factory=dict)
    places: set[str] = field(default_factory=set)
    wrong: set[str] = field(default_factory=set)
    rewritten: list[str] = field(default_factory=list)
    began_with: str | None = None
    complete: str | None = None
    bytes_read: int = 0
    versions: Versions = field(init=False)

    def __post_init__(self) -> None:
        self.versions = Versions(self.store)

    def verified(self, since: int | datetime | None) -> Verified:
        head, began, count = self._walk()
        over = self.now - self.tolerance.longest_run - self.tolerance.clocks
        stood = {key: sha256 for key, (sha256, _, _) in self.stood.items()}
        standing = Standing(self.state.published if self.state else {}, stood, self.store, over)
        listed = {key: found for key, found in self._listed(RECORDED_IN).items() if is_record(key)}
        first = self._first_link(since)
        asked = self._to_read(listed, first)
        waiting = self._unknown(listed) if first is None else {}
        said = self._read(asked, listed)
        self._hold_against_each_other(said, standing, listed)
        looked = self._objects(said)
        if first is None:
            self._published(standing, waiting)
            for key, what in wrong_notices(self._listed([PREDICTIONS]), over, self.store):
                self.wrong_with("published", key, what)
            self._unvouched(standing)
        # what versions say is listed anew each time, and no state has it
        state = self._state(head, standing) if first is None and not self.findings else None
        self._hold_against_versions(since)
        if self.rewritten:
            self.notes.append(
                f"{counted(len(self.rewritten), 'record')} written again since, with the same bytes: "
                f"{self.rewritten[0]}, as a copy or a restored backup is"
            )
        self.notes += [self.versions.note] if self.versions.note else []
        return Verified(
            tuple(self.findings), tuple(self.notes), head, began, count, len(self.records), len(said), looked,
            self.bytes_read, len(waiting), self.versions.compared, state,
        )  # fmt: skip

    def wrong_with(self, kind: str, key: str, what: str, link: int | None = None) -> None:
        """Note something that is wrong."""
        number = link if link is not None else self.links.get(key)
        self.wrong.add(key)
        self.findings.append(Finding(kind, key, what, number, self.times.get(number) if number else None))

    def _listed(self, keys: Iterable[str], *, anew: bool = False) -> Mapping[str, StoredObject]:
        """What there is in the places of some keys, and what was listed before. anew: of these places, as it is now."""
        for place in sorted({key[: key.find("/") + 1] for key in keys}):
            if anew or place not in self.places:
                self.places.add(place)
                for key in [key for key in self.there if key.startswith(place)]:
                    del self.there[key]
                once = place in WRITTEN_ONCE_IN
                self.there |= (
                    self.versions.listed(place) if once else {found.key: found for found in self.store.list(place)}
                )
        return self.there

    def _walk(self) -> tuple[Head, str, int]:
        """Every link behind those that were verified before, held against the one before it."""
        chain = EvidenceChain(self.store)
        listed = chain.listed()
        if not listed and self.state is None and not self._were_there(CHAIN):
            raise NoChain(
                "no evidence was chained here yet: the asset evidence_chain does it, or `crypto-ml verify --extend`"
            )
        before = self._go_on(chain, listed)
        behind = [one for one in listed if before is None or one.key > chain.key(before.number)]
        number = before.number if before else 0
        previous, at = (before.sha256, before.at) if before else (None, "")
        began = self.times.get(1, "")
        for done, (found, content) in enumerate(chain.contents(behind), 1):
            self.tell(Progress("links", done, len(behind), "links"))
            number += 1
            sha256 = sha256_of(content)
            try:
                stored = chain.parsed(found, content)
            except CryptoMLError as error:
                self.wrong_with("chain", found.key, str(error), number)
                previous = sha256
                continue
            number, previous, at = self._linked(stored, found, number, previous, at)
            began = began or stored.link.at
        if not listed:
            self.wrong_with("chain", chain.key(1), "every link is gone")
        return Head(number, str(previous), at), began, len(listed)

    def _were_there(self, prefix: str) -> bool:
        """Whether S3 has kept anything below a prefix that is not there any more."""
        self._listed([prefix])
        return self.versions.of_what_is_gone(prefix)

    def _go_on(self, chain: EvidenceChain, listed: Sequence[StoredObject]) -> Head | None:
        """The head up to which everything was verified before, where it still stands; else everything is read."""
        if self.state is None:
            return None
        head = self.state.head
        there = {one.key: one for one in listed}.get(chain.key(head.number))
        if there is None:
            self.wrong_with("chain", chain.key(head.number), f"link {head.number} was verified before, and is gone")
        elif sha256_of(self.store.read_pinned(there)) != head.sha256:
            self.wrong_with(
                "chain", chain.key(head.number), f"link {head.number} is not the one that was verified before"
            )
        else:
            self.records, self.links = dict(self.state.records), dict(self.state.links)
            self.objects, self.began_with = dict(self.state.objects), self.state.began_with
            self.complete = self.state.complete
            self.stood = dict(self.state.stood)
            self.times = dict(self.state.times)
            self.first_look = self.state.first_look
            self.first_written = dict(self.state.first_written)
            self.deliveries = max((number_in(key) for key in self.records if key.startswith(DELIVERIES)), default=0)
            return head
        self.state = None
        return None

    def _linked(
        self, stored: Stored, found: StoredObject, number: int, previous: str | None, at: str
    ) -> tuple[int, str, str]:
        link = stored.link
        self.times[link.number] = link.at
        expected = EvidenceChain(self.store).key(number)
        if link.number != number or found.key != expected:
            self.wrong_with("chain", expected, f"link {number} is missing: behind it comes {found.key}", number)
        if link.previous != previous:
            self.wrong_with("chain", found.key, "it does not name the link that stands before it", link.number)
        if at and datetime.fromisoformat(link.at) < datetime.fromisoformat(at):
            self.wrong_with("chain", found.key, f"it says {link.at}, and the link before it {at}", link.number)
        claim = Claim("it was made", link.at)
        if wrong := self._disagrees(claim, found.last_modified):
            self.wrong_with("chain", found.key, wrong, link.number)
        for record in link.records:
            self._note(record, link.number)
            if record.key.startswith(DELIVERIES):
                self.deliveries = max(self.deliveries, number_in(record.key))
        if link.deliveries != self.deliveries:
            what = f"it counts {link.deliveries} deliveries, and its records and those before it {self.deliveries}"
            self.wrong_with("chain", found.key, what, link.number)
        if link.taken_in and self.complete:
            what = "it says that it took in what was there before the chain began, and that had been taken in"
            self.wrong_with("chain", found.key, what, link.number)
        elif link.taken_in:
            self.first_look = link.number
        if link.complete and link.seen_until:
            self.complete = link.seen_until
            self.began_with = self.began_with or link.seen_until
        return link.number, stored.sha256, link.at

    def _note(self, record: Record, number: int) -> None:
        before = self.records.get(record.key)
        if record.open and not record.key.startswith(ANSWERED):
            self.wrong_with("chain", record.key, f"link {number} says that it may be replaced, and no such record may")
            record = replace(record, open=False)
        elif before and (before.sha256, before.open) == (record.sha256, not record.open):
            self.wrong_with("chain", record.key, f"link {number} says otherwise than before whether it may be replaced")
            record = before
        if before and before.sha256 != record.sha256 and not before.open:
            self.wrong_with(
                "changed", record.key, f"it was changed between link {self.links[record.key]} and link {number}",
                self.links[record.key],
            )  # fmt: skip
            return
        if before is None or before.sha256 != record.sha256:
            self.links[record.key] = number
        elif before.written != record.written:  # taken in again, as what was put back from a backup is
            self.first_written.setdefault(record.key, before.written)
        self.records[record.key] = record

    def _first_link(self, since: int | datetime | None) -> int | None:
        if isinstance(since, datetime):
            return min((n for n, at in self.times.items() if datetime.fromisoformat(at) >= since), default=1 << 60)
        return since

    def _to_read(self, listed: Mapping[str, StoredObject], first: int | None) -> list[str]:
        """The records that have to be read; those that are gone are noted."""
        asked = []
        verified = self.state.records if self.state else {}
        for key, record in self.records.items():
            if key in self.wrong or (first is not None and self.links[key] < first):
                continue
            found = listed.get(key)
            if found is None:
                self.wrong_with("missing", key, "it is gone")
                continue
            same = (found.etag, moment(found.last_modified)) == (record.etag, record.written)
            if not same or verified.get(key) != record:
                asked.append(key)
        return asked

    def _unknown(self, listed: Mapping[str, StoredObject]) -> dict[str, StoredObject]:
        """The records that no link names: those that came since, and noted, those that nobody took in."""
        until = datetime.fromisoformat(self.complete) - self.tolerance.late if self.complete else None
        waiting = {}
        for key, found in listed.items():
            if key in self.records:
                continue
            if until is not None and found.last_modified < until:
                self.wrong_with(
                    "extra", key, f"no link names it, although it was written {moment(found.last_modified)}"
                )
            else:
                waiting[key] = found
        return waiting

    def _read(self, keys: Sequence[str], listed: Mapping[str, StoredObject]) -> dict[str, Said]:
        """What records say, of those that are as the chain has them."""
        said: dict[str, Said] = {}

        def read(key: str) -> tuple[str, bytes | None]:
            try:
                return key, self.store.read_pinned(listed[key])
            except ObjectChanged:
                return key, None

        with ThreadPoolExecutor(AT_ONCE) as pool:
            for done, (key, content) in enumerate(ahead(read, keys, pool, AT_ONCE * 2), 1):
                self.tell(Progress("records", done, len(keys), "records"))
                record, found = self.records[key], listed[key]
                if content is None or sha256_of(content) != record.sha256:
                    # S3 tells whole seconds, and an answer may come within the one in which an upload was given up
                    if record.open and moment(found.last_modified) >= record.written:
                        continue  # answered since it was given up, and not in the chain yet
                    written = moment(found.last_modified)
                    what = f"its bytes are not those that were taken in; S3 says that it was written {written}"
                    self.wrong_with("changed", key, what)
                    continue
                self.bytes_read += len(content)
                if record.open != (key.startswith(ANSWERED) and may_be_replaced(content)):
                    self.wrong_with("chain", key, "its link says otherwise than its bytes whether it may be replaced")
                if moment(found.last_modified) != record.written:
                    self.rewritten.append(key)
                try:
                    said[key] = said_by(key, content, self.store.uri(key))
                except Unavailable:
                    raise
                except Exception as error:  # noqa: BLE001 - whatever is in a record, the look goes on
                    self.wrong_with("damaged", key, f"it does not say what such a record says ({error})")
        return said

    def _hold_against_each_other(
        self, said: Mapping[str, Said], standing: Standing, listed: Mapping[str, StoredObject]
    ) -> None:
        """What records say of their time, and of each other."""
        answers = {answer for one in said.values() for answer in one.answers}
        entries: dict[str, Any] = {}
        for key, one in said.items():
            record = self.records[key]
            copied = self.links[key] <= self.first_look
            for claim in one.claims:
                written = self.first_written.get(key, record.written)
                if wrong := self._disagrees(claim, datetime.fromisoformat(written), copied=copied):
                    self.wrong_with("backdated", key, wrong)
            for vouched, sha256 in one.records.items():
                known = self.records.get(vouched)
                if known is None and vouched not in listed:
                    self.wrong_with("missing", vouched, f"{key} names it, and it is not there")
                elif known is not None and known.sha256 != sha256:
                    self.wrong_with("inconsistent", key, f"it names another {vouched} than the chain has")
            for answer, _ in one.answered.values():
                if answer and answer not in answers and not self._has_receipt(answer):
                    self.wrong_with("missing", key, f"it names answer {answer}, of which there is no receipt")
            try:
                for wrong in (*one.contradicts, *repeated_otherwise(one, self.store, entries)):
                    self.wrong_with("inconsistent", key, wrong)
            except (ObjectMissing, RecordDamaged) as error:
                self.wrong_with("inconsistent", key, f"the entry of the champion pointer that it repeats: {error}")
            standing.add(one)
        self._hold_receipts_against_outcomes(said, listed)

    def _hold_receipts_against_outcomes(self, said: Mapping[str, Said], listed: Mapping[str, StoredObject]) -> None:
        """Every receipt of a file is of a delivery that there was; those that its outcomes do not name are told."""
        outcomes = {one.delivery: one for one in said.values() if one.delivery}
        unnamed = []
        for key, one in said.items():
            for published in one.published if key.startswith(ANSWERS) else ():
                number = published.delivery
                entry = delivery_key(delivery_id(number))
                if entry not in listed and entry not in self.records:
                    self.wrong_with("extra", key, f"it answers an upload of delivery {number}, and there was none")
                elif (closed := answered_key(delivery_id(number))) in listed and closed not in self.wrong:
                    if number not in outcomes:
                        outcomes[number] = said_by(closed, self.store.read(closed), self.store.uri(closed))
                    answered = outcomes[number].answered.get(published.upload)
                    if answered is None or answered[0] != published.answer:
                        unnamed.append(key)
        if unnamed:
            self.notes.append(
                f"{counted(len(unnamed), 'receipt')} that no outcome names, as of a run that died, or of a delivery "
                f"that was answered again: {unnamed[0]}; `crypto-ml replay` says whether its numbers come out"
            )

    def _has_receipt(self, answer: str) -> bool:
        from crypto_ml.ledger.receipts import read_receipt

        try:
            read_receipt(answer, self.store)
        except (ObjectMissing, RecordDamaged):
            return False
        return True

    def _disagrees(self, claim: Claim, written: datetime, *, copied: bool = False) -> str | None:
        """Where a claim about a time cannot be, by when S3 says that it was written; the sentence, else None. copied:
        it may have been written again long after."""
        claimed = datetime.fromisoformat(claim.at)
        if claimed > written + self.tolerance.clocks:
            return f"it says that {claim.what} {claim.at}, and S3 that it was written before, {moment(written)}"
        if not copied and claimed < written - self.tolerance.clocks - self.tolerance.longest_run:
            return f"it says that {claim.what} {claim.at}, and S3 that it was written only {moment(written)}"
        return None

    def _objects(self, said: Mapping[str, Said]) -> int:
        """Every object that a record vouches for, read where it was not since it was written; how many were."""
        wanted = {key: sha256 for key, (sha256, _, _) in self.objects.items()}
        by: dict[str, str] = {}
        for key, one in said.items():
            for name, sha256 in one.objects.items():
                if wanted.get(name, sha256) != sha256:
                    self.wrong_with("inconsistent", key, f"it vouches for another {name} than a record before it does")
                wanted[name] = sha256
                by[name] = key
        there = self._listed(wanted)
        asked = []
        for key, sha256 in wanted.items():
            found = there.get(key)
            if found is None:
                self.wrong_with("missing", key, f"it is gone, and {by.get(key, 'a record')} vouches for it",
                                self.links.get(by.get(key, "")))  # fmt: skip
            elif self.objects.get(key) != (sha256, found.etag, moment(found.last_modified)):
                asked.append(found)
        for found, sha256 in self._hashes(asked, "objects"):
            if sha256 == wanted[found.key]:
                self.objects[found.key] = (sha256, found.etag, moment(found.last_modified))
            else:
                what = f"its bytes are not those that {by.get(found.key, 'a record')} vouches for; S3 says that it was "
                self.wrong_with("changed", found.key, f"{what}written {moment(found.last_modified)}",
                                self.links.get(by.get(found.key, "")))  # fmt: skip
        return len(asked)

    def _hashes(self, asked: Sequence[StoredObject], what: str) -> Iterator[tuple[StoredObject, str]]:
        def hashed(found: StoredObject) -> tuple[StoredObject, str, int]:
            digest, size = hashlib.sha256(), 0
            try:
                for piece in self.store.chunks(found):
                    digest.update(piece)
                    size += len(piece)
            except ObjectChanged:
                return found, "", 0
            return found, digest.hexdigest(), size

        with ThreadPoolExecutor(AT_ONCE) as pool:
            for done, (found, sha256, size) in enumerate(ahead(hashed, asked, pool, AT_ONCE * 2), 1):
                self.tell(Progress(what, done, len(asked), "objects"))
                self.bytes_read += size
                yield found, sha256

    def _published(self, standing: Standing, waiting: Mapping[str, StoredObject]) -> None:
        """What stands where answers are published is what the newest of them published there, in a link or not yet."""
        self._add_waiting(waiting, standing)
        wrong = self._not_as_expected(standing)
        if wrong:  # perhaps an answer came while this looked: its receipt stands before what it publishes
            listed = {found.key: found for found in records_listed(self.store) if found.key not in self.records}
            self._add_waiting({key: found for key, found in listed.items() if key not in waiting}, standing)
            wrong = self._not_as_expected(standing)
        for key, what in wrong.items():
            self.wrong_with("published", key, what)

    def _not_as_expected(self, standing: Standing) -> dict[str, str]:
        expected = standing.expected()
        there = self._listed(expected, anew=True)
        wrong: dict[str, str] = {}
        asked = []
        for key, may_stand in expected.items():
            found, before = there.get(key), self.stood.get(key, ("", "", ""))
            if found is None:
                wrong[key] = "it is gone, and an answer says that it was published"
            elif before[0] not in may_stand or before[1:] != (found.etag, moment(found.last_modified)):
                asked.append(found)
        for found, sha256 in self._hashes(asked, "published"):
            written = moment(found.last_modified)
            if sha256 in expected[found.key] or self._is_explained(found, standing):
                self.stood[found.key] = (sha256, found.etag, written)
            else:
                wrong[found.key] = f"it is not what the newest answer published; S3 says that it was written {written}"
        return wrong

    def _add_waiting(self, waiting: Mapping[str, StoredObject], standing: Standing) -> None:
        """Take in what records say of what they published that are in no link yet."""
        told = [found for key, found in waiting.items() if key.startswith((ANSWERS, ANSWERED, FORECAST_RECEIPTS))]

        def said(found: StoredObject) -> Said:
            try:
                return said_by(found.key, self.store.read_pinned(found), self.store.uri(found.key))
            except Unavailable:
                raise
            except Exception:  # noqa: BLE001 - it is looked at when it is in a link
                return Said()

        with ThreadPoolExecutor(AT_ONCE) as pool:
            for one in ahead(said, told, pool, AT_ONCE * 2):
                standing.add(one)

    def _unvouched(self, standing: Standing) -> None:
        """What was written since the chain began where nothing stands that no record vouches for."""
        if self.began_with is None or self.complete is None:
            return
        begin = datetime.fromisoformat(self.began_with)
        until = datetime.fromisoformat(self.complete) - self.tolerance.late
        expected = standing.expected()
        for prefix, ending in VOUCHED_ONLY:
            for found in self._listed([prefix]).values():
                if not found.key.startswith(prefix):
                    continue
                known = any(found.key in some for some in (self.records, self.objects, expected, self.wrong))
                if found.key.endswith(ending) and not known and begin < found.last_modified < until:
                    written = moment(found.last_modified)
                    self.wrong_with(
                        "extra", found.key, f"nothing vouches for it, and S3 says that it was written {written}"
                    )

    def _hold_against_versions(self, since: int | datetime | None) -> None:
        """What is written once was neither replaced nor deleted, as far as S3 has kept that."""
        begin: datetime | None = since if isinstance(since, datetime) else None
        if isinstance(since, int) and (before := [at for number, at in self.times.items() if number < since]):
            begin = datetime.fromisoformat(max(before))
        for place in WRITTEN_ONCE_IN:
            self._listed([place])
        for key, what in self.versions.wrong(self._is_written_once, begin):
            number = key.removeprefix(CHAIN).removesuffix(".json")
            self.wrong_with("versions", key, what, int(number) if number.isdecimal() else None)

    def _is_written_once(self, key: str) -> bool:
        if key.startswith(PROBES):
            return False
        if key.startswith(RECORDED_IN) or key in self.objects:
            return True
        begin, ending = COMMITS
        return key.startswith(begin) and key.endswith(ending)

    def _is_explained(self, found: StoredObject, standing: Standing) -> bool:
        try:
            return standing.explains(found.key, self.store.read(found.key))
        except ObjectMissing:
            return False

    def _state(self, head: Head, standing: Standing) -> State:
        return State(
            head,
            self.records,
            self.links,
            self.times,
            self.objects,
            standing.kept(),
            self.stood,
            self.began_with,
            self.complete,
            self.first_look,
            self.first_written,
        )
