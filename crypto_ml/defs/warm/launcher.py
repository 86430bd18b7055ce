"""The run launcher that dagster.yaml names: runs that score begin in a process that is ready, others the usual way."""

import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from threading import Lock
from typing import Any, Final, Self

import dagster as dg

from crypto_ml.defs.warm.dagster_launching import (
    CheckRunHealthResult,
    ConfigurableClassData,
    DefaultRunLauncher,
    LaunchRunContext,
    ModuleCodePointer,
    WorkerStatus,
    serialize_value,
)
from crypto_ml.defs.warm.identity import SUPPORTED, WORKER_TAG, Process

MODULE: Final = "crypto_ml.definitions"
JOBS: Final = ("score_uploads", "daily_forecast")
SPARES: Final = 2
"""As many as score at once (`tag_concurrency_limits` in dagster.yaml)."""

LONGEST_WORD: Final = 10.0
"""Seconds to wait for an answer of the nursery; it has nothing to do that takes longer than a fork."""

LONGEST_END: Final = 2.0
PAUSE: Final = 30.0
"""Seconds before another nursery is started where one has ended by itself."""

log: Final = logging.getLogger(__name__)


class NotServed(Exception):  # noqa: N818 - it is no failure
    """The nursery takes no runs any more; this one is launched the usual way."""


class WarmRunLauncher(DefaultRunLauncher):
    """Dagster's own launcher, but runs of some jobs begin in processes that have everything imported and opened.

    What is not served that way is launched the usual way: another job, another code location or Python, code that has
    changed since, a process that launches runs while it has no nursery (a webserver, a command), another system than
    Linux. Each run has a process of its own, as usual; it is cancelled and watched by that process's number, which a
    hidden tag of the run names.
    """

    def __init__(
        self,
        inst_data: ConfigurableClassData | None = None,
        module: str = MODULE,
        jobs: tuple[str, ...] = JOBS,
        spares: int = SPARES,
    ) -> None:
        super().__init__(inst_data)
        self._module, self._jobs, self._spares = module, jobs, spares
        self._nursery: Nursery | None = None
        self._starting = Lock()
        self._not_before = 0.0

    @classmethod
    def config_type(cls) -> Any:
        """What may stand below `config:` in dagster.yaml."""
        return {
            "module": dg.Field(str, is_required=False, description=f"what runs are loaded from ({MODULE})"),
            "jobs": dg.Field([str], is_required=False, description=f"whose runs begin warm ({', '.join(JOBS)})"),
            "spares": dg.Field(int, is_required=False, description=f"processes that wait for a run ({SPARES})"),
        }

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData, config_value: Mapping[str, Any]) -> Self:
        """The launcher that dagster.yaml asks for."""
        jobs = tuple(config_value.get("jobs", JOBS))
        return cls(inst_data, config_value.get("module", MODULE), jobs, config_value.get("spares", SPARES))

    def keep_warm(self) -> None:
        """See that there is a nursery; for the one process that launches runs, the daemon. It does not wait for it."""
        if not SUPPORTED:
            return
        with self._starting:
            if self._nursery is not None and not self._nursery.alive:
                self._end()
                self._not_before = time.monotonic() + PAUSE
                log.warning("the process that keeps others ready for runs has ended; runs begin the usual way for now")
            if self._nursery is None and time.monotonic() >= self._not_before:
                self._nursery = self._another()

    def can_begin(self, run: dg.DagsterRun) -> bool:
        """Whether a run would begin at once in this process's nursery, as far as can be told without asking it."""
        return self._nursery is not None and self._nursery.ready and self._is_ours(run)

    def launch_run(self, context: LaunchRunContext) -> None:
        """Hand the run to a process that waits, or launch it the usual way."""
        if not self._begun(context.dagster_run):
            super().launch_run(context)

    def _begun(self, run: dg.DagsterRun) -> bool:
        """Whether the run has begun in a warm process. Raises where it may have, and nobody knows."""
        nursery = self._nursery
        if nursery is None or not nursery.ready or not self._is_ours(run):
            return False
        try:
            with nursery.reserved(run.run_id) as worker:
                self._instance.add_run_tags(run.run_id, {WORKER_TAG: worker.tag})
        except NotServed as reason:
            self._instance.report_engine_event(f"No warm process for this run ({reason}).", run, cls=type(self))
            self._replace(nursery)
            return False
        self._run_ids.add(run.run_id)
        return True

    def _is_ours(self, run: dg.DagsterRun) -> bool:
        origin = run.job_code_origin
        if origin is None or run.job_name not in self._jobs:
            return False
        pointer = origin.get_repo_pointer()
        return (
            origin.executable_path == sys.executable
            and isinstance(pointer, ModuleCodePointer)
            and pointer.module == self._module
            and pointer.working_directory in (None, str(Path.cwd()))
        )

    def terminate(self, run_id: str) -> bool:
        """Interrupt the run's process; the run becomes CANCELED as with any other launcher."""
        run = self._instance.get_run_by_id(run_id) if self.has_instance else None
        worker = Process.from_tag(run.tags.get(WORKER_TAG)) if run else None
        if run is None or run.is_finished or worker is None:
            return bool(super().terminate(run_id))  # type: ignore[no-untyped-call]
        self._instance.report_run_canceling(run)
        if worker.near:
            return worker.interrupt()
        said = "The process of this run is on another machine, or in another container: end it from there."
        self._instance.report_engine_event(said, run, cls=type(self))
        return False

    @property
    def supports_check_run_worker_health(self) -> bool:
        """Run monitoring may ask whether a run's process is there."""
        return SUPPORTED

    def check_run_worker_health(self, run: dg.DagsterRun) -> CheckRunHealthResult:
        """Whether the run's process is there. Of runs launched the usual way their own server tells, as usual."""
        worker = Process.from_tag(run.tags.get(WORKER_TAG))
        if worker is None or not worker.near or worker.alive:
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        return CheckRunHealthResult(WorkerStatus.FAILED, f"the process {worker.pid} has ended before its run")

    def dispose(self) -> None:
        """End what waits; runs that are under way are not touched."""
        with self._starting:
            if nursery := self._end():
                nursery.wait()
        super().dispose()

    def _replace(self, nursery: "Nursery") -> None:
        """Another nursery instead of one that does not serve: its code is not that on disk, or it does not answer."""
        with self._starting:
            if self._nursery is nursery:
                self._end()
                self._nursery = self._another()

    def _another(self) -> "Nursery":
        ref = serialize_value(self._instance.get_ref())
        return Nursery.start(instance_ref=ref, module=self._module, job=self._jobs[0], spares=self._spares)

    def _end(self) -> "Nursery | None":
        nursery, self._nursery = self._nursery, None
        if nursery is not None:
            nursery.pipe.close()
        return nursery


