"""A simulated market: upload rows of coins that do not exist, for tests, benchmarks and the model of a fresh clone.

Prices follow a geometric random walk whose volatility clusters (log-volatility as a first-order autoregression,
Taylor 1982) round a level of the coin's own, with a drift that changes by regime. A day opens at the last close times
a small gap that leans against the last day's move, as the open of a market that never closes does.
"""

from datetime import date
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from crypto_ml.errors import Refused

COLUMNS: Final = ("symbol", "slug", "name", "date", "open", "high", "low", "close", "volume", "market")
"""An upload's columns, in this order."""

PERSISTENCE: Final = 0.95
"""How much of a day's log-volatility deviation the next day keeps."""

REVERSION: Final = 0.02
"""Share of the last day's move that the next open gives back."""

REGIME_DAYS: Final = 60
"""Mean length of a regime of drift, days."""

DIGITS: Final = 6
"""Significant digits of a price, as exchanges print them."""

FloatArray = NDArray[np.float64]


def simulate_market(symbols: int, days: int, seed: int, start: date) -> pd.DataFrame:
    """`days` days from `start` of `symbols` coins, sorted by symbol and date; the same arguments give the same bytes.

    Columns `COLUMNS`: names and ISO dates as str; prices, volume and market capitalisation as float64 in one made-up
    currency, low ≤ open, close ≤ high. Half the coins are there from the first day, the others are listed within
    the first half of the period; a quarter have a market capitalisation of 0 on their early rows.
    Raises Refused for fewer than one symbol or day.
    """
    if symbols < 1 or days < 1:
        raise Refused(f"A market needs at least one symbol and one day, not {symbols} and {days}.")
    random = np.random.default_rng(seed)
    open_, high, low, close = _prices(random, symbols, days)
    shares = np.exp(random.uniform(np.log(1e6), np.log(1e10), (symbols, 1)))
    growth = random.uniform(0, 0.1 / 365, (symbols, 1))  # up to a tenth more coins a year
    market = np.round(close * shares * (1 + growth * np.arange(days)))
    turnover = random.lognormal(np.log(0.02), 0.8, (symbols, days))
    listed = np.where(random.random(symbols) < 0.5, 0, random.integers(0, max(days // 2, 1), symbols))
    without_market = np.where(random.random(symbols) < 0.25, random.integers(1, max(days // 4, 2), symbols), 0)
    age = np.arange(days) - listed[:, None]
    volume = np.round(market * turnover)
    market[age < without_market[:, None]] = 0.0
    there = age >= 0
    coin, day = np.nonzero(there)
    width = max(3, len(str(symbols)))  # one width, so that the order of names is the order of numbers
    numbers = [f"{number:0{width}d}" for number in range(1, symbols + 1)]
    dates = pd.date_range(start, periods=days).strftime("%Y-%m-%d").to_numpy(str)
    return pd.DataFrame(
        {
            "symbol": np.array([f"SIM{number}" for number in numbers])[coin],
            "slug": np.array([f"simcoin-{number}" for number in numbers])[coin],
            "name": np.array([f"Simulated Coin {number}" for number in numbers])[coin],
            "date": dates[day],
            "open": open_[there],
            "high": high[there],
            "low": low[there],
            "close": close[there],
            "volume": volume[there],
            "market": market[there],
        }
    )


def _prices(
    random: np.random.Generator, symbols: int, days: int
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Open, high, low and close, each (symbols, days), from the first day on for every coin."""
    volatility = _volatility(random, symbols, days)
    move = _drift(random, symbols, days) + volatility * random.standard_normal((symbols, days))
    # a gap is a tenth of a day's move: in the real market the last close is 0.5 % from the next open, the last open 7 %
    gap = 0.1 * volatility * random.standard_normal((symbols, days))
    gap[:, 1:] -= REVERSION * move[:, :-1]
    gap[:, 0] = 0.0
    first = random.uniform(np.log(1e-3), np.log(1e4), (symbols, 1))
    log_close = first + np.cumsum(move + gap, axis=1)
    close = _rounded(np.exp(log_close))
    open_ = _rounded(np.exp(log_close - move))
    above, below = np.abs(0.5 * volatility * random.standard_normal((2, symbols, days)))
    high = _rounded(np.maximum(open_, close) * np.exp(above))
    low = _rounded(np.minimum(open_, close) * np.exp(-below))
    return open_, high, low, close


def _volatility(random: np.random.Generator, symbols: int, days: int) -> FloatArray:
    """Standard deviation of a day's log move, (symbols, days), clustering round 2 to 8 % by coin."""
    level = random.uniform(np.log(0.02), np.log(0.08), symbols)
    shocks = 0.15 * random.standard_normal((symbols, days))
    deviation = np.empty((symbols, days))
    current = shocks[:, 0] / np.sqrt(1 - PERSISTENCE**2)  # starts where the process has settled
    for day in range(days):
        deviation[:, day] = current
        current = PERSISTENCE * current + shocks[:, day]
    return np.asarray(np.exp(level[:, None] + np.clip(deviation, -1.5, 1.5)))


def _drift(random: np.random.Generator, symbols: int, days: int) -> FloatArray:
    """Mean of a day's log move, (symbols, days): redrawn at the first day of each regime."""
    begins = random.random((symbols, days)) < 1 / REGIME_DAYS
    begins[:, 0] = True
    drawn = random.normal(0.0, 0.004, (symbols, days))
    since = np.maximum.accumulate(np.where(begins, np.arange(days), 0), axis=1)
    return np.asarray(np.take_along_axis(drawn, since, axis=1))


def _rounded(prices: FloatArray) -> FloatArray:
    """Prices to `DIGITS` significant digits; monotone, so low ≤ open, close ≤ high survives."""
    decimals = DIGITS - 1 - np.floor(np.log10(prices))
    unit: FloatArray = 10.0 ** np.abs(decimals)  # powers of ten up to 1e22 are exact, their reciprocals are not
    return np.asarray(np.where(decimals >= 0, np.round(prices * unit) / unit, np.round(prices / unit) * unit))
