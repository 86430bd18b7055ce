"""A Dagster of its own on this machine: started, watched until its sensor ticks, and stopped with all it started."""

import contextlib
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Collection, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from crypto_ml.endings import held_back
from crypto_ml.errors import Refused, Unavailable

MARK: Final = "CRYPTO_ML_DEMO_ID"
"""Every process of one Dagster carries this variable, by which none of them is overlooked at the end."""

MODULE: Final = "crypto_ml.definitions"
"""What Dagster loads, and so the name of the code location, by which a daemon knows the runs it is to launch."""

SUPERSEDED: Final = "Function `dev_command` is superseded"
"""What `dagster dev` warns of: that `dg dev` is preferred, which nobody who reads it here can do anything about."""

SCORING: Final = """{ runsOrError(filter: {pipelineName: "score_uploads", statuses: [QUEUED, NOT_STARTED, STARTING,
STARTED]}) { ... on Runs { results { id } } } }"""

PORTS: Final = "ports.json"
LONGEST_START: Final = 120.0
LONGEST_STOP: Final = 20.0
LOG_LINES: Final = 15

FIRST_LOOK: Final = "Checking for new runs for sensor: uploads_sensor"
"""What the sensor daemon logs at each tick; a log begins with each start, where ticks of earlier starts are kept."""


class DagsterNotStarted(Unavailable):
    """Dagster did not come up; the text ends with the last lines of its log."""


class PortTaken(Refused):
    """The port that was asked for is somebody else's."""


