"""What the sensor knows: the uploads it looks at, and the deliveries it sees through to their outcomes.

What belongs here: gathering what `next_step` decides by, and doing what it decides. What is remembered is only a
shortcut: a new process learns it from S3. A delivery that cannot be seen through now keeps none of the others waiting.
"""

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from itertools import islice
from typing import Final

import dagster as dg

from crypto_ml.defs.next_step import GRACE, Ask, Close, Run, Wait, ended_at, next_step, pause, waited_for
from crypto_ml.defs.runs import RunsOfDeliveries
from crypto_ml.deployment import Deployment
from crypto_ml.errors import CryptoMLError
from crypto_ml.ledger.deliveries import Delivery, DeliveryLog, delivery_id
from crypto_ml.ledger.giving_up import give_up
from crypto_ml.ledger.layout import ANSWERED
from crypto_ml.ledger.listing import UploadListing
from crypto_ml.ledger.retries import RetryLog, is_open, outcomes_of
from crypto_ml.storage.objects import ObjectStore

SECONDS_BETWEEN_REVIEWS: Final = 5.0
LONGEST_REVIEW: Final = 15.0
"""Seconds after which a review goes on the next time; Dagster gives a tick 60."""

MARKERS_PER_LOOK: Final = 5_000
LONG_AGO: Final = datetime(1970, 1, 1, tzinfo=UTC)
log: Final = logging.getLogger(__name__)


@dataclass(frozen=True)
class Wanted:
    """A run that is to be asked for. Dagster launches one run for each key, so a run after another has its own."""

    delivery: Delivery
    run_key: str


@dataclass(frozen=True)
class Reviewed:
    """The runs that are wanted, and what could not be done this time, each in one sentence."""

    wanted: Sequence[Wanted] = ()
    problems: Sequence[str] = ()


@dataclass
class _Open:
    """A delivery to be seen through: since when somebody may be about to run it, and the last request to (0: none)."""

    number: int
    since: datetime
    retry: int = 0
    not_before: datetime = LONG_AGO

    @property
    def id(self) -> str:
        return delivery_id(self.number)

    @property
    def first_key(self) -> str:
        return f"{self.id} retry {self.retry}" if self.retry else self.id

    def runs(self, known: Sequence[tuple[str | None, Run]]) -> list[Run]:
        """Those that count: all, or those from the one that was asked for by the last request."""
        keys = [key for key, _ in known]
        if self.retry:
            known = known[keys.index(self.first_key) :] if self.first_key in keys else []
        return [run for _, run in known]