@dataclass
class Nursery:
    """The process that keeps workers ready, as whoever started it sees it. Safe to share between threads."""

    process: subprocess.Popen[bytes]
    pipe: Connection
    _talking: Lock = field(default_factory=Lock)
    _ready: bool = False

    @classmethod
    def start(cls, **told: str | int) -> Self:
        """Start one, and tell it all it needs to know; it takes a second or two before it is ready."""
        ours, theirs = Pipe()
        command = [sys.executable, "-m", "crypto_ml.defs.warm.nursery", str(theirs.fileno())]
        # a thread of numpy's would be one more that a fork leaves behind
        environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
        process = subprocess.Popen(command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, env=environment)
        theirs.close()
        ours.send_bytes(json.dumps(told).encode())
        return cls(process, ours)

    @property
    def alive(self) -> bool:
        """Whether the process has not ended."""
        return self.process.poll() is None

    @property
    def ready(self) -> bool:
        """Whether everything is imported, so that a run may be handed over."""
        with self._talking, suppress(OSError, EOFError):  # it has ended, or is being ended
            if not self._ready and self.pipe.poll():
                self._ready = bool(self._heard().get("ready"))
            return self._ready and self.alive and not self.pipe.closed
        return False

    @contextmanager
    def reserved(self, run_id: str) -> Iterator[Process]:
        """A process that waits, of a nursery that is ready; at the end it begins with the run, unless something was
        raised in between.

        Raises NotServed before anything has begun, and ConnectionError where nobody knows whether it has.
        """
        with self._talking:
            try:
                answer = self._ask(reserve=run_id)
            except (OSError, EOFError) as error:
                raise NotServed("the process that keeps them does not answer") from error
            if "worker" not in answer:
                raise NotServed("the code has changed since they were started")
            worker = Process.from_tag(answer["worker"])
            assert worker is not None  # noqa: S101 - it is there
            try:
                yield worker
            except BaseException:
                self.pipe.send_bytes(json.dumps({"release": run_id}).encode())
                raise
            if not self._ask(begin=run_id).get("begun"):
                raise ConnectionError(f"the process {worker.pid} that was to begin the run {run_id} has ended")

    def wait(self) -> None:
        """Return once it has ended, or after a while: without its pipe it ends when its runs have."""
        try:
            self.process.wait(LONGEST_END)
        except subprocess.TimeoutExpired:
            log.info("the process %d ends once its runs have", self.process.pid)

    def _ask(self, **what: str) -> dict[str, Any]:
        self.pipe.send_bytes(json.dumps(what).encode())
        if not self.pipe.poll(LONGEST_WORD):
            raise ConnectionError("no answer")
        return self._heard()

    def _heard(self) -> dict[str, Any]:
        heard: dict[str, Any] = json.loads(self.pipe.recv_bytes())
        return heard
