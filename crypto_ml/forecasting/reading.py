"""From the bytes of an upload to tables of text: is this CSV at all, and which columns does it have?

Nothing is converted here and nothing is guessed: a value comes out as the text that stood in its line. The reader holds
one block of the file at a time, so a file of any size costs the same memory.
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
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Final, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv as pa_csv

from crypto_ml.errors import Refused
from crypto_ml.forecasting.limits import MOST_EXPANSION, SMALL_EXPANDED
from crypto_ml.forecasting.schema import PRICES

REQUIRED: Final = ("symbol", "date", *PRICES, "market")
OPTIONAL: Final = ("volume", "slug")
ALIASES: Final = {"marketcap": "market", "market_cap": "market"}
RECOMPUTED: Final = frozenset({"close_ratio", "spread"})
KNOWN_UNUSED: Final = frozenset({"name", "ranknow", "index", ""}) | RECOMPUTED
LONGEST_LINE: Final = 1 << 20
MOST_COLUMNS: Final = 4_096
"""More than a table has in any of the usual databases."""

SHOWN_TEXT: Final = 500
"""Characters of a line that a reason repeats."""
SHOWN_NAME: Final = 100
"""Characters of an ignored column's name that are repeated."""

MOST_RAGGED: Final = 20_000
BLOCK: Final = 8 << 20
LINES_AT_ONCE: Final = 1 << 18
"""Lines of a block that are given on at once: eight million empty ones would take a hundred times their size."""

GZIP_MAGIC: Final = b"\x1f\x8b"
_VALUE: Final = rb'(?:"[^"\n]*+(?:""[^"\n]*+)*+"[^,\n]*+|[^",\n][^,\n]*+|)'
_CLOSED_LINES: Final = re.compile(rb"(?:%b(?:,%b)*+\n)*+" % (_VALUE, _VALUE))
"""Lines in which each quote that opens a value is closed: what follows another one would be swallowed by its value."""
_NOTHING: Final = ', \t"'


class UnreadableUpload(Refused):
    """A file refused as a whole; the text is the reason given in its report."""


@dataclass(frozen=True)
class RaggedLine:
    """A line with another number of values than the header; of its text the first SHOWN_TEXT characters."""

    line: int
    text: str
    reason: str


@dataclass
class UploadReader:
    """One upload, read as blocks of text.

    path: a CSV file, plain or gzip. limit: largest size in bytes after decompression, which is also at most
    MOST_EXPANSION times the size before it (or SMALL_EXPANDED). Iterating yields tables with the
    columns of `REQUIRED` and those of `OPTIONAL` that are there, all strings, and `line` (int64, the line in the file,
    the header being 1). Lines that do not fit the header are in `ragged`, which whoever iterates may empty between
    two tables; when_many is called where MOST_RAGGED have gathered before there is a table, to empty it earlier.
    Raises UnreadableUpload.
    """

    path: Path
    limit: int
    columns: Sequence[str] = ()
    when_many: Callable[[], None] = lambda: None
    ignored: list[str] = field(default_factory=list, init=False)
    ragged: list[RaggedLine] = field(default_factory=list, init=False)
    _names: list[str] = field(default_factory=list, init=False)
    _next_line: int = field(default=2, init=False)
    _skipped: "array[int]" = field(default_factory=lambda: array("q"), init=False)

    def __post_init__(self) -> None:
        with self._open() as stream:
            header = _first_line(stream)
        self._names, self.ignored = _read_header(header)

    def __iter__(self) -> Iterator[pa.Table]:
        self.ragged.clear()
        self._next_line, self._skipped = 2, array("q")
        wanted = [name for name in self._names if name in (self.columns or (*REQUIRED, *OPTIONAL))]
        with self._open() as stream:
            try:
                for batch in self._batches(stream, wanted):
                    lines = self._lines_of(batch.num_rows)
                    yield pa.Table.from_batches([batch]).append_column("line", pa.array(lines, pa.int64()))
            except pa.ArrowInvalid as error:
                raise UnreadableUpload(f"the file cannot be read as CSV: {error}") from error

    def _lines_of(self, rows: int) -> npt.NDArray[np.int64]:
        """The lines of the next so many rows: those that were not skipped."""
        skipped = np.frombuffer(self._skipped, np.int64) if self._skipped else np.zeros(0, np.int64)
        lines = np.arange(self._next_line, self._next_line + rows + len(skipped))
        lines = lines[~np.isin(lines, skipped)][:rows]
        if rows:
            self._next_line = int(lines[-1]) + 1
            self._skipped = array("q", skipped[skipped >= self._next_line].tobytes())
        return lines

    def _batches(self, stream: "_CheckedText", wanted: list[str]) -> Iterator[pa.RecordBatch]:
        def note(row: pa_csv.InvalidRow) -> str:
            if row.number == self._next_line and not self._skipped:  # no row before it waits for its line
                self._next_line += 1
            else:
                self._skipped.append(row.number)
            if row.text.strip(_NOTHING):
                reason = f"the line has {row.actual_columns} values where the header names {row.expected_columns}"
                self.ragged.append(RaggedLine(row.number, row.text[:SHOWN_TEXT], reason))
                if len(self.ragged) >= MOST_RAGGED:
                    self.when_many()
            return "skip"

        # names that cannot repeat: two unnamed columns are normal
        unique = [name if name in wanted else f"#{position}" for position, name in enumerate(self._names)]
        yield from pa_csv.open_csv(
            stream,
            read_options=pa_csv.ReadOptions(use_threads=False, column_names=unique, skip_rows=1, block_size=BLOCK),
            parse_options=pa_csv.ParseOptions(
                invalid_row_handler=note, ignore_empty_lines=False, newlines_in_values=False
            ),
            convert_options=pa_csv.ConvertOptions(
                include_columns=wanted,
                column_types={name: pa.string() for name in wanted},
                strings_can_be_null=False,
                check_utf8=False,
            ),
        )

    def _open(self) -> "_CheckedText":
        limits = [_TooLarge(self.limit, _BEYOND_LIMIT.format(self.limit))]
        if is_gzip(self.path):
            packed = self.path.stat().st_size
            expanded = max(SMALL_EXPANDED, MOST_EXPANSION * packed)
            limits.append(_TooLarge(expanded, _BEYOND_EXPANSION.format(packed, MOST_EXPANSION)))
        return _CheckedText(lambda: open_bytes(self.path), min(limits, key=lambda limit: limit.bytes))


