"""Features without a unit that mean the same for every coin and in every year, and the windows made of them.

A price says nothing about the next gap by itself; how a day went, measured in what the series' days are like lately,
may. Of a row (its own prices, and the close before it):

    log_gap         ln(open / close before), 0 on a series' first row       in units of the recent gap size at t
    body            ln(close / open)                                        in units of the recent range at t
    upper_shadow    ln(high / max(open, close))                             the same
    lower_shadow    ln(min(open, close) / low)                              the same
    close_position  (close − low) / (high − low) − ½, 0 where high = low    as it is

The window of row t has the rows t−5 … t−1, each divided by the units *at t*: the recent gap size (`recent_gaps`) and
the recent range, which is the same weighted mean of ln(high / low), at least LEAST_RANGE. Then values are clipped at
±CLIPPED and standardised with one mean and deviation for each feature (`pooled_scaler`). LOOK_BACK earlier rows are all
that a row's window, units, interval and range can depend on.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from crypto_ml.forecasting.columns import Rows
from crypto_ml.forecasting.features import FloatArray, IntArray
from crypto_ml.forecasting.pooled_scaler import PooledScaler
from crypto_ml.forecasting.recent_gaps import RecentGaps, log_gaps, recent_gaps, recent_mean
from crypto_ml.forecasting.schema import STATIONARY
from crypto_ml.forecasting.windows import WindowArray, as_input, window_rows

LOOK_BACK: Final = 22
"""Earlier rows that anything about a row can depend on: twenty gaps need 21, and the range of 22 days needs 22."""

LEAST_RANGE: Final = 1e-4
CLIPPED: Final = 10.0

_IN_RANGES: Final = [STATIONARY.index(name) for name in ("body", "upper_shadow", "lower_shadow")]
_IN_GAPS: Final = STATIONARY.index("log_gap")


@dataclass(frozen=True, eq=False)
class Units:
    """What the windows of n rows are measured in: gaps, and range (n,), the recent mean of ln(high / low)."""

    gaps: RecentGaps
    range: FloatArray


def units(rows: Rows, starts: IntArray, at: IntArray | None = None) -> Units:
    """The units at each of n rows sorted by series and date; starts: from `features.series_starts`. at: the rows that
    are asked for, where not all are; the others have the units of a first row."""
    return Units(recent_gaps(rows, starts, at), recent_range(rows, starts, at))


def recent_range(rows: Rows, starts: IntArray, at: IntArray | None = None) -> FloatArray:
    """The recent range at each of n rows, (n,); arguments as for `units`."""
    mean, count = recent_mean(log_range(rows), starts, at)
    return np.maximum(np.where(count > 0, mean, LEAST_RANGE), LEAST_RANGE)


def log_range(rows: Rows) -> FloatArray:
    """ln(high / low) of n rows, (n,) float64, NaN where a price is missing."""
    high, low = (np.asarray(rows[name], np.float64) for name in ("high", "low"))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.log(high) - np.log(low), np.float64)


def stationary_block(rows: Rows, starts: IntArray) -> FloatArray:
    """The features STATIONARY of n rows before they are divided by their units: (n, 5) float64; NaN without prices."""
    opens, high, low, close = (np.asarray(rows[name], np.float64) for name in ("open", "high", "low", "close"))
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        logs = {name: np.log(values) for name, values in (("o", opens), ("h", high), ("l", low), ("c", close))}
        spread = high - low
        position = np.where(spread > 0.0, (close - low) / np.where(spread > 0.0, spread, 1.0) - 0.5, 0.0)
        gap = log_gaps(rows, starts)
        gap[starts == np.arange(len(starts))] = 0.0
        block = [
            gap,
            logs["c"] - logs["o"],
            logs["h"] - np.maximum(logs["o"], logs["c"]),
            np.minimum(logs["o"], logs["c"]) - logs["l"],
            position,
        ]
    return np.column_stack(block)


def stationary_windows(
    block: FloatArray, units: Units, scaler: PooledScaler, starts: IntArray, at: IntArray
) -> WindowArray:
    """The windows of the rows `at`: (m, 5, 5) float32, oldest row first; rows before a series' first one are zeros.

    block: from `stationary_block`.
    """
    index, exists = window_rows(starts, at)
    gathered = in_units(block[index], units, at)
    scaled = (gathered - scaler.mean) / scaler.scale
    scaled[~exists] = 0.0
    return as_input(scaled)


def in_units(gathered: FloatArray, units: Units, at: IntArray) -> FloatArray:
    """Rows of windows (m, 5, 5) of the rows `at`, divided by the units there and clipped; what is given is changed."""
    gathered[..., _IN_GAPS] /= units.gaps.size[at][:, None]
    gathered[..., _IN_RANGES] /= units.range[at][:, None, None]
    return np.clip(gathered, -CLIPPED, CLIPPED, out=gathered)
