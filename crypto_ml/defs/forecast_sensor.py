"""forecast_sensor: sees that rows for the newest day of the history, or a newer one, came since the last forecast, or
that an upload was retracted.

A tick gathers (one question for the forecast that stands, one listing of the versions after it, and each new version
once), decides, and returns one result. All of it is in S3; the cursor says how far the versions were read, so that they
are not read again. Runs of this Dagster keep it from asking twice, and more often than once a minute.
"""

import json
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final

import dagster as dg

from crypto_ml.defs.jobs import daily_forecast
from crypto_ml.defs.resources import Platform
from crypto_ml.errors import CryptoMLError
from crypto_ml.ledger.forecasts import ForecastOrder, standing
from crypto_ml.ledger.layout import LATEST_FORECAST
from crypto_ml.storage.objects import ObjectStore
from crypto_ml.storage.tables.commits import Commit, commits_after

SECONDS_BETWEEN_LOOKS: Final = 10
BETWEEN_RUNS: Final = timedelta(minutes=1)
LONGEST_BACK_OFF: Final = timedelta(hours=1)
VERSIONS_PER_LOOK: Final = 500

STATE_TAG: Final = "crypto_ml/history_version"
"""Which rows a run was asked for: the version of the history that they stand in."""


UNFINISHED: Final = (
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
)
"""A run that was never submitted is not among them: nobody may ever do so."""


@dataclass(frozen=True)
class Progress:
    """How far the versions of the history were read, since the forecast that stands.

    forecast: its id, None where there is none. due: the last version with rows for its newest day or a newer one, or
    by which rows of whatever days are void; None where there was none yet.
    """

    forecast: str | None
    read_to: int
    due: int | None

    @classmethod
    def since(cls, latest: ForecastOrder | None) -> "Progress":
        """Nothing read yet since a forecast."""
        return cls(latest.forecast_id, latest.history_version, None) if latest else cls(None, -1, None)

    @classmethod
    def of_cursor(cls, cursor: str | None, latest: ForecastOrder | None) -> "Progress":
        """What a cursor remembers, where it is about the forecast that stands."""
        begin = cls.since(latest)
        try:
            found = cls(**json.loads(cursor or "{}"))
        except (ValueError, TypeError):
            return begin
        return found if found.forecast == begin.forecast else begin

    def after(self, commits: list[Commit], newest_day: date | None) -> "Progress":
        """With some more versions read."""
        newest = newest_day or date.min
        due = [one.version for one in commits if one.retracts or (one.last_day and one.last_day >= newest)]
        read_to = max((commit.version for commit in commits), default=self.read_to)
        return Progress(self.forecast, read_to, max(due, default=self.due))

    @property
    def cursor(self) -> str:
        return json.dumps({"forecast": self.forecast, "read_to": self.read_to, "due": self.due})


@dataclass(frozen=True)
class Runs:
    """What this Dagster knows of runs of the job: whether one is not over, when the last one was asked for, and how
    many there were for the version that is due."""

    active: bool
    last: datetime | None
    for_due: int


@dg.sensor(
    name="forecast_sensor",
    job=daily_forecast,
    minimum_interval_seconds=SECONDS_BETWEEN_LOOKS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Watches the market history, and launches daily_forecast when rows for the newest day have come, at "
    "most once a minute.",
)
def forecast_sensor(context: dg.SensorEvaluationContext, platform: Platform) -> dg.SensorResult | dg.SkipReason:
    """One tick."""
    try:
        progress = look(platform.deployment.store, context.cursor)
    except CryptoMLError as error:  # a failed look is never "nothing new": say so, and look again
        return dg.SkipReason(f"could not look at the market history: {error}")
    wanted = decide(progress, _runs(context.instance, progress.due), datetime.now(UTC))
    if isinstance(wanted, str):
        return dg.SensorResult(skip_reason=wanted, cursor=progress.cursor)
    return dg.SensorResult(run_requests=[wanted], cursor=progress.cursor)


def look(store: ObjectStore, cursor: str | None) -> Progress:
    """What came since the forecast that stands. Raises what the store raises."""
    latest = standing(LATEST_FORECAST, store)
    progress = Progress.of_cursor(cursor, latest)
    newest_day = latest.target_date - timedelta(days=1) if latest else None
    return progress.after(commits_after(progress.read_to, VERSIONS_PER_LOOK, store), newest_day)


def decide(progress: Progress, runs: Runs, now: datetime) -> dg.RunRequest | str:
    """The run to ask for, or why there is none to be asked for now.

    Where runs for the same rows did not lead to a newer forecast, each further one is waited for twice as long.
    """
    if progress.due is None:
        return f"no rows for the newest day since forecast {progress.forecast}" if progress.forecast else "no rows yet"
    if runs.active:
        return "a forecast is being made"
    pause = min(BETWEEN_RUNS * 2 ** min(runs.for_due, 10), LONGEST_BACK_OFF)
    if runs.last and timedelta() <= now - runs.last < pause:
        return f"rows for the newest day have come; the last forecast was asked for less than {pause} ago"
    tags = {STATE_TAG: str(progress.due)}
    return dg.RunRequest(run_key=f"{progress.due}.{runs.for_due + 1}", tags=tags)


def _runs(instance: dg.DagsterInstance, due: int | None) -> Runs:
    records = instance.get_run_records(_runs_of(), limit=1)
    last = records[0].create_timestamp if records else None
    active = instance.get_runs_count(_runs_of(statuses=UNFINISHED)) > 0
    for_due = instance.get_runs_count(_runs_of(tags={STATE_TAG: str(due)})) if due is not None else 0
    return Runs(active, last, for_due)


def _runs_of(**wanted: Any) -> dg.RunsFilter:
    return dg.RunsFilter(job_name=daily_forecast.name, **wanted)
