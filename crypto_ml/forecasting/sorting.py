"""Rows of any number, sorted on local disk: memory is bounded by a chunk, not by a file.

Many rows are sorted by DuckDB, which spills to disk beyond its memory limit, and few in memory: the same rows, in the
same order.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from crypto_ml.forecasting.database import Database
from crypto_ml.forecasting.refusals import Refusals
from crypto_ml.forecasting.schema import OBSERVATION, PRICES

if TYPE_CHECKING:
    import pandas as pd

Files = int | npt.NDArray[np.integer]
"""The number of the file that rows are of, or one for each row."""

CHUNK_ROWS: Final = 100_000
COINS_AT_ONCE: Final = 50_000
SPANS_AT_ONCE: Final = 100_000
MOST_RENAMED_SHOWN: Final = 10_000
MEMORY_LIMIT: Final = "200MB"

ROWS: Final = pa.schema(
    [
        ("file", pa.int32()),
        ("symbol", pa.string()),
        ("date", pa.date32()),
        *((name, pa.float64()) for name in (*PRICES, "market", "volume")),
        ("slug", pa.string()),
        ("line", pa.int64()),
        ("context", pa.bool_()),
    ]
)
"""Rows on their way: the file of the delivery they are from, the observation, its line, whether it is only context."""

_NO_ROWS: Final = ROWS.empty_table()

_SPANS: Final = """
    SELECT file, symbol, min(date) AS first, max(date) AS last, count(*) AS rows FROM rows
    WHERE NOT context GROUP BY ALL ORDER BY ALL
