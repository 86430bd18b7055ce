"""`crypto-ml demo`: everything on this machine, a sample dropped, its answer shown; nothing left running at the end."""

import fcntl
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from crypto_ml.commands.printing import in_rich, say
from crypto_ml.endings import ENDINGS
from crypto_ml.errors import Refused, Unavailable

if TYPE_CHECKING:
    from crypto_ml.commands.companions import Companion
    from crypto_ml.commands.local_dagster import LocalDagster
    from crypto_ml.ledger.reports import Report
    from crypto_ml.storage.objects import ObjectStore

LONGEST_WAIT: Final = 120.0
POLL_SECONDS: Final = 0.1
USUAL_PORT: Final = 3000
USUAL_PORTS: Final = {"ui": USUAL_PORT, "s3": None, "serve": 8000, "page": 5006}
ROWS_SHOWN: Final = 6
T = TypeVar("T")


class NoAnswer(Unavailable):
    """The sample was not answered in time."""


class Interrupted(Refused):
    """The demo was told to end before its answer came."""


class FolderInUse(Refused):
    """Another demo, or another Dagster, keeps its data in this folder."""


@dataclass(frozen=True)
class _Running:
    store: "ObjectStore"
    dagster: "LocalDagster"
    service: "Companion"
    page: "Companion"
    environment: dict[str, str]


@click.command("demo")
@click.option("--once", is_flag=True, help="Stop everything again after the answer.")
@click.option("--port", type=int, help=f"Port of the UI. Default: {USUAL_PORT}, or a free one.")
@click.option(
    "--state", default=".crypto_ml/demo", show_default=True, type=click.Path(path_type=Path), help="Folder it keeps."
)
def command(once: bool, port: int | None, state: Path) -> None:
    """Start an S3 server, Dagster, the REST service and the page on this machine, drop a sample, wait for its answer
    and print it.

    The S3 server is the embedded one even where AWS variables are set: nothing outside this machine is touched.
    """
    for number in ENDINGS:
        signal.signal(number, interrupted)
    answered = False
    try:
        with ExitStack() as stack:
            running = _start(state, port, stack)
            stack.callback(stopping)
            report, seconds = _drop_and_wait(running)
            _show(report, seconds, running)
            answered = True
            if once:
                running.dagster.wait_until_scored()
            else:
                say(err=True)
                say("It stays up until Ctrl-C.", err=True)
                while True:
                    signal.pause()
    except KeyboardInterrupt:
        if not answered:
            raise Interrupted("stopped before the answer came") from None
    except Unavailable as error:
        reason, *lines = str(error).splitlines()
        for line in lines:  # the end of a log; the reason alone is the one line that an error is
            say(line, err=True)
        raise type(error)(reason) from error
    say("stopped; nothing of it runs any more", err=True)


def interrupted(_number: int, _frame: FrameType | None) -> None:
    """Begin to end, as after Ctrl-C."""
    stopping()
    raise KeyboardInterrupt


def stopping() -> None:
    """A second Ctrl-C would leave behind what the first is about to stop. (Not SIG_IGN: children would inherit it.)"""
    for number in ENDINGS:
        signal.signal(number, lambda _number, _frame: None)


def claim(state: Path, stack: ExitStack) -> None:
    """One at a time in a folder: two servers over the same objects would destroy them. Raises FolderInUse."""
    state.mkdir(parents=True, exist_ok=True)
    lock = stack.enter_context((state / "lock").open("w"))
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise FolderInUse(f"one runs in {state} already: end it, or give this one another --state folder") from None


