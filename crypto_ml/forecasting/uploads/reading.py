"""From the bytes of an upload to tables of text: is this CSV at all, and which columns does it have?

Nothing is converted here and nothing is guessed: a value comes out as the text that stood in its line. The reader holds
one block of the file at a time, so a file of any size costs the same memory. Parquet is read in `parquet`.
"""

import csv
import io
import itertools
import re
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import RLock
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

from crypto_ml.forecasting.uploads.checked_text import (
    BLOCK,
    DELIMITERS,
    UTF_16,
    CheckedText,
    TooLarge,
    is_gzip,
    open_bytes,
)
from crypto_ml.forecasting.uploads.file_kinds import foreign_text
from crypto_ml.forecasting.uploads.layouts import (
    COLUMNS_SETTING,
    KLINES,
    REQUIRED,
    Layout,
    NoLayout,
    is_another,
    lay_out,
)
from crypto_ml.forecasting.uploads.limits import MOST_EXPANSION, SMALL_EXPANDED
from crypto_ml.forecasting.uploads.unreadable import UnreadableUpload

OPTIONAL: Final = ("volume", "slug")

SHOWN_TEXT: Final = 500
"""Characters of a line that a reason repeats."""

MOST_RAGGED: Final = 20_000
IN_ONE_PIECE: Final = 16 << 10
"""Bytes of a file that are read before they are parsed: threads that take turns take longer."""

_NOTHING: Final = ', \t"'
_DELIMITER_SAID: Final = re.compile(r'"?sep=([,;\t|])"?', re.IGNORECASE)
_ABOUT_THE_FILE: Final = re.compile(r'"?(https?://\S+|.*cryptodatadownload.*)', re.IGNORECASE)
_TIME: Final = re.compile(r"[1-9](?:\d{9}|\d{12}|\d{15})", re.ASCII)
_DECIMAL: Final = re.compile(r"\d+(?:\.\d+)?", re.ASCII)


@dataclass(frozen=True)
class RaggedLine:
    """A line with another number of values than the header; of its text the first SHOWN_TEXT characters."""

    line: int
    text: str
    reason: str


@dataclass(frozen=True)
class Header:
    """Where a CSV file says which column is which. delimiter: between values. line: its line, 0 where there is none."""

    layout: Layout
    delimiter: str = ","
    line: int = 1


