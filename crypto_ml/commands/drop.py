"""`crypto-ml drop`: put files into the watched prefix, and wait for their answers."""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from crypto_ml.commands.printing import say
from crypto_ml.commands.progress import bar
from crypto_ml.errors import Refused
from crypto_ml.forecasting.progress import Progress, Tell, tell_nobody
from crypto_ml.ledger.layout import CSV, UPLOADS, has_table_name

if TYPE_CHECKING:
    from crypto_ml.ledger.reports import Report
    from crypto_ml.storage.objects import ObjectStore

POLL_SECONDS: Final = 0.25


@dataclass(frozen=True)
class Dropped:
    """A file that was put: its key, its ETag, and the answer that stood there before."""

    key: str
    etag: str
    before: str | None


@click.command("drop")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--as", "name", help="Name below uploads/, for a single file. Default: the file's own name.")
@click.option("--wait", is_flag=True, help="Wait until each file has its answer.")
@click.option("--timeout", default=120.0, show_default=True, help="Seconds to wait at most.")
def command(files: Sequence[Path], name: str | None, wait: bool, timeout: float) -> None:
    """Put FILES into uploads/."""
    from crypto_ml.deployment import Deployment
    from crypto_ml.settings import Settings

    if name and len(files) > 1:
        raise click.UsageError("--as takes a single file")
    if absent := [str(path) for path in files if not path.is_file()]:
        raise Refused(f"there is no file {', '.join(absent)}; nothing was dropped")
    keys = [UPLOADS + (name or path.name) for path in files]
    if odd := [key for key in keys if not _can_be_named(key)]:
        raise Refused(
            f"{', '.join(map(repr, odd))} is no name for an upload: it must be text (UTF-8), without . or .. between "
            "slashes; name it with --as; nothing was dropped"
        )
    if wrong := [key for key in keys if not has_table_name(key)]:
        raise Refused(
            f"an upload is named .csv, .csv.gz or .parquet, which {', '.join(wrong)} is not; nothing was dropped"
        )
    if twice := sorted({key for key in keys if keys.count(key) > 1}):
        raise Refused(
            f"several of the files would be {', '.join(twice)}, each replacing the one before; drop them apart"
        )
    # dropping claims nothing, and who drops may have no permission to write elsewhere
    store = Deployment.reading(Settings.from_environment()).store
    with bar() as tell:
        dropped = [drop(path, key, store, tell) for path, key in zip(files, keys, strict=True)]
    for one in dropped:
        say(store.uri(one.key))
    if wait:
        reports = wait_for_answers(dropped, store, timeout)
        for report in reports.values():
            _show(report, store)
        _sum_up(list(reports.values()))
        if missing := [one.key for one in dropped if one.key not in reports]:
            raise Refused(f"no answer to {', '.join(missing)} after {timeout:.0f} s; run `crypto-ml doctor`")
        if rejected := [key for key, report in reports.items() if report.outcome == "REJECTED"]:
            raise Refused(f"rejected, for the reason above: {', '.join(rejected)}")


def _can_be_named(key: str) -> bool:
    """Whether an object can have this key, and other tools can reach it. Bytes that are no UTF-8 come from the file
    system as halves of characters, which no key has; many tools resolve dots as a file system does."""
    try:
        key.encode()
    except UnicodeEncodeError:
        return False
    return not {".", "..", ""} & set(key.split("/"))


def drop(path: Path, key: str, store: "ObjectStore", tell: Tell = tell_nobody) -> Dropped:
    """Put one file under `key`. tell: who is told how much of a large one has been sent."""
    from crypto_ml.ledger.reports import read_report

    earlier = read_report(key, store)
    size, so_far = path.stat().st_size, 0

    def sent(more: int) -> None:  # by several threads: a bar that lags by a part is no harm
        nonlocal so_far
        so_far += more
        tell(Progress(f"sending {path.name}", so_far, size, "bytes"))

    etag = store.upload_file(path, key, create_only=False, content_type=CSV, sent=sent).strip('"')
    return Dropped(key, etag, str(earlier.document["timings"]) if earlier else None)


def wait_for_answers(dropped: Sequence[Dropped], store: "ObjectStore", timeout: float) -> "dict[str, Report]":
    """Key → report of each dropped file that has its answer within `timeout` seconds."""
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    deadline = time.monotonic() + timeout
    found: dict[str, Report] = {}
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("waiting for the answer", total=None)
        while len(found) < len(dropped):
            for one in dropped:
                if one.key not in found and (report := _new_report(one, store)):
                    found[one.key] = report
            progress.update(task, description=f"{len(found)} of {len(dropped)} answered")
            if len(found) == len(dropped) or time.monotonic() > deadline:
                break
            time.sleep(POLL_SECONDS)
    return {one.key: found[one.key] for one in dropped if one.key in found}


def _new_report(dropped: Dropped, store: "ObjectStore") -> "Report | None":
    from crypto_ml.ledger.reports import read_report

    report = read_report(dropped.key, store)
    is_new = report is not None and str(report.document["timings"]) != dropped.before
    return report if report and is_new and report.document["upload"]["etag"] == dropped.etag else None


def _show(report: "Report", store: "ObjectStore") -> None:
    document = report.document
    where = store.uri(document["predictions"]) if document["predictions"] else ""
    say(" ".join(filter(None, [report.upload_key, report.outcome, where, document["reason"]])))


def _sum_up(reports: "Sequence[Report]") -> None:
    """What became of all of them together, and each one's notes, which are no data and go to standard error."""
    for report in reports:
        for note in report.document.get("notes", ()):
            say(f"note on {report.upload_key}: {note}", err=True)
    outcomes = Counter(report.outcome for report in reports)
    rows = Counter[str]()
    for report in reports:
        rows.update(report.document["rows"])
    files = ", ".join(f"{count} {outcome}" for outcome, count in sorted(outcomes.items()))
    say(
        f"{files}; {rows['received']:,} rows received, {rows['refused']:,} refused, {rows['predicted']:,} predicted, "
        f"{rows['seed']:,} with too few earlier rows",
        err=True,
    )


COMMANDS: Final = (command,)
