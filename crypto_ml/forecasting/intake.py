"""One upload, from its bytes to rows: read, cleaned, and handed to a sorter, the refused rows as well.

A file is refused as a whole or row by row; either way the outcome says everything a report needs.
"""

import re
import sys
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from crypto_ml.forecasting.ahead import THREADS, ahead
from crypto_ml.forecasting.cleaning import FORMULA_STARTS, PLAIN, CleanedRows, Writing, clean_rows, is_plain
from crypto_ml.forecasting.progress import Progress, Tell, tell_nobody
from crypto_ml.forecasting.refusals import LISTED, REFUSED
from crypto_ml.forecasting.schema import DateOrder
from crypto_ml.forecasting.series import series_names
from crypto_ml.forecasting.settling import Settled, Settling
from crypto_ml.forecasting.sorting import Files, RowSorter, as_frame, rows_of, whole_series, with_file
from crypto_ml.forecasting.uploads.dates import DateEvidence, DateStyle, has_other_dates, read_dates
from crypto_ml.forecasting.uploads.intraday import Intraday
from crypto_ml.forecasting.uploads.numbers import NUMBERS, NumberEvidence, NumberStyle
from crypto_ml.forecasting.uploads.parquet import ParquetReader, is_parquet
from crypto_ml.forecasting.uploads.read_as import ReadAs, read_as
from crypto_ml.forecasting.uploads.reading import SHOWN_TEXT, UploadReader
from crypto_ml.forecasting.uploads.unreadable import UnreadableUpload
from crypto_ml.visible import visible

if TYPE_CHECKING:
    import pandas as pd

SHOWN_VALUE: Final = 40
"""Characters of a refused row's value that are repeated."""

REASONS_NAMED: Final = 3

SMALL_BYTES: Final = 64 << 10
MOST_TOGETHER: Final = 500
"""Small files that are cleaned in one go: a one-row file costs as much to clean as a thousand rows."""

SMALL_TEXT: Final = 1 << 20
MOST_TEXT_TOGETHER: Final = 32 << 20
"""Bytes of rows and names, as they are held, of one small file and of those that are cleaned in one go. A file of
SMALL_BYTES may expand to two hundred times as much."""


@dataclass(frozen=True)
class IntakeRules:
    """What intake needs to know beside the file.

    today: UTC day of the upload; later dates are refused. date_order: how ambiguous slashed dates are read, None to
    refuse them. max_bytes: largest file after decompression. columns: our names → those that files may have for them.
    """

    today: date
    date_order: DateOrder | None = None
    max_bytes: int = 20 << 30
    columns: Mapping[str, str] = field(default_factory=dict)

    @property
    def tomorrow(self) -> date:
        """The last day that a number may mean, as somewhere it is a day later."""
        return self.today + timedelta(days=1)


@dataclass(frozen=True)
class FileIntake:
    """What became of one file: `refusal` is the reason where it was refused as a whole.

    The refused rows themselves are in the sorter. A file that cannot be read has none; one of which no valid row is
    left has them all.
    """

    received_rows: int = 0
    refused_rows: int = 0
    date_order: DateOrder | None = None
    ignored_columns: tuple[str, ...] = ()
    refusal: str | None = None
    read_as: ReadAs | None = None

    @property
    def accepted_rows(self) -> int:
        """Rows that passed the row rules; rows that contradict each other are found only once all are sorted."""
        return self.received_rows - self.refused_rows


Reader = UploadReader | ParquetReader


def take_in(
    path: Path, rules: IntakeRules, sorter: RowSorter, file: int = 0, name: str = "", *, tell: Tell = tell_nobody
) -> FileIntake:
    """Read and clean the upload at `path` and hand its rows, accepted and refused, to `sorter` as rows of `file`.

    name: what the file is called where it was dropped. A file that is refused as a whole adds nothing: rows already
    added are taken back. tell: who is told how far the reading is.
    """
    try:
        with ThreadPoolExecutor(THREADS) as pool:
            intake = _take_in(reader_of(path, rules, name), rules, sorter, file, tell, pool=pool)
    except UnreadableUpload as refused:
        sorter.discard(file)
        return FileIntake(refusal=visible(str(refused)))
    return intake if intake.accepted_rows else replace(intake, refusal=nothing_left(sorter, file))


def reader_of(path: Path, rules: IntakeRules, name: str) -> Reader:
    """What reads a file, by its first bytes. name: what it is called. Raises UnreadableUpload."""
    kind = ParquetReader if is_parquet(path) else UploadReader
    return kind(path, rules.max_bytes, name=name, asked=rules.columns)


