"""An S3 server on this machine's loopback, to try things out with and for the tests; not a place to keep data.

What belongs here: starting and stopping `ministack` as a child process. It checks no secret and loses acknowledged
writes on a full disk. Nothing else in the product knows that it exists: who uses it passes `environment` on.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from botocore.exceptions import ClientError

from crypto_ml.endings import held_back
from crypto_ml.errors import Refused, Unavailable
from crypto_ml.extras import require_demo
from crypto_ml.storage.failures import code_of, named_failures

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

LOOPBACK: Final = "127.0.0.1"

AS_S3: Final = (
    "--no-server-header",
    "--no-date-header",
    "--timeout-keep-alive=75",
    "--no-access-log",
    "--log-level=warning",
)
"""Headers and patience of the server that ministack starts by itself, whose protocol in Python takes half as much again
of the processor for a request."""

LONGEST_START: Final = 60.0
"""Seconds the server may take to answer; half a second is usual."""
LONGEST_STOP: Final = 10.0
"""Seconds between asking the server to stop and stopping it."""

NOBODY_THERE: Final = (ProcessLookupError, PermissionError)
"""What a signal to a process group meets where none of it runs: macOS refuses where only ended ones are left."""


class EmbeddedS3NotStarted(Unavailable):
    """The embedded S3 server is not running; the text ends with the last lines of its log."""


class PortTaken(Refused):
    """Something else listens on the port that was asked for."""


class EmbeddedS3:
    """A `ministack` process that serves S3 alone, with its objects, state and log under `directory`.

    Without `port` the operating system chooses a free one at every start. Objects outlive a stop.
    """

    def __init__(self, directory: Path, port: int | None = None) -> None:
        self.directory = directory.absolute()
        self.log = self.directory / "s3.log"
        self._fixed_port = port
        self._port: int | None = None
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> str:
        """`http://127.0.0.1:port` of the running server."""
        if self._port is None:
            raise EmbeddedS3NotStarted("The embedded S3 server has no address yet: start it first.")
        return f"http://{LOOPBACK}:{self._port}"

    @property
    def environment(self) -> dict[str, str]:
        """The AWS SDK's variables that lead to this server."""
        return {
            "AWS_ENDPOINT_URL_S3": self.endpoint,
            "AWS_ACCESS_KEY_ID": "embedded",
            "AWS_SECRET_ACCESS_KEY": "embedded",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    @property
    def pid(self) -> int | None:
        """Process id, which is its process group's too; None when not running."""
        return self._process.pid if self._process and self._process.poll() is None else None

    def start(self) -> Self:
        """Start the server and return when it answers. Raises: NotInstalled, PortTaken, EmbeddedS3NotStarted."""
        if self.pid is not None:
            return self
        require_demo("The embedded S3 server")
        for folder in ("objects", "state", "tmp"):
            (self.directory / folder).mkdir(parents=True, exist_ok=True)
        self._port = self._fixed_port or _free_port()
        if self._fixed_port and _listening(self._fixed_port):
            raise PortTaken(
                f"Port {self._fixed_port} on {LOOPBACK} is in use: stop what listens there, or name another."
            )
        where = ("--host", LOOPBACK, "--port", str(self._port))
        try:
            with self.log.open("ab") as log, held_back():
                self._process = subprocess.Popen(
                    [sys.executable, "-m", "uvicorn", "ministack.app:app", *where, *AS_S3],
                    env=self._server_environment(),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    cwd=self.directory,
                    start_new_session=True,
                )
            self._wait()
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """Stop the server and whatever it started; returns when no process of its group is left."""
        if self._process is None:
            return
        process, self._process = self._process, None
        deadline = time.monotonic() + LONGEST_STOP
        _signal_group(process.pid, signal.SIGTERM)
        while time.monotonic() < deadline and (process.poll() is None or _group_exists(process.pid)):
            time.sleep(0.02)
        _signal_group(process.pid, signal.SIGKILL)
        process.wait()
        while _group_exists(process.pid):
            time.sleep(0.02)

    def kill(self) -> None:
        """End the server at once, as a crash would."""
        if self._process is not None:
            _signal_group(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _server_environment(self) -> dict[str, str]:
        inherited = {
            name: value
            for name, value in os.environ.items()
            # byte code makes the start three times faster; an AWS variable could send the server's own calls elsewhere
            if name != "PYTHONDONTWRITEBYTECODE" and not name.startswith(("AWS_", "LOCALSTACK_", "MINISTACK_"))
        }
        return inherited | {
            "BIND_HOST": LOOPBACK,
            "GATEWAY_PORT": str(self._port),
            "SERVICES": "s3",
            "IOT_MTLS_ENABLED": "0",
            "SFTP_ENABLED": "0",
            "DOCKER_HOST": f"unix://{self.directory}/no-docker",  # it would look for containers of its own to remove
            "S3_PERSIST": "1",
            "S3_DATA_DIR": str(self.directory / "objects"),
            "PERSIST_STATE": "1",
            "STATE_DIR": str(self.directory / "state"),
            "TMPDIR": str(self.directory / "tmp"),
            "LOG_LEVEL": "WARNING",
        }

    def _wait(self) -> None:
        assert self._process is not None  # noqa: S101 - start() has just made it
        deadline = time.monotonic() + LONGEST_START
        while self._process.poll() is None and time.monotonic() < deadline:
            if self._answers():
                return
            time.sleep(0.02)
        tail = self.log.read_text(errors="replace")[-2000:].strip() if self.log.exists() else ""
        state = "is still silent" if self._process.poll() is None else f"ended with code {self._process.returncode}"
        raise EmbeddedS3NotStarted(f"The embedded S3 server {state}; its log {self.log} ends with:\n{tail}")

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.endpoint}/", timeout=2) as answer:  # noqa: S310 - our own http URL
                return b"ListAllMyBucketsResult" in answer.read()
        except (urllib.error.URLError, OSError):
            return False


def ensure_bucket(client: "S3Client", bucket: str) -> bool:
    """Create `bucket` unless it is there; True if this call made it. Raises: StoreUnavailable, StoreRefused."""
    with named_failures(client, "create the bucket", f"s3://{bucket}"):
        try:
            client.head_bucket(Bucket=bucket)
        except ClientError as e:
            if code_of(e) not in ("404", "NoSuchBucket"):
                raise
        else:
            return False
        try:
            region = client.meta.region_name
            if region == "us-east-1" or ".amazonaws.com" not in client.meta.endpoint_url:
                client.create_bucket(Bucket=bucket)
            else:
                client.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": region})  # type: ignore[typeddict-item]
        except ClientError as e:
            if code_of(e) != "BucketAlreadyOwnedByYou":
                raise
            return False
    return True


def _free_port() -> int:
    with socket.socket() as s:
        s.bind((LOOPBACK, 0))
        return int(s.getsockname()[1])


def _listening(port: int) -> bool:
    with socket.socket() as s:
        return s.connect_ex((LOOPBACK, port)) == 0


def _signal_group(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(*NOBODY_THERE):
        os.killpg(group, number)


def _group_exists(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except NOBODY_THERE:
        return False
    return True
