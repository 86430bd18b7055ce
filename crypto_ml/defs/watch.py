"""What the sensor knows: the uploads it looks at, and the deliveries it sees through to their outcomes.

A delivery without an outcome is asked for again where nobody runs it, and closed where its runs have all failed. What
is remembered here is only a shortcut: a new process learns it from S3.
"""

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import islice
from typing import Final

import dagster as dg
from dagster._core.storage.tags import WILL_RETRY_TAG
from dagster_shared.error import SerializableErrorInfo

from crypto_ml.defs.jobs import score_uploads
from crypto_ml.deployment import Deployment
from crypto_ml.ledger.deliveries import Delivery, DeliveryLog, delivery_id
from crypto_ml.ledger.giving_up import give_up
from crypto_ml.ledger.layout import ANSWERED, answered_key
from crypto_ml.ledger.listing import UploadListing
from crypto_ml.storage.objects import ObjectStore

SECONDS_BETWEEN_REVIEWS: Final = 5.0
GRACE: Final = timedelta(seconds=60)
"""A delivery without a run is asked for again after this time: whoever noticed it may be about to ask."""

SETTLED: Final = timedelta(seconds=10)
"""A run that failed this long ago, and is not marked to be tried again, will not be."""

MARKERS_PER_LOOK: Final = 5_000
LONGEST_CAUSE: Final = 500


@dataclass
class _Open:
    """A delivery without an outcome, and since when somebody may be about to run it."""

    number: int
    since: datetime


class Watch:
    """What one process knows of a store's uploads and deliveries; anything it forgets, S3 tells again."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self.log = DeliveryLog(store)
        self._listing = UploadListing(store)
        self._open: dict[int, _Open] = {}
        self._seen_to = 0
        self._markers_to: str | None = ""
        self._next_review = 0.0
        self._started = False

    def look(self, now: datetime) -> list[Delivery]:
        """Look for uploads once; returns the deliveries made of those that are new."""
        if not self._started:
            self._listing.learn(self.log.catch_up())
            self._started = True
        made = self.log.assign_new(now, self._listing.look())
        for delivery in made:
            self._open[delivery.number] = _Open(delivery.number, now)
        return made

    def review(self, instance: dg.DagsterInstance, now: datetime) -> list[Delivery]:
        """Look after the deliveries without an outcome, now and then.

        Returns those that nobody runs. One whose runs have all failed is closed.
        """
        self._find_open()
        if time.monotonic() < self._next_review or not self._open:
            return []
        self._next_review = time.monotonic() + SECONDS_BETWEEN_REVIEWS
        runs = _newest_runs(instance, self._open)
        unrun: list[Delivery] = []
        for number, open_ in sorted(self._open.items()):
            record = runs.get(delivery_id(number))
            if record is None:
                unrun += self._asked_again(open_, now)
            elif record.dagster_run.status == dg.DagsterRunStatus.SUCCESS:
                del self._open[number]
            elif _is_final(record, now):
                self._close(number, record, instance)
        return unrun

    def _find_open(self) -> None:
        """Learn of deliveries that this process did not make: those in the log that have no list of outcomes.

        The lists are read a few thousand names at a time, once; what this process assigns, it knows.
        """
        last = self.log.last_number
        if self._markers_to is not None:
            found = list(islice(self._store.list(ANSWERED, start_after=self._markers_to or None), MARKERS_PER_LOOK))
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

    def _asked_again(self, open_: _Open, now: datetime) -> list[Delivery]:
        """The delivery, where nobody has run it for too long and it has no outcome after all."""
        if now - open_.since < GRACE:
            return []
        if self._has_outcome(open_.number):
            del self._open[open_.number]
            return []
        open_.since = now
        return [self.log.get(open_.number)]

    def _close(self, number: int, record: dg.RunRecord, instance: dg.DagsterInstance) -> None:
        if not self._has_outcome(number):
            delivery = self.log.get(number)
            give_up(delivery, _why(delivery, record, instance), record.dagster_run.run_id, self._store)
        del self._open[number]

    def _has_outcome(self, number: int) -> bool:
        return self._store.head(answered_key(delivery_id(number))) is not None


def _number(marker: str) -> int:
    return int(marker.removeprefix(ANSWERED).removesuffix(".json"))


def _runs_of(delivery_ids: list[str]) -> dg.RunsFilter:
    return dg.RunsFilter(job_name=score_uploads.name, tags={"dagster/partition": delivery_ids})


def _newest_runs(instance: dg.DagsterInstance, numbers: Iterable[int]) -> Mapping[str, dg.RunRecord]:
    """delivery id → the run launched last, of those of this Dagster instance."""
    records = instance.get_run_records(_runs_of([delivery_id(number) for number in numbers]))
    return {record.dagster_run.tags["dagster/partition"]: record for record in reversed(records)}


def _is_final(record: dg.RunRecord, now: datetime) -> bool:
    """Whether a run has ended badly and Dagster will not try again."""
    run = record.dagster_run
    if run.status == dg.DagsterRunStatus.CANCELED:
        return True
    if run.status != dg.DagsterRunStatus.FAILURE:
        return False
    retried = run.tags.get(WILL_RETRY_TAG)
    if retried is not None:
        return retried != "true"
    ended = datetime.fromtimestamp(record.end_time or record.update_timestamp.timestamp(), UTC)
    return now - ended > SETTLED


def _why(delivery: Delivery, record: dg.RunRecord, instance: dg.DagsterInstance) -> str:
    run = record.dagster_run
    again = f"drop the file again, or launch score_uploads for the partition {delivery.id}"
    if run.status == dg.DagsterRunStatus.CANCELED:
        return f"gave up: the run {run.run_id} was cancelled; {again}"
    failed = instance.get_runs_count(_runs_of([delivery.id]))
    runs = f"{failed} runs failed, the last one" if failed > 1 else "a run failed"
    return f"gave up: {runs} ({run.run_id}): {_cause(run, instance)}; {again}"


def _cause(run: dg.DagsterRun, instance: dg.DagsterInstance) -> str:
    """What a failed run says of itself, in one line."""
    for kind in (dg.DagsterEventType.STEP_FAILURE, dg.DagsterEventType.RUN_FAILURE):
        for record in instance.get_records_for_run(run.run_id, of_type=kind, limit=1).records:
            event = record.event_log_entry.dagster_event
            failure = event and (event.event_specific_data or event.message)
            given = getattr(failure, "user_failure_data", None)
            error = getattr(failure, "error", None)
            said = given.description if given else _own_words(error) if error else record.event_log_entry.user_message
            if said:
                return " ".join(said.split())[:LONGEST_CAUSE]
    return "its process died"


def _own_words(error: SerializableErrorInfo) -> str:
    """The message of the first error in a chain that is not Dagster's wrapping of another."""
    while error.cause and error.message.startswith("dagster."):
        error = error.cause
    return error.message


@cache
def watch(deployment: Deployment) -> Watch:
    """One watch for each process: it remembers what it has read, so that a look reads only what is new."""
    return Watch(deployment.store)
