"""`crypto-ml demo`: everything on this machine, a sample dropped, its answer shown; nothing left running at the end."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, Final

import click

from crypto_ml.errors import Unavailable
from crypto_ml.settings import Settings

if TYPE_CHECKING:
    from crypto_ml.commands.local_dagster import LocalDagster
    from crypto_ml.ledger.receipts import Report
    from crypto_ml.storage.objects import ObjectStore

LONGEST_WAIT: Final = 120.0
POLL_SECONDS: Final = 0.1
USUAL_PORT: Final = 3000
ROWS_SHOWN: Final = 6


class NoAnswer(Unavailable):
    """The sample was not answered in time."""


@dataclass(frozen=True)
class _Running:
    store: "ObjectStore"
    dagster: "LocalDagster"
    environment: dict[str, str]


@click.command("demo")
@click.option("--once", is_flag=True, help="Stop everything again after the answer.")
@click.option("--port", type=int, help=f"Port of the UI. Default: {USUAL_PORT}, or a free one.")
@click.option(
    "--state", default=".crypto_ml/demo", show_default=True, type=click.Path(path_type=Path), help="Folder it keeps."
)
def command(once: bool, port: int | None, state: Path) -> None:
    """Start an S3 server and Dagster on this machine, drop a sample, wait for its answer and print it.

    The S3 server is the embedded one even where AWS variables are set: nothing outside this machine is touched.
    """
    signal.signal(signal.SIGINT, _interrupted)
    signal.signal(signal.SIGTERM, _interrupted)
    try:
        with ExitStack() as stack:
            running = _start(state, port, stack)
            report, seconds = _drop_and_wait(running)
            _show(report, seconds, running)
            if not once:
                click.echo("\nIt stays up until Ctrl-C.", err=True)
                while True:
                    signal.pause()
    except KeyboardInterrupt:
        click.echo("stopped", err=True)


def _interrupted(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _start(state: Path, port: int | None, stack: ExitStack) -> _Running:
    from crypto_ml.commands.local_dagster import LocalDagster, free_port
    from crypto_ml.storage.embedded import EmbeddedS3, ensure_bucket
    from crypto_ml.storage.objects import connect
    from crypto_ml.storage.probe import probe_conditional_writes

    settings = Settings.from_environment()
    with _step("S3 server on loopback"):
        server = stack.enter_context(EmbeddedS3(state / "s3"))
        for name in [name for name in os.environ if name.startswith("AWS_") and name != "AWS_CA_BUNDLE"]:
            del os.environ[name]
        os.environ.update(server.environment)
        store = connect(settings.bucket, settings.prefix)
        ensure_bucket(store.client, settings.bucket)
        probe_conditional_writes(store)
    with _step("Dagster: webserver, daemon, sensor"):
        instance = Path(__file__).resolve().parents[2] / "dagster.yaml"
        dagster = LocalDagster(state, server.environment, instance, free_port(port or USUAL_PORT))
        stack.enter_context(dagster)
        dagster.wait_until_watching()
    return _Running(store, dagster, server.environment)


def _drop_and_wait(running: _Running) -> "tuple[Report, float]":
    from crypto_ml.ledger.layout import CSV, UPLOADS
    from crypto_ml.ledger.receipts import read_report
    from crypto_ml.sample import sample_upload

    key = f"{UPLOADS}sample_{datetime.now(UTC):%Y%m%dT%H%M%S}.csv"
    with _step(f"sample dropped: {running.store.uri(key)}"):
        running.store.replace(key, sample_upload(), content_type=CSV)
    dropped = time.monotonic()
    with _step("noticed, scored, published"):
        while (report := read_report(key, running.store)) is None:
            if time.monotonic() - dropped > LONGEST_WAIT:
                tail = running.dagster.log_tail()
                raise NoAnswer(f"no answer within {LONGEST_WAIT:.0f} s; the end of {running.dagster.log}:\n{tail}")
            time.sleep(POLL_SECONDS)
    seconds = time.monotonic() - dropped
    if report.outcome != "PREDICTED":
        raise NoAnswer(f"the sample was {report.outcome}: {report.document['reason']}")
    return report, seconds


def _show(report: "Report", seconds: float, running: _Running) -> None:
    store = running.store
    predictions = store.read(str(report.document["predictions"])).decode().splitlines()
    click.echo()
    for line in predictions[: 1 + ROWS_SHOWN]:
        click.echo(f"  {line}")
    click.echo(f"  … {len(predictions) - 1:,} rows, {seconds:.1f} s after the file was dropped")
    click.echo()
    click.echo(f"  Dagster UI    {running.dagster.url}")
    click.echo(f"  drop files    {store.uri('uploads/')}")
    click.echo(f"  answers       {store.uri('predictions/')}")
    click.echo()
    click.echo("  In another shell, so that crypto-ml drop and any S3 client find it:")
    for name, value in running.environment.items():
        click.echo(f"    export {name}={value}")


@contextmanager
def _step(what: str) -> Iterator[None]:
    """One line of progress: what is going on, and how long it took."""
    from rich.console import Console

    console = Console(stderr=True, highlight=False)
    began = time.monotonic()
    with console.status(f"{what} …"):
        yield
    console.print(f"[green]✓[/green] {what} [dim]{time.monotonic() - began:.1f} s[/dim]")


COMMANDS: Final[tuple[Any, ...]] = (command,)
