"""Commands of crypto-ml that go on running, started by another one of its commands and stopped with it."""

import contextlib
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from crypto_ml.endings import held_back
from crypto_ml.errors import Unavailable

LONGEST_START: Final = 60.0
LONGEST_STOP: Final = 20.0
LOG_LINES: Final = 15
HOST: Final = "127.0.0.1"
COMMAND: Final = "from crypto_ml.cli import main; main()"


class CompanionNotStarted(Unavailable):
    """It did not come up; the text ends with the last lines of its log."""


class Companion:
    """`crypto-ml <words> --port <port>` beside this process, with its log in `directory`.

    environment: what it gets beside this one's own. answers: the path that answers once it is up.
    """

    def __init__(
        self, words: Sequence[str], port: int, directory: Path, environment: Mapping[str, str], answers: str
    ) -> None:
        self.url = f"http://{HOST}:{port}"
        self.log = directory / f"{words[0]}.log"
        self._command = [sys.executable, "-c", COMMAND, *words, "--port", str(port)]
        self._environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        self._environment |= environment
        self._answers = answers
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        try:
            with self.log.open("wb") as log, held_back():
                self._process = subprocess.Popen(
                    self._command,
                    env=self._environment,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
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

    def wait_until_up(self) -> None:
        """Return once it answers. Raises CompanionNotStarted."""
        deadline = time.monotonic() + LONGEST_START
        while self._process is not None and self._process.poll() is None and time.monotonic() < deadline:
            try:
                with urllib.request.urlopen(self.url + self._answers, timeout=5):  # noqa: S310 - our own address
                    return
            except (urllib.error.URLError, OSError):
                time.sleep(0.1)
        tail = "\n".join(self.log.read_text(errors="replace").splitlines()[-LOG_LINES:])
        raise CompanionNotStarted(f"{self.url} does not answer; the end of {self.log} stands above\n{tail}")

    def stop(self) -> None:
        """End it as Ctrl-C would, so that it finishes what it has begun; and what is left of it after a while."""
        process, self._process = self._process, None
        if process is None:
            return
        self._signal(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(LONGEST_STOP)
        self._signal(process.pid, signal.SIGKILL)
        process.wait()

    @staticmethod
    def _signal(group: int, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, number)
