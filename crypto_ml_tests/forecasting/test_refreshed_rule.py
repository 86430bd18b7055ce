"""A serving rule that is made anew: intervals of the last days, λ by days that the network was not fitted on."""

from datetime import date

import numpy as np
import pandas as pd
import pytest

from crypto_ml.forecasting.bundle import NETWORK, RULE, with_rule
from crypto_ml.forecasting.features import series_starts
from crypto_ml.forecasting.refreshed_rule import INTERVAL_DAYS, NoRule, Refreshed, refreshed
from crypto_ml.forecasting.relative_answers import Measured
from crypto_ml.forecasting.stationary import stationary_windows
from crypto_ml_tests.forecasting.markets import RELATIVE_QUANTILES, market, model, relative_model

COINS, DAYS = 4, 170
FIRST = np.datetime64("2018-01-01")


def of(rows: pd.DataFrame, unseen_from: date, shrink: float = 0.5) -> Refreshed:
    return refreshed(relative_model(shrink), rows, rows["date"].to_numpy("datetime64[D]"), unseen_from)


def predictable(noise: float) -> pd.DataFrame:
    """A market whose gaps are what the network of `relative_model` says, and noise, in recent gaps."""
    random = np.random.default_rng(1)
    bundle, network = relative_model(1.0, 10.0), relative_model(1.0, 10.0).network
    names = np.repeat([f"C{number}" for number in range(COINS)], DAYS)
    prices = {name: np.full((COINS, DAYS), 100.0) for name in ("open", "high", "low", "close")}
    for day in range(DAYS):
        gap = 0.002 * random.normal(size=COINS)
        if day > 30:
            begin = day - 30
            window = pd.DataFrame({name: one[:, begin : day + 1].ravel() for name, one in prices.items()})
            starts = np.repeat(np.arange(COINS) * 31, 31)
            at = np.arange(COINS) * 31 + 30
            measured = Measured.of(window, starts, at)
            windows = stationary_windows(measured.block, measured.units, bundle.scaler, starts, at)
            said = network.predict(windows)
            gap = measured.units.gaps.size[at] * (np.where(said < 0, -1.0, 1.0) + noise * random.normal(size=COINS))
        opens = prices["close"][:, max(day - 1, 0)] * np.exp(np.clip(gap, -0.05, 0.05))
        closes = opens * np.exp(0.02 * random.normal(size=COINS))
        prices["open"][:, day], prices["close"][:, day] = opens, closes
        prices["high"][:, day] = np.maximum(opens, closes) * 1.005
        prices["low"][:, day] = np.minimum(opens, closes) / 1.005
    days = np.tile(FIRST + np.arange(DAYS), COINS)
    return pd.DataFrame({"symbol": names, "date": days, **{name: one.ravel() for name, one in prices.items()}})


def test_intervals_hold_as_many_of_the_last_gaps_as_promised_and_the_network_stays() -> None:
    rows = market({"BTC": 200, "ETH": 200, "NEW": 200}, seed=2)
    found = of(rows, date(2018, 7, 1))
    assert (found.rule.shrink, found.judgement) == (0.5, None)
    assert "120 are needed" in found.rule.made_from["shrinkage"]["why"]
    starts = series_starts(rows["symbol"].to_numpy(object))
    at = np.flatnonzero(rows["date"].to_numpy("datetime64[D]") > found.last_day - np.timedelta64(INTERVAL_DAYS, "D"))
    measured = Measured.of(rows, starts, at)
    ratio = (
        np.abs(np.log(rows["open"].to_numpy()[at] / rows["close"].to_numpy()[at - 1])) / measured.units.gaps.size[at]
    )
    for level, quantile in found.rule.quantiles.items():
        assert (ratio <= quantile).mean() == pytest.approx(level, abs=0.01)
    before = relative_model(0.5)
    made = with_rule(before, found.rule, label="r", about={}, documents={})
    assert made.manifest["weights_sha256"] == before.manifest["weights_sha256"]
    assert made.sha256 != before.sha256
    assert made.files[NETWORK] == before.files[NETWORK]
    assert made.files[RULE] != before.files[RULE]
    again = of(rows, date(2018, 7, 1))
    assert again == found


def test_a_network_that_knows_nothing_is_multiplied_by_nothing_and_one_that_does_is_not() -> None:
    unseen = date(2018, 2, 10)
    idle = of(predictable(noise=50.0), unseen)
    assert idle.rule.shrink == 0
    assert idle.judgement is not None
    assert idle.judgement.word != "BEATS"
    found = of(predictable(noise=0.3), unseen, shrink=0.0)
    assert found.judgement is not None
    assert found.judgement.word == "BEATS"
    assert found.rule.shrink > 0
    assert found.rule.cap == 0.05


def test_few_rows_leave_intervals_as_they_were_and_an_older_model_has_no_rule() -> None:
    rows = market({"BTC": 40})
    found = of(rows, date(2018, 7, 1))
    assert dict(found.rule.quantiles) == RELATIVE_QUANTILES
    assert found.rule.range == relative_model(0.5).rule.range  # type: ignore[union-attr]
    with pytest.raises(NoRule, match="no serving rule to refresh"):
        refreshed(model(), rows, rows["date"].to_numpy("datetime64[D]"), date(2018, 7, 1))
