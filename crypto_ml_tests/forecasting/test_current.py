"""The one rule of which row counts says the same as SQL, as a sort key, and of a table in memory."""

from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from crypto_ml.forecasting.current import current_sql, rank, valid_rows
from crypto_ml.forecasting.current_rows import are_current, are_outranked
from crypto_ml.storage.outofcore import queried

UPLOADS = ("1.0", "2.0", "2.9", "2.10", "10.0")
SCHEMA = pa.schema(
    [
        ("symbol", pa.string()),
        ("date", pa.date32()),
        ("known_at", pa.timestamp("us", "UTC")),
        ("upload_id", pa.string()),
        ("line", pa.int64()),
        ("cleaning", pa.int32()),
        ("void", pa.bool_()),
    ]
)
said = st.fixed_dictionaries(
    {
        "symbol": st.just("A"),
        "date": st.integers(0, 1).map(lambda day: date(2018, 1, 1) + timedelta(days=day)),
        "known_at": st.just(datetime(2026, 1, 1, tzinfo=UTC)),
        "upload_id": st.sampled_from(UPLOADS),
        "line": st.integers(0, 2),
        "cleaning": st.sampled_from([None, 2, 3]),
        "void": st.none(),
    }
)
delivered = st.lists(said, min_size=4, max_size=25)
"""Some of them alike: then one of them counts."""


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Rows, and void rows of what some of their uploads said."""
    rows = draw(delivered)
    return rows, [{**row, "void": True} for row in draw(st.lists(st.sampled_from(rows), max_size=3))]


def days_of(rows: list[dict[str, Any]]) -> np.ndarray:
    """A number for each series and day, as `are_current` takes them."""
    return np.array([hash((row["symbol"], row["date"])) for row in rows], np.int64)


def counting(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The current ones of some rows."""
    table = pa.Table.from_pylist(rows, SCHEMA)
    return sorted(table.filter(pa.array(are_current(table, days_of(rows)))).to_pylist(), key=str)


@given(histories())
def test_rows_in_memory_count_as_sql_says_and_as_their_rank(history: tuple[list[Any], list[Any]]) -> None:
    rows = [*history[0], *history[1]]
    table = pa.Table.from_pylist(rows, SCHEMA)
    current = counting(rows)
    ranked = {
        (row["symbol"], row["date"]): row for row in sorted(valid_rows(rows), key=lambda row: rank(row, "delivered"))
    }
    assert {(row["symbol"], row["date"]): row for row in current} == ranked
    assert len(current) == len(ranked)
    found = pa.Table.from_batches(queried(current_sql("delivered"), table.to_reader(), SCHEMA), SCHEMA)
    assert sorted(found.to_pylist(), key=str) == current


@given(histories(), st.data())
def test_without_what_is_outranked_among_some_of_the_rows_the_same_ones_count(
    history: tuple[list[Any], list[Any]], data: st.DataObject
) -> None:
    rows, void = history
    retracted = {row["upload_id"] for row in void}
    some = data.draw(st.lists(st.sampled_from(rows), min_size=3, unique_by=id))
    outranked = are_outranked(pa.Table.from_pylist(some, SCHEMA), days_of(some), retracted)
    left = [row for row, without in zip(some, outranked, strict=True) if not without]
    others = [row for row in rows if not any(row is one for one in some)]
    assert counting([*left, *others, *void]) == counting([*some, *others, *void])
    assert counting(left) == counting(some)
