"""Parquet as the tables of text that CSV comes as, with the same limits; run as a process of its own by `parquet`.

What a file says of itself is not believed: the size of each page that will be unpacked is looked up where it stands,
before the page is read. Values of their own types come out as the text that CSV would have for them.

`python -m crypto_ml.forecasting.uploads.parquet_pages` takes a question as JSON and answers with an Arrow stream of the
text on standard output, or with a reason on standard error and the code REFUSED.
"""

import json
import struct
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from crypto_ml.forecasting.uploads.checked_text import BLOCK, LONGEST_LINE
from crypto_ml.forecasting.uploads.file_kinds import PARQUET
from crypto_ml.forecasting.uploads.layouts import REQUIRED, Layout, lay_out
from crypto_ml.forecasting.uploads.limits import MOST_EXPANSION, SMALL_EXPANDED
from crypto_ml.forecasting.uploads.parquet import LAYOUT, REFUSED
from crypto_ml.forecasting.uploads.reading import OPTIONAL, completed, say_the_same
from crypto_ml.forecasting.uploads.thrift import Damaged, read_struct
from crypto_ml.forecasting.uploads.unreadable import UnreadableUpload

MOST_FOOTER: Final = 16 << 20
MOST_PAGE: Final = 32 << 20
"""Bytes of a page once unpacked; writers make pages of about 1 MiB, and some one for each row group."""

MOST_TEXT: Final = 4 << 10
"""Bytes that the texts of a page may have on the average."""

USUAL_HEADER: Final = 512
LONGEST_HEADER: Final = 64 << 10
"""Bytes of a page's header, which may repeat its least and its greatest value."""

ROWS: Final = 1 << 14
_BYTE_ARRAYS: Final = "BYTE_ARRAY"
_DELTA_BYTE_ARRAY: Final = 7
_INDEX: Final = "__index_level_"
_TODO: Final = "write it anew, or save it as CSV"

_BEYOND: Final = (
    "the {:,} bytes of Parquet expand to more than {} times as many, which market data does not; upload the file as "
    "plain CSV if it is what it should be"
)
_BEYOND_LIMIT: Final = (
    "the file is larger than the limit of {:,} bytes after decompression; split it, or raise CRYPTO_ML_MAX_UPLOAD_BYTES"
)


@dataclass
class ParquetPages:
    """One upload in Parquet, read as blocks of text; see `parquet.ParquetReader`. Raises UnreadableUpload."""

    path: Path
    limit: int
    columns: Sequence[str] = ()
    name: str = ""
    asked: Mapping[str, str] = field(default_factory=dict)
    layout: Layout = field(init=False)

    def __post_init__(self) -> None:
        with self._reading(), self._opened() as file:
            given = file.schema_arrow.names
            own = [name for name in given if not name.startswith(_INDEX)]
            layout = lay_out(own, OPTIONAL, self.asked, self.name)
            self._given = dict(zip(layout.names, own, strict=True))
            self.layout = layout
            for ours in self._wanted():
                if given.count(self._given[ours]) > 1:
                    raise UnreadableUpload(
                        f"the file has more than one column {self._given[ours]}; leave out the others"
                    )
                _check_type(self._given[ours], ours, file.schema_arrow.field(self._given[ours]).type)

    def __iter__(self) -> Iterator[pa.Table]:
        wanted = self._wanted()
        alike = {} if self.columns else {self.layout.names[at]: set[str]() for at in self.layout.alike}
        names = [*wanted, *(name for name in alike if name not in wanted)]
        size = self.path.stat().st_size
        seen, line = 0, 2
        for batch in self._batches([self._given[name] for name in names]):
            for piece in _pieces(batch, line):
                seen += _text_bytes(piece)
                if seen > self.limit:
                    raise UnreadableUpload(_BEYOND_LIMIT.format(self.limit))
                if seen > max(SMALL_EXPANDED, MOST_EXPANSION * size):
                    raise UnreadableUpload(_BEYOND.format(size, MOST_EXPANSION))
                texts = {ours: _text(self._given[ours], piece.column(at)) for at, ours in enumerate(names)}
                for ours, said in alike.items():
                    say_the_same(texts[ours], said, self.layout.symbol)
                lines = pa.array(np.arange(line, line + piece.num_rows), pa.int64())
                table = pa.table({ours: texts[ours] for ours in wanted} | {"line": lines})
                line += piece.num_rows
                yield table if self.columns else completed(table, self.layout)

    def _wanted(self) -> list[str]:
        return [name for name in self.layout.names if name in (self.columns or (*REQUIRED, *OPTIONAL))]

    def _batches(self, given: Sequence[str]) -> Iterator[pa.RecordBatch]:
        with self._reading(), self._opened(given) as file, self.path.open("rb") as raw:
            places = {file.metadata.schema.column(at).path: at for at in range(file.metadata.num_columns)}
            for number in range(file.metadata.num_row_groups):
                group = file.metadata.row_group(number)
                for name in given if group.num_rows else ():
                    _check_pages(name, group.column(places[name]), raw)
                for batch in file.iter_batches(ROWS, row_groups=[number], columns=list(given), use_threads=False):
                    yield batch.select(list(given))

    def _opened(self, given: Sequence[str] = ()) -> pq.ParquetFile:
        with self.path.open("rb") as raw:
            _check_footer(raw, self.path.stat().st_size)
        return pq.ParquetFile(
            self.path, read_dictionary=list(given), pre_buffer=False, buffer_size=1 << 20, memory_map=False
        )

    def _reading(self) -> "_Reading":
        return _Reading()


