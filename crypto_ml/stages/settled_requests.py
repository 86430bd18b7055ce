"""What follows the answers to requests, without anybody waiting for it: the log of predictions, and word for Dagster.

Who answered settles what it answered, many packs at once: one append to the prediction log, then one record of which
packs that were. What a process left behind that was killed, a sweep finds: it goes through the packs of the time since
the last sweep, and settles those that no record names.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from io import BytesIO
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
from crypto_ml.ledger.requests import first_of, new_delivery, predicted_key, seen_with
from crypto_ml.ledger.settlements import (
    SettledDelivery,
    Settlement,
    last_sweep,
    record_settlement,
    record_sweep,
    settlements,
)
from crypto_ml.stages.logged_predictions import logged_rows
from crypto_ml.stages.requests import Reply
from crypto_ml.storage.objects import ObjectStore
from crypto_ml.storage.prediction_log import SCHEMA, PredictionLog

LATE: Final = timedelta(minutes=15)
"""How far the clocks of those who answer may be apart, and how long a pack may be on its way to the store."""

MOST_AT_ONCE: Final = 1_000
"""Packs that are settled together: what is held in memory of them is their predicted rows."""


class Settling:
    """What one process has answered and not settled yet; safe to share between threads."""

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment
        self._noting = Lock()
        self._settling = Lock()
        self._noted: dict[str, ObjectStore] = {}

    @property
    def waiting(self) -> int:
        """How many packs are still to be settled."""
        return len(self._noted)

    def note(self, replies: Sequence[Reply]) -> None:
        """Replies that were given; those that are not recorded leave nothing behind."""
        with self._noting:
            self._noted |= {reply.delivery: reply.pack for reply in replies if reply.recorded}

    def settle(self, now: datetime) -> int:
        """Settle what was noted; returns the number of packs. Raises Refused, Unavailable: all of it is still noted."""
        with self._settling:
            done = 0
            while some := dict(list(self._noted.items())[:MOST_AT_ONCE]):
                _settle(some, self._deployment.store, now)
                with self._noting:
                    for delivery in some:
                        self._noted.pop(delivery, None)
                done += len(some)
            return done

    def sweep(self, now: datetime) -> int:
        """Settle what others left behind, but for the last quarter of an hour, in which they may still do so
        themselves; returns the number of packs. Raises Refused, Unavailable."""
        with self._settling:
            return sweep(self._deployment.store, now)


def sweep(store: ObjectStore, now: datetime) -> int:
    """Settle the packs that no record names, of the time since the last sweep; returns how many these were."""
    since, until = last_sweep(store), now - LATE
    begin = first_of(since - LATE) if since else None
    names = _packs(store, begin, first_of(until))
    known = {one.delivery for settled in settlements(store, begin) for one in settled.deliveries} if names else set()
    left = [name for name in names if name not in known]
    for at in range(0, len(left), MOST_AT_ONCE):
        _settle({name: seen_with(name, store) for name in left[at : at + MOST_AT_ONCE]}, store, now, seen_before=True)
    record_sweep(until, store)
    return len(left)


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
        log.append(pa.Table.from_batches(rows, SCHEMA), append_id=f"requests-{sha256_of(names.encode())[:16]}")
    record_settlement(Settlement(new_delivery(now), tuple(_settled(name, receipts[name]) for name in packs)), store)


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
