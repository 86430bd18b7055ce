"""From the bytes of an upload to tables of text: is this CSV at all, and which columns does it have?

Nothing is converted here and nothing is guessed: a value comes out as the text that stood in its line. The reader holds
one block of the file at a time, so a file of any size costs the same memory.
"""

import codecs
import csv
import gzip
import io
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Final, cast

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv

from crypto_ml.errors import Refused
from crypto_ml.forecasting.schema import PRICES

REQUIRED: Final = ("symbol", "date", *PRICES, "market")
OPTIONAL: Final = ("volume", "slug")
ALIASES: Final = {"marketcap": "market", "market_cap": "market"}
RECOMPUTED: Final = frozenset({"close_ratio", "spread"})
KNOWN_UNUSED: Final = frozenset({"name", "ranknow", "index", ""}) | RECOMPUTED
LONGEST_LINE: Final = 1 << 20
BLOCK: Final = 8 << 20
GZIP_MAGIC: Final = b"\x1f\x8b"


class UnreadableUpload(Refused):
    """A file refused as a whole; the text is the reason given in its report."""


@dataclass(frozen=True)
class RaggedLine:
    """A line with another number of values than the header."""

    line: int
    text: str
    reason: str


@dataclass
class UploadReader:
    """One upload, read as blocks of text.

    path: a CSV file, plain or gzip. limit: largest size in bytes after decompression. Iterating yields tables with the
    columns of `REQUIRED` and those of `OPTIONAL` that are there, all strings, and `line` (int64, the line in the file,
    the header being 1). Lines that do not fit the header are in `ragged`. Raises UnreadableUpload.
    """

    path: Path
    limit: int
    columns: Sequence[str] = ()
    ignored: list[str] = field(default_factory=list, init=False)
    ragged: list[RaggedLine] = field(default_factory=list, init=False)
    _names: list[str] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        with self._open() as stream:
            header = _first_line(stream)
        self._names, self.ignored = _read_header(header)

    def __iter__(self) -> Iterator[pa.Table]:
        self.ragged.clear()
        wanted = [name for name in self._names if name in (self.columns or (*REQUIRED, *OPTIONAL))]
        next_line = 2
        with self._open() as stream:
            try:
                for batch in self._batches(stream, wanted):
                    skipped = [bad.line for bad in self.ragged if bad.line >= next_line]
                    lines = np.arange(next_line, next_line + batch.num_rows + len(skipped))
                    lines = lines[~np.isin(lines, skipped)][: batch.num_rows]
                    if batch.num_rows:
                        next_line = int(lines[-1]) + 1
                    yield pa.Table.from_batches([batch]).append_column("line", pa.array(lines, pa.int64()))
            except pa.ArrowInvalid as error:
                raise UnreadableUpload(f"the file cannot be read as CSV: {error}") from error

    def _batches(self, stream: "_CheckedText", wanted: list[str]) -> Iterator[pa.RecordBatch]:
        width = len(self._names)

        def note(row: pa_csv.InvalidRow) -> str:
            reason = f"the line has {row.actual_columns} values where the header names {row.expected_columns}"
            self.ragged.append(RaggedLine(row.number, row.text, reason))
            return "skip"

        # names that cannot repeat: two unnamed columns are normal
        unique = [name if name in wanted else f"#{position}" for position, name in enumerate(self._names)]
        yield from pa_csv.open_csv(
            stream,
            read_options=pa_csv.ReadOptions(use_threads=False, column_names=unique, skip_rows=1, block_size=BLOCK),
            parse_options=pa_csv.ParseOptions(
                invalid_row_handler=note if width > 1 else None, ignore_empty_lines=False, newlines_in_values=False
            ),
            convert_options=pa_csv.ConvertOptions(
                include_columns=wanted,
                column_types={name: pa.string() for name in wanted},
                strings_can_be_null=False,
                check_utf8=False,
            ),
        )

    def _open(self) -> "_CheckedText":
        return _CheckedText(lambda: open_bytes(self.path), self.limit)


