"""The files that answer an upload, in the formats other programs depend on."""

from pathlib import Path
from typing import TYPE_CHECKING, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

if TYPE_CHECKING:
    import pandas as pd

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

BESIDE: Final = pa.schema(
    [
        ("pred_low", pa.float64()),
        ("pred_high", pa.float64()),
        ("expected_range", pa.float64()),
        ("range_high", pa.float64()),
    ]
)
"""What files have behind their other columns where the model has a serving rule: the interval of the open (the upload's
currency), the expected range of the day and its upper bound (ln(high / low)); empty where a row has too few before."""

PREDICTIONS_READ: Final = pa.schema([*PREDICTIONS, *BESIDE])
"""A prediction file as it is read, by whatever model it was made."""

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

FORECAST_READ: Final = pa.schema([*FORECAST, *BESIDE])
"""A forecast as it is read, by whatever model it was made."""

LEFT_OUT: Final = pa.schema(
    [
        ("symbol", pa.string()),
        ("last_day", pa.date32()),
        ("reason", pa.string()),
        ("forecast_id", pa.string()),
    ]
)
"""The symbols that a forecast leaves out, and why."""


def append_csv(path: Path, schema: pa.Schema, frame: "pd.DataFrame") -> None:
    """Append rows to a CSV file, which is made with its header where it is not there yet.

    `frame` has at least the columns of `schema`. Numbers are the shortest decimals that read back as the same float64.
    """
    append_table(path, pa.Table.from_pandas(frame[schema.names], schema=schema, preserve_index=False))


def append_table(path: Path, table: pa.Table) -> None:
    """Append a table to a CSV file, which is made with its header where it is not there yet."""
    append_lines(path, table.schema, csv_lines(table))


def append_lines(path: Path, schema: pa.Schema, lines: pa.Buffer) -> None:
    """Append lines of CSV to a file, which is made with its header where it is not there yet."""
    with path.open("ab") as file:
        if not file.tell():
            file.write((",".join(schema.names) + "\n").encode())
        file.write(lines)


def csv_lines(table: pa.Table, *, quoted: bool | None = None) -> pa.Buffer:
    """A table as lines of CSV, without a header; where a text needs quotes, all of the table's have them.

    quoted: whether they have, for who knows it of more than this table.
    """
    if quoted is not None:
        return _csv_lines(table, "needed" if quoted else "none")
    try:
        return _csv_lines(table, "none")
    except pa.ArrowInvalid:  # a text has a quote, a comma or an end of line in it
        return _csv_lines(table, "needed")


def needs_quotes(texts: pa.Array | pa.ChunkedArray) -> bool:
    """Whether one of some texts stands between quotes in CSV: then what stands beside it in its table does, too."""
    return bool(pc.any(pc.match_substring_regex(texts, '[",\\r\\n]'), min_count=0).as_py())


def _csv_lines(table: pa.Table, quoting: str) -> pa.Buffer:
    lines = pa.BufferOutputStream()
    pa_csv.write_csv(table, lines, pa_csv.WriteOptions(include_header=False, quoting_style=quoting))
    return lines.getvalue()


def prediction_ids(answer_id: str | pa.Array, lines: pa.Array) -> pa.Array:
    """The name of each row: the answer it belongs to, and the line of the upload it answers (`<answer id>-<line>`)."""
    return pc.binary_join_element_wise(answer_id, pc.cast(lines, pa.string()), "-")
