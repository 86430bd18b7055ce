"""The usual servers, each installed where it needs to be, started, and stopped again.

MLflow and BentoML are no dependencies of this project: pip puts each into an environment of its own below
.crypto_ml/bench, once. Where that does not succeed, or a server does not answer, the benchmark says so and goes on.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from benchmarks.served.load import Request, send
from benchmarks.served.scoring import HISTORY, MODEL
from crypto_ml.commands.local_dagster import free_port

REPOSITORY: Final = Path(__file__).resolve().parents[2]
FOLDER: Final = REPOSITORY / ".crypto_ml" / "bench"
LONGEST_START: Final = 120.0
LONGEST_STOP: Final = 15.0
TIMES_READY: Final = 10
WORKERS: Final = 2
KERAS: Final = "keras in FastAPI"
QUIET: Final = {"MLFLOW_DISABLE_TELEMETRY": "true", "BENTOML_DO_NOT_TRACK": "true", "TF_CPP_MIN_LOG_LEVEL": "3"}

Records = Sequence[Mapping[str, Any]]


class NotServedError(Exception):
    """A server that cannot be measured here; the sentence says why."""


@dataclass(frozen=True)
class Kind:
    """How a server is started, and asked.

    command: of a port, which is free. ready: the path that answers 200 once requests are. ask: the request for some
    records. read: the records of an answer, each with symbol, date and pred_open.
    """

    name: str
    command: Callable[[int], Sequence[str]]
    environment: Mapping[str, str]
    ready: Request
    ask: Callable[[Records], Request]
    read: Callable[[Any], Records]


class Server:
    """A server of some kind as a process, with its log in `directory`; used as a context, in which it answers."""

    def __init__(self, kind: Kind, directory: Path) -> None:
        self.kind, self.port = kind, free_port()
        self.log = directory / f"{kind.name.replace(' ', '_')}.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Of the process that was started; its workers are below it."""
        assert self._process
        return self._process.pid

    def __enter__(self) -> Self:
        inherited = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        environment = {**inherited, **QUIET, "PYTHONPATH": str(REPOSITORY), **self.kind.environment}
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                self.kind.command(self.port),
                cwd=self.log.parent,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        deadline, times = time.monotonic() + LONGEST_START, 0
        while times < TIMES_READY:  # a worker that is not ready yet may take any of them
            ready = not send(self.port, [self.kind.ready] * TIMES_READY, concurrency=TIMES_READY).failed
            times = times + 1 if ready else 0
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                last = (self.log.read_text(errors="replace").strip().splitlines() or ["it said nothing"])[-1]
                raise NotServedError(f"{self.kind.name} does not start here: {last[:200]}")
            time.sleep(0.2)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Ask it to end, and after a while end what is left of it."""
        assert self._process
        for number, patience in ((signal.SIGTERM, LONGEST_STOP), (signal.SIGKILL, 5.0)):
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(patience)


def in_fastapi(network: str, model: Path, history: Path) -> Kind:
    """FastAPI with two workers of uvicorn; network: `keras` or `onnxruntime`."""
    app = "benchmarks.served.fastapi_app:app"
    return Kind(
        f"{network} in FastAPI",
        lambda port: [
            *(sys.executable, "-m", "uvicorn", app, "--port", str(port), "--workers", str(WORKERS)),
            *("--log-level", "warning"),
        ],
        {MODEL: str(model), HISTORY: str(history), "SERVED_BY": network},
        Request("GET", "/openapi.json"),
        lambda records: Request("POST", "/predict", _json(records)),
        lambda answer: answer,
    )


def in_mlflow(model: Path, history: Path) -> Kind:
    """MLflow's model server with a pyfunc model. Raises NotServedError where it cannot be installed."""
    python = installed("mlflow", "onnxruntime")
    environment = {MODEL: str(model), HISTORY: str(history)}
    folder = history.parent / "mlflow_model"
    saved = subprocess.run(
        [python, "-m", "benchmarks.served.mlflow_model", folder],
        env={**os.environ, **QUIET, **environment, "PYTHONPATH": str(REPOSITORY)},
        cwd=history.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    if saved.returncode:
        last = (saved.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise NotServedError(f"MLflow does not save the model here: {last[:200]}")
    mlflow = python.with_name("mlflow")
    return Kind(
        "MLflow",
        lambda port: [
            *(str(mlflow), "models", "serve", "-m", str(folder), "--env-manager", "local"),
            *("-p", str(port), "-w", str(WORKERS)),
        ],
        # it starts its workers by names that it looks up
        {"PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}"},
        Request("GET", "/ping"),
        lambda records: Request("POST", "/invocations", _json({"dataframe_records": records})),
        lambda answer: answer["predictions"],
    )


def in_bentoml(model: Path, history: Path) -> Kind:
    """BentoML's server. Raises NotServedError where it cannot be installed."""
    python = installed("bentoml", "onnxruntime", "pandas")
    return Kind(
        "BentoML",
        lambda port: [
            *(str(python.with_name("bentoml")), "serve", "benchmarks.served.bento_service:Ordinary"),
            *("--host", "127.0.0.1", "--port", str(port), "--working-dir", str(REPOSITORY)),
        ],
        {MODEL: str(model), HISTORY: str(history), "BENTOML_HOME": str(FOLDER / "bentoml")},
        Request("GET", "/readyz"),
        lambda records: Request("POST", "/predict", _json({"records": records})),
        lambda answer: answer,
    )


def installed(package: str, *others: str) -> Path:
    """The Python of an environment that has a server and what it needs to run the network. Raises NotServedError."""
    folder = FOLDER / f"served-{package}"
    python, complete = folder / "bin" / "python", folder / ".complete"
    if complete.exists():
        return python
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", package, *others]
    for command in ([sys.executable, "-m", "venv", "--clear", str(folder)], pip):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            said = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or [done.stderr.strip()]
            raise NotServedError(f"{package} does not install here: {said[-1][:200]}")
    complete.touch()
    return python


def version(package: str) -> str:
    """Which release of a server an environment has."""
    question = f"import importlib.metadata as found; print(found.version({package!r}))"
    python = FOLDER / f"served-{package}" / "bin" / "python"
    return subprocess.run([python, "-c", question], check=True, capture_output=True, text=True).stdout.strip()


def _json(content: Any) -> bytes:
    return json.dumps(content).encode()