def _start(state: Path, port: int | None, stack: ExitStack) -> _Running:
    from crypto_ml.commands.companions import Companion
    from crypto_ml.commands.local_dagster import LocalDagster, kept_ports
    from crypto_ml.deployment import Deployment
    from crypto_ml.packaged import INSTANCE
    from crypto_ml.settings import Settings
    from crypto_ml.storage.embedded import EmbeddedS3, ensure_bucket

    settings = Settings.from_environment()
    state = state.absolute()
    claim(state, stack)
    if elsewhere := os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL"):
        say(f"The demo uses an S3 server of its own, and leaves {elsewhere} alone.", err=True)
    ports = kept_ports(state, USUAL_PORTS, port)
    with _step("S3 server on loopback"):
        server = stack.enter_context(EmbeddedS3(state / "s3", ports["s3"]))
        for name in [name for name in os.environ if name.startswith("AWS_") and name != "AWS_CA_BUNDLE"]:
            del os.environ[name]
        os.environ.update(server.environment)
        ensure_bucket(Deployment.reading(settings).store.client, settings.bucket)
        store = Deployment(settings).store
    dagster = stack.enter_context(LocalDagster(state, server.environment, INSTANCE, ports["ui"]))
    service = stack.enter_context(Companion(["serve"], ports["serve"], state, server.environment, "/readyz"))
    page = stack.enter_context(
        Companion(["page", "--service", service.url], ports["page"], state, server.environment, "/")
    )
    with _step("Dagster: webserver, daemon, sensor"):
        dagster.wait_until_watching()
    with _step("predictions over REST, and the page"):
        service.wait_until_up()
        page.wait_until_up()
    return _Running(store, dagster, service, page, server.environment)


def _drop_and_wait(running: _Running) -> "tuple[Report, float]":
    from crypto_ml.ledger.deliveries import DeliveryLog
    from crypto_ml.ledger.layout import CSV, UPLOADS
    from crypto_ml.ledger.reports import read_report
    from crypto_ml.sample import sample_upload

    key = f"{UPLOADS}sample_{datetime.now(UTC):%Y%m%dT%H%M%S}.csv"
    with _step(f"sample dropped: {running.store.uri(key)}"):
        running.store.replace(key, sample_upload(), content_type=CSV)
    dropped = time.monotonic()
    log = DeliveryLog(running.store)
    with _step("noticed by the sensor, run launched"):
        _wait_for(lambda: any(identity[0] == key for identity in log.catch_up()) or None, dropped, running)
    with _step("scored and published"):
        report = _wait_for(lambda: read_report(key, running.store), dropped, running)
    seconds = time.monotonic() - dropped
    if report.outcome != "PREDICTED":
        raise NoAnswer(f"the sample was {report.outcome}: {report.document['reason']}")
    return report, seconds


def _wait_for(look: Callable[[], T | None], since: float, running: _Running) -> T:
    while (found := look()) is None:
        if time.monotonic() - since > LONGEST_WAIT:
            log = running.dagster.log
            raise NoAnswer(
                f"no answer within {LONGEST_WAIT:.0f} s; the end of {log} stands above\n{running.dagster.log_tail()}"
            )
        time.sleep(POLL_SECONDS)
    return found


def _show(report: "Report", seconds: float, running: _Running) -> None:
    from crypto_ml.commands.local_dagster import chosen_settings, export_lines

    store = running.store
    predictions = store.read(str(report.document["predictions"])).decode().splitlines()
    say()
    for line in predictions[: 1 + ROWS_SHOWN]:
        say(f"  {line}")
    say(f"  … {len(predictions) - 1:,} rows, {seconds:.1f} s after the file was dropped")
    say()
    say(f"  Dagster UI    {running.dagster.url}")
    say(f"  the page      {running.page.url}")
    say(f"  REST          {running.service.url}/v1/predictions, described at {running.service.url}/docs")
    say(f"  drop files    {store.uri('uploads/')}")
    say(f"  answers       {store.uri('predictions/')}")
    say()
    say("  In another shell, in any folder, so that crypto-ml, dagster, dg and any S3 client find it:")
    for line in export_lines(running.environment | chosen_settings() | running.dagster.variables):
        say(f"    {line}")


@contextmanager
def _step(what: str) -> Iterator[None]:
    """One line of progress: what is going on, and how long it took."""
    from rich.console import Console

    console = Console(stderr=True, highlight=False)
    began = time.monotonic()
    with console.status(f"{in_rich(what)} …"):
        yield
    console.print(f"[green]✓[/green] {in_rich(what)} [dim]{time.monotonic() - began:.1f} s[/dim]")


COMMANDS: Final[tuple[Any, ...]] = (command,)
