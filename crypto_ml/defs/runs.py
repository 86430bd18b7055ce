"""The runs of deliveries as Dagster recorded them, in the words of `next_step`.

What a failed run was is read from its events: the kind that `failures.explained` noted where the step was ours, else
the names and words of the errors, also of those before any step (a resource that could not be set up).
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

import dagster as dg

from crypto_ml.defs.dagster_internals import (
    PARTITION_NAME_TAG,
    RUN_FAILURE_REASON_TAG,
    RUN_KEY_TAG,
    WILL_RETRY_TAG,
    SerializableErrorInfo,
)
from crypto_ml.defs.failures import KIND, REFUSED, UNAVAILABLE
from crypto_ml.defs.jobs import SCORE_UPLOADS
from crypto_ml.defs.next_step import How, Run
from crypto_ml.errors import names_of_unavailable, says_it_ran_out

LONGEST_CAUSE: Final = 500
RECENT: Final = 100
DIED: Final = "its process died"
OUTSIDE: Final = "marked as failed from outside"
"""What Dagster says where it knows no more than that."""

STEP_FAILURE: Final = "STEP_FAILURE"
GOING: Final = frozenset(
    {
        dg.DagsterRunStatus.QUEUED,
        dg.DagsterRunStatus.NOT_STARTED,
        dg.DagsterRunStatus.STARTING,
        dg.DagsterRunStatus.STARTED,
        dg.DagsterRunStatus.CANCELING,
        dg.DagsterRunStatus.MANAGED,
    }
)
ENDED: Final[Mapping[dg.DagsterRunStatus, How]] = {
    dg.DagsterRunStatus.SUCCESS: "succeeded",
    dg.DagsterRunStatus.CANCELED: "cancelled",
}


@dataclass
class RunsOfDeliveries:
    """The runs of one Dagster instance; why a run failed is read once."""

    instance: dg.DagsterInstance
    _failures: dict[str, tuple[How, str]] = field(default_factory=dict)

    def of(self, deliveries: Iterable[str]) -> Mapping[str, list[tuple[str | None, Run]]]:
        """delivery id → the key each of its runs was asked for with (None: launched otherwise), and the run; in order.

        One question for all of them, and one more for each run that is found to have failed.
        """
        asked = list(deliveries)
        filters = dg.RunsFilter(job_name=SCORE_UPLOADS, tags={PARTITION_NAME_TAG: asked})
        found: dict[str, list[tuple[str | None, Run]]] = {delivery: [] for delivery in asked}
        for record in reversed(self.instance.get_run_records(filters) if asked else []):
            tags = record.dagster_run.tags
            found[tags[PARTITION_NAME_TAG]].append((tags.get(RUN_KEY_TAG), self._run(record)))
        return found

    def of_recently_failed(self) -> Mapping[str, list[tuple[str | None, Run]]]:
        """The same of the deliveries of the last runs that failed."""
        filters = dg.RunsFilter(job_name=SCORE_UPLOADS, statuses=[dg.DagsterRunStatus.FAILURE])
        failed = self.instance.get_run_records(filters, limit=RECENT)
        tags = [record.dagster_run.tags for record in failed]
        # launched by hand for no delivery, a run names none
        return self.of(sorted({own[PARTITION_NAME_TAG] for own in tags if PARTITION_NAME_TAG in own}))

    def _run(self, record: dg.RunRecord) -> Run:
        run = record.dagster_run
        launched = record.create_timestamp.astimezone(UTC)
        if run.status in GOING:
            return Run(run.run_id, "going", launched)
        ended = datetime.fromtimestamp(record.end_time or record.update_timestamp.timestamp(), UTC)
        if run.status in ENDED:
            return Run(run.run_id, ENDED[run.status], launched, ended, "it ended well, without an answer")
        if run.run_id not in self._failures:
            begun = record.start_time is not None
            self._failures[run.run_id] = (_failure if begun else _never_begun)(run, self.instance)
        how, cause = self._failures[run.run_id]
        told = run.tags.get(WILL_RETRY_TAG)
        return Run(run.run_id, how, launched, ended, cause, None if told is None else told == "true")


def _failure(run: dg.DagsterRun, instance: dg.DagsterInstance) -> tuple[How, str]:
    """How a run failed, and what it says of itself, in one line.

    Where it ended from outside (its time was over, say), what its step says of that is not why.
    """
    kinds = [dg.DagsterEventType.STEP_FAILURE, dg.DagsterEventType.RUN_FAILURE]
    if run.tags.get(RUN_FAILURE_REASON_TAG) != STEP_FAILURE:
        kinds.reverse()
    for kind in kinds:
        for record in instance.get_records_for_run(run.run_id, of_type=kind, limit=1).records:
            event = record.event_log_entry.dagster_event
            data: Any = event.event_specific_data if event else None
            given, error = getattr(data, "user_failure_data", None), getattr(data, "error", None)
            if given and given.description:
                return _noted(given.metadata), _one_line(given.description)
            if error:
                return _named(error), _one_line(_own_words(error))
            said = event.message if event else None
            return "failed", _one_line(said) if said and OUTSIDE not in said else DIED
    return "failed", DIED


def _never_begun(run: dg.DagsterRun, instance: dg.DagsterInstance) -> tuple[How, str]:
    """Of a run whose process was not started, or died while it was: it never came to its files."""
    said = [entry.message for entry in instance.all_logs(run.run_id) if entry.is_dagster_event and entry.message]
    return "unavailable", _one_line(f"Dagster could not start it: {said[-1] if said else 'it does not say why'}")


def _noted(metadata: Mapping[str, Any]) -> How:
    kind = metadata.get(KIND)
    kinds: Mapping[str, How] = {UNAVAILABLE: "unavailable", REFUSED: "refused"}
    return kinds.get(str(kind.value), "failed") if kind else "failed"


def _named(error: SerializableErrorInfo) -> How:
    names = names_of_unavailable()
    there = any(one.cls_name in names or says_it_ran_out(one.message) for one in _chain(error))
    return "unavailable" if there else "failed"


def _chain(error: SerializableErrorInfo | None) -> Iterator[SerializableErrorInfo]:
    while error is not None:
        yield error
        error = error.cause or error.context


def _own_words(error: SerializableErrorInfo) -> str:
    """The message of the first error in a chain that is not Dagster's wrapping of another."""
    while error.cause and error.message.startswith("dagster."):
        error = error.cause
    return error.message


def _one_line(said: str) -> str:
    return " ".join(said.split())[:LONGEST_CAUSE]