"""

SPANS: Final = pa.schema(
    [
        ("file", pa.int32()),
        ("symbol", pa.string()),
        ("first", pa.date32()),
        ("last", pa.date32()),
        ("rows", pa.int64()),
    ]
)
"""The first and the last day of a series of a file, and how many rows it has."""

Names = Mapping[tuple[str, str], str]
"""(symbol, slug) → the name of a series."""

MOST_HELD: Final = 1_000_000
MOST_HELD_BYTES: Final = 64 << 20
"""Rows, and their bytes, that are sorted in memory: in less time than a database takes, and in less memory."""


class RowSorter:
    """Takes tables with the columns of `ROWS` in any order and gives them back by file, symbol, date and line.

    What is refused instead is in `refusals`, which may be added to while rows are read. The first MOST_HELD rows are
    held in memory; where more come, all are handed to a database.
    """

    def __init__(self, directory: Path) -> None:
        self._database = Database(directory, MEMORY_LIMIT)
        self._rows: _HeldRows | _StoredRows = _HeldRows()
        self.refusals = Refusals(self._database)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._database.close()

    def add(self, rows: pa.Table | pa.RecordBatch | pa.RecordBatchReader) -> None:
        """Take in rows with the columns of `ROWS`, in any order."""
        if isinstance(rows, pa.RecordBatchReader):
            for batch in rows:
                self.add(batch)
            return
        if not (isinstance(self._rows, _HeldRows) and self._rows.took(rows)):
            self._stored().add(rows)

    def discard(self, file: int) -> None:
        """Take back the rows of a file, refused ones too."""
        self._rows.discard(file)
        self.refusals.discard(file)

    def coins(self) -> Iterator[list[tuple[str, str]]]:
        """Each (symbol, slug) there is, for rows that have a slug: symbols in order, slugs in that in which they first
        appear. At most COINS_AT_ONCE come at once, so that a file may have as many as it has rows."""
        yield from self._rows.coins()

    def rename(self, names: Iterable[Names]) -> dict[str, tuple[str, str]]:
        """Give rows the name of their series, from (symbol, slug) → name for those not named by their symbol alone.

        Returns name → (symbol, slug) of the first MOST_RENAMED_SHOWN of them, in the order in which they first appear.
        """
        return self._rows.rename(names)

    def alike(self) -> Iterator[tuple[int, list[str]]]:
        """For each file the symbols of its own rows that differ in nothing but capitals; of very many the first."""
        if isinstance(self._rows, _HeldRows) and not self._rows.is_ascii():
            self._stored()  # which letters are capitals of which is for one library to say
        yield from self._rows.alike()

    def span_tables(self) -> Iterator[pa.Table]:
        """The series of each file that have rows which are not context (SPANS), about SPANS_AT_ONCE at a time; rows may
        be added in between."""
        yield from self._rows.spans()

    def batches(self) -> Iterator[pa.Table]:
        """All rows, sorted, in tables of about CHUNK_ROWS rows that are cut anywhere."""
        yield from self._rows.batches(CHUNK_ROWS)

    def chunks(self, rows_per_chunk: int = CHUNK_ROWS) -> Iterator["pd.DataFrame"]:
        """`chunk_tables` as frames."""
        return map(as_frame, self.chunk_tables(rows_per_chunk))

    def chunk_tables(self, rows_per_chunk: int = CHUNK_ROWS) -> Iterator[pa.Table]:
        """All rows, sorted, in tables of about `rows_per_chunk` rows; no series of a file is cut in two.

        A row of context gives way to a row of its own file for the same series and date. A series is held whole, so
        its days must be settled (see `settling`).
        """
        batches = self._rows.batches(rows_per_chunk)
        for chunk in whole_series(((batch, batch) for batch in batches), rows_per_chunk):
            yield _without_outranked(chunk)

    def _stored(self) -> "_StoredRows":
        """The rows in a database, where they are not held any more."""
        if isinstance(self._rows, _HeldRows):
            stored = _StoredRows(self._database)
            stored.add(self._rows.table())
            self._rows = stored
        return self._rows


class _HeldRows:
    """Some rows in memory."""

    def __init__(self) -> None:
        self._tables: list[pa.Table] = []
        self._count, self._bytes = 0, 0
        self._sorted: pa.Table | None = None
        self._spans: pa.Table | None = None

    def took(self, rows: pa.Table | pa.RecordBatch) -> bool:
        """Take in rows where there is room for them, and say whether there was."""
        if not rows.num_rows:
            return True
        table = pa.Table.from_batches([rows]) if isinstance(rows, pa.RecordBatch) else rows
        if table.schema != ROWS:
            table = table.select(ROWS.names).cast(ROWS)
        count, size = self._count + table.num_rows, self._bytes + table.nbytes
        if count > MOST_HELD or size > MOST_HELD_BYTES:
            return False
        if self._spans is not None and not pc.all(table["context"]).as_py():
            self._spans = None
        self._tables.append(table)
        self._count, self._bytes, self._sorted = count, size, None
        return True

    def discard(self, file: int) -> None:
        rows = self.table()
        self._hold(rows.filter(pc.not_equal(rows["file"], file)))

    def coins(self) -> Iterator[list[tuple[str, str]]]:
        if self.table()["slug"].null_count == self._count:
            return
        coins = self._coins()
        by_first = np.lexsort((coins.slug, coins.line, coins.file, coins.symbol))
        for begin in range(0, len(by_first), COINS_AT_ONCE):
            yield coins.named(by_first[begin : begin + COINS_AT_ONCE])

    def rename(self, names: Iterable[Names]) -> dict[str, tuple[str, str]]:
        named = {coin: name for some in names for coin, name in some.items()}
        if not named:
            return {}
        first = self._coins()
        coins = first.named(np.lexsort((first.slug, first.symbol, first.line, first.file)))
        shown = {named[coin]: coin for coin in islice((coin for coin in coins if coin in named), MOST_RENAMED_SHOWN)}
        rows = self.table()
        of_rows = zip(rows["symbol"].to_pylist(), rows["slug"].to_pylist(), strict=True)
        symbols = pa.array([named.get(coin, coin[0]) for coin in of_rows], pa.string())
        self._hold(rows.set_column(ROWS.get_field_index("symbol"), ROWS.field("symbol"), symbols))
        return shown

    def _coins(self) -> "_Coins":
        rows = self.table()
        return _Coins.of(rows.filter(pc.is_valid(rows["slug"])) if rows["slug"].null_count else rows)

    def is_ascii(self) -> bool:
        """Whether the symbols of all rows are that are not context."""
        return bool(pc.all(pc.string_is_ascii(self._all_spans()["symbol"]), min_count=0).as_py())

    def alike(self) -> Iterator[tuple[int, list[str]]]:
        spans = self._all_spans()
        lower = pc.dictionary_encode(pc.ascii_lower(spans["symbol"])).combine_chunks().indices.to_numpy()
        keys = (spans["file"].to_numpy().astype(np.int64) << _SYMBOL_BITS) + lower
        if len(np.unique(keys)) == len(keys):
            return
        spelled: dict[tuple[int, str], list[str]] = {}
        for file, symbol in zip(spans["file"].to_pylist(), spans["symbol"].to_pylist(), strict=True):
            spelled.setdefault((file, symbol.lower()), []).append(symbol)
        found = sorted((file, symbols) for (file, _), symbols in spelled.items() if len(symbols) > 1)
        yield from found[:MOST_RENAMED_SHOWN]

    def spans(self) -> Iterator[pa.Table]:
        spans = self._all_spans()
        for begin in range(0, spans.num_rows, SPANS_AT_ONCE):
            yield spans.slice(begin, SPANS_AT_ONCE)

    def _all_spans(self) -> pa.Table:
        if self._spans is None:
            self._spans = self._spanned()
        return self._spans

    def _spanned(self) -> pa.Table:
        rows = self._in_order()
        if pc.any(rows["context"]).as_py():
            rows = rows.filter(pc.invert(rows["context"]))
        if not rows.num_rows:
            return SPANS.empty_table()
        begins = np.flatnonzero(begins_series(rows))
        ends = np.append(begins[1:], rows.num_rows)
        at, last = pa.array(begins), pa.array(ends - 1)
        columns = [rows["file"].take(at), rows["symbol"].take(at), rows["date"].take(at), rows["date"].take(last)]
        return pa.table([*columns, pa.array(ends - begins)], schema=SPANS)

    def batches(self, rows_per_batch: int) -> Iterator[pa.Table]:
        rows = self._in_order()
        for begin in range(0, rows.num_rows, rows_per_batch):
            yield rows.slice(begin, rows_per_batch)

    def _hold(self, rows: pa.Table) -> None:
        self._tables, self._sorted, self._spans = [rows], None, None
        self._count, self._bytes = rows.num_rows, rows.nbytes

    def table(self) -> pa.Table:
        """All of them, in any order."""
        if len(self._tables) != 1:
            self._tables = [pa.concat_tables([_NO_ROWS, *self._tables]).combine_chunks()]
        return self._tables[0]

    def _in_order(self) -> pa.Table:
        if self._sorted is None:
            rows = self.table()
            order = _order(rows)
            self._sorted = rows if order is None else rows.take(pa.array(order))
            self._tables = [self._sorted]
        return self._sorted


@dataclass(frozen=True, eq=False)
class _Coins:
    """The n pairs of symbol and slug that some rows have, each (n,): the places of both among sorted ones, and the
    first file and line. (Not by Arrow, whose grouping loads a whole engine.)"""

    symbol: npt.NDArray[np.int64]
    slug: npt.NDArray[np.int64]
    file: npt.NDArray[np.int64]
    line: npt.NDArray[np.int64]
    symbols: pa.Array
    slugs: pa.Array

    @classmethod
    def of(cls, rows: pa.Table) -> "_Coins":
        (symbol, symbols), (slug, slugs) = (_ranked(rows[name]) for name in ("symbol", "slug"))
        coins, of_row = np.unique((symbol << _SYMBOL_BITS) + slug, return_inverse=True)

        def first(name: str) -> npt.NDArray[np.int64]:
            least = np.full(len(coins), np.iinfo(np.int64).max)
            np.minimum.at(least, of_row, rows[name].to_numpy())
            return least

        places = coins >> _SYMBOL_BITS, coins & ((1 << _SYMBOL_BITS) - 1)
        return cls(*places, first("file"), first("line"), symbols, slugs)

    def named(self, which: npt.NDArray[np.intp]) -> list[tuple[str, str]]:
        """Symbol and slug of some of them."""
        symbols, slugs = self.symbols.take(pa.array(self.symbol[which])), self.slugs.take(pa.array(self.slug[which]))
        return list(zip(symbols.to_pylist(), slugs.to_pylist(), strict=True))


def _ranked(texts: pa.ChunkedArray) -> tuple[npt.NDArray[np.int64], pa.Array]:
    """For each text its place among the distinct ones in order, and these."""
    if len(texts) == 1:
        return np.zeros(1, np.int64), texts.combine_chunks()
    coded = pc.dictionary_encode(texts).combine_chunks()
    order = pc.sort_indices(coded.dictionary)
    rank = np.empty(len(order), np.int64)
    rank[order.to_numpy()] = np.arange(len(order))
    return rank[coded.indices.to_numpy()], coded.dictionary.take(order)


def _order(rows: pa.Table) -> npt.NDArray[np.intp] | None:
    """The order of rows by file, symbol, date, context and line; None where they stand in it."""
    if rows.num_rows < 2:
        return None
    symbols, _ = _ranked(rows["symbol"])
    series = (rows["file"].to_numpy().astype(np.int64) << _SYMBOL_BITS) + symbols
    context = rows["context"].to_numpy().astype(np.int64)
    days = (rows["date"].cast(pa.int32()).to_numpy().astype(np.int64) << 1) + context
    lines = rows["line"].to_numpy()
    in_order = (series[1:] > series[:-1]) | (
        (series[1:] == series[:-1]) & ((days[1:] > days[:-1]) | ((days[1:] == days[:-1]) & (lines[1:] >= lines[:-1])))
    )
    return None if in_order.all() else np.lexsort((lines, days, series))


_SYMBOL_BITS: Final = 31


def begins_series(rows: pa.Table) -> npt.NDArray[np.bool_]:
    """Where a row of sorted ones is the first of its file and symbol, shape (n,)."""
    first = np.ones(rows.num_rows, bool)
    if rows.num_rows > 1:
        symbols, files = (
            pc.dictionary_encode(rows["symbol"]).combine_chunks().indices.to_numpy(),
            rows["file"].to_numpy(),
        )
        first[1:] = (symbols[1:] != symbols[:-1]) | (files[1:] != files[:-1])
    return first


class _StoredRows:
    """Any number of rows in a database, which spills to disk beyond its memory limit."""

    def __init__(self, database: Database) -> None:
        self._connection = database.connection()
        self._connection.register("empty", ROWS.empty_table())
        self._connection.execute("CREATE TABLE rows AS SELECT * FROM empty")

    def add(self, rows: pa.Table | pa.RecordBatch) -> None:
        self._connection.register("incoming", rows)
        self._connection.execute(f"INSERT INTO rows SELECT {', '.join(ROWS.names)} FROM incoming")  # noqa: S608
        self._connection.unregister("incoming")

    def discard(self, file: int) -> None:
        self._connection.execute("DELETE FROM rows WHERE file = ?", [file])

    def coins(self) -> Iterator[list[tuple[str, str]]]:
        with self._connection.cursor() as cursor:
            found = cursor.execute(
                "SELECT symbol, slug FROM rows WHERE slug IS NOT NULL GROUP BY ALL "
                "ORDER BY symbol, min(file), min(line), slug"
            )
            while coins := found.fetchmany(COINS_AT_ONCE):
                yield coins

    def rename(self, names: Iterable[Names]) -> dict[str, tuple[str, str]]:
        self._connection.execute("CREATE OR REPLACE TABLE named (symbol VARCHAR, slug VARCHAR, name VARCHAR)")
        for some in names:
            if some:
                symbols, slugs = zip(*some, strict=True)
                incoming = pa.table({"symbol": symbols, "slug": slugs, "name": list(some.values())})
                self._connection.register("incoming", incoming)
                self._connection.execute("INSERT INTO named SELECT symbol, slug, name FROM incoming")
                self._connection.unregister("incoming")
        first = self._connection.execute(
            "SELECT name, symbol, slug FROM rows JOIN named USING (symbol, slug) GROUP BY ALL "
            "ORDER BY min(file), min(line), symbol, slug LIMIT ?",
            [MOST_RENAMED_SHOWN],
        ).fetchall()
        if first:  # one pass, however many names there are, and no memory of what each row was called before
            self._connection.execute(
                "CREATE TABLE renamed AS SELECT rows.* REPLACE (coalesce(named.name, rows.symbol) AS symbol) "
                "FROM rows LEFT JOIN named ON rows.symbol = named.symbol AND rows.slug = named.slug"
            )
            self._connection.execute("DROP TABLE rows")
            self._connection.execute("ALTER TABLE renamed RENAME TO rows")
        return {name: (symbol, slug) for name, symbol, slug in first}

    def alike(self) -> Iterator[tuple[int, list[str]]]:
        yield from self._connection.execute(
            "SELECT file, list_sort(list(DISTINCT symbol)) FROM rows WHERE NOT context GROUP BY file, lower(symbol) "
            "HAVING min(symbol) <> max(symbol) ORDER BY ALL LIMIT ?",
            [MOST_RENAMED_SHOWN],
        ).fetchall()

    def spans(self) -> Iterator[pa.Table]:
        with self._connection.cursor() as cursor:
            for part in cursor.sql(_SPANS).to_arrow_reader(SPANS_AT_ONCE):
                yield pa.Table.from_batches([part]).cast(SPANS)

    def batches(self, rows_per_batch: int) -> Iterator[pa.Table]:
        query = "SELECT * FROM rows ORDER BY file, symbol, date, context, line"
        for batch in self._connection.sql(query).to_arrow_reader(rows_per_batch):
            if batch.num_rows:
                yield pa.Table.from_batches([batch])


def whole_series(batches: Iterable[tuple[pa.Table, pa.Table]], rows_per_chunk: int = CHUNK_ROWS) -> Iterator[pa.Table]:
    """Sorted rows, cut anywhere, in tables that cut no series of a file in two.

    batches: sorted rows, and what is left of them, of which the last series may come with a later batch. It is cut
    where a series begins, once `rows_per_chunk` rows have come, whether or not they are left.
    """
    pending: list[pa.Table] = []
    rows, series, of_series = 0, (-1, ""), 0  # since the last cut: all of them, the last series, and its rows
    for batch, left in batches:
        pending.append(left)
        if not batch.num_rows:
            continue
        last = _series_at(batch, batch.num_rows - 1)
        of_last = batch.num_rows if _series_at(batch, 0) == last else _rows_of_series(batch, *last)
        of_series = of_last + (of_series if of_last == batch.num_rows and last == series else 0)
        rows, series = rows + batch.num_rows, last
        if rows >= rows_per_chunk and of_series < rows:
            table = pa.concat_tables(pending)
            cut = table.num_rows - _rows_of_series(table, *series)
            if cut:
                yield table.slice(0, cut)
            pending, rows = [table.slice(cut)], of_series
    if pending and (rest := pa.concat_tables(pending)).num_rows:
        yield rest


def _without_outranked(rows: pa.Table) -> pa.Table:
    context = rows["context"].to_numpy().astype(bool)
    if not context.any() or rows.num_rows < 2:
        return rows
    day = rows["date"].cast(pa.int32()).to_numpy()
    outranked = np.zeros(len(context), bool)
    outranked[1:] = context[1:] & (day[1:] == day[:-1]) & ~begins_series(rows)[1:]
    return rows.filter(pa.array(~outranked)) if outranked.any() else rows


def _series_at(table: pa.Table, row: int) -> tuple[int, str]:
    """File and symbol of a row."""
    return table["file"][row].as_py(), table["symbol"][row].as_py()


def _rows_of_series(table: pa.Table, file: int, symbol: str) -> int:
    return pc.sum(pc.and_(pc.equal(table["symbol"], symbol), pc.equal(table["file"], file))).as_py() or 0


def as_frame(table: pa.Table) -> "pd.DataFrame":
    """An Arrow table as the frame the domain works on, with the dtypes of `OBSERVATION`."""
    frame: pd.DataFrame = table.to_pandas(date_as_object=False)
    wanted = {name: dtype for name, dtype in OBSERVATION.items() if name in frame and frame[name].dtype != dtype}
    return frame.astype(wanted)


def as_rows(frame: "pd.DataFrame", *, file: int, context: bool = False) -> pa.Table:
    """A frame of observations as an Arrow table with the columns of `ROWS`."""
    return pa.Table.from_pandas(frame.assign(file=file, context=context), schema=ROWS, preserve_index=False)


def rows_of(table: pa.Table, file: Files) -> pa.Table:
    """A table of accepted rows (see `cleaning.CleanedRows`) of a file, or of one for each row, with the columns of
    `ROWS`."""
    own = with_file(table, file).append_column("context", pa.repeat(False, table.num_rows))
    return own.select(ROWS.names).cast(ROWS)


def with_file(table: pa.Table, file: Files) -> pa.Table:
    """A table with the column `file`: the one, or one for each row."""
    number = pa.scalar(file, pa.int32()) if isinstance(file, int) else None
    files = pa.array(file, pa.int32()) if number is None else pa.repeat(number, table.num_rows)
    return table.append_column("file", files)