class LocalDagster:
    """`dagster dev` for crypto_ml, with its instance and log under `directory`.

    environment: what the processes get beside this one's own (where S3 is, say). instance: the dagster.yaml to use,
    which names no folder, so that all that Dagster writes is in its home. aloud: it logs to where this process does.
    module: what it loads.
    """

    def __init__(
        self,
        directory: Path,
        environment: Mapping[str, str],
        instance: Path,
        port: int | None = None,
        *,
        aloud: bool = False,
        module: str = MODULE,
    ) -> None:
        self.directory = directory.absolute()
        self.log = self.directory / "dagster.log"
        self._aloud = aloud
        self._module = module
        self.home = self.directory / "dagster_home"
        self.port = port
        self._instance = instance
        self._mark = uuid.uuid4().hex
        self._environment = {**_inherited(), **environment, "DAGSTER_HOME": str(self.home), MARK: self._mark}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where the UI is."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def variables(self) -> dict[str, str]:
        """What leads `dagster` and `dg` to this instance and its code, from any folder."""
        return {"DAGSTER_MODULE_NAME": self._module, "DAGSTER_HOME": str(self.home)}

    def __enter__(self) -> Self:
        self.home.mkdir(parents=True, exist_ok=True)
        (self.home / "dagster.yaml").write_bytes(self._instance.read_bytes())
        quiet = ["-W", f"ignore:{SUPERSEDED}"]
        command = [sys.executable, *quiet, "-m", "dagster", "dev", "-m", self._module, "-p", str(self.port)]
        try:
            with contextlib.nullcontext(None) if self._aloud else self.log.open("wb") as log, held_back():
                self._process = subprocess.Popen(
                    [*command, "-h", "127.0.0.1"],
                    cwd=self.home,  # where Dagster makes what it makes where it stands
                    env=self._environment,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=None if self._aloud else subprocess.STDOUT,
                    start_new_session=True,
                )
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def wait_until_watching(self) -> None:
        """Return once the sensor has looked for uploads. Raises DagsterNotStarted."""
        deadline = time.monotonic() + LONGEST_START
        while not self._ticked():
            if self._process is None or self._process.poll() is not None or time.monotonic() > deadline:
                raise DagsterNotStarted(f"Dagster did not start; the end of {self.log} stands above\n{self.log_tail()}")
            time.sleep(0.3)

    def wait_until_scored(self) -> None:
        """Return once no scoring run is under way, or after a while: one that is ended on its way stays red."""
        deadline = time.monotonic() + LONGEST_STOP
        while time.monotonic() < deadline and (self._asked(SCORING) or {}).get("runsOrError", {}).get("results"):
            time.sleep(0.3)

    def wait(self) -> int:
        """Return when it has ended by itself, with its exit code."""
        assert self._process is not None  # noqa: S101 - it was entered
        return self._process.wait()

    def log_tail(self) -> str:
        """The last lines of the log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-LOG_LINES:]) if self.log.exists() else ""

    def stop(self) -> None:
        """Stop Dagster as Ctrl-C would, and end whatever of it is left after a while."""
        process, self._process = self._process, None
        deadline = time.monotonic() + LONGEST_STOP
        if process is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS: where all of it has ended already
                os.killpg(process.pid, signal.SIGINT)
            while time.monotonic() < deadline and (process.poll() is None or self.left()):
                time.sleep(0.1)
        # also where starting was interrupted before the process was known; again, as they may still start others
        while left := self.left():
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.05)
        if process is not None:
            process.wait()

    def left(self) -> list[int]:
        """The processes of this Dagster that still run; found by their mark, so those of runs are among them."""
        import psutil

        found = []
        for process in psutil.process_iter():
            # one of somebody else does not show its environment, one that has just ended has none
            with contextlib.suppress(psutil.Error, OSError):
                if process.environ().get(MARK) == self._mark:
                    found.append(process.pid)
        return found

    def _ticked(self) -> bool:
        return bool(self._asked("{ version }")) and FIRST_LOOK in self.log.read_text(errors="replace")

    def _asked(self, query: str) -> dict[str, Any] | None:
        """What the webserver answers to a query; None where it does not."""
        request = urllib.request.Request(  # noqa: S310 - our own address
            f"{self.url}/graphql", json.dumps({"query": query}).encode(), {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:  # noqa: S310
                data: Any = json.load(answer)
        except (urllib.error.URLError, OSError, ValueError):
            return None
        return data.get("data") if isinstance(data, dict) else None


def free_port(wanted: int | None = None, taken: Collection[int] = ()) -> int:
    """`wanted` where nothing listens there and it is not taken, else a port that the operating system chooses."""
    for port in () if wanted is None or wanted in taken else (wanted,):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return port
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def kept_ports(directory: Path, usual: Mapping[str, int | None], wanted: int | None = None) -> dict[str, int]:
    """Ports by name: those used in `directory` before, else the usual ones, and others where something listens there.

    So a shell that was led to what ran in a folder is led to what runs there next. wanted: for the first of them, which
    is then that one or none. Raises PortTaken.
    """
    known = directory / PORTS
    try:
        before = {str(name): int(port) for name, port in json.loads(known.read_text()).items()}
    except (OSError, ValueError, AttributeError):
        before = {}
    ports: dict[str, int] = {}
    for name, port in usual.items():
        asked = None if ports else wanted
        ports[name] = free_port(asked or before.get(name, port), taken=ports.values())
        if asked and ports[name] != asked:
            raise PortTaken(f"something listens at port {asked} already: end it, or name another port, or none")
    known.write_text(json.dumps(ports))
    return ports


def aws_variables() -> dict[str, str]:
    """What leads the AWS SDK to a store in this environment, by name."""
    return {name: value for name, value in sorted(os.environ.items()) if name.startswith("AWS_")}


def chosen_settings() -> dict[str, str]:
    """The settings given in this environment, which decide where everything is, to be shown; empty ones count as not
    given, and one that holds secrets is left out."""
    from crypto_ml.settings import secret_variables

    unshown = {MARK, "CRYPTO_ML_SHARED", "CRYPTO_ML_DEBUG", *secret_variables()}
    return {
        name: value
        for name, value in os.environ.items()
        if name.startswith("CRYPTO_ML_") and value and name not in unshown
    }


def export_lines(variables: Mapping[str, str]) -> list[str]:
    """What to type in another shell to have these variables, and to find the commands of this environment."""
    lines = [f"export {name}={shlex.quote(value)}" for name, value in variables.items()]
    commands = Path(sys.executable).parent
    if Path(shutil.which("dagster") or "").parent != commands:
        lines.append(f'export PATH={shlex.quote(str(commands))}:"$PATH"')
    return lines


def _inherited() -> dict[str, str]:
    """This process's environment without what would slow the children down, or lead them to another store."""
    return {
        name: value
        for name, value in os.environ.items()
        if name not in {"PYTHONDONTWRITEBYTECODE", "DAGSTER_HOME", "DAGSTER_MODULE_NAME"}
        and (not name.startswith("AWS_") or name == "AWS_CA_BUNDLE")
    }
