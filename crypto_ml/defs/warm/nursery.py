"""The process that keeps workers ready: it has everything imported, and each worker is a fork of it.

It stays without threads of its own making and opens nothing, neither store nor database, so that a fork of it is a
process as sound as a new one (the allocator of Arrow keeps a thread, and sees to itself in a fork).
A worker opens what a run needs while nobody waits for it, and does one run: what a run leaves behind ends with it.

It is told what to do on a pipe by the process that started it, the daemon. When that ends, for whatever reason, so do
the workers that wait, and it ends itself once the runs have ended that are under way, as Dagster's own server does.
"""

import gc
import json
import logging
import os
import signal
import sys
import time
from dataclasses import dataclass, field
from importlib import import_module
from multiprocessing.connection import Connection, Pipe, wait
from typing import Any, Final, NoReturn

from crypto_ml.defs.warm.identity import Process
from crypto_ml.defs.warm.loaded_code import Stamp, stamp

LONGEST_IDLE: Final = 600.0
"""Seconds after which a worker that waits is replaced: what it opened is not older than that."""

PAUSE_AFTER_DEATH: Final = 5.0
"""Seconds before another is made where one ended before it was ready: whatever it is, it may happen again."""

PRELOADED: Final = (
    "dagster._core.execution.api",
    "dagster._grpc.impl",
    "numpy",
    "pandas",
    "pyarrow.compute",
    "pyarrow.csv",
    "pyarrow.dataset",
    "pyarrow.parquet",
    "duckdb",
    "boto3",
    "botocore.client",
    "crypto_ml.definitions",
    "crypto_ml.stages.road",
    "crypto_ml.defs.warm.worker",
)
log: Final = logging.getLogger(__name__)


@dataclass
class _Worker:
    """A fork: its end of the pipe, and the run that it is kept for, or has."""

    pid: int
    pipe: Connection
    born: float
    ready: bool = False
    run_id: str | None = None
    begun: bool = False
    done: bool = False


