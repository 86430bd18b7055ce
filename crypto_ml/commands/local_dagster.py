"""A Dagster of its own on this machine: started, watched until its sensor ticks, and stopped with all it started."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from crypto_ml.errors import Unavailable

MARK: Final = "CRYPTO_ML_DEMO_ID"
"""Every process of one Dagster carries this variable, by which none of them is overlooked at the end."""

LONGEST_START: Final = 120.0
LONGEST_STOP: Final = 20.0
LOG_LINES: Final = 15

FIRST_LOOK: Final = "Checking for new runs for sensor: uploads_sensor"
"""What the sensor daemon logs at each tick; a log begins with each start, where ticks of earlier starts are kept."""


class DagsterNotStarted(Unavailable):
    """Dagster did not come up; the text ends with the last lines of its log."""


class LocalDagster:
    """`dagster dev` for crypto_ml, with its instance and log under `directory`.

    environment: what the processes get beside this one's own (where S3 is, say). instance: the dagster.yaml to use.
    """

    def __init__(
        self, directory: Path, environment: Mapping[str, str], instance: Path, port: int | None = None
    ) -> None:
        self.directory = directory.absolute()
        self.log = self.directory / "dagster.log"
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

    def __enter__(self) -> Self:
        self.home.mkdir(parents=True, exist_ok=True)
        (self.home / "dagster.yaml").write_bytes(self._instance.read_bytes())
        command = [sys.executable, "-m", "dagster", "dev", "-m", "crypto_ml.definitions", "-p", str(self.port)]
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [*command, "-h", "127.0.0.1"],
                cwd=self.home,  # what dagster.yaml names is seen from here, as in the repository
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
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
        request = urllib.request.Request(  # noqa: S310 - our own address
            f"{self.url}/graphql",
            json.dumps({"query": "{ version }"}).encode(),
            {"Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:  # noqa: S310
                data: Any = json.load(answer)
        except (urllib.error.URLError, OSError, ValueError):
            return False
        return "data" in data and FIRST_LOOK in self.log.read_text(errors="replace")


def free_port(wanted: int | None = None) -> int:
    """`wanted` where nothing listens there, else a port that the operating system chooses."""
    for port in filter(None, (wanted,)):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return port
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _inherited() -> dict[str, str]:
    """This process's environment without what would slow the children down, or lead them to another store."""
    return {
        name: value
        for name, value in os.environ.items()
        if name not in {"PYTHONDONTWRITEBYTECODE", "DAGSTER_HOME"}
        and (not name.startswith("AWS_") or name == "AWS_CA_BUNDLE")
    }
