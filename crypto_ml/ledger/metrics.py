"""How the drop box is doing, in numbers for a monitor: what waits and for how long, what became of the rest."""

from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from crypto_ml.ledger.clock import waited
from crypto_ml.ledger.deliveries import DeliveryLog, delivery_id
from crypto_ml.ledger.formats.outcomes_v1 import Outcomes, was_given_up
from crypto_ml.ledger.formats.receipt_v2 import Receipt
from crypto_ml.ledger.retries import outcomes_of
from crypto_ml.storage.objects import ObjectStore

RECENT_DELIVERIES: Final = 1_000
AT_ONCE: Final = 16


@dataclass(frozen=True)
class Metrics:
    """unanswered: uploads without an outcome. lag_seconds: the age of the oldest of them, 0 where there is none.

    unanswered_deliveries: those that are noticed and have no outcome. outcomes: how many uploads of the last
    RECENT_DELIVERIES deliveries were PREDICTED, REJECTED, SKIPPED. given_up: deliveries among those whose runs died.
    """

    unanswered: int = 0
    oldest_unanswered: str | None = None
    lag_seconds: float = 0.0
    deliveries: int = 0
    unanswered_deliveries: Sequence[str] = ()
    outcomes: Mapping[str, int] = field(default_factory=dict)
    given_up: Sequence[str] = ()


def measure(store: ObjectStore, now: datetime) -> Metrics:
    """Look at everything once; lists all uploads and all outcomes. Raises StoreUnavailable, StoreRefused."""
    log = DeliveryLog(store)
    known = log.catch_up()
    waiting = [upload for upload in log.listed_uploads() if upload.identity not in known]
    open_ = log.unanswered()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for delivery in pool.map(log.get, open_):
            waiting += delivery.uploads
        recent = range(max(1, log.last_number - RECENT_DELIVERIES + 1), log.last_number + 1)
        found: dict[int, Outcomes] = dict(
            zip(recent, pool.map(lambda number: outcomes_of(number, store) or {}, recent), strict=True)
        )
    outcomes = Counter(str(one["outcome"]) for of_delivery in found.values() for one in of_delivery.values())
    oldest = min(waiting, key=lambda upload: upload.last_modified, default=None)
    return Metrics(
        unanswered=len(waiting),
        oldest_unanswered=oldest.key if oldest else None,
        lag_seconds=waited(oldest.last_modified, now.isoformat()) if oldest else 0.0,
        deliveries=log.last_number,
        unanswered_deliveries=[delivery_id(number) for number in open_],
        outcomes=dict(outcomes),
        given_up=[delivery_id(number) for number, one in found.items() if was_given_up(one)],
    )


def was_answered(delivery: str, store: ObjectStore) -> bool:
    """Whether every upload of a delivery has an outcome already."""
    return outcomes_of(int(delivery), store) is not None


def answer_metrics(receipts: Sequence[Receipt], *, again: bool = False) -> dict[str, float | int]:
    """What the answers to one delivery add: the longest time from upload to answer, and how many came to which end.

    Where they are answered `again`, nobody waited for them, and the age of the files is no lag: there is none then.
    """
    seconds = [waited(receipt.timings.uploaded_at, receipt.timings.answered_at) for receipt in receipts]
    counts = Counter(receipt.outcome for receipt in receipts)
    return {
        **({} if again else {"lag_seconds": max(seconds, default=0.0)}),
        **{outcome.lower(): counts[outcome] for outcome in ("PREDICTED", "REJECTED", "SKIPPED")},
    }