@dataclass
class UploadReader:
    """One upload, read as blocks of text.

    path: a CSV file, plain or gzip. limit: largest size in bytes after decompression, which is also at most
    MOST_EXPANSION times the size before it (or SMALL_EXPANDED). name: what the file is called where it was dropped.
    asked: our names → those of the file, as somebody said. Iterating yields tables with the
    columns of `REQUIRED` and those of `OPTIONAL` that are there, all strings, and `line` (int64, the line in the file,
    the header being 1). Lines that do not fit the header are in `ragged`, which whoever iterates may empty between
    two tables; when_many is called where MOST_RAGGED have gathered before there is a table, to empty it earlier.
    `bytes_read` is about how far into the file it is.
    Raises UnreadableUpload.
    """

    path: Path
    limit: int
    columns: Sequence[str] = ()
    when_many: Callable[[], None] = lambda: None
    name: str = ""
    asked: Mapping[str, str] = field(default_factory=dict)
    ragged: list[RaggedLine] = field(default_factory=list, init=False)
    encoding: str = field(default="utf-8", init=False)
    header: Header = field(init=False)
    bytes_read: int = field(default=0, init=False)
    _is_gzip: bool | None = field(default=None, init=False)
    _next_line: int = field(default=2, init=False)
    _skipped: "array[int]" = field(default_factory=lambda: array("q"), init=False)
    _noting: Any = field(default_factory=RLock, init=False, repr=False, compare=False)
    """Blocks are parsed ahead by another thread, which notes their ragged lines while rows are given their lines."""

    def __post_init__(self) -> None:
        with self._open(None) as stream:
            lines = _first_lines(stream)
            self.encoding = stream.encoding
        self.header = _read_header(lines, self.asked, self.name)

    @property
    def layout(self) -> Layout:
        """Which column is which."""
        return self.header.layout

    @property
    def ignored(self) -> list[str]:
        """The columns that are not used."""
        return list(self.layout.ignored)

    def take_ragged(self) -> list[RaggedLine]:
        """The ragged lines since this was last asked."""
        with self._noting:
            lines, self.ragged = self.ragged, []
            return lines

    def only(self, columns: Sequence[str]) -> "UploadReader":
        """The same file, read again for some of its columns."""
        return UploadReader(self.path, self.limit, columns, name=self.name, asked=self.asked)

    def __iter__(self) -> Iterator[pa.Table]:
        self.ragged.clear()
        self._next_line, self._skipped = self.header.line + 1, array("q")
        names = self.layout.names
        wanted = [name for name in names if name in (self.columns or (*REQUIRED, *OPTIONAL))]
        alike = {} if self.columns else {names[at]: set[str]() for at in self.layout.alike}
        with self._open(self.header.delimiter) as stream:
            try:
                for batch in self._batches(stream, [*wanted, *(name for name in alike if name not in wanted)]):
                    lines = self._lines_of(batch.num_rows)
                    self.bytes_read = stream.bytes_before(self._next_line)
                    table = pa.Table.from_batches([batch])
                    for name, said in alike.items():
                        say_the_same(table[name], said, self.layout.symbol)
                    table = table.select(wanted).append_column("line", pa.array(lines, pa.int64()))
                    yield table if self.columns else completed(table, self.layout)
            except pa.ArrowInvalid as error:
                raise UnreadableUpload(f"the file cannot be read as CSV: {error}") from error

    def _lines_of(self, rows: int) -> npt.NDArray[np.int64]:
        """The lines of the next so many rows: those that were not skipped."""
        with self._noting:
            skipped = np.array(self._skipped, np.int64)
            lines = np.arange(self._next_line, self._next_line + rows + len(skipped))
            lines = lines[~np.isin(lines, skipped)][:rows] if len(skipped) else lines
            if rows:
                self._next_line = int(lines[-1]) + 1
                self._skipped = array("q", skipped[skipped >= self._next_line].tobytes())
            return lines

    def _batches(self, stream: "CheckedText", wanted: list[str]) -> Iterator[pa.RecordBatch]:
        def note(row: pa_csv.InvalidRow) -> str:
            with self._noting:
                return noted(row)

        def noted(row: pa_csv.InvalidRow) -> str:
            if row.number == self._next_line and not self._skipped:  # no row before it waits for its line
                self._next_line += 1
            else:
                self._skipped.append(row.number)
            if row.text.strip(_NOTHING + self.header.delimiter):
                reason = f"the line has {row.actual_columns} values where the header names {row.expected_columns}"
                self.ragged.append(RaggedLine(row.number, row.text[:SHOWN_TEXT], reason))
                if len(self.ragged) >= MOST_RAGGED:
                    self.when_many()
            return "skip"

        # names that cannot repeat: two unnamed columns are normal
        names = self.layout.names
        unique = [name if name in wanted else f"#{position}" for position, name in enumerate(names)]
        yield from pa_csv.open_csv(
            pa.BufferReader(stream.read_all()) if self._is_tiny() else stream,
            read_options=pa_csv.ReadOptions(
                use_threads=False, column_names=unique, skip_rows=self.header.line, block_size=BLOCK
            ),
            parse_options=pa_csv.ParseOptions(
                delimiter=self.header.delimiter,
                invalid_row_handler=note,
                ignore_empty_lines=False,
                newlines_in_values=False,
            ),
            convert_options=pa_csv.ConvertOptions(
                include_columns=wanted,
                column_types={name: pa.string() for name in wanted},
                strings_can_be_null=False,
                check_utf8=False,
            ),
        )

    def _is_tiny(self) -> bool:
        """Whether all of the text may be held at once; of gzip nobody knows how much it is."""
        return not self._is_gzip and self.path.stat().st_size <= IN_ONE_PIECE

    def _open(self, delimiter: str | None) -> "CheckedText":
        limits = [TooLarge(self.limit, _BEYOND_LIMIT.format(self.limit))]
        if self._is_gzip is None:
            self._is_gzip = is_gzip(self.path)
        if gzipped := self._is_gzip:
            packed = self.path.stat().st_size
            expanded = max(SMALL_EXPANDED, MOST_EXPANSION * packed)
            limits.append(TooLarge(expanded, _BEYOND_EXPANSION.format(packed, MOST_EXPANSION)))
        return CheckedText(
            lambda: open_bytes(self.path, gzipped=gzipped),
            min(limits, key=lambda limit: limit.bytes),
            delimiter,
            packed=gzipped,
        )


def completed(table: pa.Table, layout: Layout) -> pa.Table:
    """A table of text with the columns that its file does not have: a symbol that its name says, no market."""
    if layout.symbol is not None:
        has = pa.chunked_array([pa.repeat(False, table.num_rows)])
        for name in table.column_names:
            if name != "line":
                has = pc.or_(has, pc.not_equal(table[name], ""))
        table = table.append_column("symbol", pc.if_else(has, layout.symbol, ""))
    return table if layout.market else table.append_column("market", pa.repeat("", table.num_rows))