def is_gzip(path: Path) -> bool:
    """Whether an upload is gzip, whatever its name is."""
    with path.open("rb") as raw:
        return raw.read(len(GZIP_MAGIC)) == GZIP_MAGIC


def open_bytes(path: Path) -> BinaryIO:
    """The bytes of an upload, decompressed where they are gzip."""
    return cast(BinaryIO, gzip.open(path, "rb")) if is_gzip(path) else path.open("rb")


def line_of(path: Path, number: int) -> str:
    """A line of an upload as it was received, the header being 1; empty where the file has no such line."""
    with open_bytes(path) as raw, io.TextIOWrapper(raw, "utf-8-sig", newline=None) as text:
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

    Every line comes out ended by a line feed, also those that ended in CR LF, CR, or with the file.
    """

    def __init__(self, opener: Callable[[], BinaryIO], limit: _TooLarge) -> None:
        super().__init__()
        self._source = opener()
        self._limit = limit
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._seen = 0
        self._lines = 0
        self._after_return = False
        self._pending = b""  # the unfinished last line, for the checks that are about a line
        self._ready = deque[bytes]()

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        self._source.close()
        super().close()

    def read(self, size: int | None = -1) -> bytes:
        if not self._ready:
            self._ready.extend(self._next_block(BLOCK if size is None or size < 0 else size))
        return self._ready.popleft()

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
            self._check(chunk, ended)
            text = self._with_line_feeds(chunk if self._seen else chunk.removeprefix(codecs.BOM_UTF8), ended)
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

    def _check(self, chunk: bytes, ended: bool) -> None:
        if self._seen + len(chunk) > self._limit.bytes:
            raise UnreadableUpload(self._limit.reason)
        if not self._seen and chunk.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            raise UnreadableUpload("the file is UTF-16; save it as CSV in UTF-8")
        if (zero := chunk.find(b"\0")) >= 0:
            raise UnreadableUpload(f"the file has a NUL byte at byte {self._seen + zero:,}: it is not text")
        try:
            self._decoder.decode(chunk, final=ended)
        except UnicodeDecodeError as error:
            raise UnreadableUpload(
                f"the file is not UTF-8 (near byte {self._seen + error.start:,}); save it as CSV in UTF-8"
            ) from error

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
        if b'"' in complete:
            closed = cast(re.Match[bytes], _CLOSED_LINES.match(complete)).end()
            if closed < len(complete):
                number = self._lines + complete.count(b"\n", 0, closed) + 1
                raise UnreadableUpload(f"line {number:,} opens a quote and does not close it on the same line")
        self._lines += complete.count(b"\n")


def _lines_before_a_long_one(complete: bytes, pending: bytes) -> int | None:
    ends = np.flatnonzero(np.frombuffer(complete, np.uint8) == ord("\n"))
    lengths = np.diff(ends, prepend=-1, append=ends[-1] + 1 + len(pending) if len(ends) else len(pending) - 1)
    too_long = np.flatnonzero(lengths > LONGEST_LINE)
    return int(too_long[0]) if len(too_long) else None


def _first_line(stream: _CheckedText) -> str:
    head = b""
    while b"\n" not in head:
        more = stream.read(1 << 16)
        head += more
        if not more:
            break
    if not head.strip():
        raise UnreadableUpload("the file is empty")
    return head.split(b"\n", 1)[0].decode("utf-8")


def _read_header(line: str) -> tuple[list[str], list[str]]:
    """The columns in our names, and those that will not be used. Raises UnreadableUpload with every mismatch."""
    try:
        given = next(csv.reader([line]), [])
    except csv.Error as error:
        raise UnreadableUpload(f"the header cannot be read as CSV ({error})") from error
    if len(given) > MOST_COLUMNS:
        raise UnreadableUpload(
            f"the header has {len(given):,} columns, more than the {MOST_COLUMNS:,} that are read; leave out those "
            "that are not needed"
        )
    names = [ALIASES.get(name, name) for name in (column.strip().lower() for column in given)]
    used = (*REQUIRED, *OPTIONAL)
    missing = [name for name in REQUIRED if name not in names]
    twice = [name for name in used if names.count(name) > 1]
    if missing or twice:
        complaints = [f"the required column{'s' * (len(missing) > 1)} {', '.join(missing)} missing"] if missing else []
        complaints += [f"more than one column for {', '.join(twice)}"] if twice else []
        shown = ", ".join(given)
        raise UnreadableUpload(
            f"the header has {' and '.join(complaints)}; its columns are: {shown[:200]}{'…' * (len(shown) > 200)}"
        )
    ignored = [column.strip() for column, name in zip(given, names, strict=True) if name not in {*used, *KNOWN_UNUSED}]
    return names, [f"{name[:SHOWN_NAME]}…" if len(name) > SHOWN_NAME else name for name in ignored]
