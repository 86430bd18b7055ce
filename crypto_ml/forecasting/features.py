"""From accepted rows to the network's thirteen features.

Rows of one series stand together in date order. The definitions are those of the handed-over network: changes are
differences from the series' row before, and 0 on its first row.
"""

import numpy as np
import numpy.typing as npt
import pandas as pd

from crypto_ml.forecasting.schema import FEATURES, LEVELS, SCALED

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]


def add_levels(rows: pd.DataFrame) -> pd.DataFrame:
    """Add `close_ratio`, `spread` and `log_shares`, each from its own row only.

    close_ratio = (close − low) / (high − low), 0 where high = low (dimensionless, 0 to 1); spread = high − low
    (currency); log_shares = ln(ceil(market / close)), 0 where that is not finite (dimensionless).
    """
    high, low, close = (rows[name].to_numpy(np.float64) for name in ("high", "low", "close"))
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        spread = high - low
        close_ratio = np.where(spread == 0.0, 0.0, (close - low) / spread)
        log_shares = np.log(np.ceil(rows["market"].to_numpy(np.float64) / close))
    return rows.assign(
        close_ratio=close_ratio, spread=spread, log_shares=np.where(np.isfinite(log_shares), log_shares, 0.0)
    )


def series_starts(symbols: npt.ArrayLike) -> IntArray:
    """For each of n rows, the index of the first row of its series, shape (n,); a series is a run of equal symbols."""
    names = np.asarray(symbols)
    if names.size == 0:
        return np.zeros(0, np.int64)
    first = np.concatenate([[True], names[1:] != names[:-1]])
    return np.maximum.accumulate(np.where(first, np.arange(names.size), 0)).astype(np.int64)


def feature_block(rows: pd.DataFrame, starts: IntArray) -> FloatArray:
    """The features of n rows before scaling, shape (n, 13), float64, columns in the order of `FEATURES`.

    `rows` carries the levels (see `add_levels`) and is sorted by series and date; `starts` is from `series_starts`.
    """
    block = np.empty((len(rows), len(FEATURES)), np.float64)
    block[:, : len(LEVELS)] = rows[list(LEVELS)].to_numpy(np.float64)
    block[:, -1] = rows["log_shares"].to_numpy(np.float64)
    block[:, len(LEVELS) : len(SCALED)] = changes(block[:, : len(LEVELS)], starts)
    return block


def changes(values: FloatArray, starts: IntArray) -> FloatArray:
    """Differences from the row before within a series, 0 on its first row; the shape of `values`, (n, k)."""
    difference = np.zeros_like(values)
    difference[1:] = values[1:] - values[:-1]
    difference[starts == np.arange(len(starts))] = 0.0
    return difference


def gaps(rows: pd.DataFrame, starts: IntArray) -> FloatArray:
    """open[t] − close[t−1] within a series (currency), shape (n,); NaN on a series' first row."""
    gap = np.full(len(rows), np.nan)
    gap[1:] = rows["open"].to_numpy(np.float64)[1:] - rows["close"].to_numpy(np.float64)[:-1]
    gap[starts == np.arange(len(starts))] = np.nan
    return gap
