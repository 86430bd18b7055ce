"""Examples of the targets `gap` and `change`: windows of features that each series' own statistics have standardised.

Belongs here: rows that a network of these targets can learn from. Those of `relative_gap` are in `stationary_examples`.
"""

from dataclasses import dataclass
from datetime import date

import numpy as np
import numpy.typing as npt
import pandas as pd

from crypto_ml.forecasting.features import FloatArray, IntArray, add_levels, feature_block, gaps
from crypto_ml.forecasting.features import series_starts as starts_of
from crypto_ml.forecasting.plan import Plan
from crypto_ml.forecasting.scaling import V_OPEN, SeriesStatistics
from crypto_ml.forecasting.schema import FEATURES, Target
from crypto_ml.forecasting.training_set import groups_of_series
from crypto_ml.forecasting.windows import DrawnWindows, WindowArray, as_input, cut


@dataclass(frozen=True, eq=False)
class Examples:
    """Rows that can be learnt from: their position `at`, date and target, and what their windows are cut from."""

    inputs: WindowArray
    starts: IntArray
    at: IntArray
    dates: npt.NDArray[np.datetime64]
    target: FloatArray

    def between(self, first: date | None, end: date) -> "Examples":
        """Those from `first` on, where given, and before `end`."""
        inside = self.dates < np.datetime64(end)
        if first:
            inside &= self.dates >= np.datetime64(first)
        return Examples(self.inputs, self.starts, self.at[inside], self.dates[inside], self.target[inside])

    def arrays(self, plan: Plan) -> tuple[WindowArray, npt.NDArray[np.float32]]:
        """Windows (n, 5, 13) and targets (n,), float32; a seeded sample where there are more than the plan takes."""
        chosen = np.arange(len(self.at))
        if len(chosen) > plan.most_windows:
            sample = np.random.default_rng(plan.seed).choice(len(chosen), plan.most_windows, replace=False)
            chosen = np.sort(sample)
        return cut(self.inputs, self.starts, self.at[chosen]), self.target[chosen].astype(np.float32)

    def drawn(self, plan: Plan) -> DrawnWindows:
        """Windows and targets, to be drawn anew for each epoch."""
        targets = self.target.astype(np.float32)
        return DrawnWindows(self.inputs, self.starts, self.at, targets, plan.most_windows, plan.seed)


def examples_of(rows: pd.DataFrame, statistics: SeriesStatistics, target: Target) -> Examples:
    """The examples in rows with the OBSERVATION columns, sorted by symbol and date: those of scaled series."""
    inputs = np.empty((len(rows), len(FEATURES)), np.float32)
    starts = np.empty(len(rows), np.int64)
    at, dates, values = [np.zeros(0, np.int64)], [np.zeros(0, "datetime64[D]")], [np.zeros(0)]
    begin = 0
    for group in groups_of_series(rows):
        some = _of_group(add_levels(group), statistics, target)
        end = begin + len(group)
        inputs[begin:end], starts[begin:end] = some.inputs, some.starts + begin
        at.append(some.at + begin)
        dates.append(some.dates)
        values.append(some.target)
        begin = end
    return Examples(inputs, starts, *(np.concatenate(parts) for parts in (at, dates, values)))


def _of_group(rows: pd.DataFrame, statistics: SeriesStatistics, target: Target) -> Examples:
    starts = starts_of(rows["symbol"])
    block = feature_block(rows, starts)
    codes = statistics.codes(rows["symbol"])
    at = np.flatnonzero((codes >= 0) & (np.arange(len(rows)) > starts))
    known = codes[at]
    if target == "change":
        moved, v_open = block[at, FEATURES.index(V_OPEN)], statistics.v_open
        values = (moved - statistics.mean[known, v_open]) / statistics.scale[known, v_open]
    else:
        values = gaps(rows, starts)[at] / statistics.gap_scale[known]
    dates = rows["date"].to_numpy("datetime64[D]")[at]
    return Examples(as_input(statistics.scale_block(block, codes)), starts, at, dates, values)
