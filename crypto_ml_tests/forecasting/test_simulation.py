"""The simulated market looks like an upload, moves like a market, and is the same again for the same seed."""

import hashlib
import subprocess
import sys
from datetime import date

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crypto_ml.errors import Refused
from crypto_ml.forecasting.simulation import COLUMNS, simulate_market

START = date(2021, 1, 1)
MARKET = simulate_market(40, 400, 1, START)


@settings(deadline=None, max_examples=40)
@given(symbols=st.integers(1, 30), days=st.integers(1, 80), seed=st.integers(0, 2**32))
def test_every_row_is_one_an_upload_may_hold(symbols: int, days: int, seed: int) -> None:
    market = simulate_market(symbols, days, seed, START)
    prices = market[["open", "high", "low", "close"]].to_numpy()
    assert np.isfinite(prices).all()
    assert (prices > 0).all()
    assert (market["low"] <= market[["open", "close"]].min(axis=1)).all()
    assert (market["high"] >= market[["open", "close"]].max(axis=1)).all()
    assert (market[["volume", "market"]] >= 0).all(axis=None)
    assert market["symbol"].nunique() == symbols
    assert not market.duplicated(["symbol", "date"]).any()


def test_the_same_seed_gives_the_same_bytes_in_another_process() -> None:
    program = (
        "import sys; from datetime import date; from crypto_ml.forecasting.simulation import simulate_market\n"
        "sys.stdout.write(simulate_market(40, 400, 1, date(2021, 1, 1)).to_csv(index=False))\n"
    )
    other = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True).stdout
    assert hashlib.sha256(other).digest() == hashlib.sha256(MARKET.to_csv(index=False).encode()).digest()


def test_another_seed_gives_another_market() -> None:
    assert not simulate_market(40, 400, 2, START)["open"].equals(MARKET["open"])


def test_columns_order_and_names_are_those_of_an_upload() -> None:
    assert tuple(MARKET.columns) == COLUMNS
    assert MARKET[["symbol", "date"]].equals(MARKET[["symbol", "date"]].sort_values(["symbol", "date"]))
    assert MARKET.iloc[-1][["symbol", "slug", "date"]].tolist() == ["SIM040", "simcoin-040", "2022-02-04"]


def test_coins_are_listed_on_different_days_and_then_trade_every_day() -> None:
    first = MARKET.groupby("symbol")["date"].min()
    assert first.nunique() > 10
    assert (first == "2021-01-01").sum() > 5
    days = (pd.Timestamp("2022-02-05") - pd.to_datetime(first)).dt.days
    assert (MARKET.groupby("symbol").size() == days).all()


def test_some_coins_have_no_market_capitalisation_on_their_early_rows_only() -> None:
    zero = MARKET["market"] == 0
    position = MARKET.groupby("symbol").cumcount()
    assert 0 < MARKET[zero]["symbol"].nunique() < 20
    assert (position[zero] < 100).all()
    assert (zero.groupby(MARKET["symbol"]).apply(lambda flags: flags.is_monotonic_decreasing)).all()


def test_prices_have_six_significant_digits() -> None:
    printed = MARKET["open"].map(lambda price: float(f"{price:.6g}"))
    assert (printed == MARKET["open"]).all()


def test_volatility_clusters() -> None:
    correlations = [
        coin["close"].div(coin["open"]).sub(1).abs().autocorr(1)
        for _, coin in MARKET.groupby("symbol")
        if len(coin) > 200
    ]
    assert len(correlations) > 10
    assert np.mean(correlations) > 0.08


def test_the_open_stays_near_the_last_close_and_leans_against_the_last_move() -> None:
    gap = MARKET["open"].div(MARKET.groupby("symbol")["close"].shift()).sub(1)
    move = MARKET["close"].div(MARKET["open"]).sub(1).groupby(MARKET["symbol"]).shift()
    assert 5 * gap.abs().mean() < move.abs().mean()
    assert gap.corr(move) < -0.05


def test_names_stay_in_order_beyond_a_thousand_coins() -> None:
    assert simulate_market(1001, 1, 1, START)["symbol"].is_monotonic_increasing


def test_a_market_of_nothing_is_refused() -> None:
    with pytest.raises(Refused, match="at least one symbol"):
        simulate_market(0, 5, 1, START)
