"""A Dagster on this machine that can be killed and started again, and asked what it recorded."""

import contextlib
import json
import os
import re
import signal
import time
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import dagster as dg

from crypto_ml.commands.local_dagster import LocalDagster, free_port
from crypto_ml.ledger.layout import ANSWERED
from crypto_ml.ledger.reports import Report, read_report
from crypto_ml.storage.objects import ObjectStore

REPOSITORY = Path(__file__).resolve().parents[2]
LONGEST = 240.0
T = TypeVar("T")

STOCK = {
    "run_launcher:\n  module: crypto_ml.defs.warm.launcher\n  class: WarmRunLauncher\n": "",
    "crypto_ml.defs.warm.coordinator": "dagster._core.run_coordinator",
    "PromptRunCoordinator": "QueuedRunCoordinator",
}
"""What leads from the product's dagster.yaml to Dagster's own launcher and queue."""

LAUNCH = """
mutation ($job: String!, $config: RunConfigData) {
  launchRun(executionParams: {
    selector: {
      repositoryLocationName: "crypto_ml.definitions", repositoryName: "__repository__", jobName: $job
    }
    runConfigData: $config
  }) { __typename ... on LaunchRunSuccess { run { runId } } }
}
"""
"""What the UI sends when somebody presses Launch."""


def until(there: Callable[[], T], what: str | Callable[[], str], pause: float = 0.02, *, longest: float = LONGEST) -> T:
    """Wait for what other processes do, which tell nobody: it is looked for again and again, here and nowhere else.

    Gives what was found. what: what did not happen where it was not; asked then, where it takes logs to say.
    """
    deadline = time.monotonic() + longest
    while not (found := there()):
        told = what if isinstance(what, str) or time.monotonic() < deadline else what()
        assert time.monotonic() < deadline, f"{told} within {longest:.0f} s"
        time.sleep(pause)
    return found


def usual_instance(replaced: Mapping[str, str]) -> str:
    """The product's dagster.yaml with some of its text replaced."""
    text = (REPOSITORY / "dagster.yaml").read_text()
    for one, other in replaced.items():
        assert one in text
        text = text.replace(one, other)
    return text


class Site:
    """A Dagster on this machine that can be killed and started again, on a store of its own."""

    def __init__(
        self, store: ObjectStore, directory: Path, s3: Mapping[str, str], *, replaced: Mapping[str, str] | None = None
    ) -> None:
        instance = directory / "dagster.yaml"
        # the same instance as in everyday work, which notices a dead worker sooner
        sooner = {"poll_interval_seconds: 15": "poll_interval_seconds: 3"}
        instance.write_text(usual_instance({**sooner, **(replaced or {})}))
        environment = {**s3, "CRYPTO_ML_BUCKET": store.bucket, "CRYPTO_ML_PREFIX": store.prefix}
        environment["PYTHONPATH"] = str(REPOSITORY)
        self.store = store
        self._dagster = LocalDagster(directory, environment, instance, free_port())

    def start(self) -> None:
        self._dagster.__enter__()
        self._dagster.wait_until_watching()

    def stop(self) -> None:
        self._dagster.stop()

    def kill(self) -> None:
        """The machine goes down: nothing of it has time to say goodbye."""

        def none_left() -> bool:
            for pid in self._dagster.left():
                self.end(pid)
            return not self._dagster.left()

        until(none_left, "a process would not end", pause=0.05)

    def worker(self, run: dg.DagsterRun) -> int | None:
        """The process of a run, once it says that it has begun."""
        found = re.search(r"Started process for run \(pid: (\d+)\)", self.said(run.run_id))
        return int(found[1]) if found else None

    def kill_worker(self) -> None:
        """Kill the process of the newest run."""

        def killed() -> bool:
            pid = self.worker(self.runs()[0])
            if pid is not None:
                self.end(pid)
            return pid is not None

        until(killed, "no worker was started")

    @staticmethod
    def end(pid: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)

    def report(self, name: str) -> Report:
        until(lambda: read_report(f"uploads/{name}", self.store), f"no answer to {name}", 0.2)
        found = read_report(f"uploads/{name}", self.store)
        assert found is not None
        return found

    def launch(self, job: str, config: Mapping[str, Any]) -> str:
        """Launch a job as the UI does; returns the run's id."""
        asked = {"query": LAUNCH, "variables": {"job": job, "config": json.dumps(config)}}
        request = urllib.request.Request(  # noqa: S310 - our own address
            f"{self._dagster.url}/graphql", json.dumps(asked).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
            launched: Any = json.load(answer)
        return str(launched["data"]["launchRun"]["run"]["runId"])

    @property
    def home(self) -> Path:
        """The DAGSTER_HOME of this Dagster."""
        return self._dagster.home

    def runs(self, job: str = "score_uploads") -> list[dg.DagsterRun]:
        """The runs of a job, newest first."""
        with dg.DagsterInstance.from_config(str(self.home)) as instance:
            return list(instance.get_runs(dg.RunsFilter(job_name=job)))

    def said(self, run_id: str) -> str:
        """Everything that Dagster recorded of a run, as one text."""
        with dg.DagsterInstance.from_config(str(self.home)) as instance:
            return "\n".join(entry.message for entry in instance.all_logs(run_id))

    def markers(self) -> list[str]:
        return [found.key for found in self.store.list(ANSWERED)]