@dataclass
class Watch:
    """What one process knows of a store's uploads and deliveries; anything it forgets, S3 tells again."""

    store: ObjectStore
    _open: dict[int, _Open] = field(default_factory=dict)
    _seen_to: int = 0
    _markers_to: str | None = ""
    _retries_to: int = 0
    _next_review: float = 0.0
    _started: bool = False
    _runs: RunsOfDeliveries | None = None

    def __post_init__(self) -> None:
        self.log = DeliveryLog(self.store)
        self._listing = UploadListing(self.store)
        self._requests = RetryLog(self.store)

    def look(self, now: datetime) -> list[Wanted]:
        """Look for uploads once; returns a run for each delivery made of those that are new."""
        if not self._started:
            self._listing.learn(self.log.catch_up())
            self._started = True
        made = self.log.assign_new(now, self._listing.look())
        for delivery in made:
            self._open[delivery.number] = _Open(delivery.number, now)
        return [Wanted(delivery, delivery.id) for delivery in made]

    def review(self, instance: dg.DagsterInstance, now: datetime) -> Reviewed:
        """Look after the deliveries without an outcome, now and then, and close those that are to be given up."""
        if time.monotonic() < self._next_review:
            return Reviewed()
        self._next_review = time.monotonic() + SECONDS_BETWEEN_REVIEWS
        problems: list[str] = []
        for learn in (self._find_open, self._find_requests):
            try:
                learn()
            except Exception as error:  # noqa: BLE001 - what is known already is looked after all the same
                problems.append(_said(f"could not {learn.__name__.strip('_').replace('_', ' ')} deliveries", error))
        return self._see_all_through(instance, now, problems)

    def _see_all_through(self, instance: dg.DagsterInstance, now: datetime, problems: list[str]) -> Reviewed:
        wanted: list[Wanted] = []
        due = {open_.id: open_ for _, open_ in sorted(self._open.items()) if now >= open_.not_before}
        deadline = time.monotonic() + LONGEST_REVIEW
        for delivery, known in self._runs_in(instance).of(due).items():
            if time.monotonic() > deadline:
                problems.append(f"delivery {delivery} and those after it wait for the next review")
                break
            open_ = due[delivery]
            try:
                wanted += self._see_through(open_, open_.runs(known), now)
            except Exception as error:  # noqa: BLE001 - whatever it is, the deliveries after it have their turn
                open_.not_before = now + GRACE
                problems.append(_said(f"could not see delivery {delivery} through", error))
        return Reviewed(wanted, problems)

    def _see_through(self, open_: _Open, runs: list[Run], now: datetime) -> list[Wanted]:
        step = next_step(runs, open_.since, now)
        succeeded = bool(runs) and runs[-1].how == "succeeded"
        if isinstance(step, Wait) and not succeeded:
            return []
        if self._has_outcome(open_):
            del self._open[open_.number]
            return []
        match step:
            case Ask(after):
                wanted = Wanted(self.log.get(open_.number), f"{open_.id} after {after}" if after else open_.first_key)
                open_.since = now
                log.info("delivery %s is asked for: run key %r", open_.id, wanted.run_key)
                return [wanted]
            case Close():
                reason = why(open_.id, step)
                give_up(self.log.get(open_.number), reason, step.last.id, self.store, retry=open_.retry)
                log.warning("delivery %s: %s", open_.id, reason)
                del self._open[open_.number]
        return []

    def _has_outcome(self, open_: _Open) -> bool:
        outcomes = outcomes_of(open_.number, self.store)
        return outcomes is not None and not is_open(open_.retry, outcomes)

    def _runs_in(self, instance: dg.DagsterInstance) -> RunsOfDeliveries:
        if self._runs is None or self._runs.instance is not instance:
            self._runs = RunsOfDeliveries(instance)
        return self._runs

    def _find_open(self) -> None:
        """Learn of deliveries that this process did not make: those in the log that have no list of outcomes.

        The lists are read a few thousand names at a time, once; what this process assigns, it knows.
        """
        last = self.log.last_number
        if self._markers_to is not None:
            found = list(islice(self.store.list(ANSWERED, start_after=self._markers_to or None), MARKERS_PER_LOOK))
            answered = {_number(marker.key) for marker in found}
            end = max(answered) if len(found) == MARKERS_PER_LOOK else last
            self._note_open(range(self._seen_to + 1, end + 1), answered)
            self._markers_to = found[-1].key if len(found) == MARKERS_PER_LOOK else None
            return
        self._note_open(range(self._seen_to + 1, last + 1), set())

    def _note_open(self, numbers: range, answered: set[int]) -> None:
        for number in numbers:
            if number not in answered and number not in self._open:
                noticed_at = datetime.fromisoformat(self.log.get(number).noticed_at)
                self._open[number] = _Open(number, noticed_at)
        self._seen_to = max(self._seen_to, numbers.stop - 1)

    def _find_requests(self) -> None:
        """Learn of deliveries that were given up and are to be answered again."""
        for request in self._requests.since(self._retries_to):
            for number in request.deliveries:
                if is_open(request.number, outcomes_of(number, self.store)):
                    self._open[number] = _Open(number, LONG_AGO, request.number)
            self._retries_to = request.number


def why(delivery: str, close: Close) -> str:
    """The reason that a delivery's uploads are given, which says what to do."""
    again = f"once its cause is gone, `crypto-ml retry {delivery}` answers it, or drop the file again"
    if close.last.how == "cancelled":
        return f"gave up: the run {close.last.id} was cancelled; {again}"
    runs = f"{close.failed} runs failed, the last one" if close.failed > 1 else "a run failed"
    return f"gave up: {runs} ({close.last.id}): {close.last.cause}; {again}"


def waiting(
    instance: dg.DagsterInstance, unanswered: Sequence[str] | None
) -> Mapping[str, tuple[Sequence[Run], datetime]]:
    """delivery id → its last runs, which found something unavailable, and when the sensor asks for the next one.

    unanswered: the deliveries to look at; None where the store, which knows them, does not answer.
    """
    found, runs_of = {}, RunsOfDeliveries(instance)
    looked_at = runs_of.of_recently_failed() if unanswered is None else runs_of.of(unanswered)
    for delivery, known in looked_at.items():
        runs = [run for _, run in known]
        if last := waited_for(runs):
            found[delivery] = (last, ended_at(last[-1]) + pause(runs))
    return found


def _said(what: str, error: Exception) -> str:
    """One sentence for whoever looks at the tick; the log has the traceback of what nobody expected."""
    if isinstance(error, CryptoMLError):
        said = f"{what}: {error}"
        log.warning("%s", said)
    else:
        said = f"{what}: {type(error).__name__}: {error}"
        log.exception("%s", said)
    return said


def _number(marker: str) -> int:
    return int(marker.removeprefix(ANSWERED).removesuffix(".json"))


@cache
def watch(deployment: Deployment) -> Watch:
    """One watch for each process: it remembers what it has read, so that a look reads only what is new."""
    return Watch(deployment.store)
