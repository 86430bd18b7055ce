"""Requests to answer again what was given up: a log in S3, so that whoever asks need not reach Dagster.

A request is numbered and names deliveries. The sensor asks for a run of each, and a list of outcomes that is given up
again carries the number of the request, which by that is settled: nothing is run twice for one request.
"""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from crypto_ml.ledger.deliveries import Delivery, DeliveryLog, delivery_id
from crypto_ml.ledger.formats import retries_v1
from crypto_ml.ledger.formats.outcomes_v1 import Outcomes, tried_for, was_given_up
from crypto_ml.ledger.layout import RETRIES, answered_key
from crypto_ml.ledger.log import AppendOnlyLog
from crypto_ml.storage.failures import ObjectMissing
from crypto_ml.storage.objects import ObjectStore

AT_ONCE: Final = 16


@dataclass(frozen=True)
class Request:
    """One request: the numbers of the deliveries that are to be answered again."""

    number: int
    deliveries: Sequence[int]


class RetryLog:
    """The requests there are. Raises what ObjectStore raises."""

    def __init__(self, store: ObjectStore) -> None:
        self._log = AppendOnlyLog(store, RETRIES)

    def ask(self, deliveries: Iterable[Delivery], now: datetime) -> Request:
        """Add a request; of several at once each gets a number of its own."""
        numbers = sorted(delivery.number for delivery in deliveries)
        document = retries_v1.document(numbers, now.astimezone(UTC))
        last = self._log.last_number()
        while (entry := self._log.append(document, after=last)) is None:
            last = self._log.last_number(last)
        return Request(entry.number, numbers)

    def since(self, number: int) -> Iterator[Request]:
        """The requests after a number, in order: one listing where there are none."""
        for entry in self._log.entries(number):
            yield Request(entry.number, retries_v1.deliveries(entry.document))


def outcomes_of(number: int, store: ObjectStore) -> Outcomes | None:
    """upload key → outcome of each file of a delivery; None where it has no outcome yet."""
    try:
        found: Outcomes = store.read_json(answered_key(delivery_id(number)))
    except ObjectMissing:
        return None
    return found


def is_open(request: int, outcomes: Outcomes | None) -> bool:
    """Whether a request is still to be met for a delivery with these outcomes."""
    return outcomes is not None and was_given_up(outcomes) and tried_for(outcomes) < request


def given_up(store: ObjectStore) -> list[Delivery]:
    """Every delivery with a file that was given up; reads each list of outcomes there is."""
    deliveries = DeliveryLog(store)
    deliveries.catch_up()
    numbers = range(1, deliveries.last_number + 1)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        found = pool.map(lambda number: outcomes_of(number, store), numbers)
        return [deliveries.get(number) for number, one in zip(numbers, found, strict=True) if one and was_given_up(one)]
