"""Predictions that know of the future are found, whatever way it reaches them; those that serve know nothing of it."""

from collections.abc import Callable
from datetime import date, timedelta

import numpy as np
import pandas as pd
import pytest

from crypto_ml.errors import Refused
from crypto_ml.forecasting.backtest import Span, by_dates, predicted
from crypto_ml.forecasting.bundle import ModelBundle
from crypto_ml.forecasting.holdout import holdout_predictions
from crypto_ml.forecasting.leaks import check_leaks, disturbed
from crypto_ml.forecasting.schema import OBSERVATION
from crypto_ml.forecasting.training_set import Split
from crypto_ml_tests.forecasting.markets import FIRST_DAY, market, model, relative_model

ROWS = market({"BTC": 120, "ETH": 110, "LTC": 120, "NEW": 100})[list(OBSERVATION)]
SPAN = Span(FIRST_DAY + timedelta(79), FIRST_DAY + timedelta(80), FIRST_DAY + timedelta(107))
CUTS = [SPAN.first_day, SPAN.first_day + timedelta(14)]
MADE = ["symbol", "date", "pred_open"]


SERVED = {"gap": model("gap"), "change": model("change"), "relative": relative_model(1.0, 5.0)}


@pytest.mark.parametrize("bundle", SERVED.values(), ids=SERVED)
def test_what_serves_knows_nothing_of_the_future(bundle: ModelBundle) -> None:
    columns = [*MADE, *(["pred_low", "pred_high"] if bundle.rule else [])]
    found = check_leaks(lambda rows: predicted(by_dates(rows)(SPAN.last_day).rows, SPAN, bundle)[columns], ROWS, CUTS)
    assert found.passed, found.explanation
    assert found.compared == 2 * (4 + 15 * 4)
    assert found.followed > 0
    assert "stayed as they were, to the last bit" in found.explanation


def closes(rows: pd.DataFrame) -> pd.DataFrame:
    """What predicts the last close; the frame that the leaks below are planted in."""
    before = rows.groupby("symbol", sort=False)["close"].shift(1)
    return rows.assign(pred_open=before)[before.notna()][MADE]


def same_day(rows: pd.DataFrame) -> pd.DataFrame:
    """A feature of the day itself, by the smallest amount that a float has room for."""
    made = closes(rows)
    nudged = np.nextafter(made["pred_open"].to_numpy(), rows.loc[made.index, "high"].to_numpy())
    return made.assign(pred_open=nudged)


def scaled_by_all(rows: pd.DataFrame) -> pd.DataFrame:
    """A scaler that was fitted on every row."""
    made = closes(rows)
    return made.assign(pred_open=made["pred_open"] + 1e-6 * rows["close"].std())


def shifted(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows joined a day off, for one coin alone."""
    made = closes(rows)
    later = rows.groupby("symbol", sort=False)["close"].shift(0).loc[made.index]
    return made.assign(pred_open=np.where(made["symbol"] == "ETH", later, made["pred_open"]))


def learnt_from_its_holdout(rows: pd.DataFrame) -> pd.DataFrame:
    """A model whose training rows end where those that it predicts do."""
    gap = float((rows["open"] / rows.groupby("symbol")["close"].shift(1)).median())
    made = closes(rows)
    return made.assign(pred_open=made["pred_open"] * gap)


def counts_rows(rows: pd.DataFrame) -> pd.DataFrame:
    """Something that depends on how many rows there will be, and on no value of theirs."""
    made = closes(rows)
    return made.assign(pred_open=made["pred_open"] * (1 + 1e-9 * rows.groupby("symbol")["close"].transform("size")))


def not_listed_any_more(rows: pd.DataFrame) -> pd.DataFrame:
    """Coins that are predicted only where they are still there in the end."""
    made = closes(rows)
    lasting = rows.groupby("symbol")["date"].transform("max") == rows["date"].max()
    listed: pd.DataFrame = made[lasting.loc[made.index]]
    return listed


@pytest.mark.parametrize(
    ("leaking", "disturbance"),
    [
        (same_day, "changed"),
        (scaled_by_all, "changed"),
        (shifted, "changed"),
        (learnt_from_its_holdout, "changed"),
        (counts_rows, "taken away"),
    ],
)
def test_a_planted_leak_is_found_and_named(leaking: Callable[[pd.DataFrame], pd.DataFrame], disturbance: str) -> None:
    assert check_leaks(closes, ROWS, CUTS).passed
    found = check_leaks(leaking, ROWS, CUTS)
    assert not found.passed
    assert found.leaks[0].disturbance == disturbance
    assert found.leaks[0].day <= found.leaks[0].since
    assert all(leak.symbol == "ETH" for leak in found.leaks) == (leaking is shifted)
    assert "pred_open of " in found.explanation and "know of the future" in found.explanation
    assert found.to_dict()["passed"] is False


def test_a_prediction_that_is_only_made_where_the_future_is_known_is_a_leak() -> None:
    short = ROWS[(ROWS["symbol"] != "NEW") | (ROWS["date"] < np.datetime64(CUTS[1] + timedelta(3)))]
    found = check_leaks(not_listed_any_more, short.reset_index(drop=True), CUTS)
    assert not found.passed


def test_a_check_that_could_find_nothing_is_refused() -> None:
    with pytest.raises(Refused, match="nothing is shown"):
        check_leaks(lambda rows: closes(rows).assign(pred_open=1.0), ROWS, CUTS)
    with pytest.raises(Refused, match="choose later days"):
        check_leaks(closes, ROWS, [date(2017, 1, 1)])


def test_disturbed_rows_are_rows_of_a_market_and_the_others_are_as_they_were() -> None:
    since = CUTS[0]
    other = disturbed(ROWS, since, "changed")
    later = (ROWS["date"] >= np.datetime64(since)).to_numpy()
    pd.testing.assert_frame_equal(other[~later], ROWS[~later])
    assert (other.loc[later, "close"] != ROWS.loc[later, "close"]).all()
    assert (other["low"] <= other[["open", "close"]].min(axis=1)).all()
    assert (other["high"] >= other[["open", "close"]].max(axis=1)).all()
    gone = disturbed(ROWS, since, "taken away")
    assert gone["date"].max().date() == since
    split = Split(since, since)
    asked = holdout_predictions(gone, split, model("gap"))
    assert set(asked["date"].dt.date) == {since}
