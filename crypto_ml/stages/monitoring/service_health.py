"""service_health: how long answers took, what became of uploads and requests, and what was tried again."""

from collections import Counter, deque
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import numpy as np

from crypto_ml.forecasting.evaluation import Verdict
from crypto_ml.ledger.alarms import Condition
from crypto_ml.ledger.deliveries import Delivery, DeliveryLog, delivery_id
from crypto_ml.ledger.formats.outcomes_v1 import Outcomes, was_given_up
from crypto_ml.ledger.layout import ANSWERED, DELIVERIES, RETRIES, answered_key
from crypto_ml.ledger.log import AppendOnlyLog
from crypto_ml.ledger.requests import first_of
from crypto_ml.ledger.retries import outcomes_of
from crypto_ml.ledger.settlements import read_settlement, settlement_names
from crypto_ml.storage.objects import ObjectStore

DAYS: Final = 7
MOST_DELIVERIES: Final = 1_000
MOST_SETTLEMENTS: Final = 2_000
AT_ONCE: Final = 16
MOST_LAG: Final = 120.0
"""Seconds from upload to answer that nineteen of twenty deliveries may take at most."""

ANSWERS_LATE: Final = "answers_late"
GIVEN_UP: Final = "uploads_given_up"


@dataclass(frozen=True, eq=False)
class ServiceHealth:
    """The deliveries of the last DAYS days, MOST_DELIVERIES at most, oldest first.

    lags: seconds from the last upload of each to its answer, by the store's clock, which has whole seconds. waiting:
    the deliveries without an answer, and oldest_waiting: for how many seconds the first of them. outcomes: of uploads.
    given_up: deliveries with an upload that no run answered. retries: requests to answer again, of all time. requests,
    rejected_requests, request_rows: answered over REST, of the last
    MOST_SETTLEMENTS records of what was settled.
    """

    day: str
    deliveries: int
    lags: np.ndarray
    waiting: Sequence[str]
    oldest_waiting: float
    outcomes: Mapping[str, int]
    given_up: Sequence[str]
    retries: int
    requests: int
    rejected_requests: int
    request_rows: int

    @property
    def slow(self) -> float | None:
        """The lag that one of twenty deliveries exceeds; None where none was answered."""
        return float(np.quantile(self.lags, 0.95)) if len(self.lags) else None


def service_health(store: ObjectStore, now: datetime) -> ServiceHealth:
    """Look at what was answered. Raises what the store raises, RecordDamaged, RecordTooNew."""
    deliveries = _recent(store, now)
    found: dict[int, Outcomes] = {}
    lags: list[float] = []
    waiting: list[Delivery] = []
    if deliveries:
        answered = _answered_since(deliveries[0].number, store)
        with ThreadPoolExecutor(AT_ONCE) as pool:
            outcomes = pool.map(lambda one: outcomes_of(one.number, store), deliveries)
            found = {one.number: told for one, told in zip(deliveries, outcomes, strict=True) if told is not None}
        for one in deliveries:
            if one.number in answered and one.number in found:
                lags.append(max((answered[one.number] - _uploaded(one)).total_seconds(), 0.0))
            else:
                waiting.append(one)
    names = deque(settlement_names(store, first_of(now - timedelta(DAYS))), MOST_SETTLEMENTS)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        settled = [
            one for read in pool.map(lambda name: read_settlement(name, store), names) for one in read.deliveries
        ]
    return ServiceHealth(
        day=str(now.date()),
        deliveries=len(deliveries),
        lags=np.array(lags),
        waiting=[one.id for one in waiting],
        oldest_waiting=max(((now - _uploaded(one)).total_seconds() for one in waiting), default=0.0),
        outcomes=dict(Counter(str(told["outcome"]) for one in found.values() for told in one.values())),
        given_up=[delivery_id(number) for number, one in found.items() if was_given_up(one)],
        retries=AppendOnlyLog(store, RETRIES).last_number(),
        requests=sum(len(one.answers) for one in settled),
        rejected_requests=sum(one.rejected for one in settled),
        request_rows=sum(one.predicted_rows for one in settled),
    )


def _recent(store: ObjectStore, now: datetime) -> list[Delivery]:
    """The last deliveries, as many as were noticed lately, oldest first."""
    log, last = DeliveryLog(store), AppendOnlyLog(store, DELIVERIES).last_number()
    since, found = (now - timedelta(DAYS)).isoformat(), []
    numbers = range(last, max(last - MOST_DELIVERIES, 0), -1)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for begin in range(0, len(numbers), AT_ONCE):
            read = list(pool.map(log.get, numbers[begin : begin + AT_ONCE]))
            found += [one for one in read if one.noticed_at >= since]
            if len(found) < begin + len(read):
                break
    return found[::-1]


def _answered_since(number: int, store: ObjectStore) -> dict[int, datetime]:
    """When each delivery from a number on was answered."""
    listed = store.list(ANSWERED, start_after=answered_key(delivery_id(number - 1)))
    return {int(one.key.removeprefix(ANSWERED).removesuffix(".json")): one.last_modified for one in listed}


def _uploaded(delivery: Delivery) -> datetime:
    return max(datetime.fromisoformat(upload.last_modified) for upload in delivery.uploads)


def answers_in_time(found: ServiceHealth) -> Verdict:
    """Whether answers come soon after uploads, and none is waited for too long."""
    slow = found.slow
    said = [f"{_counted(found.deliveries)} in {DAYS} days"]
    said += [f"19 of 20 answered within {slow:.0f} s"] if slow is not None else []
    said += (
        [f"{len(found.waiting)} without an answer, the oldest for {found.oldest_waiting:.0f} s"]
        if found.waiting
        else []
    )
    return Verdict(
        max(slow or 0.0, found.oldest_waiting) <= MOST_LAG,
        {"slow_seconds": slow, "waiting": len(found.waiting), "oldest_waiting_seconds": found.oldest_waiting},
        MOST_LAG,
        "; ".join(said),
    )


def nothing_given_up(found: ServiceHealth) -> Verdict:
    """Whether every delivery came to an end that its files decided."""
    named = ", ".join(found.given_up[-5:])
    said = f"{len(found.given_up)} of {_counted(found.deliveries)} in {DAYS} days were given up"
    return Verdict(not found.given_up, {"given_up": len(found.given_up)}, 0, f"{said}{': ' + named if named else ''}")


def _counted(deliveries: int) -> str:
    return "1 delivery" if deliveries == 1 else f"{deliveries:,} deliveries"


def conditions(found: ServiceHealth) -> list[Condition]:
    """What of it may be an alarm."""
    late, left = answers_in_time(found), nothing_given_up(found)
    lag = max(found.slow or 0.0, found.oldest_waiting)
    return [
        Condition(
            ANSWERS_LATE,
            late.passed,
            late.explanation,
            lag / MOST_LAG,
            "`crypto-ml doctor` says what holds them up",
            found.day,
        ),
        Condition(
            GIVEN_UP,
            left.passed,
            left.explanation,
            float(len(found.given_up)),
            "mend the cause that their reports name, then `crypto-ml retry --given-up`",
            found.day,
        ),
    ]