def say_the_same(column: pa.ChunkedArray, said: set[str], symbol: str | None) -> None:
    """Note what a column says that may name the coin.

    symbol: what the file's name says. Raises UnreadableUpload where the column says more than one thing, or a pair of
    another coin or currency.
    """
    said.update(pc.unique(pc.utf8_trim_whitespace(column)).to_pylist()[:3])
    said.discard("")
    if len(said) > 1:
        one, other = sorted(said)[:2]
        raise UnreadableUpload(
            f"the header has the required column symbol missing, and its rows are of several coins ({one[:40]} and "
            f"{other[:40]}); add a column symbol, or say which one it is: {COLUMNS_SETTING}=symbol=NAME"
        )
    if symbol and (another := next((value for value in said if is_another(value, symbol)), None)):
        raise UnreadableUpload(
            f"by its name the file is of {symbol}, and in its rows stands {another[:40]}; add a column symbol, or say "
            f"which one it is: {COLUMNS_SETTING}=symbol=NAME"
        )


def line_of(path: Path, number: int) -> str:
    """A line of an upload as it was received, the header being 1; empty where the file has no such line."""
    with open_bytes(path) as raw:
        encoding = "utf-16" if raw.read(2) in UTF_16 else "utf-8-sig"
        raw.seek(0)
        with io.TextIOWrapper(raw, encoding, newline=None) as text:
            return next(itertools.islice(text, number - 1, None), "").removesuffix("\n")


_BEYOND_LIMIT: Final = (
    "the file is larger than the limit of {:,} bytes after decompression; split it, or raise CRYPTO_ML_MAX_UPLOAD_BYTES"
)
_YFINANCE: Final = (
    "the file has the three header lines of yfinance's tables of several coins; download each coin by itself with "
    "yf.download('BTC-USD', multi_level_index=False).to_csv('BTC-USD.csv'), and upload that"
)
_BEYOND_EXPANSION: Final = (
    "the {:,} bytes of gzip expand to more than {} times as many, which market data does not; upload the file as plain "
    "CSV if it is what it should be"
)


def _first_lines(stream: CheckedText) -> list[str]:
    """The first line of a file, and the second where it has one."""
    head = b""
    while head.count(b"\n") < 2:
        more = stream.read(1 << 16)
        head += more
        if not more:
            break
    if not head.strip():
        raise UnreadableUpload("the file is empty")
    return [line.decode("utf-8") for line in head.split(b"\n")[:2]]


def _read_header(lines: Sequence[str], asked: Mapping[str, str], name: str) -> Header:
    """Which column is which, from the first lines of a file. Raises UnreadableUpload with every mismatch."""
    first = lines[0]
    if said := _DELIMITER_SAID.fullmatch(first.strip()):
        return _header_in(lines[1] if len(lines) > 1 else "", 2, (said[1],), asked, name)
    if _is_kline(first):
        return Header(lay_out(KLINES[: first.count(",") + 1], OPTIONAL, asked, name), line=0)
    try:
        return _header_in(first, 1, DELIMITERS, asked, name)
    except NoLayout as refused:
        if len(lines) > 1 and _ABOUT_THE_FILE.fullmatch(first):
            return _header_in(lines[1], 2, DELIMITERS, asked, name)
        if len(lines) > 1 and first.startswith("Price,") and lines[1].startswith("Ticker,"):
            raise UnreadableUpload(_YFINANCE) from refused
        if reason := foreign_text(first):
            raise UnreadableUpload(reason) from refused
        raise


def _header_in(line: str, number: int, delimiters: Sequence[str], asked: Mapping[str, str], name: str) -> Header:
    """The header in a line. Where no delimiter gives one, the complaint is about the one that comes nearest."""
    headers: list[Header] = []
    refused: list[NoLayout] = []
    for delimiter in delimiters:
        try:
            given = next(csv.reader([line], delimiter=delimiter), [])
        except csv.Error as error:
            if delimiter == delimiters[0]:
                raise UnreadableUpload(f"the header cannot be read as CSV ({error})") from error
            continue
        if delimiter != delimiters[0] and len(given) == 1:
            continue
        try:
            headers.append(Header(lay_out(given, OPTIONAL, asked, name), delimiter, number))
        except NoLayout as one:
            refused.append(one)
        else:
            if delimiter == ",":
                break
    if len(headers) > 1:
        marks = " and with ".join(repr(header.delimiter) for header in headers)
        raise UnreadableUpload(f"the header can be read with {marks} between its columns; write it with one of them")
    if headers:
        return headers[0]
    raise max(refused, key=lambda one: one.known)


def _is_kline(line: str) -> bool:
    """Whether a first line is no header but a row of Binance's klines: times, prices and volumes, twelve of them."""
    values = line.split(",")
    times = [values[at].strip() for at in (0, 6)] if len(values) in (len(KLINES) - 1, len(KLINES)) else []
    return (
        bool(times)
        and all(_TIME.fullmatch(time) for time in times)
        and len({len(time) for time in times}) == 1
        and int(times[0]) < int(times[1])
        and all(_DECIMAL.fullmatch(value.strip()) for value in values)
    )
