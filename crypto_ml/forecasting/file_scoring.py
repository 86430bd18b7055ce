"""One local file scored by itself: CSV in, CSV out, on the road every upload takes, with no history and no store.

What is written appears whole or not at all; memory is bounded by a chunk, the rest is on local disk.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final
from uuid import uuid4

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from crypto_ml.digest import sha256_of, sha256_of_file
from crypto_ml.errors import Refused
from crypto_ml.forecasting.ahead import THREADS, ahead
from crypto_ml.forecasting.answers import REJECTED_ROWS, append_table, csv_lines, prediction_ids
from crypto_ml.forecasting.bundle import ModelBundle
from crypto_ml.forecasting.columns import Columns
from crypto_ml.forecasting.intake import IntakeRules, Repeats, name_series, nothing_left, settled_rows, take_in
from crypto_ml.forecasting.intervals import DEFAULT_LEVEL
from crypto_ml.forecasting.progress import Progress, Tell, tell_nobody
from crypto_ml.forecasting.refusals import LISTED
from crypto_ml.forecasting.scaled_by import BY_OWN_ROWS, OWN_SCALED_NAMED, own_scaled_note
from crypto_ml.forecasting.schema import Recovery
from crypto_ml.forecasting.scoring import PREDICTED, SEED, predictions_of, score_columns
from crypto_ml.forecasting.series import LookAlikes
from crypto_ml.forecasting.sorting import RowSorter
from crypto_ml.forecasting.spacing import Spacing
from crypto_ml.forecasting.unit_changes import UnitChanges
from crypto_ml.forecasting.uploads.read_as import ReadAs

FILE: Final = 0
PART_ROWS: Final = 8_000
"""Rows scored at once: their windows stay in a core's cache, and a small file has something to do for both cores."""


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
    level: float = DEFAULT_LEVEL,
    room: Path | None = None,
    called: str | None = None,
    tell: Tell = tell_nobody,
) -> FileScore:
    """Predict the open of every row of `upload` (as a dropped file, see `intake`) and write `out` (the columns of
    `predictions_of`). level: of the intervals, where the bundle has them.

    Refused rows go to `rejected_rows_path(out)`. room: folder for sorting, which needs about the size of the file on
    disk; beside `out` where none is given. called: what the file is called, where that is not the name of `upload`;
    nothing for standard input. tell: who is told how far it is.
    Raises FileRejected, and UnusableOutput; then `out` is as it was.
    """
    out = _usable(out, upload)
    repeats = Repeats()
    predicted = seed = own_scaled_series = 0
    own_scaled: list[str] = []
    sorting = TemporaryDirectory(prefix=".crypto_ml-score-", dir=room or out.parent)
    with ThreadPoolExecutor(1) as beside, sorting as name, RowSorter(Path(name)) as sorter, _whole(out) as partial:
        if not bundle.rule or not bundle.rule.serves_last_close:
            beside.submit(lambda: bundle.network)  # while the file is read; what is wrong with it is raised below
        intake = take_in(upload, rules, sorter, FILE, upload.name if called is None else called, tell=tell)
        how = intake.read_as or ReadAs()
        read = json.dumps(how.recorded(), sort_keys=True) if how.recorded() else ""
        how_wide = f" {level}" if bundle.rule else ""
        answer_id = sha256_of(f"{sha256_of_file(upload)} {bundle.sha256} {recovery}{read}{how_wide}".encode())[:16]
        name_series(sorter, lambda _: bundle.slugs)
        alike, changes, spacing = _look_alikes(sorter, bundle), UnitChanges(), Spacing()
        append_table(partial, predictions_of(bundle).empty_table())
        rows = spacing.seen(changes.seen(settled_rows(sorter, repeats)))
        parts = _scored(rows, bundle, recovery, answer_id=answer_id, level=level)
        with partial.open("ab") as file:
            for part in parts if not intake.refusal else ():
                file.write(part.lines)
                predicted, seed = predicted + part.predicted, seed + part.seed
                own_scaled += part.own_scaled[: max(0, OWN_SCALED_NAMED - len(own_scaled))]
                own_scaled_series += len(part.own_scaled)
                tell(Progress("scoring", predicted + seed, intake.accepted_rows, "rows"))
        refused = intake.refused_rows + repeats.contradicting[FILE]
        rejected_rows = _write_refused(sorter, refused, rejected_rows_path(out))
        if intake.refusal or not predicted + seed:
            why = intake.refusal or nothing_left(sorter, FILE)
            each = "each is" if refused <= LISTED else f"the first {LISTED:,} of {refused:,} refused rows are"
            where = f"; {each} in {rejected_rows}" if rejected_rows else ""
            raise FileRejected(f"{upload if called is None else called or 'standard input'} is rejected: {why}{where}")
    return FileScore(
        answer_id=answer_id,
        model_version=bundle.version,
        received=intake.received_rows,
        accepted=predicted + seed,
        refused=refused,
        repeated=repeats.repeated[FILE],
        predicted=predicted,
        seed=seed,
        ignored_columns=intake.ignored_columns,
        date_order=intake.date_order,
        rejected_rows=rejected_rows,
        listed=min(refused, LISTED),
        read_as=how.document(),
        notes=(
            *how.notes(),
            *((own_scaled_note(own_scaled, own_scaled_series),) if own_scaled else ()),
            *alike.notes(FILE),
            *changes.notes(FILE),
            *spacing.notes(FILE),
        ),
    )


