"""A backtest makes every model of earlier days alone, predicts every day once, and adds up."""

import json
from datetime import date, timedelta

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crypto_ml.errors import Refused
from crypto_ml.forecasting.backtest import (
    Ran,
    Span,
    by_dates,
    first_origin,
    predicted,
    regimes,
    run,
    scoreboards,
    served,
    spans,
)
from crypto_ml.forecasting.bundle import ModelBundle
from crypto_ml.forecasting.holdout import holdout_predictions
from crypto_ml.forecasting.schema import OBSERVATION
from crypto_ml.forecasting.training_set import Split, TooLittleHistory
from crypto_ml_tests.forecasting.markets import FIRST_DAY, market, model

ROWS = market({"BTC": 200, "ETH": 190, "NEW": 60})[list(OBSERVATION)]
LAST = FIRST_DAY + timedelta(199)


@given(st.integers(0, 300), st.integers(1, 90))
def test_every_day_after_the_first_origin_is_predicted_once_and_from_an_earlier_origin(back: int, every: int) -> None:
    first = LAST - timedelta(back)
    if not back:
        with pytest.raises(Refused, match="no day after the first origin"):
            spans(first, LAST, every)
        return
    made = spans(first, LAST, every)
    days = [
        span.first_day + timedelta(day) for span in made for day in range((span.last_day - span.first_day).days + 1)
    ]
    assert days == [first + timedelta(day) for day in range(1, back + 1)]
    assert all(span.origin < span.first_day for span in made)
    assert [span.origin for span in made] == [first + timedelta(every * number) for number in range(len(made))]


def test_the_first_origin_is_after_a_year_or_half_of_a_shorter_history() -> None:
    assert first_origin(FIRST_DAY, FIRST_DAY + timedelta(2000)) == FIRST_DAY + timedelta(365)
    assert first_origin(FIRST_DAY, FIRST_DAY + timedelta(100)) == FIRST_DAY + timedelta(50)


def test_a_model_is_made_of_days_before_its_origin_and_predicts_as_the_holdout_is_predicted() -> None:
    seen: list[tuple[date, date]] = []

    def make(rows: pd.DataFrame, origin: date) -> ModelBundle:
        seen.append((rows["date"].max().date(), origin))
        if origin < FIRST_DAY + timedelta(120):
            raise TooLittleHistory("too early")
        return model("gap")

    made = run("gap", spans(FIRST_DAY + timedelta(100), LAST, 28), by_dates(ROWS), make)
    assert all(newest == origin - timedelta(1) for newest, origin in seen)
    assert (made.origins[0].rows, made.origins[0].why) == (0, "too early")
    first = made.origins[1].span.first_day
    assert made.rows["date"].min().date() == first
    whole = holdout_predictions(ROWS, Split(first, first), model("gap"))
    both = made.rows.merge(whole, on=["symbol", "date"], suffixes=("", " whole"), how="outer")
    assert len(both) == len(made.rows) == len(whole)
    assert (both["pred_open"] == both["pred_open whole"]).all()
    with pytest.raises(Refused, match=r"gap could predict at none of 4 origins; the last says: .* fitted on rows"):
        run("gap", spans(FIRST_DAY + timedelta(100), LAST, 28), by_dates(ROWS), served(model("gap"), LAST))


def ran(name: str, seed: int = 0, days: int = 120, coins: int = 4, error: float = 1.0) -> Ran:
    """Predictions whose errors are `error` times the last close's, with intervals on half of the rows."""
    random = np.random.default_rng(seed)
    gaps = random.normal(0, 0.002, days * coins) * np.repeat(np.where(np.arange(days) % 20 < 10, 1.0, 5.0), coins)
    close = np.repeat(100.0, days * coins)
    rows = pd.DataFrame(
        {
            "symbol": np.tile([f"C{coin}" for coin in range(coins)], days),
            "date": np.repeat(pd.date_range("2020-01-01", periods=days), coins),
            "val_open": close * (1 + gaps),
            "pred_open": close * (1 + gaps * (1 - error)),
            "last_close": close,
            "pred_low": np.where(np.arange(len(gaps)) % 2, 99.5, np.nan),
            "pred_high": np.where(np.arange(len(gaps)) % 2, 100.5, np.nan),
            "size": np.abs(gaps),
        }
    )
    return Ran(name, rows, ())


def test_the_lines_of_a_scoreboard_add_up_and_say_what_the_rows_say() -> None:
    better, tie = scoreboards([ran("better", error=0.9), ran("last close", error=1.0)])
    assert (better.overall.judgement.word, tie.overall.judgement.word) == ("BEATS", "TIES")
    assert [better.overall.mase, tie.overall.mase] == pytest.approx([0.9, 1.0])
    for lines in (better.by_coin, better.by_month, better.by_regime):
        assert sum(line.rows for line in lines) == better.overall.rows == 480
        assert sum(line.intervals for line in lines) == better.overall.intervals == 240
        assert all(line.mase == pytest.approx(0.9) for line in lines)
    assert [line.group for line in better.by_month] == ["2020-01", "2020-02", "2020-03", "2020-04"]
    assert {line.judgement.word for line in better.by_month} == {"INCONCLUSIVE"}  # a month says nothing
    rows = ran("").rows
    inside = (rows["pred_low"] <= rows["val_open"]) & (rows["val_open"] <= rows["pred_high"])
    assert better.overall.coverage == pytest.approx(inside.sum() / 240)
    said = json.loads(json.dumps(better.to_dict(), allow_nan=False))
    assert len(said["daily"]["day"]) == 120
    assert said["overall"]["judgement"]["word"] == "BEATS"


def test_days_of_large_gaps_are_turbulent_and_the_others_calm() -> None:
    rows = ran("").rows
    large = (rows["date"] - rows["date"].min()).dt.days % 20 >= 10
    assert (regimes(rows)[~large] == "calm").mean() > 0.9
    assert (regimes(rows)[large] == "turbulent").mean() > 0.9


def test_competitors_are_compared_on_the_rows_that_all_of_them_predicted() -> None:
    one, other = ran("one"), ran("other", error=0.5)
    late = Ran("late", other.rows[other.rows["date"] >= "2020-02-01"], ())
    first, second = scoreboards([one, late])
    assert first.overall.rows == second.overall.rows == (120 - 31) * 4
    with pytest.raises(Refused, match="no row in common"):
        scoreboards([Ran("early", one.rows[one.rows["date"] < "2020-02-01"], ()), late])


def test_days_of_high_prices_count_no_more_than_others() -> None:
    made = ran("one", error=0.9)
    factor = np.where(made.rows["date"] < "2020-02-15", 1.0, 1024.0)
    prices = ["val_open", "pred_open", "last_close", "pred_low", "pred_high"]
    other = Ran("one", made.rows.assign(**{name: made.rows[name] * factor for name in prices}), ())
    (one,), (two,) = scoreboards([made]), scoreboards([other])
    assert one.overall == two.overall


def test_what_a_span_predicts_ends_with_the_span() -> None:
    span = Span(FIRST_DAY + timedelta(150), FIRST_DAY + timedelta(151), FIRST_DAY + timedelta(160))
    rows = by_dates(ROWS)(span.last_day + timedelta(1)).rows
    found = predicted(rows, span, model("gap"))
    assert found["date"].min().date() == span.first_day
    assert found["date"].max().date() == span.last_day
    assert found["size"].notna().all()
