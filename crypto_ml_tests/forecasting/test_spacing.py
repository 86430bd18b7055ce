"""Files of weekly or monthly rows are noted as such, and daily ones are not, whatever pauses they have."""

from itertools import pairwise

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from crypto_ml.forecasting.spacing import Spacing
from crypto_ml_tests.forecasting.markets import market


def noted(rows: pd.DataFrame, pieces: int = 1) -> list[str]:
    spacing = Spacing()
    table = pa.Table.from_pandas(rows, preserve_index=False)
    table = table.set_column(table.schema.get_field_index("date"), "date", table["date"].cast(pa.date32()))
    cuts = np.linspace(0, len(rows), pieces + 1).astype(int)
    chunks = [table.slice(begin, end - begin) for begin, end in pairwise(cuts.tolist())]
    assert list(spacing.seen(chunks)) == chunks
    return spacing.notes(0)


def every(days: int, rows: pd.DataFrame) -> pd.DataFrame:
    place = rows.groupby("symbol").cumcount()
    return rows.assign(date=rows["date"].min() + pd.to_timedelta(place * days, unit="D"))


@pytest.mark.parametrize("pieces", [1, 2])
def test_rows_a_week_or_a_month_apart_are_noted(pieces: int) -> None:
    rows = market({"BTC": 12, "ETH": 8})
    for days in (7, 30):
        (note,) = noted(every(days, rows), pieces)
        assert note.startswith(f"its rows are {days} days apart: each open is predicted from the row before it")
    assert noted(every(1, rows), pieces) == noted(every(3, rows), pieces) == []


def test_a_daily_file_with_pauses_and_one_of_a_row_for_each_symbol_are_as_they_should_be() -> None:
    rows = market({"BTC": 12, "ETH": 8})
    paused = rows.assign(date=rows["date"].where(rows["date"] < "2018-01-05", rows["date"] + pd.Timedelta(days=40)))
    assert noted(paused) == []
    assert noted(market({f"C{number}": 1 for number in range(9)})) == []
    assert noted(every(7, rows).groupby("symbol").head(2)) == []
