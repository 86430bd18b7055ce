"""One local file scored by itself: CSV in, CSV out, on the road every upload takes, with no history and no store.

What is written appears whole or not at all; memory is bounded by a chunk, the rest is on local disk.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final
from uuid import uuid4

import pandas as pd

from crypto_ml.digest import sha256_of, sha256_of_file
from crypto_ml.errors import Refused
from crypto_ml.forecasting.answers import PREDICTIONS, REJECTED_ROWS, append_csv, with_prediction_ids
from crypto_ml.forecasting.bundle import ModelBundle
from crypto_ml.forecasting.intake import IntakeRules, Repeats, name_series, nothing_left, settled_chunks, take_in
from crypto_ml.forecasting.progress import Progress, Tell, tell_nobody
from crypto_ml.forecasting.refusals import LISTED
from crypto_ml.forecasting.schema import Recovery
from crypto_ml.forecasting.scoring import SEED, score
from crypto_ml.forecasting.series import LookAlikes
from crypto_ml.forecasting.sorting import RowSorter
from crypto_ml.forecasting.uploads.read_as import ReadAs

FILE: Final = 0


class FileRejected(Refused):
    """A file refused as a whole."""


class UnusableOutput(Refused):
    """A path that predictions cannot be written to."""


@dataclass(frozen=True)
class FileScore:
    """What became of a file's rows: received = accepted + refused + repeated, accepted = predicted + seed.

    rejected_rows: the file that holds the refused rows and their reasons, where there are any; the first `listed` ones.
    read_as: how the file was read. notes: what whoever asked should know.
    """

    answer_id: str
    model_version: str
    received: int
    accepted: int
    refused: int
    repeated: int
    predicted: int
    seed: int
    ignored_columns: tuple[str, ...]
    date_order: str | None
    rejected_rows: Path | None
    listed: int
    read_as: Mapping[str, Any]
    notes: tuple[str, ...]


def score_file(
    upload: Path,
    out: Path,
    bundle: ModelBundle,
    recovery: Recovery,
    rules: IntakeRules,
    *,
    room: Path | None = None,
    called: str | None = None,
    tell: Tell = tell_nobody,
) -> FileScore:
    """Predict the open of every row of `upload` (as a dropped file, see `intake`) and write `out` (`PREDICTIONS`).

    Refused rows go to `rejected_rows_path(out)`. room: folder for sorting, which needs about the size of the file on
    disk; beside `out` where none is given. called: what the file is called, where that is not the name of `upload`;
    nothing for standard input. tell: who is told how far it is.
    Raises FileRejected, and UnusableOutput; then `out` is as it was.
    """
    out = _usable(out, upload)
    repeats = Repeats()
    counts: dict[str, int] = {}
    sorting = TemporaryDirectory(prefix=".crypto_ml-score-", dir=room or out.parent)
    with sorting as name, RowSorter(Path(name)) as sorter, _whole(out) as partial:
        intake = take_in(upload, rules, sorter, FILE, upload.name if called is None else called, tell=tell)
        how = intake.read_as or ReadAs()
        read = json.dumps(how.recorded(), sort_keys=True) if how.recorded() else ""
        answer_id = sha256_of(f"{sha256_of_file(upload)} {bundle.sha256} {recovery}{read}".encode())[:16]
        name_series(sorter, lambda _: bundle.slugs)
        alike = _look_alikes(sorter, bundle)
        chunks = score(settled_chunks(sorter, repeats), bundle, recovery)
        append_csv(partial, PREDICTIONS, pd.DataFrame(columns=PREDICTIONS.names))
        for part in chunks if not intake.refusal else ():
            append_csv(partial, PREDICTIONS, with_prediction_ids(part, answer_id))
            for status, count in part["status"].value_counts().items():
                counts[str(status)] = counts.get(str(status), 0) + int(count)
            tell(Progress("scoring", sum(counts.values()), intake.accepted_rows, "rows"))
        refused = intake.refused_rows + repeats.contradicting[FILE]
        rejected_rows = _write_refused(sorter, refused, rejected_rows_path(out))
        if intake.refusal or not counts:
            why = intake.refusal or nothing_left(sorter, FILE)
            each = "each is" if refused <= LISTED else f"the first {LISTED:,} of {refused:,} refused rows are"
            where = f"; {each} in {rejected_rows}" if rejected_rows else ""
            raise FileRejected(f"{upload if called is None else called or 'standard input'} is rejected: {why}{where}")
    answered, seed = sum(counts.values()), counts.get(SEED, 0)
    return FileScore(
        answer_id=answer_id,
        model_version=bundle.version,
        received=intake.received_rows,
        accepted=answered,
        refused=refused,
        repeated=repeats.repeated[FILE],
        predicted=answered - seed,
        seed=seed,
        ignored_columns=intake.ignored_columns,
        date_order=intake.date_order,
        rejected_rows=rejected_rows,
        listed=min(refused, LISTED),
        read_as=how.document(),
        notes=(*how.notes(), *alike.notes(FILE)),
    )


def _look_alikes(sorter: RowSorter, bundle: ModelBundle) -> LookAlikes:
    alike = LookAlikes(bundle.coins)
    for spans in sorter.spans_in_parts():
        alike.ask(spans)
        alike.answer()
    for file, symbols in sorter.alike():
        alike.add(file, symbols)
    return alike


def rejected_rows_path(out: Path) -> Path:
    """Where the refused rows go: `<name of out without .csv>_rejected_rows.csv` beside it."""
    stem = out.name[: -len(".csv")] if out.name.lower().endswith(".csv") else out.name
    return out.with_name(f"{stem}_rejected_rows.csv")


def _usable(out: Path, upload: Path) -> Path:
    """Where `out` really is, so that a link to it stays a link."""
    if out.exists() and not out.is_file():  # asked of the link itself: where a pipe's leads, there is no file
        raise UnusableOutput(f"{out} is no ordinary file; name a file to write the predictions to")
    if str(out) == "-":
        raise UnusableOutput("predictions go to a file and not to standard output; name one")
    real = out.resolve()
    if not real.parent.is_dir():
        raise UnusableOutput(f"there is no folder {real.parent}; make it, or name another for the predictions")
    if upload.resolve() in {real, rejected_rows_path(real)}:
        raise UnusableOutput(f"{out} would replace the file that is to be scored; name another")
    return real


@contextmanager
def _whole(path: Path) -> Iterator[Path]:
    """A path to write to, which takes the place of `path` at the end if nothing was raised."""
    partial = path.with_name(f".{path.name}.{uuid4().hex}.part")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _write_refused(sorter: RowSorter, count: int, path: Path) -> Path | None:
    """Write the refused rows; with none, a file that says so replaces the one an earlier answer left."""
    if not count and not path.exists():
        return None
    with _whole(path) as partial:
        append_csv(partial, REJECTED_ROWS, pd.DataFrame(columns=REJECTED_ROWS.names))
        for batch in sorter.refusals.listed(FILE):
            append_csv(partial, REJECTED_ROWS, batch.to_pandas())
    return path if count else None
