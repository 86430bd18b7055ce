"""From the bytes of an upload to tables of text: is this CSV at all, and which columns does it have?

Nothing is converted here and nothing is guessed: a value comes out as the text that stood in its line. The reader holds
one block of the file at a time, so a file of any size costs the same memory. Parquet is read in `parquet`.
"""

import codecs
import csv
import gzip
import io
import itertools
import re
import zlib
from array import array
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import RLock
from typing import Any, BinaryIO, Final, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

from crypto_ml.forecasting.uploads.file_kinds import foreign, foreign_text
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
LONGEST_LINE: Final = 1 << 20

SHOWN_TEXT: Final = 500
"""Characters of a line that a reason repeats."""

MOST_RAGGED: Final = 20_000
BLOCK: Final = 8 << 20
LINES_AT_ONCE: Final = 1 << 18
"""Lines of a block that are given on at once: eight million empty ones would take a hundred times their size."""

IN_ONE_PIECE: Final = 16 << 10
"""Bytes of a file that are read before they are parsed: threads that take turns take longer."""

GZIP_MAGIC: Final = b"\x1f\x8b"
DELIMITERS: Final = (",", ";", "\t", "|")
"""What stands between the values of a line, in the order in which it is looked for."""


def _closed_lines(delimiter: str) -> re.Pattern[bytes]:
    """Lines in which each quote that opens a value is closed: what follows another one would be swallowed by it."""
    mark = re.escape(delimiter.encode())
    value = rb'(?:"[^"\n]*+(?:""[^"\n]*+)*+"[^%b\n]*+|[^"%b\n][^%b\n]*+|)' % (mark, mark, mark)
    return re.compile(rb"(?:%b(?:%b%b)*+\n)*+" % (value, mark, value))


