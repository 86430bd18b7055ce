"""Rows that seem to be in another unit are noted for their file, once each, wherever a chunk ends."""

import numpy as np
import pandas as pd
import pyarrow as pa

from crypto_ml.forecasting.unit_changes import MOST_NAMED, UnitChanges
from crypto_ml_tests.forecasting.markets import market


def noted(rows: pd.DataFrame, file: int = 0) -> list[str]:
    changes = UnitChanges()
    table = pa.Table.from_pandas(rows, preserve_index=False)
    table = table.set_column(table.schema.get_field_index("date"), "date", table["date"].cast(pa.date32()))
    assert [chunk.num_rows for chunk in changes.seen([table])] == [len(rows)]
    return changes.notes(file)


def scaled(rows: pd.DataFrame, chosen: "pd.Series[bool]", by: float) -> pd.DataFrame:
    prices = ["open", "high", "low", "close"]
    return rows.assign(**{name: np.where(chosen, rows[name] * by, rows[name]) for name in prices})


def test_a_sound_file_has_nothing_noted_whatever_its_coins_cost() -> None:
    assert noted(market({f"C{number}": 9 for number in range(40)})) == []


def test_a_coin_that_changes_its_unit_is_noted_where_it_does_and_not_after_it() -> None:
    rows = market({"BTC": 9, "ETH": 9})
    (note,) = noted(scaled(rows, (rows["symbol"] == "ETH") & (rows["date"] >= "2018-01-05"), 1_000))
    assert note.startswith("1 row opens more than 7.4 times above or below the close before: ETH on 2018-01-05 (×")
    assert "drop the file again" in note
    assert noted(scaled(rows, (rows["symbol"] == "ETH") & (rows["date"] >= "2018-01-05"), 1_000), file=1) == []


def test_rows_of_the_history_are_not_noted_again_and_the_first_row_after_them_is() -> None:
    rows = scaled(rows := market({"BTC": 9}), rows["date"] >= "2018-01-05", 1e-3)
    assert noted(rows.assign(context=rows["date"] < "2018-01-05"))
    assert noted(rows.assign(context=rows["date"] < "2018-01-06")) == []


def test_of_many_rows_the_first_are_named() -> None:
    rows = market({"BTC": 30})
    (note,) = noted(scaled(rows, rows.index.to_series() % 2 == 0, 1_000))
    assert note.startswith("29 rows open")
    assert note.count("BTC on") == MOST_NAMED
    assert f"and {29 - MOST_NAMED} more" in note