class _Reading:
    """Names what the library says of a damaged file as a reason to refuse it."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        damaged = (pa.ArrowException, OSError, Damaged, KeyError, struct.error, OverflowError, MemoryError)
        if isinstance(error, damaged) and not isinstance(error, UnreadableUpload):
            shown = " ".join(str(error).split())[:200]
            raise UnreadableUpload(f"the file begins as Parquet does and cannot be read ({shown}); {_TODO}") from error


def _check_footer(raw: BinaryIO, size: int) -> None:
    raw.seek(max(0, size - 8))
    tail = raw.read(8)
    if size < 12 or tail[4:] != PARQUET:
        raise UnreadableUpload(f"the file begins as Parquet does and does not end so: it is cut short; {_TODO}")
    (length,) = struct.unpack("<I", tail[:4])
    if length > min(MOST_FOOTER, size - 12):
        raise UnreadableUpload(f"the footer of the Parquet file has {length:,} bytes, more than are read; {_TODO}")


def _check_type(name: str, ours: str, kind: pa.DataType) -> None:
    """Refuse a column whose type is none that text can be made of."""
    value = kind.value_type if pa.types.is_dictionary(kind) else kind
    text = any(
        test(value)
        for test in (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view, pa.types.is_binary)
    )
    number = any(test(value) for test in (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal))
    day = pa.types.is_date(value) or pa.types.is_timestamp(value)
    if not (text or number or pa.types.is_null(value) or (day and ours == "date")):
        raise UnreadableUpload(f"its column {name} is of the type {value}, which is no {_kind(ours)}; {_TODO}")
    if pa.types.is_timestamp(value) and value.tz not in (None, "UTC", "Etc/UTC", "+00:00", "Z"):
        raise UnreadableUpload(f"its column {name} is in the time zone {value.tz}; write the dates in UTC")


def _kind(ours: str) -> str:
    return {"date": "date", "symbol": "name", "slug": "name"}.get(ours, "number")


def _check_pages(name: str, column: Any, raw: BinaryIO) -> None:
    """Look at the header of each page of a column in a row group, before any of them is unpacked."""
    if column.file_path:
        raise UnreadableUpload(f"its column {name} is in another file; {_TODO}")
    begin = column.data_page_offset
    if column.has_dictionary_page and column.dictionary_page_offset:
        begin = min(begin, column.dictionary_page_offset)
    end = begin + column.total_compressed_size
    texts = column.physical_type == _BYTE_ARRAYS
    while begin < end:
        header, length = _page_header(raw, begin)
        unpacked, packed = header.get(2), header.get(3)
        if not isinstance(unpacked, int) or not isinstance(packed, int) or unpacked < 0 or packed < 0:
            raise Damaged("a page has no size")
        if unpacked > MOST_PAGE:
            raise UnreadableUpload(
                f"a page of its column {name} has {unpacked:,} bytes once unpacked, more than the {MOST_PAGE:,} that "
                "are read; write the file with pages of the usual 1 MiB"
            )
        values, encoding = _values(header)
        if texts and encoding == _DELTA_BYTE_ARRAY:
            raise UnreadableUpload(
                f"its column {name} is in the encoding DELTA_BYTE_ARRAY, which is not read; write it plain or with a "
                "dictionary"
            )
        if texts and values and unpacked > MOST_TEXT * values:
            raise UnreadableUpload(
                f"the texts of its column {name} have more than {MOST_TEXT:,} bytes on the average; leave out what is "
                f"no {_kind(name)}"
            )
        begin += length + packed


def _page_header(raw: BinaryIO, begin: int) -> tuple[dict[int, Any], int]:
    raw.seek(begin)
    try:
        return read_struct(raw.read(USUAL_HEADER))
    except Damaged:
        raw.seek(begin)
        return read_struct(raw.read(LONGEST_HEADER))


def _values(header: Mapping[int, Any]) -> tuple[int, int | None]:
    """How many values a page of data has, and in which encoding; (0, None) for any other page."""
    for part, encoding in ((5, 2), (8, 4)):
        if isinstance(page := header.get(part), dict):
            return int(page.get(1) or 0), page.get(encoding)
    return 0, None


def _lengths(column: pa.Array) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Bytes of each text of a column, shape (n,)."""
    if pa.types.is_dictionary(column.type):
        own = pc.binary_length(column.dictionary)
        lengths = pc.take(own, column.indices)
    else:
        lengths = pc.binary_length(column)
    return np.asarray(pc.fill_null(lengths, 0).to_numpy(zero_copy_only=False), np.int64)


