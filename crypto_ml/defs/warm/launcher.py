"""The run launcher that dagster.yaml names: runs that score begin in a process that is ready, heavy ones where another
launcher puts them, all others the usual way."""

import json
import logging
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from threading import Lock
from typing import Any, Final, Self

import dagster as dg

from crypto_ml.defs.heavy import is_heavy
from crypto_ml.defs.warm.dagster_launching import (
    HIDDEN_TAG_PREFIX,
    CheckRunHealthResult,
    ConfigurableClassData,
    DefaultRunLauncher,
    LaunchRunContext,
    ModuleCodePointer,
    ResumeRunContext,
    RunLauncher,
    WorkerStatus,
    serialize_value,
)
from crypto_ml.defs.warm.identity import SUPPORTED, WORKER_TAG, Process
from crypto_ml.defs.warm.records import write_at_once

MODULE: Final = "crypto_ml.definitions"
JOBS: Final = ("score_uploads", "daily_forecast")
SPARES: Final = 2
"""As many as score at once (`tag_concurrency_limits` in dagster.yaml)."""

LONGEST_WORD: Final = 10.0
"""Seconds to wait for an answer of the nursery; it has nothing to do that takes longer than a fork."""

LAUNCHED_BY: Final = f"{HIDDEN_TAG_PREFIX}crypto_ml/launched_by"
"""The tag of a run that another launcher than this one has launched: the name of its class."""

LEFT_TO_DAEMON: Final = f"{HIDDEN_TAG_PREFIX}crypto_ml/left_to_daemon"
"""The tag of a run that somebody cancelled who could not end it: a webserver may have no way to where runs are. It has
the run's own id, as one that is tried again has the tags of the one before."""

LONGEST_END: Final = 2
"""Seconds for which runs that are under way are waited for when the daemon ends; they end by themselves all the same
where nothing else ends them, as the stop of a container does."""

PAUSE: Final = 30.0
"""Seconds before another nursery is started where one has ended by itself."""

log: Final = logging.getLogger(__name__)


class NotServed(Exception):  # noqa: N818 - it is no failure
    """The nursery takes no runs any more; this one is launched the usual way."""