_CLOSED_LINES: Final = {delimiter: _closed_lines(delimiter) for delimiter in DELIMITERS}
_NOTHING: Final = ', \t"'
_DELIMITER_SAID: Final = re.compile(r'"?sep=([,;\t|])"?', re.IGNORECASE)
_ABOUT_THE_FILE: Final = re.compile(r'"?(https?://\S+|.*cryptodatadownload.*)', re.IGNORECASE)
_TIME: Final = re.compile(r"[1-9](?:\d{9}|\d{12}|\d{15})", re.ASCII)
_DECIMAL: Final = re.compile(r"\d+(?:\.\d+)?", re.ASCII)
UTF_16: Final = {codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"}


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

    def _batches(self, stream: "_CheckedText", wanted: list[str]) -> Iterator[pa.RecordBatch]:
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

    def _open(self, delimiter: str | None) -> "_CheckedText":
        limits = [_TooLarge(self.limit, _BEYOND_LIMIT.format(self.limit))]
        if self._is_gzip is None:
            self._is_gzip = is_gzip(self.path)
        if gzipped := self._is_gzip:
            packed = self.path.stat().st_size
            expanded = max(SMALL_EXPANDED, MOST_EXPANSION * packed)
            limits.append(_TooLarge(expanded, _BEYOND_EXPANSION.format(packed, MOST_EXPANSION)))
        return _CheckedText(
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


def is_gzip(path: Path) -> bool:
    """Whether an upload is gzip, whatever its name is."""
    with path.open("rb") as raw:
        return raw.read(len(GZIP_MAGIC)) == GZIP_MAGIC


def open_bytes(path: Path, *, gzipped: bool | None = None) -> BinaryIO:
    """The bytes of an upload, decompressed where they are gzip. gzipped: whether they are, where that is known."""
    if is_gzip(path) if gzipped is None else gzipped:
        return cast(BinaryIO, gzip.open(path, "rb"))
    return path.open("rb")


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
_BEYOND_EXPANSION: Final = (
    "the {:,} bytes of gzip expand to more than {} times as many, which market data does not; upload the file as plain "
    "CSV if it is what it should be"
)


@dataclass(frozen=True)
class _TooLarge:
    """So many bytes after decompression are accepted, and what is said where there are more."""

    bytes: int
    reason: str


class _CheckedText(io.RawIOBase):
    """A stream of text that refuses, while it is read, what no CSV reader should be given.

    Every line comes out ended by a line feed, also those that ended in CR LF, CR, or with the file; UTF-16 comes out as
    UTF-8. delimiter: between values; None to look at no quotes. packed: whether the text was in gzip.
    """

    def __init__(
        self, opener: Callable[[], BinaryIO], limit: _TooLarge, delimiter: str | None, *, packed: bool
    ) -> None:
        super().__init__()
        self._source = opener()
        self._limit = limit
        self._closed_lines = _CLOSED_LINES[delimiter] if delimiter else None
        self._packed = packed
        self.encoding = "utf-8"
        self._decoder: codecs.IncrementalDecoder = codecs.getincrementaldecoder("utf-8")()
        self._seen = 0
        self._lines = 0
        self._after_return = False
        self._pending = b""  # the unfinished last line, for the checks that are about a line
        self._ready = deque[bytes]()

    def bytes_before(self, line: int) -> int:
        """About how far into the file, as it lies on disk, a line is: what parses it is some blocks behind."""
        read = getattr(self._source, "fileobj", self._source).tell()
        return int(read * min(1.0, line / max(self._lines, 1)))

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        self._source.close()
        super().close()

    def read(self, size: int | None = -1) -> bytes:
        if not self._ready:
            self._ready.extend(self._next_block(BLOCK if size is None or size < 0 else size))
        return self._ready.popleft()

    def read_all(self) -> bytes:
        """All of the text, as far as it has not been read."""
        return b"".join(iter(self.read, b""))

    def _next_block(self, asked: int) -> Iterator[bytes]:
        """The text of the next block in pieces of LINES_AT_ONCE lines; an empty one at the end of the file."""
        text, ended = b"", False
        while not text and not ended:
            try:
                chunk = self._source.read(asked)
            except (EOFError, gzip.BadGzipFile, zlib.error) as error:
                raise UnreadableUpload(
                    f"the gzip data is damaged or cut short ({error}); upload the file again"
                ) from error
            ended = len(chunk) < asked
            checked = self._checked(chunk, ended)
            text = self._with_line_feeds(checked if self._seen else checked.removeprefix(codecs.BOM_UTF8), ended)
            self._seen += len(chunk)
            self._check_lines(text)
        begin = 0
        if text.count(b"\n") > LINES_AT_ONCE:
            ends = np.flatnonzero(np.frombuffer(text, np.uint8) == ord("\n"))
            for end in (ends[LINES_AT_ONCE - 1 :: LINES_AT_ONCE] + 1).tolist():
                yield text[begin:end]
                begin = end
        if begin < len(text) or not text:
            yield text[begin:]

    def _checked(self, chunk: bytes, ended: bool) -> bytes:
        """The bytes of a chunk in UTF-8. Raises UnreadableUpload where they are too many, or no text."""
        if self._seen + len(chunk) > self._limit.bytes:
            raise UnreadableUpload(self._limit.reason)
        if not self._seen:
            if reason := foreign(chunk, self._packed):
                raise UnreadableUpload(reason)
            if self._packed and chunk.startswith(GZIP_MAGIC):
                raise UnreadableUpload("the file is gzip within gzip, so it is not text; compress it once")
            if chunk.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
                raise UnreadableUpload("the file is UTF-32; save it as CSV in UTF-8")
            if name := UTF_16.get(chunk[:2]):
                self.encoding = name
                self._decoder = codecs.getincrementaldecoder(name)()
        plain = self.encoding == "utf-8"
        if plain and (zero := chunk.find(b"\0")) >= 0:
            raise UnreadableUpload(f"the file has a NUL byte at byte {self._seen + zero:,}: it is not text")
        try:
            text = self._decoder.decode(chunk, final=ended)
        except UnicodeDecodeError as error:
            where = f"(near byte {self._seen + error.start:,})"
            if plain:
                raise UnreadableUpload(
                    f"the file is not UTF-8 {where}, it may be Latin-1 or Windows-1252; save it as CSV in UTF-8"
                ) from error
            raise UnreadableUpload(f"the file is damaged UTF-16 {where}; save it as CSV in UTF-8") from error
        if plain:
            return chunk
        if "\0" in text:
            raise UnreadableUpload(f"the file has a NUL character near byte {self._seen:,}: it is not text")
        return (text if self._seen else text.removeprefix("\ufeff")).encode()

    def _with_line_feeds(self, chunk: bytes, ended: bool) -> bytes:
        if self._after_return:
            chunk = chunk.removeprefix(b"\n")
        self._after_return = chunk.endswith(b"\r")
        text = chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n") if b"\r" in chunk else chunk
        unfinished = text or self._pending
        return text + b"\n" if ended and unfinished and not unfinished.endswith(b"\n") else text

    def _check_lines(self, text: bytes) -> None:
        complete, newline, self._pending = (self._pending + text).rpartition(b"\n")
        complete += newline
        if (before := _lines_before_a_long_one(complete, self._pending)) is not None:
            raise UnreadableUpload(f"line {self._lines + before + 1:,} is longer than {LONGEST_LINE:,} bytes")
        if self._closed_lines and b'"' in complete:
            closed = cast(re.Match[bytes], self._closed_lines.match(complete)).end()
            if closed < len(complete):
                number = self._lines + complete.count(b"\n", 0, closed) + 1
                raise UnreadableUpload(f"line {number:,} opens a quote and does not close it on the same line")
        self._lines += complete.count(b"\n")


def _lines_before_a_long_one(complete: bytes, pending: bytes) -> int | None:
    if len(complete) + len(pending) <= LONGEST_LINE:
        return None
    ends = np.flatnonzero(np.frombuffer(complete, np.uint8) == ord("\n"))
    lengths = np.diff(ends, prepend=-1, append=ends[-1] + 1 + len(pending) if len(ends) else len(pending) - 1)
    too_long = np.flatnonzero(lengths > LONGEST_LINE)
    return int(too_long[0]) if len(too_long) else None


def _first_lines(stream: _CheckedText) -> list[str]:
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