@dataclass
class Nursery:
    """Workers that wait, and those that run. parent: the daemon; None once it is gone. spares: how many should wait."""

    parent: Connection | None
    instance_ref: str
    module: str
    spares: int
    code: Stamp
    _workers: dict[int, _Worker] = field(default_factory=dict)
    _not_before: float = 0.0

    def keep(self) -> None:
        """Do what is asked for until there is nobody left to ask, nor anything under way."""
        self._say(ready=True)
        while self.parent is not None or self._running:
            self._refill()
            for pipe in wait(self._pipes(), timeout=self._patience()):
                if pipe is self.parent:
                    self._listen()
                elif worker := next((one for one in self._workers.values() if one.pipe is pipe), None):
                    self._hear(worker)

    @property
    def _running(self) -> list[_Worker]:
        return [worker for worker in self._workers.values() if worker.run_id]

    @property
    def _waiting(self) -> list[_Worker]:
        return [worker for worker in self._workers.values() if not worker.run_id]

    def _pipes(self) -> list[Connection]:
        return [*([self.parent] if self.parent else []), *(worker.pipe for worker in self._workers.values())]

    @property
    def _opening(self) -> bool:
        return any(not worker.ready for worker in self._waiting)

    @property
    def _wanted(self) -> int:
        """How many should wait: beside a run one, and none beside as many as would wait otherwise, as to make one takes
        a core for a second."""
        return int(len(self._running) < self.spares) if self._running else self.spares

    def _patience(self) -> float | None:
        """Seconds until something is to be done though nobody says anything; None where nothing is."""
        if self.parent is None or self._opening:
            return None
        now = time.monotonic()
        if len(self._waiting) < self._wanted:
            return max(0.0, self._not_before - now)
        if self._running or not self._waiting:
            return None
        return max(0.0, min(worker.born for worker in self._waiting) + LONGEST_IDLE - now)

    def _refill(self) -> None:
        """Fork what is missing, one after the other, and replace who has waited for too long."""
        if self.parent is None or self._opening:
            return
        now = time.monotonic()
        if not self._running and self._waiting:
            oldest = min(self._waiting, key=lambda one: one.born)
            if oldest.born + LONGEST_IDLE <= now:
                self._dismiss(oldest)
        if len(self._waiting) < self._wanted and now >= self._not_before:
            self._fork()

    def _fork(self) -> _Worker:
        ours, theirs = Pipe()
        pid = os.fork()
        if pid == 0:
            # what keeps the others' pipes open would keep them from seeing that this process has ended
            for pipe in [ours, *self._pipes()]:
                pipe.close()
            _become_worker(theirs, self.instance_ref, self.module)
        theirs.close()
        worker = self._workers[pid] = _Worker(pid, ours, time.monotonic())
        return worker

    def _listen(self) -> None:
        assert self.parent is not None  # noqa: S101 - it has just said something
        try:
            asked: dict[str, Any] = json.loads(self.parent.recv_bytes())
        except (EOFError, OSError):
            self._orphaned()
            return
        match asked:
            case {"reserve": str(run_id)}:
                if stamp(self.module) != self.code:
                    self._say(changed=True)
                    return
                # who opened last knows most of what came last
                chosen = max(self._waiting, key=lambda one: (one.ready, one.born), default=None) or self._fork()
                chosen.run_id = run_id
                self._say(worker=Process.of(chosen.pid).tag)
            case {"begin": str(run_id)}:
                found = next((one for one in self._running if one.run_id == run_id), None)
                if found is not None:
                    found.begun = True
                    _tell(found.pipe, run=run_id)
                self._say(begun=found is not None)
            case {"release": str(run_id)}:
                for worker in self._running:
                    if worker.run_id == run_id and not worker.begun:
                        self._dismiss(worker)

    def _hear(self, worker: _Worker) -> None:
        try:
            said = json.loads(worker.pipe.recv_bytes())
        except (EOFError, OSError):
            self._reap(worker)
            return
        worker.ready = worker.ready or bool(said.get("ready"))
        worker.done = worker.done or bool(said.get("done"))

    def _reap(self, worker: _Worker) -> None:
        """One has ended. Where its run has not, the run has failed, and nobody but this process knows it already."""
        _, status = os.waitpid(worker.pid, 0)
        del self._workers[worker.pid]
        worker.pipe.close()
        if worker.begun and not worker.done:
            self._in_a_fork(worker, os.waitstatus_to_exitcode(status))
        elif not worker.ready and not worker.done:
            self._not_before = time.monotonic() + PAUSE_AFTER_DEATH

    def _in_a_fork(self, worker: _Worker, exit_code: int) -> None:
        """Report the failure where a database may be opened."""
        pid = os.fork()
        if pid == 0:
            for pipe in self._pipes():
                pipe.close()
            _become_reporter(self.instance_ref, str(worker.run_id), exit_code)
        os.waitpid(pid, 0)

    def _dismiss(self, worker: _Worker) -> None:
        os.kill(worker.pid, signal.SIGKILL)
        self._reap(worker)

    def _orphaned(self) -> None:
        assert self.parent is not None  # noqa: S101 - it has just ended
        self.parent.close()
        self.parent = None
        for worker in [one for one in self._workers.values() if not one.begun]:
            self._dismiss(worker)

    def _say(self, **what: Any) -> None:
        if self.parent is not None:
            try:
                _tell(self.parent, **what)
            except OSError:
                self._orphaned()


def _tell(pipe: Connection, **what: Any) -> None:
    pipe.send_bytes(json.dumps(what).encode())


def _become_worker(pipe: Connection, instance_ref: str, module: str) -> NoReturn:
    from crypto_ml.defs.warm.worker import work

    code = 1
    try:
        work(pipe, instance_ref, module)
        code = 0
    finally:
        _leave(code)


def _become_reporter(instance_ref: str, run_id: str, exit_code: int) -> NoReturn:
    from crypto_ml.defs.warm.worker import report_crash

    code = 1
    try:
        report_crash(instance_ref, run_id, exit_code)
        code = 0
    finally:
        _leave(code)


def _leave(code: int) -> NoReturn:
    """End a fork here: what the process it was forked from would do at its end is not its business."""
    if error := sys.exc_info()[1]:
        log.error("a process for runs ended: %s", error, exc_info=error)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _preload() -> None:
    """Import what runs need; what cannot be imported is said, and left to the run that misses it."""
    for name in PRELOADED:
        try:
            import_module(name)
        except ImportError as error:
            log.warning("%s cannot be imported: %s", name, error)


def main() -> None:
    """What the launcher starts: the number of the pipe is given, all else is said on it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the daemon, and this process after it
    parent = Connection(int(sys.argv[1]))
    told = json.loads(parent.recv_bytes())
    os.environ.pop("OPENBLAS_NUM_THREADS", None)  # it has been read; what a run starts has its own
    code = stamp(told["module"])
    _preload()
    from crypto_ml.defs.warm.worker import load

    load(told["instance_ref"], told["module"], told["job"])
    gc.collect()
    gc.freeze()  # what is there now is never garbage; a fork that looked for some would copy all of it
    Nursery(parent, told["instance_ref"], told["module"], told["spares"], code).keep()


if __name__ == "__main__":
    main()
