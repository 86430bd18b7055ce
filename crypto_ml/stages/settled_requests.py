"""What follows the answers to requests, without anybody waiting for it: the log of predictions, and word for Dagster.

Who answered settles what it answered, many packs at once: one append to the prediction log, then one record of which
packs that were. What a process left behind that was killed, a sweep finds: it goes through the packs of the time since
the last sweep, and settles those that no record names.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from io import BytesIO
from itertools import groupby
from threading import Lock
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from crypto_ml.deployment import Deployment
from crypto_ml.digest import sha256_of
from crypto_ml.ledger.deliveries import delivery_key
from crypto_ml.ledger.formats.receipt_v2 import Receipt
from crypto_ml.ledger.layout import REQUESTS
from crypto_ml.ledger.receipts import receipts_of
from crypto_ml.ledger.requests import first_of, predicted_key, seen_with, time_of
from crypto_ml.ledger.settlements import (
    LATE,
    SettledDelivery,
    Settlement,
    last_sweep,
    record_settlement,
    record_sweep,
    settlements,
)
from crypto_ml.stages.logged_predictions import logged_rows
from crypto_ml.stages.requests import Reply
from crypto_ml.storage.failures import ObjectMissing
from crypto_ml.storage.objects import ObjectStore
from crypto_ml.storage.packed import PackDamaged
from crypto_ml.storage.prediction_log import SCHEMA, PredictionLog

MOST_AT_ONCE: Final = 1_000
"""Packs that are settled together, and that are held in memory until they are."""

LEFT_ALONE: Final = LATE / 2
"""How long who answered tries to settle it. What is older is left to the sweeps, so that never two settle one pack."""

MOST_SWEPT: Final = 20_000
"""Packs after which a sweep leaves the rest to the next one: what it writes down is to be followed in time."""

AT_ONCE: Final = 8

log: Final = logging.getLogger(__name__)


class Settling:
    """What one process has answered and not settled yet; safe to share between threads."""

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment
        self._noting = Lock()
        self._settling = Lock()
        self._noted: dict[str, ObjectStore | None] = {}
        self._tried: list[str] = []

    @property
    def waiting(self) -> int:
        """How many packs are still to be settled."""
        return len(self._noted)

    def note(self, replies: Sequence[Reply]) -> None:
        """Replies that were given. Those that are not recorded leave nothing behind, and what stood before is its
        writer's to settle."""
        with self._noting:
            for reply in replies:
                if reply.stored and reply.delivery not in self._noted:
                    self._noted[reply.delivery] = reply.pack if len(self._noted) < MOST_AT_ONCE else None

    def settle(self, now: datetime) -> int:
        """Settle what was noted; returns the number of packs. Raises Refused, Unavailable: all of it is still noted.

        What has failed for long is left to the sweeps.
        """
        with self._settling:
            self._forget([name for name in self._noted if time_of(name) < now - LEFT_ALONE])
            done = 0
            while some := self._tried or list(self._noted)[:MOST_AT_ONCE]:
                before, self._tried = bool(self._tried), some  # an attempt that failed may have come as far as the log
                packs = {name: self._noted[name] or seen_with(name, self._deployment.store) for name in some}
                _settle(packs, self._deployment.store, now, seen_before=before)
                self._forget(some)
                done += len(some)
            return done

    def sweep(self, now: datetime) -> int:
        """Settle what others left behind, but for the last quarter of an hour, in which they may still do so
        themselves; returns the number of packs. Raises Refused, Unavailable."""
        with self._settling:
            return sweep(self._deployment.store, now)

    def _forget(self, names: Sequence[str]) -> None:
        with self._noting:
            for name in names:
                del self._noted[name]
            self._tried = [name for name in self._tried if name in self._noted]


