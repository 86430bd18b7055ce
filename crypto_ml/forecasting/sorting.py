"""Rows of any number, sorted on local disk: memory is bounded by a chunk, not by a file.

The sort itself is DuckDB's, which spills to disk beyond its memory limit.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa

from crypto_ml.forecasting.schema import OBSERVATION, PRICES

CHUNK_ROWS: Final = 100_000
MEMORY_LIMIT: Final = "400MB"

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

REFUSED: Final = pa.schema([("file", pa.int32()), ("line", pa.int64()), ("reason", pa.string()), ("text", pa.string())])
"""Rows that stay behind: the file and line they stood in, why, and what stood there."""


class RowSorter:
    """Takes tables with the columns of `ROWS` in any order and gives them back by file, symbol, date and line.

    It also keeps the rows that are refused, which may be as many, and gives them back by line.
    """

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._connection = duckdb.connect(
            directory / "rows.duckdb",
            config={
                "memory_limit": MEMORY_LIMIT,
                "threads": 2,
                "preserve_insertion_order": False,
                "temp_directory": str(directory / "spill"),
            },
        )
        self._connection.execute("SET enable_progress_bar = false")  # it would go to standard output, among the data
        for name, schema in (("rows", ROWS), ("refused", REFUSED)):
            self._connection.register("empty", schema.empty_table())
            self._connection.execute(f"CREATE TABLE {name} AS SELECT * FROM empty")  # noqa: S608

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

    def refuse(self, rows: pa.Table) -> None:
        """Keep rows with the columns of `REFUSED`; also while `chunks` is being read."""
        with self._connection.cursor() as cursor:
            cursor.register("incoming", rows)
            cursor.execute(f"INSERT INTO refused SELECT {', '.join(REFUSED.names)} FROM incoming")  # noqa: S608

    def refused(self, file: int) -> Iterator[pa.RecordBatch]:
        """The refused rows of a file in order of lines, with the columns of `REFUSED`, at most CHUNK_ROWS at once."""
        with self._connection.cursor() as cursor:
            found = cursor.sql("SELECT * FROM refused WHERE file = ? ORDER BY line", params=[file])
            yield from found.to_arrow_reader(CHUNK_ROWS)

    def commonest_reasons(self, file: int, most: int) -> list[tuple[str, int]]:
        """The reasons for which most rows of a file were refused, and how many."""
        query = "SELECT reason, count(*) AS rows FROM refused WHERE file = ? GROUP BY ALL ORDER BY rows DESC, min(line)"
        return self._connection.execute(f"{query} LIMIT {most}", [file]).fetchall()

    def discard(self, file: int) -> None:
        """Take back the rows of a file, refused ones too."""
        for table in ("rows", "refused"):
            self._connection.execute(f"DELETE FROM {table} WHERE file = ?", [file])  # noqa: S608

    def coins(self) -> list[tuple[str, str | None]]:
        """Each (symbol, slug) there is, in order of first appearance."""
        return self._connection.execute(
            "SELECT symbol, slug FROM rows GROUP BY ALL ORDER BY min(file), min(line), symbol, slug"
        ).fetchall()

    def rename(self, names: Mapping[tuple[str, str | None], str]) -> None:
        """Give rows the name of their series (see `series.series_names`)."""
        for (symbol, slug), name in names.items():
            if name != symbol:
                self._connection.execute(
                    "UPDATE rows SET symbol = ? WHERE symbol = ? AND slug = ?", [name, symbol, slug]
                )

    def spans(self) -> pd.DataFrame:
        """For each `file` and `symbol` the `first` and `last` date and the number of `rows` that are not context."""
        return self._connection.execute(
            "SELECT file, symbol, min(date) AS first, max(date) AS last, count(*) AS rows FROM rows "
            "WHERE NOT context GROUP BY ALL ORDER BY ALL"
        ).df()

    def chunks(self, rows_per_chunk: int = CHUNK_ROWS) -> Iterator[pd.DataFrame]:
        """All rows, sorted, in frames of about `rows_per_chunk` rows; no series of a file is cut in two.

        A row of context gives way to a row of its own file for the same series and date.
        """
        query = "SELECT * FROM rows ORDER BY file, symbol, date, context, line"
        reader = self._connection.sql(query).to_arrow_reader(rows_per_chunk)
        pending: list[pd.DataFrame] = []
        for batch in reader:
            pending.append(as_frame(pa.Table.from_batches([batch])))
            if sum(map(len, pending)) < rows_per_chunk:
                continue
            frame = pd.concat(pending, ignore_index=True)
            cut = last_series_start(frame)
            if cut:
                yield _without_outranked(frame[:cut])
            pending = [frame[cut:].reset_index(drop=True)]
        if pending and (rest := pd.concat(pending, ignore_index=True)).size:
            yield _without_outranked(rest)


def _without_outranked(frame: pd.DataFrame) -> pd.DataFrame:
    context = frame["context"].to_numpy(bool)
    if not context.any():
        return frame
    outranked = context & frame.duplicated(["file", "symbol", "date"], keep="first").to_numpy(bool)
    kept: pd.DataFrame = frame[~outranked].reset_index(drop=True)
    return kept


def last_series_start(frame: pd.DataFrame) -> int:
    """Index of the first row of the last series of a sorted frame."""
    last = frame.iloc[-1]
    same = (frame["symbol"] == last["symbol"]).to_numpy() & (frame["file"] == last["file"]).to_numpy()
    return int(np.argmax(same))


def as_frame(table: pa.Table) -> pd.DataFrame:
    """An Arrow table as the frame the domain works on, with the dtypes of `OBSERVATION`."""
    frame: pd.DataFrame = table.to_pandas(date_as_object=False)
    wanted = {name: dtype for name, dtype in OBSERVATION.items() if name in frame and frame[name].dtype != dtype}
    return frame.astype(wanted)


def as_rows(frame: pd.DataFrame, *, file: int, context: bool = False) -> pa.Table:
    """A frame of observations as an Arrow table with the columns of `ROWS`."""
    return pa.Table.from_pandas(frame.assign(file=file, context=context), schema=ROWS, preserve_index=False)
