"""The files that answer an upload, in the formats other programs depend on."""

from pathlib import Path
from typing import Final

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

PREDICTIONS: Final = pa.schema(
    [
        ("symbol", pa.string()),
        ("index", pa.int64()),
        ("date", pa.date32()),
        ("pred_open", pa.float64()),
        ("val_open", pa.float64()),
        ("status", pa.string()),
        ("prediction_id", pa.string()),
    ]
)
"""A prediction file; the first five columns, in this order, are what charts read."""

REJECTED_ROWS: Final = pa.schema([("line", pa.int64()), ("reason", pa.string()), ("text", pa.string())])

FORECAST: Final = pa.schema(
    [
        ("symbol", pa.string()),
        ("as_of", pa.date32()),
        ("target_date", pa.date32()),
        ("pred_open", pa.float64()),
        ("model_version", pa.string()),
        ("prediction_id", pa.string()),
    ]
)

LEFT_OUT: Final = pa.schema(
    [
        ("symbol", pa.string()),
        ("last_day", pa.date32()),
        ("reason", pa.string()),
        ("forecast_id", pa.string()),
    ]
)
"""The symbols that a forecast leaves out, and why."""

_NEEDS_QUOTES: Final = r'[",\r\n]'


def append_csv(path: Path, schema: pa.Schema, frame: pd.DataFrame) -> None:
    """Append rows to a CSV file, which is made with its header where it is not there yet.

    `frame` has at least the columns of `schema`. Numbers are the shortest decimals that read back as the same float64.
    """
    append_table(path, pa.Table.from_pandas(frame[schema.names], schema=schema, preserve_index=False))


def append_table(path: Path, table: pa.Table) -> None:
    """Append a table to a CSV file, which is made with its header where it is not there yet."""
    style = "needed" if _any_needs_quotes(table) else "none"
    with path.open("ab") as file:
        if not file.tell():
            file.write((",".join(table.column_names) + "\n").encode())
        pa_csv.write_csv(table, file, pa_csv.WriteOptions(include_header=False, quoting_style=style))


def _any_needs_quotes(table: pa.Table) -> bool:
    texts = [column for column in table.columns if pa.types.is_string(column.type)]
    return any(pc.any(pc.match_substring_regex(column, _NEEDS_QUOTES)).as_py() for column in texts)


def with_prediction_ids(scored: pd.DataFrame, answer_id: str | pd.Series) -> pd.DataFrame:
    """Name each row: the answer it belongs to, and the line of the upload it answers (`<answer id>-<line>`)."""
    return scored.assign(prediction_id=answer_id + "-" + scored["line"].astype("str"))
