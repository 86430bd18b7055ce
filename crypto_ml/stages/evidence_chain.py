"""evidence_chain: what came since the last link becomes the next one. Beside every road, and in nobody's way.

Most looks list only where something is to be expected: the newest deliveries and requests, and all of what there is
little of. Once a day a look lists everything, and only then can it be said that nothing was left out.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from crypto_ml.forecasting.ahead import ahead
from crypto_ml.forecasting.progress import Progress, Tell, tell_nobody
from crypto_ml.ledger.chain import AT_ONCE, EvidenceChain, Head, Stored, moment, record_of, records_listed
from crypto_ml.ledger.clock import not_before
from crypto_ml.ledger.deliveries import delivery_id, number_in
from crypto_ml.ledger.formats.chain_v1 import Link, Record
from crypto_ml.ledger.layout import (
    ALARMS,
    ANSWERED,
    ANSWERS,
    APPENDS,
    COMPACTIONS,
    DELIVERIES,
    FORECAST_RECEIPTS,
    MODELS,
    RAW,
    REQUESTS,
    RETRACTIONS,
    RETRIES,
    SETTLED,
    TRAINING_SETS,
    WATCHED,
)  # fmt: skip
from crypto_ml.ledger.requests import first_of
from crypto_ml.storage.failures import ObjectChanged
from crypto_ml.storage.objects import ObjectStore, StoredObject

MOST_RECORDS: Final = 5_000
"""Records of a link: a larger look makes several."""

EVERYTHING_EVERY: Final = timedelta(hours=24)
LATE: Final = timedelta(hours=1)
"""How much later than its LastModified an object may come to be listed: parts are sent, frontends disagree."""

RECENT_DELIVERIES: Final = 200
"""Deliveries before the newest one known whose records are looked for in every look."""

BY_DELIVERY: Final = (DELIVERIES, ANSWERS, ANSWERED, f"{RAW}received/", f"{RAW}cleaned/", APPENDS)
BY_TIME: Final = (REQUESTS, SETTLED)
FEW: Final = (
    RETRIES, RETRACTIONS, ALARMS, WATCHED, FORECAST_RECEIPTS, COMPACTIONS, TRAINING_SETS,
    f"{MODELS}champion/", f"{MODELS}bundles/",
)  # fmt: skip


@dataclass(frozen=True)
class Extended:
    """What a look came to. links: those it added. records: how many these name. head: the last link of the chain, None
    where there is nothing to begin with. complete: whether everything was looked at."""

    links: Sequence[int]
    records: int
    head: Head | None
    complete: bool


@dataclass(frozen=True)
class _Known:
    """What the links there are say. last: None where there is none. complete: the newest link of a look at everything.
    records: key → (ETag, LastModified) of each record that may come up again in a listing since `since`."""

    last: Stored | None
    complete: Link | None
    since: datetime | None
    records: dict[str, tuple[str, str]]


def extend(store: ObjectStore, now: datetime, *, everything: bool | None = None, tell: Tell = tell_nobody) -> Extended:
    """Add what came to the chain. everything: whether to look at everything; None: where that is due.

    Of two at once each record is taken in by one: who comes second looks again. Raises what the store raises,
    RecordDamaged or RecordTooNew where the chain cannot be read.
    """
    links: list[int] = []
    count = 0
    while True:
        known = _known(EvidenceChain(store))
        complete = _is_everything_due(known, now) if everything is None else everything
        listed, new = _look(known, store, now, complete=complete)
        newest = max((moment(found.last_modified) for found in listed), default=None)
        said = Progress("records", 0, len(new), "records")
        lost = False
        for link in _links(new, newest, known, now, complete=complete, store=store):
            head = EvidenceChain(store).append(link)
            if head is None:
                lost = True
                break
            links.append(head.number)
            count += len(link.records)
            said = Progress("records", said.done + len(link.records), len(new), "records")
            tell(said)
        if not lost:
            return Extended(links, count, EvidenceChain(store).head(), complete)


def is_due(store: ObjectStore, now: datetime) -> bool:
    """Whether there is anything to take in. Raises what the store raises, RecordDamaged, RecordTooNew."""
    known = _known(EvidenceChain(store))
    if known.last is not None and _is_everything_due(known, now):
        return True
    _, new = _look(known, store, now, complete=known.last is None)
    return bool(new)


def _is_everything_due(known: _Known, now: datetime) -> bool:
    return known.complete is None or now - datetime.fromisoformat(known.complete.at) >= EVERYTHING_EVERY


def _look(
    known: _Known, store: ObjectStore, now: datetime, *, complete: bool
) -> tuple[list[StoredObject], list[StoredObject]]:
    """What is listed, and what of it is new."""
    listed = list(records_listed(store, None if complete else _beginnings(known, now)))
    return listed, [found for found in listed if _is_new(found, known)]


def _known(chain: EvidenceChain) -> _Known:
    """What the newest links say, back to an hour before the last look at everything saw its last object."""
    last: Stored | None = None
    complete: Link | None = None
    since: datetime | None = None
    records: dict[str, tuple[str, str]] = {}
    for listed in reversed(chain.listed()):
        if since is not None and listed.last_modified < since:
            break
        stored = chain.read(listed)
        last = last or stored
        if complete is None and stored.link.complete:
            complete = stored.link
            since = datetime.fromisoformat(complete.seen_until) - LATE if complete.seen_until else None
        for record in stored.link.records:
            records.setdefault(record.key, (record.etag, record.written))
    return _Known(last, complete, since, records)


def _is_new(found: StoredObject, known: _Known) -> bool:
    if known.since is not None and found.last_modified < known.since:
        return False
    return known.records.get(found.key) != (found.etag, moment(found.last_modified))


def _beginnings(known: _Known, now: datetime) -> dict[str, str]:
    """Where a look begins that is not at everything: prefix → the key behind which."""
    newest = known.last.link.deliveries if known.last else 0
    oldest = delivery_id(max(newest - RECENT_DELIVERIES, 0))
    since = min(now, known.last.written if known.last else now) - LATE
    return {
        **{prefix: prefix + oldest for prefix in BY_DELIVERY},
        **{prefix: prefix + first_of(since) for prefix in BY_TIME},
        **dict.fromkeys(FEW, ""),
    }


def _links(
    new: Sequence[StoredObject], newest: str | None, known: _Known, now: datetime, *, complete: bool, store: ObjectStore
) -> Iterator[Link]:
    """The links that say what is new, each to be added before the next is asked for; the last one closes the look."""
    number, previous, before = 0, None, []
    deliveries = known.last.link.deliveries if known.last else 0
    if known.last:
        number, previous, before = known.last.link.number, known.last.sha256, [known.last.link.at]
    if not new and (known.last is None or not complete):
        return
    pieces = [new[begin : begin + MOST_RECORDS] for begin in range(0, len(new), MOST_RECORDS)] or [()]
    chain = EvidenceChain(store)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for place, piece in enumerate(pieces, 1):
            records = [record for record in ahead(lambda one: _record(one, store), piece, pool, AT_ONCE) if record]
            numbers = [number_in(record.key) for record in records if record.key.startswith(DELIVERIES)]
            deliveries = max([deliveries, *numbers])
            closes = complete and place == len(pieces)
            link = Link(
                number + 1, previous, not_before(now, *before), records,
                taken_in=known.complete is None, complete=closes, seen_until=newest if closes else None,
                deliveries=deliveries,
            )  # fmt: skip
            yield link
            number, previous, before = link.number, chain.sha256_of(link), [link.at]


def _record(listed: StoredObject, store: ObjectStore) -> Record | None:
    try:
        return record_of(listed, store.read_pinned(listed))
    except ObjectChanged:  # replaced or gone since it was listed: the next look sees what became of it
        return None