def sweep(store: ObjectStore, now: datetime) -> int:
    """Settle the packs that no record names, of the time since the last sweep; returns how many these were.

    Two that sweep at the same moment settle the same packs together, those of a minute, and so append their rows once.
    """
    since = last_sweep(store, now)
    until = (now - LATE).replace(second=0, microsecond=0)
    if since is not None and until <= since:
        return 0
    left, done = unsettled(store, since, until), 0
    for minute, some in groupby(left, lambda name: time_of(name).replace(second=0, microsecond=0)):
        if done >= MOST_SWEPT:
            until = minute
            break
        packs = _opened(list(some), store)
        for at in range(0, len(packs), MOST_AT_ONCE):
            _settle(dict(packs[at : at + MOST_AT_ONCE]), store, now, seen_before=True)
        done += len(packs)
    record_sweep(until, store)
    return done


def unsettled(store: ObjectStore, since: datetime | None, until: datetime) -> list[str]:
    """The deliveries that no record names, in their order: those of the time from `since` on, before `until`. Costs a
    listing of them, and the records of what was settled since then, as far as they are needed."""
    names = dict.fromkeys(_packs(store, first_of(since - LATE) if since else None, first_of(until)))
    if names:
        for settled in settlements(store, first_of(since - 2 * LATE) if since else None):
            for one in settled.deliveries:
                names.pop(one.delivery, None)
            if not names:
                break
    return list(names)


def _opened(names: Sequence[str], store: ObjectStore) -> list[tuple[str, ObjectStore]]:
    """Some packs by their names, but for those that were damaged: they keep none of the others from being settled."""

    def opened(name: str) -> tuple[str, ObjectStore] | None:
        try:
            return name, seen_with(name, store)
        except (PackDamaged, ObjectMissing) as error:
            log.warning("What was answered as %s cannot be settled: %s", name, error)
            return None

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return [found for found in pool.map(opened, names) if found]


def _packs(store: ObjectStore, begin: str | None, end: str) -> list[str]:
    """The deliveries of requests from one name on, up to another."""
    names = []
    for found in store.list(REQUESTS, start_after=None if begin is None else f"{REQUESTS}{begin}"):
        name = found.key.removeprefix(REQUESTS).removesuffix(".zip")
        if name >= end:
            break
        names.append(name)
    return names


def _settle(packs: Mapping[str, ObjectStore], store: ObjectStore, now: datetime, *, seen_before: bool = False) -> None:
    """Log what some packs predicted, then record that. seen_before: somebody may have come as far as the log."""
    receipts = {name: list(receipts_of(name, pack)) for name, pack in packs.items()}
    log = PredictionLog(store)
    made = {one.answer_id for each in receipts.values() for one in each if one.rows.predicted}
    known = log.answers(made) if seen_before and made else set()
    rows = [batch for name, pack in packs.items() for batch in _rows(pack, receipts[name], name, known)]
    if rows:
        names = "\n".join(sorted(packs))
        append_id = f"requests-{sha256_of(names.encode())[:16]}"
        # at the first attempt nobody else appends these rows: an id for each second would be millions, kept for ever
        log.append(pa.Table.from_batches(rows, SCHEMA), append_id=append_id, once=seen_before)
    record_settlement(Settlement.of([_settled(name, receipts[name]) for name in packs], now), store)


def _rows(pack: ObjectStore, receipts: Sequence[Receipt], delivery: str, known: set[str]) -> Iterator[pa.RecordBatch]:
    """The rows of the log of one pack, but for those of answers that are in it."""
    numbers = {upload["key"]: number for number, upload in enumerate(pack.read_json(delivery_key(delivery))["uploads"])}
    made = {numbers[one.upload.key]: one for one in receipts if one.rows.predicted and one.answer_id not in known}
    if made:
        with pq.ParquetFile(BytesIO(pack.read(predicted_key(delivery)))) as rows:
            yield from logged_rows(rows, made)


def _settled(delivery: str, receipts: Sequence[Receipt]) -> SettledDelivery:
    return SettledDelivery(
        delivery,
        tuple(one.answer_id for one in receipts),
        sum(one.outcome == "REJECTED" for one in receipts),
        sum(one.rows.received for one in receipts),
        sum(one.rows.predicted for one in receipts),
        sum(one.rows.refused for one in receipts),
        receipts[0].inputs.model_version,
    )
