"""From accepted rows to the features a network sees.

Rows of one series stand together in date order. The definitions are those of the handed-over network: changes are
differences from the series' row before, and 0 on its first row. A feature's name is its definition, for ever: a bundle
names those that its network sees, and one that was made before a feature was added goes on without it.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final, TypeVar

import numpy as np
import numpy.typing as npt

from crypto_ml.forecasting.columns import Columns, Rows
from crypto_ml.forecasting.schema import FEATURES, STATIONARY

if TYPE_CHECKING:
    import pandas as pd

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
RowsT = TypeVar("RowsT", Columns, "pd.DataFrame")


def add_levels(rows: RowsT) -> RowsT:
    """Add `close_ratio`, `spread` and `log_shares`, each from its own row only.

    close_ratio = (close − low) / (high − low), 0 where high = low (dimensionless, 0 to 1); spread = high − low
    (currency); log_shares = ln(ceil(market / close)), 0 where that is not finite (dimensionless).
    """
    high, low, close = (np.asarray(rows[name], np.float64) for name in ("high", "low", "close"))
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        spread = high - low
        close_ratio = np.where(spread == 0.0, 0.0, (close - low) / spread)
        log_shares = np.log(np.ceil(np.asarray(rows["market"], np.float64) / close))
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


CHANGE: Final = "v_"
"""What the name of a change begins with; the rest names the level that changes."""


def is_feature(name: str) -> bool:
    """Whether this release can compute a feature of that name."""
    return name in FEATURES or name in STATIONARY


def feature_block(
    rows: Rows,
    starts: IntArray,
    names: Sequence[str] = FEATURES,
    before: Mapping[str, FloatArray] | None = None,
) -> FloatArray:
    """The features `names` of n rows before scaling, shape (n, k), float64, columns in the order of the names.

    `rows` carries the levels (see `add_levels`) and is sorted by series and date; `starts` is from `series_starts`.
    before: for each level its value in the row before each of the series' first ones here, NaN where there is none.
    """
    levels = list(dict.fromkeys(name.removeprefix(CHANGE) for name in names))
    values = np.column_stack([np.asarray(rows[name], np.float64) for name in levels])
    changed = [levels.index(name.removeprefix(CHANGE)) for name in names if name.startswith(CHANGE)]
    is_change = np.array([name.startswith(CHANGE) for name in names])
    block = np.empty((len(rows), len(names)), np.float64)
    block[:, ~is_change] = values[:, [levels.index(name) for name in names if not name.startswith(CHANGE)]]
    earlier = None if before is None else np.column_stack([before[levels[number]] for number in changed])
    block[:, is_change] = changes(values[:, changed], starts, earlier)
    return block


def changes(values: FloatArray, starts: IntArray, before: FloatArray | None = None) -> FloatArray:
    """Differences from the row before within a series, 0 on its first row; the shape of `values`, (n, k).

    before: (s, k), what stood before the first rows of s series; NaN where a series begins there.
    """
    difference = np.zeros_like(values)
    difference[1:] = values[1:] - values[:-1]
    first = starts == np.arange(len(starts))
    difference[first] = 0.0 if before is None else np.where(np.isnan(before), 0.0, values[first] - before)
    return difference


def gaps(rows: Rows, starts: IntArray, close_before: FloatArray | None = None) -> FloatArray:
    """open[t] − close[t−1] within a series (currency), shape (n,); NaN on a series' first row.

    close_before: (s,), the close before the first rows of s series; NaN where a series begins there.
    """
    gap = np.full(len(rows), np.nan)
    opens = np.asarray(rows["open"], np.float64)
    gap[1:] = opens[1:] - np.asarray(rows["close"], np.float64)[:-1]
    first = starts == np.arange(len(starts))
    gap[first] = np.nan if close_before is None else opens[first] - close_before
    return gap