@dataclass(frozen=True, eq=False)
class _Scored:
    """Some rows' predictions as lines of CSV, how many of them are predicted, and seeds, and which series of them were
    scaled by their own rows."""

    lines: pa.Buffer
    predicted: int
    seed: int
    own_scaled: list[str]


def _scored(
    rows: Iterable[pa.Table], bundle: ModelBundle, recovery: Recovery, *, answer_id: str, level: float
) -> Iterator[_Scored]:
    """The predictions of rows, chunks of whole series, in order: scored and written as CSV by some threads, a few
    pieces at a time."""
    schema = predictions_of(bundle)

    def scored(part: _Part) -> tuple[pa.Table, list[str], bool]:
        rows = part.rows
        made = score_columns(Columns.of(rows), bundle, recovery, level)
        status = pc.if_else(pa.array(made.made), PREDICTED, SEED)
        ids = prediction_ids(answer_id, rows["line"])
        columns = [rows["symbol"], made.index, rows["date"], made.price, rows["open"], status, ids]
        columns += made.beside_columns()
        own = pc.unique(rows["symbol"].filter(pa.array(made.scaled_by == BY_OWN_ROWS)))
        return pa.table(columns, schema=schema), own.to_pylist(), part.is_last

    def written(parts: Sequence[tuple[pa.Table, list[str]]]) -> _Scored:
        table = pa.concat_tables(table for table, _ in parts)
        predicted = pc.sum(pc.equal(table["status"], PREDICTED)).as_py()
        own_scaled = [symbol for _, own in parts for symbol in own]
        return _Scored(csv_lines(table), predicted, table.num_rows - predicted, own_scaled)

    def chunks(
        parts: Iterable[tuple[pa.Table, list[str], bool]],
    ) -> Iterator[list[tuple[pa.Table, list[str]]]]:
        of_chunk: list[tuple[pa.Table, list[str]]] = []
        for table, own, is_last in parts:
            of_chunk.append((table, own))
            if is_last:
                yield of_chunk
                of_chunk = []

    with ThreadPoolExecutor(THREADS) as pool:
        parts = chain.from_iterable(map(_parts, rows))
        yield from ahead(written, chunks(ahead(scored, parts, pool)), pool)


@dataclass(frozen=True, eq=False)
class _Part:
    """Rows of a chunk that are scored at once, whole series, and whether they are its last ones."""

    rows: pa.Table
    is_last: bool


def _parts(chunk: pa.Table) -> Iterator[_Part]:
    """A chunk in parts of about PART_ROWS rows."""
    series = pc.dictionary_encode(chunk["symbol"]).combine_chunks().indices.to_numpy()
    begins = np.flatnonzero(series[1:] != series[:-1]) + 1
    wanted = np.searchsorted(begins, np.arange(PART_ROWS, len(series), PART_ROWS))
    cuts = [0, *dict.fromkeys(begins[wanted[wanted < len(begins)]].tolist()), len(series)]
    for begin, end in pairwise(cuts):
        yield _Part(chunk.slice(begin, end - begin), end == len(series))


def _look_alikes(sorter: RowSorter, bundle: ModelBundle) -> LookAlikes:
    alike = LookAlikes(bundle.coins)
    for spans in sorter.span_tables():
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
        append_table(partial, REJECTED_ROWS.empty_table())
        for batch in sorter.refusals.listed(FILE):
            append_table(partial, pa.Table.from_batches([batch]).select(REJECTED_ROWS.names))
    return path if count else None
