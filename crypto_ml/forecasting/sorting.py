"""Rows of any number, sorted on local disk: memory is bounded by a chunk, not by a file.

The sort itself is DuckDB's, which spills to disk beyond its memory limit.
"""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

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
MEMORY_LIMIT: Final = "300MB"

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


_SPANS: Final = """
    SELECT file, symbol, min(date) AS first, max(date) AS last, count(*) AS rows FROM rows
    WHERE NOT context GROUP BY ALL ORDER BY ALL
"""


class RowSorter:
    """Takes tables with the columns of `ROWS` in any order and gives them back by file, symbol, date and line.

    What is refused instead is in `refusals`, which may be added to while rows are read.
    """

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._connection = duckdb.connect(
            ":memory:",  # beyond the limit it is written to the disk all the same, and nothing has to be kept
            config={
                "memory_limit": MEMORY_LIMIT,
                "threads": 2,
                "preserve_insertion_order": False,
                "temp_directory": str(directory / "spill"),
            },
        )
        self._connection.execute("SET enable_progress_bar = false")  # it would go to standard output, among the data
        self._connection.register("empty", ROWS.empty_table())
        self._connection.execute("CREATE TABLE rows AS SELECT * FROM empty")
        self.refusals = Refusals(self._connection)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()

    def add(self, rows: pa.Table | pa.RecordBatch | pa.RecordBatchReader) -> None:
        """Take in rows with the columns of `ROWS`, in any order."""
        self._connection.register("incoming", rows)
        self._connection.execute(f"INSERT INTO rows SELECT {', '.join(ROWS.names)} FROM incoming")  # noqa: S608
        self._connection.unregister("incoming")

    def discard(self, file: int) -> None:
        """Take back the rows of a file, refused ones too."""
        self._connection.execute("DELETE FROM rows WHERE file = ?", [file])
        self.refusals.discard(file)

    def coins(self) -> Iterator[list[tuple[str, str]]]:
        """Each (symbol, slug) there is, for rows that have a slug: symbols in order, slugs in that in which they first
        appear. At most COINS_AT_ONCE come at once, so that a file may have as many as it has rows."""
        with self._connection.cursor() as cursor:
            found = cursor.execute(
                "SELECT symbol, slug FROM rows WHERE slug IS NOT NULL GROUP BY ALL "
                "ORDER BY symbol, min(file), min(line), slug"
            )
            while coins := found.fetchmany(COINS_AT_ONCE):
                yield coins

    def rename(self, names: Iterable[Mapping[tuple[str, str], str]]) -> dict[str, tuple[str, str]]:
        """Give rows the name of their series, from (symbol, slug) → name for those not named by their symbol alone.

        Returns name → (symbol, slug) of the first MOST_RENAMED_SHOWN of them, in the order in which they first appear.
        """
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
        """For each file the symbols of its own rows that differ in nothing but capitals; of very many the first."""
        yield from self._connection.execute(
            "SELECT file, list_sort(list(DISTINCT symbol)) FROM rows WHERE NOT context GROUP BY file, lower(symbol) "
            "HAVING min(symbol) <> max(symbol) ORDER BY ALL LIMIT ?",
            [MOST_RENAMED_SHOWN],
        ).fetchall()

    def spans(self) -> "pd.DataFrame":
        """For each `file` and `symbol` the `first` and `last` date and the number of `rows` that are not context."""
        return self._connection.execute(_SPANS).df()

    def spans_in_parts(self) -> Iterator["pd.DataFrame"]:
        """`spans`, about SPANS_AT_ONCE at a time; rows may be added in between."""
        for part in self.span_tables():
            yield part.to_pandas(date_as_object=False)

    def span_tables(self) -> Iterator[pa.Table]:
        """`spans_in_parts` as tables."""
        with self._connection.cursor() as cursor:
            for part in cursor.sql(_SPANS).to_arrow_reader(SPANS_AT_ONCE):
                yield pa.Table.from_batches([part])

    def batches(self) -> Iterator[pa.Table]:
        """All rows, sorted, in tables of about CHUNK_ROWS rows that are cut anywhere."""
        yield from self._batches(CHUNK_ROWS)

    def chunks(self, rows_per_chunk: int = CHUNK_ROWS) -> Iterator["pd.DataFrame"]:
        """All rows, sorted, in frames of about `rows_per_chunk` rows; no series of a file is cut in two.

        A row of context gives way to a row of its own file for the same series and date. A series is held whole, so
        its days must be settled (see `settling`).
        """
        batches = self._batches(rows_per_chunk)
        for chunk in whole_series(((batch, batch) for batch in batches), rows_per_chunk):
            yield _without_outranked(as_frame(chunk))

    def _batches(self, rows_per_batch: int) -> Iterator[pa.Table]:
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
        last = _last_series(batch)
        of_last = _rows_of_series(batch, *last)
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


def _without_outranked(frame: "pd.DataFrame") -> "pd.DataFrame":
    context = frame["context"].to_numpy(bool)
    if not context.any():
        return frame
    outranked = context & frame.duplicated(["file", "symbol", "date"], keep="first").to_numpy(bool)
    kept: pd.DataFrame = frame[~outranked].reset_index(drop=True)
    return kept


def _last_series(table: pa.Table) -> tuple[int, str]:
    """File and symbol of the last row."""
    return table["file"][-1].as_py(), table["symbol"][-1].as_py()


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