def take_in_all(
    uploads: Iterable[tuple[int, Path]],
    rules: IntakeRules,
    sorter: RowSorter,
    names: Mapping[int, str] | None = None,
    *,
    tell: Tell = tell_nobody,
) -> dict[int, FileIntake]:
    """`take_in` for many files, by their numbers; each is read before the next one is asked for. names: by number.

    Small files are cleaned together, which changes nothing but the time it takes.
    """
    intakes: dict[int, FileIntake] = {}
    together: list[SmallFile] = []
    text = 0
    for file, path in uploads:
        small, name = None, (names or {}).get(file, "")
        try:
            if path.stat().st_size <= SMALL_BYTES:
                small = _read_small(file, path, rules, name)
        except UnreadableUpload as refused:
            intakes[file] = FileIntake(refusal=visible(str(refused)))
            continue
        if small is None:
            intakes[file] = take_in(path, rules, sorter, file, name, tell=tell)
            continue
        together.append(small)
        text += small.bytes
        if len(together) >= MOST_TOGETHER or text >= MOST_TEXT_TOGETHER:
            intakes |= take_in_together(together, rules, sorter)
            together, text = [], 0
    return intakes | take_in_together(together, rules, sorter)


def nothing_left(sorter: RowSorter, file: int) -> str:
    """Why a file has no valid row, from its refused rows' reasons."""
    reasons = sorter.refusals.commonest_reasons(file, REASONS_NAMED)
    if not reasons:
        return "the file has a header and no rows"
    said = "; ".join(f"{why} ({count} row{'s' * (count > 1)})" for why, count in reasons)
    return f"no valid row is left: {said}{_unread_value(sorter, file, reasons[0][0])}"


def _unread_value(sorter: RowSorter, file: int, reason: str) -> str:
    """What stood in the first row that was refused because a value of it could not be read."""
    column, _, why = reason.partition(": ")
    if not why.startswith(("not readable", "missing or not a number", "not a number")):
        return ""
    for batch in sorter.refusals.listed(file):
        for row in batch.to_pylist():
            if row["reason"] == reason:
                found = re.search(rf"(?:^|,){column}=(.*?)(?=,[a-z]+=|$)", row["text"])
                return visible(f", {found[1]!r} in line {row['line']:,}, say") if found and found[1] else ""
    return ""


def _take_in(
    reader: Reader,
    rules: IntakeRules,
    sorter: RowSorter,
    file: int,
    tell: Tell,
    *,
    pool: Executor,
    dates: DateEvidence | None = None,
    numbers: NumberStyle | None = None,
) -> FileIntake:
    """Take in a file, as plain CSV until a value says that the whole of it must be asked how it is written; then what
    was taken in is taken back, the file is asked, and taken in anew. dates, numbers: what it said."""
    if numbers is None and isinstance(reader, UploadReader) and reader.header.delimiter != ",":
        numbers = _number_style(reader)
    style = DateStyle() if dates is None else dates.style(rules.date_order)
    writing = Writing(style, numbers or PLAIN.numbers)
    received = refused = 0
    intraday = Intraday()

    def refuse_ragged() -> None:
        nonlocal refused
        refused += _refuse(sorter, ragged_rows(reader), file)

    reader.when_many = refuse_ragged
    tables = iter(reader)
    first = list(islice(tables, 1))
    if dates is None and first and has_other_dates(first[0]["date"], read_dates(first[0]["date"])):
        dates = _date_evidence(reader, rules)
        return _take_in(reader, rules, sorter, file, tell, pool=pool, dates=dates, numbers=numbers)

    def cleaned_rows(table: pa.Table) -> tuple[pa.Table, CleanedRows]:
        return table, clean_rows(table, writing, rules.today)

    for table, cleaned in ahead(cleaned_rows, chain(first, tables), pool, THREADS):
        ask_dates = dates is None and cleaned.other_dates
        ask_numbers = numbers is None and cleaned.other_numbers and isinstance(reader, UploadReader)
        if ask_dates or ask_numbers:
            sorter.discard(file)
            dates = _date_evidence(reader, rules) if ask_dates else dates
            numbers = _number_style(reader) if ask_numbers else numbers
            return _take_in(reader, rules, sorter, file, tell, pool=pool, dates=dates, numbers=numbers)
        received += cleaned.accepted.num_rows
        refused += _refuse(sorter, _with_text(cleaned, table), file)
        if cleaned.accepted.num_rows:
            sorter.add(rows_of(cleaned.accepted, file))
        refuse_ragged()
        intraday.look(table, style)
        tell(_how_far(reader, received + refused))
    refuse_ragged()
    intraday.refuse()
    order = style.order if dates is not None and dates.orders else None
    found = how_read(reader, writing.numbers, dates.told(order) if dates else [])
    return FileIntake(received + refused, refused, order, tuple(reader.ignored), read_as=found)


