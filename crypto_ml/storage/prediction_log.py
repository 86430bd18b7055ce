"""Every prediction ever made, by whatever road, append-only, in a Delta Lake table.

What was predicted when is the purest evidence of skill: files of predictions are replaced, these rows are not. A row is
written once its answer has a receipt, also where a newer answer then took its place. A row is named by its answer and
line; where two runs of one delivery meet at the worst moment it may stand twice, and `predictions` gives it once.
"""

from collections.abc import Collection
from datetime import date, datetime
from typing import Final

import pyarrow as pa
import pyarrow.dataset as ds

from crypto_ml.storage.objects import ObjectStore
from crypto_ml.storage.tables.compaction import Arranged
from crypto_ml.storage.tables.growing import GrowingTable

LOGGED_BESIDE: Final = pa.schema(
    [
        pa.field("pred_low", pa.float64()),  # the interval of the open, in the upload's currency
        pa.field("pred_high", pa.float64()),
        pa.field("interval_level", pa.float64()),  # how often the open is to lie in it: 0.8, 0.9, 0.95
        pa.field("expected_range", pa.float64()),  # of the day, ln(high / low)
        pa.field("range_high", pa.float64()),  # upper bound of it
    ]
)
"""What some models say beside the open, for rows with history enough; null otherwise."""

SCHEMA: Final = pa.schema(
    [
        pa.field("answer_id", pa.string(), nullable=False),
        pa.field("line", pa.int64(), nullable=False),  # of the upload, or of the forecast
        pa.field("road", pa.string(), nullable=False),  # `upload`, `request` or `forecast`
        pa.field("model_version", pa.string(), nullable=False),
        pa.field("symbol", pa.string(), nullable=False),
        pa.field("date", pa.date32(), nullable=False),  # the day whose open is predicted
        pa.field("pred_open", pa.float64(), nullable=False),  # in the upload's currency
        pa.field("made_at", pa.timestamp("us", "UTC"), nullable=False),
        *LOGGED_BESIDE,
    ]
)
"""Columns of the table; whatever else is predicted later comes behind these."""

ARRANGED: Final = Arranged(("answer_id", "line", "made_at"), apart="road")
"""How the rows stand in files that were put together: those of an answer beside each other, each road by itself."""


def with_all_columns(rows: pa.Table) -> pa.Table:
    """Predictions in the columns of `SCHEMA`, null where one that may be is not given. Raises KeyError for others."""
    given = [
        pa.nulls(rows.num_rows, field.type)
        if field.nullable and field.name not in rows.schema.names
        else rows[field.name]
        for field in SCHEMA
    ]
    return pa.table(given, SCHEMA.names).cast(SCHEMA)


class PredictionLog:
    """The table under `key` of a store."""

    def __init__(self, store: ObjectStore, key: str = "prediction_log") -> None:
        self.table = GrowingTable(store, key, SCHEMA)
        self.uri = self.table.uri

    def append(self, rows: pa.RecordBatchReader | pa.Table, *, append_id: str, once: bool = True) -> int:
        """Append rows with the columns of `SCHEMA`, once per `append_id`; see `GrowingTable.append`."""
        return self.table.append(rows, append_id=append_id, once=once)

    def answers(self, of: Collection[str]) -> set[str]:
        """Those of some answers that stand in the log."""
        found = self._read(["answer_id"], ds.field("answer_id").isin(pa.array(sorted(of), pa.string())))
        return set(found["answer_id"].unique().to_pylist())

    def rows(self, answer_id: str) -> pa.Table:
        """The rows of one answer as they stand, in no particular order."""
        return self._read(SCHEMA.names, ds.field("answer_id") == answer_id)

    def predictions(self, answer_id: str | None = None) -> pa.Table:
        """The predictions of one answer, or of all, each once, in order of answer and line."""
        rows = self._read(SCHEMA.names, None if answer_id is None else ds.field("answer_id") == answer_id)
        once = rows.group_by(["answer_id", "line"], use_threads=False).aggregate(
            [(name, "first") for name in SCHEMA.names if name not in {"answer_id", "line"}]
        )
        renamed = once.rename_columns([name.removesuffix("_first") for name in once.column_names])
        return renamed.select(SCHEMA.names).cast(SCHEMA).sort_by([("answer_id", "ascending"), ("line", "ascending")])

    def answers_about(self, road: str, symbols: Collection[str], since: datetime | None) -> pa.Table:
        """Which answers of one road predicted some series, oldest first: `answer_id`, `symbol`, `date` (the last day of
        the series in that answer). Those made before `since` are left out."""
        wanted = (ds.field("road") == road) & ds.field("symbol").isin(pa.array(sorted(symbols), pa.string()))
        if since is not None:
            wanted &= ds.field("made_at") >= pa.scalar(since, SCHEMA.field("made_at").type)
        rows = self._read(["answer_id", "symbol", "date"], wanted)
        last = rows.group_by(["answer_id", "symbol"], use_threads=False).aggregate([("date", "max")])
        return last.rename_columns(["answer_id", "symbol", "date"]).sort_by("answer_id")

    def recent(self, road: str, symbols: Collection[str], since: date) -> pa.Table:
        """What one road predicted of some symbols for the days from `since` on, the last made of each day: `symbol`,
        `date`, `pred_open`. Files of other roads and of earlier days are not read."""
        wanted = (
            (ds.field("road") == road)
            & ds.field("symbol").isin(pa.array(sorted(symbols), pa.string()))
            & (ds.field("date") >= pa.scalar(since, pa.date32()))
        )
        rows = self._read(["symbol", "date", "pred_open", "made_at"], wanted).sort_by("made_at")
        last = rows.group_by(["symbol", "date"], use_threads=False).aggregate([("pred_open", "last")])
        return last.rename_columns([name.removesuffix("_last") for name in last.column_names])

    def about_days(self, first: date, last: date, symbols: Collection[str] | None = None) -> pa.Table:
        """What was predicted for the days from first to last (of some symbols), by whatever road and however often, in
        no particular order. Files of other days are not read."""
        wanted = (ds.field("date") >= pa.scalar(first, pa.date32())) & (
            ds.field("date") <= pa.scalar(last, pa.date32())
        )
        if symbols is not None:
            wanted &= ds.field("symbol").isin(pa.array(sorted(symbols), pa.string()))
        return self._read(SCHEMA.names, wanted)

    def _read(self, columns: list[str], wanted: ds.Expression | None) -> pa.Table:
        state = self.table.at()
        if state is None:
            return SCHEMA.empty_table().select(columns)
        with self.table.explained("read"):
            return state.dataset.to_table(columns=columns, filter=wanted)