def open_bytes(path: Path) -> BinaryIO:
    """The bytes of an upload, decompressed where they are gzip."""
    with path.open("rb") as raw:
        compressed = raw.read(len(GZIP_MAGIC)) == GZIP_MAGIC
    return cast(BinaryIO, gzip.open(path, "rb")) if compressed else path.open("rb")


class _CheckedText(io.RawIOBase):
    """A stream of bytes that refuses, while it is read, what no CSV reader should be given."""

    def __init__(self, opener: Callable[[], BinaryIO], limit: int) -> None:
        super().__init__()
        self._source = opener()
        self._limit = limit
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._seen = 0
        self._lines = 0
        self._pending = b""  # the unfinished last line, for the checks that are about a line

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        self._source.close()
        super().close()

    def read(self, size: int | None = -1) -> bytes:
        try:
            chunk = self._source.read(BLOCK if size is None or size < 0 else size)
        except (EOFError, OSError, zlib.error) as error:
            raise UnreadableUpload(f"the gzip data is damaged or cut short ({error}); upload the file again") from error
        if self._seen == 0:
            chunk = _without_bom(chunk)
        self._check(chunk)
        self._seen += len(chunk)
        return chunk

    def _check(self, chunk: bytes) -> None:
        if self._seen + len(chunk) > self._limit:
            raise UnreadableUpload(
                f"the file is larger than the limit of {self._limit:,} bytes after decompression; split it, or raise "
                "CRYPTO_ML_MAX_UPLOAD_BYTES"
            )
        if (zero := chunk.find(b"\0")) >= 0:
            raise UnreadableUpload(f"the file has a NUL byte at byte {self._seen + zero:,}: it is not text")
        try:
            self._decoder.decode(chunk, final=not chunk)
        except UnicodeDecodeError as error:
            raise UnreadableUpload(
                f"the file is not UTF-8 (near byte {self._seen + error.start:,}); save it as CSV in UTF-8"
            ) from error
        self._check_lines(chunk)

    def _check_lines(self, chunk: bytes) -> None:
        text = self._pending + chunk
        complete, newline, self._pending = text.rpartition(b"\n")
        if len(self._pending) > LONGEST_LINE or (newline and _longest(complete) > LONGEST_LINE):
            raise UnreadableUpload(f"a line near line {self._lines + 1:,} is longer than {LONGEST_LINE:,} bytes")
        lines = complete.split(b"\n") if b'"' in complete else []
        if not chunk and b'"' in self._pending:  # the last line, which nothing ends
            lines = [*lines, self._pending]
        for number, line in enumerate(lines, self._lines + 1):
            if line.count(b'"') % 2:
                raise UnreadableUpload(f"line {number:,} opens a quote and does not close it on the same line")
        self._lines += complete.count(b"\n") + 1 if newline else 0


def _longest(complete: bytes) -> int:
    ends = np.flatnonzero(np.frombuffer(complete, np.uint8) == ord("\n"))
    return int(np.diff(ends, prepend=-1, append=len(complete)).max())


def _without_bom(chunk: bytes) -> bytes:
    if chunk.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise UnreadableUpload("the file is UTF-16; save it as CSV in UTF-8")
    return chunk.removeprefix(codecs.BOM_UTF8)


def _first_line(stream: _CheckedText) -> str:
    head = b""
    while b"\n" not in head:
        more = stream.read(1 << 16)
        head += more
        if not more:
            break
    if not head.strip():
        raise UnreadableUpload("the file is empty")
    return head.split(b"\n", 1)[0].decode("utf-8").rstrip("\r")


def _read_header(line: str) -> tuple[list[str], list[str]]:
    """The columns in our names, and those that will not be used. Raises UnreadableUpload with every mismatch."""
    given = next(csv.reader([line]), [])
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
    return names, ignored