def _how_far(reader: Reader, rows: int) -> Progress:
    if isinstance(reader, UploadReader):
        return Progress("reading", reader.bytes_read, reader.path.stat().st_size, "bytes", f"{rows:,} rows")
    return Progress("reading", rows, None, "rows")


def how_read(reader: Reader, numbers: NumberStyle, dates: Sequence[str]) -> ReadAs:
    """As what a reader's file was read, with its style of numbers, and what is told of its dates."""
    if isinstance(reader, UploadReader):
        return read_as(reader.header, reader.encoding, reader.layout, numbers, dates)
    return read_as(None, "utf-8", reader.layout, numbers, dates)


@dataclass(frozen=True)
class SmallFile:
    """A file that was read whole: its number, its rows as text, its ragged lines, the columns that were ignored."""

    file: int
    rows: pa.Table
    ragged: pa.Table
    ignored: tuple[str, ...]
    read_as: ReadAs

    @property
    def bytes(self) -> int:
        """About how much memory it takes."""
        return int(self.rows.nbytes + self.ragged.nbytes) + sum(map(sys.getsizeof, self.ignored))


def _read_small(file: int, path: Path, rules: IntakeRules, name: str) -> SmallFile | None:
    """A small file, or None where it expands to a large one, or where the whole of the file decides how its dates or
    numbers are read."""
    reader = reader_of(path, rules, name)
    if not isinstance(reader, UploadReader) or reader.header.delimiter != ",":
        return None
    tables: list[pa.Table] = []
    many_ragged = False

    def give_up() -> None:
        nonlocal many_ragged
        many_ragged = True
        reader.ragged.clear()

    reader.when_many = give_up
    intraday = Intraday()
    for table in reader:
        tables.append(table)
        if many_ragged or sum(table.nbytes for table in tables) > SMALL_TEXT or not is_plain(table):
            return None
        intraday.look(table, PLAIN.dates)
    if many_ragged or not tables:
        return None
    intraday.refuse()
    found = how_read(reader, PLAIN.numbers, [])
    return SmallFile(file, pa.concat_tables(tables), ragged_rows(reader), tuple(reader.ignored), found)


def take_in_together(small: Sequence[SmallFile], rules: IntakeRules, sorter: RowSorter) -> dict[int, FileIntake]:
    """Clean files that were read whole, those with the same columns in one go."""
    received, refused = Counter[int](), Counter[int]()
    by_columns: dict[tuple[str, ...], list[SmallFile]] = {}
    for one in small:
        by_columns.setdefault(tuple(one.rows.column_names), []).append(one)
    for alike in by_columns.values():
        rows = pa.concat_tables([one.rows for one in alike])
        files = np.repeat([one.file for one in alike], [one.rows.num_rows for one in alike])
        lines = rows["line"].to_numpy()
        # cleaning names rows by their line, so here each row's line is its place among all of them
        placed = rows.set_column(rows.column_names.index("line"), "line", pa.array(np.arange(len(files))))
        cleaned = clean_rows(placed, PLAIN, rules.today)
        for kept, counts in ((cleaned.accepted, received), (_with_text(cleaned, placed), refused)):
            at = kept["line"].to_numpy()
            counts.update(files[at].tolist())
            told = kept.set_column(kept.column_names.index("line"), "line", pa.array(lines[at]))
            if counts is refused:
                _refuse(sorter, told, files[at])
            elif told.num_rows:
                sorter.add(rows_of(told, files[at]))
    intakes = {}
    for one in small:
        refused[one.file] += _refuse(sorter, one.ragged, one.file)
        made = FileIntake(
            received[one.file] + refused[one.file], refused[one.file], None, one.ignored, read_as=one.read_as
        )
        intakes[one.file] = made if made.accepted_rows else replace(made, refusal=nothing_left(sorter, one.file))
    return intakes


def _refuse(sorter: RowSorter, rows: pa.Table, file: Files) -> int:
    if rows.num_rows:
        sorter.refusals.add(with_file(rows, file).select(REFUSED.names).cast(REFUSED))
    return int(rows.num_rows)


def ragged_rows(reader: Reader) -> pa.Table:
    """The lines that did not fit the header since this was last asked: `line`, `reason` and `text`."""
    lines = reader.take_ragged()
    if not lines:
        return _NO_RAGGED
    rows = {
        "line": pa.array([line.line for line in lines], pa.int64()),
        "reason": pa.array([line.reason for line in lines], pa.string()),
        "text": pa.array([_as_text(line.text) for line in lines], pa.string()),
    }
    return pa.table(rows)


