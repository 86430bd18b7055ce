"""What a run takes of the machine: measured by itself, and read back from what runs recorded.

A run is a process of its own (`in_process_executor`), also where it began in one that was ready: its processor time
counts from there on.
"""

import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

import dagster as dg

from crypto_ml.stages.monitoring.machine_use import DAYS, MachineUse, Runs, Used

PROCESSOR: Final = "processor_seconds"
MEMORY: Final = "peak_memory_bytes"
MEASURED: Final = ("predictions", "daily_forecast", "trained_model", "table_upkeep")
"""Assets whose runs say what they took."""

LIMITS: Final = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
"""Where Linux says how much memory the processes of a container may take together."""

MOST_EVENTS: Final = 500
MOST_RUNS: Final = 1_000
ENDED: Final = (dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED)


def taken() -> dict[str, Any]:
    """Metadata: what this process has taken so far."""
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return {PROCESSOR: round(time.process_time(), 3), MEMORY: int(peak)}


def machine_use_of(instance: dg.DagsterInstance, now: datetime) -> MachineUse:
    """What runs of the last DAYS days recorded, MOST_EVENTS of each asset and MOST_RUNS at most."""
    since = now - timedelta(DAYS)
    return MachineUse(str(now.date()), list(_used(instance, since)), list(_runs(instance, since)), memory())


def _used(instance: dg.DagsterInstance, since: datetime) -> Iterator[Used]:
    for asset in MEASURED:
        wanted = dg.AssetRecordsFilter(dg.AssetKey(asset), after_timestamp=since.timestamp())
        for record in instance.fetch_materializations(wanted, limit=MOST_EVENTS).records:
            event = record.asset_materialization
            numbers = [event.metadata[name].value for name in (PROCESSOR, MEMORY) if event and name in event.metadata]
            if len(numbers) == 2 and all(isinstance(one, int | float) for one in numbers):
                yield Used(asset, record.timestamp, float(str(numbers[0])), float(str(numbers[1])))


def _runs(instance: dg.DagsterInstance, since: datetime) -> Iterator[Runs]:
    wanted = dg.RunsFilter(statuses=list(ENDED), created_after=since)
    found = instance.get_run_records(wanted, limit=MOST_RUNS)
    for job in sorted({record.dagster_run.job_name for record in found}):
        own = [record for record in found if record.dagster_run.job_name == job]
        seconds = [one.end_time - one.start_time for one in own if one.end_time and one.start_time]
        yield Runs(
            job="assets launched by hand" if job.startswith("__") else job,
            ended=len(own),
            failed=sum(one.dagster_run.status == dg.DagsterRunStatus.FAILURE for one in own),
            again=sum(one.dagster_run.parent_run_id is not None for one in own),
            seconds=round(sum(seconds), 1),
            longest=round(max(seconds, default=0.0), 1),
        )


def memory(limits: Sequence[Path] = LIMITS) -> int | None:
    """The memory that there is, bytes: the machine's, or less where a container is given less; None where nothing says
    it. limits: files in which a limit may stand."""
    found = []
    with suppress(ValueError, OSError):
        found.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    for path in limits:
        with suppress(ValueError, OSError):  # "max" where there is none
            found.append(int(path.read_text()))
    return min(found, default=None)
