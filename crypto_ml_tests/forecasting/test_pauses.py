"""A row behind a pause has no interval, whatever the steps of its series are, and the rows after it have one again."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crypto_ml.forecasting.features import series_starts
from crypto_ml.forecasting.pauses import ROWS, after_pause
from crypto_ml.forecasting.scoring import score_rows
from crypto_ml.forecasting.stationary import LOOK_BACK
from crypto_ml_tests.forecasting.markets import market, relative_model


def spaced(steps: list[int]) -> pd.DataFrame:
    """One series whose rows are so many days apart."""
    rows = market({"BTC": len(steps) + 1}, 3)
    return rows.assign(date=rows["date"].iloc[0] + pd.to_timedelta(np.cumsum([0, *steps]), unit="D"))


@pytest.mark.parametrize(
    ("usual", "pause", "is_one"),
    [(1, 2, True), (1, 900, True), (7, 7, False), (7, 14, True), (2, 3, False), (30, 31, False), (30, 61, True)],
)
def test_behind_a_pause_no_interval_is_given_and_the_open_is_predicted_all_the_same(
    usual: int, pause: int, is_one: bool
) -> None:
    found = score_rows(spaced([usual] * 25 + [pause] + [usual] * 4), relative_model(), "one_step")
    assert found["pred_low"].isna().tolist() == [True] * 11 + [False] * 15 + [is_one] + [False] * 4
    assert found["pred_high"].isna().tolist() == found["pred_low"].isna().tolist()
    assert found["expected_range"].notna().tolist() == [False] * 22 + [True] * 9
    assert (found["status"].iloc[1:] == "predicted").all()


def test_months_and_trading_days_are_told_apart() -> None:
    months = spaced(([31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] * 3)[:30])
    assert score_rows(months, relative_model(), "one_step")["pred_low"].iloc[11:].notna().all()
    no_weekends = spaced(([1, 1, 1, 1, 3] * 6)[:30])  # four opens of five are a night away
    paused = score_rows(no_weekends, relative_model(), "one_step")["pred_low"].iloc[11:].isna()
    assert paused.tolist() == [step == 3 for step in ([1, 1, 1, 1, 3] * 6)[10:30]]


@given(st.lists(st.integers(1, 40), min_size=1, max_size=40), st.integers(0, 3))
def test_it_depends_on_the_rows_of_the_look_back_and_on_no_neighbour(steps: list[int], beside: int) -> None:
    rows = spaced(steps)
    before = market({"AAA": beside}) if beside else rows.iloc[:0]
    both = pd.concat([before, rows], ignore_index=True)
    starts = series_starts(both["symbol"])
    found = after_pause(both["date"].to_numpy(), starts, np.arange(len(both)))[beside:]
    assert ROWS + 1 <= LOOK_BACK
    assert not found[:2].any()
    for t in range(1, len(rows)):
        cut = rows.iloc[max(t - LOOK_BACK, 0) : t + 1]
        alone = after_pause(cut["date"].to_numpy(), np.zeros(len(cut), np.int64), np.array([len(cut) - 1]))
        assert alone.tolist() == [found[t]]
        earlier = steps[max(t - 1 - ROWS, 0) : t - 1]
        assert found[t] == (len(earlier) > 0 and steps[t - 1] > max(1, 1.5 * float(np.median(earlier))))