class WarmRunLauncher(DefaultRunLauncher):
    """Dagster's own launcher, but runs of some jobs begin in processes that have everything imported and opened, and
    heavy ones are handed to another launcher, where dagster.yaml names one.

    What is neither is launched the usual way: another job, another code location or Python, code that has changed
    since, a process that launches runs while it has no nursery (a webserver, a command), another system than Linux.
    Each run has a process of its own, as usual; it is cancelled and watched by that process's number, which a hidden
    tag of the run names. Where the other launcher has launched a run, another tag says so, and that one is asked.
    """

    def __init__(
        self,
        inst_data: ConfigurableClassData | None = None,
        module: str = MODULE,
        jobs: tuple[str, ...] = JOBS,
        spares: int = SPARES,
        *,
        heavy: RunLauncher[Any] | None = None,
        machine: str = "",
        patience: int = LONGEST_END,
    ) -> None:
        super().__init__(inst_data)
        self._module, self._jobs, self._spares = module, jobs, spares
        self._heavy, self._machine, self._patience = heavy, machine or socket.gethostname(), patience
        self._nursery: Nursery | None = None
        self._starting = Lock()
        self._not_before = 0.0
        self._interrupted: set[str] = set()

    @classmethod
    def config_type(cls) -> Any:
        """What may stand below `config:` in dagster.yaml."""
        another = {"module": str, "class": str, "config": dg.Field(dict, is_required=False)}
        return {
            "module": dg.Field(str, is_required=False, description=f"what runs are loaded from ({MODULE})"),
            "jobs": dg.Field([str], is_required=False, description=f"whose runs begin warm ({', '.join(JOBS)})"),
            "spares": dg.Field(int, is_required=False, description=f"processes that wait for a run ({SPARES})"),
            "heavy": dg.Field(another, is_required=False, description="the launcher of heavy runs (none)"),
            "machine": dg.Field(
                dg.StringSource,
                is_required=False,
                description="what the machine is called that the daemon is on, where each start of it has another name "
                "(the host name)",
            ),
            "patience": dg.Field(
                int, is_required=False, description=f"seconds for runs under way when the daemon ends ({LONGEST_END})"
            ),
        }

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData, config_value: Mapping[str, Any]) -> Self:
        """The launcher that dagster.yaml asks for."""
        given = dict(config_value)
        jobs = tuple(given.pop("jobs", JOBS))
        asked = given.pop("heavy", None)
        heavy = None
        if asked is not None:
            # JSON is YAML, too
            data = ConfigurableClassData(asked["module"], asked["class"], json.dumps(asked.get("config", {})))
            heavy = data.rehydrate(as_type=RunLauncher)  # type: ignore[type-abstract]
        return cls(inst_data, jobs=jobs, heavy=heavy, **given)

    def register_instance(self, instance: dg.DagsterInstance) -> None:
        """Know the instance, here and in the launcher of heavy runs."""
        super().register_instance(instance)
        if self._heavy is not None:
            self._heavy.register_instance(instance)

    def keep_warm(self) -> None:
        """See that there is a nursery; for the one process that launches runs, the daemon. It does not wait for it."""
        if not SUPPORTED:
            return
        write_at_once()
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
        """Hand the run to the launcher of heavy ones, or to a process that waits, or launch it the usual way."""
        run = context.dagster_run
        if self._heavy is not None and is_heavy(run):
            self._instance.add_run_tags(run.run_id, {LAUNCHED_BY: type(self._heavy).__name__})
            self._heavy.launch_run(context)
            return
        # a run that is tried again has the tags of the one before
        if LAUNCHED_BY in run.tags:
            self._instance.add_run_tags(run.run_id, {LAUNCHED_BY: ""})
        if not self._begun(run):
            if WORKER_TAG in run.tags:
                self._instance.add_run_tags(run.run_id, {WORKER_TAG: ""})
            super().launch_run(context)

    def end_cancelled(self) -> None:
        """End runs that were cancelled by who could not end them; for the daemon. What fails is tried again."""
        # one that was cancelled before it had begun has forgotten it by then
        under_way = [dg.DagsterRunStatus.CANCELING, dg.DagsterRunStatus.STARTED]
        found = self._instance.get_runs(dg.RunsFilter(statuses=under_way))
        cancelling = [run for run in found if run.tags.get(LEFT_TO_DAEMON) == run.run_id]
        for run in cancelling:
            # once: interrupted again, it might not come to its end
            if run.run_id in self._interrupted:
                continue
            try:
                other = self._other(run)
                worker = None if other else Process.from_tag(run.tags.get(WORKER_TAG))
                if other.terminate(run.run_id) if other else worker is not None and worker.interrupt():
                    self._interrupted.add(run.run_id)
            except Exception as error:  # noqa: BLE001 - whatever a launcher raises, the daemon has other runs
                log.warning("the cancelled run %s cannot be ended now: %s", run.run_id, error)
        self._interrupted &= {run.run_id for run in cancelling}

    def _launched_by(self, run: dg.DagsterRun) -> str | None:
        """The name of the other launcher that has launched a run; None where this one has."""
        return run.tags.get(LAUNCHED_BY) or None

    def _other(self, run: dg.DagsterRun) -> RunLauncher[Any] | None:
        """The launcher that has launched a run, where it is not this one. Raises LookupError where it is not known."""
        name = self._launched_by(run)
        if name is None:
            return None
        if self._heavy is None or type(self._heavy).__name__ != name:
            raise LookupError(
                f"the run was launched by {name}, which dagster.yaml does not name below `heavy:` any more"
            )
        return self._heavy

    def _begun(self, run: dg.DagsterRun) -> bool:
        """Whether the run has begun in a warm process. Raises where it may have, and nobody knows."""
        nursery = self._nursery
        if nursery is None or not nursery.ready or not self._is_ours(run):
            return False
        try:
            with nursery.reserved(run.run_id) as worker:
                self._instance.add_run_tags(run.run_id, {WORKER_TAG: replace(worker, machine=self._machine).tag})
        except NotServed as reason:
            self._instance.report_engine_event(f"No warm process for this run ({reason}).", run, cls=type(self))
            self._replace(nursery)
            return False
        self._run_ids.add(run.run_id)
        return True

    def _is_ours(self, run: dg.DagsterRun) -> bool:
        origin = run.job_code_origin
        if origin is None or run.job_name not in self._jobs or (self._heavy is not None and is_heavy(run)):
            return False
        pointer = origin.get_repo_pointer()
        return (
            origin.executable_path == sys.executable
            and isinstance(pointer, ModuleCodePointer)
            and pointer.module == self._module
            and pointer.working_directory in (None, str(Path.cwd()))
        )

    def terminate(self, run_id: str) -> bool:
        """Interrupt the run's process; the run becomes CANCELED as with any other launcher.

        Where whoever asks has no way to it (it is in another container, or with a launcher that needs a permission),
        the daemon ends it, at its next look.
        """
        run = self._instance.get_run_by_id(run_id) if self.has_instance else None
        if run is not None and not run.is_finished:
            try:
                other = self._other(run)
            except LookupError as reason:
                self._instance.report_engine_event(f"It cannot be ended from here: {reason}.", run, cls=type(self))
                return False
            if other is not None:
                try:
                    return other.terminate(run_id)
                except Exception as error:  # noqa: BLE001 - no socket, no permission: each launcher has its own words
                    log.info("the run %s is left to the daemon: %s", run_id, error)
                    return self._leave(run)
        worker = Process.from_tag(run.tags.get(WORKER_TAG)) if run else None
        if run is None or run.is_finished or worker is None:
            return bool(super().terminate(run_id))  # type: ignore[no-untyped-call]
        self._instance.report_run_canceling(run)
        if worker.counted_here:
            return worker.interrupt()
        return self._leave(run)

    def _leave(self, run: dg.DagsterRun) -> bool:
        """Leave it to the daemon to end a run that is being cancelled."""
        self._instance.add_run_tags(run.run_id, {LEFT_TO_DAEMON: run.run_id})
        self._instance.report_engine_event("It cannot be ended from here: the daemon does.", run, cls=type(self))
        return True

    @property
    def supports_check_run_worker_health(self) -> bool:
        """Run monitoring may ask whether a run's process is there."""
        return SUPPORTED or (self._heavy is not None and self._heavy.supports_check_run_worker_health)

    def check_run_worker_health(self, run: dg.DagsterRun) -> CheckRunHealthResult:
        """Whether the run's process is there. Of runs launched the usual way their own server tells, as usual."""
        try:
            other = self._other(run)
        except LookupError as reason:
            return CheckRunHealthResult(WorkerStatus.RUNNING, f"nobody knows: {reason}")
        if other is not None:
            known = other.supports_check_run_worker_health
            return other.check_run_worker_health(run) if known else CheckRunHealthResult(WorkerStatus.RUNNING)
        worker = Process.from_tag(run.tags.get(WORKER_TAG))
        if worker is None or worker.alive or worker.machine != self._machine:
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        return CheckRunHealthResult(WorkerStatus.FAILED, f"the process {worker.pid} has ended before its run")

    @property
    def supports_resume_run(self) -> bool:
        """Whether heavy runs can be resumed; one in a process of ours cannot, and fails as it would without."""
        return self._heavy is not None and self._heavy.supports_resume_run

    def resume_run(self, context: ResumeRunContext) -> None:
        """Resume a run that the launcher of heavy ones has launched. Raises NotImplementedError, LookupError."""
        if other := self._other(context.dagster_run):
            other.resume_run(context)
        else:
            super().resume_run(context)

    def get_run_worker_debug_info(self, run: dg.DagsterRun, include_container_logs: bool | None = True) -> str | None:
        """What the run's launcher knows of where it is, or was."""
        try:
            other = self._other(run)
        except LookupError as reason:
            return str(reason)
        if other is not None:
            return other.get_run_worker_debug_info(run, include_container_logs)
        return super().get_run_worker_debug_info(run, include_container_logs)

    def dispose(self) -> None:
        """End what waits; runs that are under way are not touched."""
        with self._starting:
            if nursery := self._end():
                nursery.wait(self._patience)
        if self._heavy is not None:
            self._heavy.dispose()
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

    def wait(self, seconds: int) -> None:
        """Return once it has ended, or after so many seconds: without its pipe it ends when its runs have."""
        try:
            self.process.wait(seconds)
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
