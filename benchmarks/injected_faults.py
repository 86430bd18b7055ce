"""What goes wrong with market data and with models, put into a sound market: for measuring what notices it.

Rows are a frame sorted by symbol and date, with `symbol`, `date` (datetime64) and prices; all of it is seeded.
"""

from collections.abc import Callable, Mapping
from typing import Final

import numpy as np
import pandas as pd

from crypto_ml.forecasting.columns import Columns
from crypto_ml.forecasting.drift import BEFORE_DAYS, RECENT_DAYS, DataFaults, data_faults
from crypto_ml.forecasting.features import BoolArray, FloatArray, series_starts
from crypto_ml.forecasting.recent_gaps import ROWS
from crypto_ml.forecasting.schema import PRICES

Fault = Callable[[pd.DataFrame, BoolArray, np.random.Generator], pd.DataFrame]
"""Rows, which of them it happens to, and chance → rows with the fault."""


def stale(rows: pd.DataFrame, chosen: BoolArray, random: np.random.Generator) -> pd.DataFrame:
    """A fifth of the rows repeat the day before."""
    names = rows["symbol"].to_numpy()
    at = np.flatnonzero(chosen & (random.random(len(rows)) < 0.2) & np.append(False, names[1:] == names[:-1]))
    return _with(rows, at, {name: rows[name].to_numpy()[at - 1] for name in PRICES})


def hour_late(rows: pd.DataFrame, chosen: BoolArray, random: np.random.Generator) -> pd.DataFrame:
    """Opens of an hour later: a point of the Brownian bridge from open to close at a 24th of the way, whose deviation a
    day is the range over 1.6 (Parkinson 1980), within low and high."""
    at = np.flatnonzero(chosen)
    opens, high, low, close = (rows[name].to_numpy(np.float64)[at] for name in PRICES)
    spread = np.log(high / low) / 1.6 * np.sqrt(1 / 24 * 23 / 24)
    late = opens * np.exp(np.log(close / opens) / 24 + spread * random.standard_normal(len(at)))
    return _with(rows, at, {"open": np.clip(late, low, high)})


def close_is_middle(rows: pd.DataFrame, chosen: BoolArray, random: np.random.Generator) -> pd.DataFrame:  # noqa: ARG001
    """Closes that are the middle of high and low."""
    at = np.flatnonzero(chosen)
    return _with(rows, at, {"close": (rows["high"].to_numpy()[at] + rows["low"].to_numpy()[at]) / 2})


def rounded(digits: int) -> Fault:
    """Prices of so many significant digits."""

    def fault(rows: pd.DataFrame, chosen: BoolArray, random: np.random.Generator) -> pd.DataFrame:  # noqa: ARG001
        at = np.flatnonzero(chosen)
        values = {name: rows[name].to_numpy(np.float64)[at] for name in PRICES}
        units = {name: 10.0 ** (np.floor(np.log10(one)) - (digits - 1)) for name, one in values.items()}
        return _with(rows, at, {name: np.round(one / units[name]) * units[name] for name, one in values.items()})

    return fault


def missing(rows: pd.DataFrame, chosen: BoolArray, random: np.random.Generator) -> pd.DataFrame:
    """A tenth of the rows are not there."""
    return rows[~(chosen & (random.random(len(rows)) < 0.1))].reset_index(drop=True)


def other_unit(rows: pd.DataFrame, chosen: BoolArray, random: np.random.Generator) -> pd.DataFrame:
    """A tenth of the coins, one at least, in thousandths."""
    names = rows["symbol"].to_numpy()
    there = np.unique(names[chosen])
    at = np.flatnonzero(chosen & np.isin(names, random.choice(there, max(1, len(there) // 10), replace=False)))
    return _with(rows, at, {name: rows[name].to_numpy()[at] * 1_000 for name in PRICES})


FAULTS: Final[Mapping[str, Fault]] = {
    "a fifth of the rows stale": stale,
    "opens an hour late": hour_late,
    "close = middle of the range": close_is_middle,
    "prices of 2 digits": rounded(2),
    "prices of 3 digits": rounded(3),
    "a tenth of the rows missing": missing,
    "a tenth of the coins × 1,000": other_unit,
}


def faults_at(rows: pd.DataFrame, first: np.datetime64, fault: Fault | None = None, seed: int = 0) -> DataFaults:
    """What is found in RECENT_DAYS days from `first` on, into which a fault was put."""
    days = rows["date"].to_numpy("datetime64[D]")
    end = first + np.timedelta64(RECENT_DAYS, "D")
    read = (days < end) & (days >= first - np.timedelta64(BEFORE_DAYS + ROWS + 5, "D"))
    window = rows[read].reset_index(drop=True)
    if fault is not None:
        recent = window["date"].to_numpy("datetime64[D]") >= first
        window = fault(window, recent, np.random.default_rng(seed))
    columns = Columns({name: window[name].to_numpy() for name in ("symbol", *PRICES)})
    return data_faults(columns, series_starts(columns["symbol"]), window["date"].to_numpy("datetime64[D]"))


def skilled(
    gaps: FloatArray, days: FloatArray, random: np.random.Generator, *, right: float, size: float = 0.05
) -> FloatArray:
    """Predicted gaps of a model that moves from the last close by a share `size` of the gap to come, in its direction
    on a share `right` of rows: (n,), as the gaps. Some days are better than others. 0.5 has no skill."""
    _, of_day = np.unique(days, return_inverse=True)
    share = random.beta(8 * right, 8 * (1 - right), of_day.max() + 1)[of_day]
    found: FloatArray = size * gaps * np.where(random.random(len(gaps)) < share, 1.0, -1.0)
    return found


def _with(rows: pd.DataFrame, at: np.ndarray, values: Mapping[str, FloatArray]) -> pd.DataFrame:
    changed = rows.copy()
    for name, new in values.items():
        column = changed[name].to_numpy(np.float64).copy()
        column[at] = new
        changed[name] = column
    return changed