_NO_RAGGED: Final = pa.schema([("line", pa.int64()), ("reason", pa.string()), ("text", pa.string())]).empty_table()


def _as_text(line: str) -> str:
    """A line as a cell that no spreadsheet runs as a formula: where it would be one, an apostrophe stands before it."""
    return f"'{line}" if line.startswith((*FORMULA_STARTS, "\t", "\r")) else line


def _date_evidence(reader: Reader, rules: IntakeRules) -> DateEvidence:
    """Read the dates of the whole file: one date anywhere can settle how all are read."""
    evidence = DateEvidence(rules.tomorrow)
    dates = reader.only(("date",))
    dates.when_many = dates.ragged.clear
    for table in dates:
        evidence = evidence.with_column(table["date"], table["line"])
    return evidence


def _number_style(reader: Reader) -> NumberStyle:
    """Read the numbers of the whole file: one number anywhere can settle how all are read. Raises UnreadableUpload."""
    evidence = NumberEvidence(plain_point=not isinstance(reader, UploadReader) or reader.header.delimiter == ",")
    numbers = reader.only(NUMBERS)
    numbers.when_many = numbers.ragged.clear
    for table in numbers:
        evidence.add(table)
    return evidence.style()


def _with_text(cleaned: CleanedRows, table: pa.Table) -> pa.Table:
    """Refused rows with what stood in them, so that nobody has to open the file to see what was wrong."""
    refused = cleaned.refused
    if not refused.num_rows:
        return refused.append_column("text", pa.array([], pa.string()))
    rows = table.filter(pc.is_in(table["line"], refused["line"].combine_chunks()))
    names = [name for name in rows.column_names if name != "line"]
    values = [pc.utf8_slice_codeunits(rows[name], 0, SHOWN_VALUE) for name in names]
    shown = [pc.binary_join_element_wise(name, value, "=") for name, value in zip(names, values, strict=True)]
    text = pc.utf8_slice_codeunits(pc.binary_join_element_wise(*shown, ","), 0, SHOWN_TEXT)
    return refused.append_column("text", text)


@dataclass
class Repeats:
    """What sorting brought to light: how many rows contradict each other, and how many were given again, by file."""

    contradicting: Counter[int] = field(default_factory=Counter)
    repeated: Counter[int] = field(default_factory=Counter)


def settled_chunks(sorter: RowSorter, repeats: Repeats) -> Iterator["pd.DataFrame"]:
    """`settled_rows` as frames."""
    return map(as_frame, settled_rows(sorter, repeats))


def settled_rows(sorter: RowSorter, repeats: Repeats) -> Iterator[pa.Table]:
    """The sorted rows with repeats settled (see `settling`), each series whole.

    Rows that contradict each other are refused in `sorter`; how many were left out is noted in `repeats`.
    """

    def left(settled: Settled) -> pa.Table:
        days = settled.contradictions
        if days.num_rows:
            for file, rows in zip(days["file"].to_pylist(), days["rows"].to_pylist(), strict=True):
                repeats.contradicting[file] += rows
            listed = settled.refused.append_column("text", pa.repeat("", settled.refused.num_rows))
            sorter.refusals.add_days(days, listed.select(REFUSED.names).cast(REFUSED))
        repeats.repeated.update(settled.repeated)
        return settled.accepted

    def batches() -> Iterator[tuple[pa.Table, pa.Table]]:
        settling = Settling(LISTED)
        for batch in sorter.batches():
            yield batch, left(settling.settle(batch))
        if last := settling.rest():
            accepted = left(last)
            yield accepted.slice(0, 0), accepted

    yield from whole_series(batches())


def name_series(sorter: RowSorter, known: Callable[[Collection[str]], Mapping[str, str]]) -> dict[str, tuple[str, str]]:
    """Give each row of the sorter the name of its series (see `series.series_names`).

    known: for some symbols, symbol → slug of the coin that is known under it. Returns name → (symbol, slug) of the
    series that are not named by their symbol alone, the first ones where there are very many.
    """

    def names() -> Iterator[dict[tuple[str, str], str]]:
        holder: list[tuple[str, str]] = []  # the first coin of the symbol at which the coins before were cut
        for coins in sorter.coins():
            given = series_names([*holder, *coins], known({symbol for symbol, _ in coins}))
            yield {(symbol, slug): given[symbol, slug] for symbol, slug in coins if given[symbol, slug] != symbol}
            last = coins[-1][0]
            holder = next([coin] for coin in (*holder, *coins) if coin[0] == last)

    return sorter.rename(names())
