"""Hundreds of runs, one after another, in processes that are ready: what launches them does not grow.

A real instance with the launcher of dagster.yaml; each run is a job of one small step, so that what is measured is the
life of a run. Compared are the first tenth of the runs with the last.

    python -m benchmarks.warm_runs [RUNS]
"""

import os
import statistics
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import dagster as dg
import psutil

from benchmarks.measure import Missed
from crypto_ml_tests.defs.warm_site import WarmSite

RUNS = 500
MOST_GROWTH = 1 << 20


def main(runs: int) -> None:
    """Measure and print."""
    with TemporaryDirectory(prefix="crypto_ml-runs-") as name:
        os.environ["PYTHONPATH"] = os.pathsep.join([name, os.environ.get("PYTHONPATH", "")])
        sys.path.insert(0, name)
        with WarmSite.at(Path(name), "warm_runs_code") as site:
            site.warm()
            nursery = psutil.Process(site.nursery_pid)
            memory, seconds = [], []
            for _ in range(runs):
                began = time.monotonic()
                run_id = site.launched("quick")
                assert site.ended(run_id) == dg.DagsterRunStatus.SUCCESS
                assert site.worker(run_id), "it was launched the usual way"
                seconds.append(time.monotonic() - began)
                memory.append(nursery.memory_info().rss)
            tenth = max(runs // 10, 1)
            before, after = statistics.median(memory[:tenth]), statistics.median(memory[-tenth:])
            print(
                f"{runs} runs, median {statistics.median(seconds):.2f} s each (load average {os.getloadavg()[1]:.1f})"
            )
            print(
                f"  memory of the process that makes the others: {before / 1e6:.1f} MB, at the end {after / 1e6:.1f} MB"
            )
            print(f"  its files {nursery.num_fds()}, those that wait {len(nursery.children())}")
    if after - before > MOST_GROWTH:
        raise Missed(f"it may grow by {MOST_GROWTH / 1e6:.0f} MB")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else RUNS)
