"""Tables sorted by series, as Parquet objects of bounded size of which each series stands in one alone."""

from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

ROW_GROUP: Final = 4_096
"""Rows that are decoded together; a series of ten years has as many."""

MOST_MERGED: Final = 131_072
"""Rows of several streams that are put together at once, if they are of more than one series."""

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Part:
    """An object: its name (see `KeptObjects`), bytes and rows, and the first and the last series in it."""

    name: str
    size: int
    rows: int
    first: str
    last: str


SomePart = TypeVar("SomePart", bound=Part)


def holding(parts: Sequence[SomePart], symbols: Sequence[str] | None) -> list[SomePart]:
    """Those of the parts that may hold some of these series (sorted names; None: all)."""
    if symbols is None:
        return list(parts)
    found = []
    for part in parts:
        at = bisect_left(symbols, part.first)
        if at < len(symbols) and symbols[at] <= part.last:
            found.append(part)
    return found


def encoded(table: pa.Table) -> bytes:
    """A table as Parquet."""
    sink = pa.BufferOutputStream()
    text = [field.name for field in table.schema if pa.types.is_string(field.type)]
    pq.write_table(
        table, sink, compression="zstd", row_group_size=ROW_GROUP, use_dictionary=text, write_statistics=["symbol"]
    )
    found: bytes = sink.getvalue().to_pybytes()
    return found


def decoded(body: bytes | memoryview, schema: pa.Schema, symbols: Collection[str] | None = None) -> pa.Table:
    """What `encoded` made bytes of; only the rows of some series (sorted names; None: all)."""
    with pq.ParquetFile(pa.BufferReader(body)) as stored:
        if symbols is None:
            return stored.read(use_threads=False).cast(schema)
        wanted = list(symbols)
        groups = []
        for number in range(stored.num_row_groups):
            statistics = stored.metadata.row_group(number).column(0).statistics
            if statistics is None or not statistics.has_min_max:
                groups.append(number)
                continue
            at = bisect_left(wanted, statistics.min)
            if at < len(wanted) and wanted[at] <= statistics.max:
                groups.append(number)
        if not groups:
            return schema.empty_table()
        return of_series(stored.read_row_groups(groups, use_threads=False).cast(schema), wanted)


def of_series(rows: pa.Table, symbols: Collection[str] | None) -> pa.Table:
    """The rows of some series; None: all."""
    if symbols is None:
        return rows
    return rows.filter(pc.is_in(rows["symbol"], value_set=pa.array(list(symbols), pa.string())))


def series_and_days(rows: pa.Table) -> tuple[IntArray, IntArray]:
    """For each row a number that grows with its series' name, and one that grows with series and date."""
    names = pc.unique(rows["symbol"])
    names = names.take(pc.sort_indices(names))
    series = pc.index_in(rows["symbol"], value_set=names).to_numpy().astype(np.int64)
    days = rows["date"].cast(pa.int32()).to_numpy().astype(np.int64)
    return series, (series << 32) + days + (1 << 31)


def on_days_of(rows: pa.Table, others: pa.Table) -> npt.NDArray[np.bool_]:
    """For each row whether the others have one of its series and day."""
    names = pc.unique(others["symbol"])

    def keys(table: pa.Table) -> IntArray:
        series = pc.fill_null(pc.index_in(table["symbol"], value_set=names), -1).to_numpy().astype(np.int64)
        found: IntArray = (series << 32) + table["date"].cast(pa.int32()).to_numpy() + (1 << 31)
        return found

    return np.isin(keys(rows), keys(others))


def by_series(rows: pa.Table) -> pa.Table:
    """Rows sorted by series and date; those of one day stay in their order."""
    _, keys = series_and_days(rows)
    if (keys[1:] >= keys[:-1]).all():
        return rows
    return rows.take(pa.array(np.argsort(keys, kind="stable")))


def whole_series(rows: pa.Table, most: int) -> Iterator[pa.Table]:
    """Rows sorted by series in pieces of about so many, none of which ends within a series."""
    if not rows.num_rows:
        return
    series, _ = series_and_days(rows)
    ends = np.append(np.flatnonzero(np.diff(series)) + 1, rows.num_rows)
    begin = 0
    while begin < rows.num_rows:
        at = max(int(np.searchsorted(ends, begin + most, "right")) - 1, int(np.searchsorted(ends, begin, "right")))
        end = int(ends[at])
        if rows.num_rows - end < most // 4:  # no crumbs
            end = rows.num_rows
        yield rows.slice(begin, end - begin)
        begin = end


def rows_up_to(rows: pa.Table, symbol: str) -> int:
    """How many of the rows, which are sorted by series, are of a series or of those before it."""
    names = rows["symbol"]
    return bisect_right(range(rows.num_rows), symbol, key=lambda at: names[at].as_py())


def in_whole_series(tables: Iterable[pa.Table], least: int) -> Iterator[pa.Table]:
    """A stream sorted by series, in tables of so many rows or more, none of which ends within a series."""
    waiting: list[pa.Table] = []
    for table in tables:
        if not table.num_rows:
            continue
        waiting.append(table)
        if sum(one.num_rows for one in waiting) < least:
            continue
        rows = pa.concat_tables(waiting).combine_chunks()
        names = rows["symbol"]
        end = bisect_left(range(rows.num_rows), names[-1].as_py(), key=lambda at: names[at].as_py())
        waiting = [rows.slice(end)]
        if end:
            yield rows.slice(0, end)
    if waiting:
        yield pa.concat_tables(waiting).combine_chunks()


def merged(streams: Iterable[Iterator[pa.Table]]) -> Iterator[pa.Table]:
    """Streams of tables sorted by series and of whole series each, as one such stream, sorted by date within a series.

    Of one day, rows of an earlier stream come first. One table of each is in memory, and what of some series all of
    them have.
    """
    tables = [(stream, table) for stream in streams if (table := _next(stream)) is not None]
    while tables:
        last = min(table["symbol"][-1].as_py() for _, table in tables)
        counts = [rows_up_to(table, last) for _, table in tables]
        if sum(counts) > MOST_MERGED:  # streams that end with the same series are not put together as a whole
            most = int(np.argmax(counts))
            last = tables[most][1]["symbol"][counts[most] * MOST_MERGED // sum(counts)].as_py()
            counts = [rows_up_to(table, last) for _, table in tables]
        pieces, left = [], []
        for (stream, table), count in zip(tables, counts, strict=True):
            pieces.append(table.slice(0, count))
            rest = table.slice(count) if count < table.num_rows else _next(stream)
            if rest is not None:
                left.append((stream, rest))
        tables = left
        yield by_series(pa.concat_tables(pieces).combine_chunks())


def _next(stream: Iterator[pa.Table]) -> pa.Table | None:
    return next((table for table in stream if table.num_rows), None)