def _is_text(kind: pa.DataType) -> bool:
    value = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(value) or pa.types.is_large_string(value) or pa.types.is_binary(value))


def _pieces(batch: pa.RecordBatch, line: int) -> Iterator[pa.RecordBatch]:
    """The batch in pieces of about BLOCK bytes of text: a dictionary says a long text a million times in few bytes."""
    lengths = np.zeros(batch.num_rows, np.int64)
    for column in batch.columns:
        if _is_text(column.type):
            lengths += _lengths(column)
    if len(too_long := np.flatnonzero(lengths > LONGEST_LINE)):
        raise UnreadableUpload(f"line {line + int(too_long[0]):,} is longer than {LONGEST_LINE:,} bytes")
    block = np.cumsum(lengths) // BLOCK
    begins = [0, *(1 + np.flatnonzero(np.diff(block))).tolist(), batch.num_rows]
    for begin, end in pairwise(begins):
        if end > begin:
            yield batch.slice(begin, end - begin)


def _text_bytes(batch: pa.RecordBatch) -> int:
    """About as many bytes as the batch would have in CSV."""
    texts = sum(int(_lengths(column).sum()) for column in batch.columns if _is_text(column.type))
    numbers = sum(not _is_text(column.type) for column in batch.columns)
    return texts + int(batch.num_rows) * (8 * numbers + len(batch.columns))


def _text(name: str, column: pa.Array) -> pa.Array:
    """A column as the text that CSV would have for it; a null is empty."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_floating(column.type):
        column = column.cast(pa.float64())
    if pa.types.is_date64(column.type):
        column = column.cast(pa.date32())
    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.timestamp(column.type.unit))
    try:
        return pc.fill_null(column.cast(pa.string()), "")
    except pa.ArrowInvalid as error:
        raise UnreadableUpload(f"its column {name} is not UTF-8; {_TODO}") from error


def schema_of(layout: Layout, columns: Sequence[str]) -> pa.Schema:
    """The columns in which the text of a file comes, and with them what its layout is."""
    names = [name for name in layout.names if name in (columns or (*REQUIRED, *OPTIONAL))]
    if not columns:
        names += [*(["symbol"] if layout.symbol is not None else []), *([] if layout.market else ["market"])]
    fields = [*((name, pa.string()) for name in names), ("line", pa.int64())]
    return pa.schema(fields, {LAYOUT: json.dumps(asdict(layout)).encode()})


def main() -> None:
    """Answer the question in the first argument."""
    asked = json.loads(sys.argv[1])
    try:
        pages = ParquetPages(Path(asked["path"]), asked["limit"], asked["columns"], asked["name"], asked["asked"])
        schema = schema_of(pages.layout, pages.columns)
        with pa.ipc.new_stream(sys.stdout.buffer, schema) as out:
            for table in pages:
                out.write_table(table.select(schema.names).cast(schema))
    except UnreadableUpload as refused:
        sys.stderr.write(str(refused))
        sys.exit(REFUSED)
    except Exception as error:  # noqa: BLE001 - whatever a library makes of a damaged file is the file's fault
        sys.stderr.write(f"the file begins as Parquet does and cannot be read ({type(error).__name__}); {_TODO}")
        sys.exit(REFUSED)


if __name__ == "__main__":
    main()
