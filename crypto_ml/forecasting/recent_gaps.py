"""How far a series' opens were from the closes before them, lately: what its next gap is measured in.

Opens of a market that never closes lie within some basis points of the last close; how many that are differs by coin
and by month by a factor of a hundred. A model that answers in this unit needs to know nothing of a coin beforehand, and
an interval in this unit is as wide as the coin and the days ask for. The definition:

- a[t] = |ln(open[t] / close[t−1])|, clipped at MOST; the first row of a series has none.
- size[t] = Σ w·a / Σ w over the last ROWS of them before t, w = 0.5^(k / HALF_LIFE) for the k-th before the newest; at
  least LEAST. Sums are IEEE float64, the newest first, so that a row's bits depend on those rows and on nothing else.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from crypto_ml.forecasting.columns import Rows
from crypto_ml.forecasting.features import FloatArray, IntArray

ROWS: Final = 20
HALF_LIFE: Final = 15.0
"""Gaps after which one counts half."""

MOST: Final = 0.1
"""Gaps are clipped at it: a listing error of a factor of ten must not widen the intervals of a month."""

LEAST: Final = 0.5e-4
"""Half a basis point: a coin whose opens repeated its closes for weeks is not certain to go on so."""

FEWEST: Final = 10
"""Gaps below which a series' recent size says nothing; then there is no interval, and the last close is predicted."""


@dataclass(frozen=True, eq=False)
class RecentGaps:
    """For each of n rows: the mean size of the gaps before it (dimensionless, in ln of price), and of how many.

    size: (n,) float64, LEAST or more, also where count is 0. count: (n,) int64, 0 … ROWS.
    """

    size: FloatArray
    count: IntArray

    @property
    def enough(self) -> np.ndarray:
        """Which rows have FEWEST gaps before them."""
        return np.asarray(self.count >= FEWEST)


def log_gaps(rows: Rows, starts: IntArray) -> FloatArray:
    """ln(open[t] / close[t−1]) of n rows, (n,) float64, NaN on the first row of each series and where a price is
    missing; starts: from `features.series_starts`."""
    opens, closes = (np.asarray(rows[name], np.float64) for name in ("open", "close"))
    before = np.concatenate([[np.nan], closes[:-1]])
    with np.errstate(divide="ignore", invalid="ignore", over="ignore", under="ignore"):
        found = np.log(opens) - np.log(before)
    found[starts == np.arange(len(starts))] = np.nan
    return np.asarray(found, np.float64)


def recent_gaps(rows: Rows, starts: IntArray, at: IntArray | None = None) -> RecentGaps:
    """The definition above, for n rows sorted by series and date, of which `open` and `close` are read; `at` as for
    `recent_mean`."""
    sizes = np.minimum(np.abs(log_gaps(rows, starts)), MOST)
    mean, count = recent_mean(sizes, starts, at)
    return RecentGaps(np.maximum(np.where(count > 0, mean, LEAST), LEAST), count)


def recent_mean(values: FloatArray, starts: IntArray, at: IntArray | None = None) -> tuple[FloatArray, IntArray]:
    """The weighted mean of the last ROWS of n values before each row of its series, and of how many of them: (n,) each.

    NaN counts as not there; the mean of none is NaN. at: the rows that are asked for, where not all are; the others
    have the mean of none. A row's bits are the same.
    """
    if at is not None:
        return _recent_mean_at(values, starts, at)
    n = len(values)
    there = np.isfinite(values)
    known = np.where(there, values, 0.0)
    total, weight, count = np.zeros(n), np.zeros(n), np.zeros(n, np.int64)
    place = np.arange(n) - starts
    for back in range(1, min(ROWS, n - 1) + 1):
        weighs = 0.5 ** ((back - 1) / HALF_LIFE)
        counts = there[:-back] & (place[back:] >= back)
        total[back:] += np.where(counts, weighs * known[:-back], 0.0)
        weight[back:] += np.where(counts, weighs, 0.0)
        count[back:] += counts
    with np.errstate(invalid="ignore"):
        return total / np.where(count > 0, weight, np.nan), count


def _recent_mean_at(values: FloatArray, starts: IntArray, at: IntArray) -> tuple[FloatArray, IntArray]:
    there = np.isfinite(values)
    known = np.where(there, values, 0.0)
    total, weight, count = np.zeros(len(at)), np.zeros(len(at)), np.zeros(len(at), np.int64)
    place = at - starts[at]
    for back in range(1, min(ROWS, int(place.max(initial=0))) + 1):
        weighs = 0.5 ** ((back - 1) / HALF_LIFE)
        before = np.maximum(at - back, 0)
        counts = there[before] & (place >= back)
        total += np.where(counts, weighs * known[before], 0.0)
        weight += np.where(counts, weighs, 0.0)
        count += counts
    mean, counted = np.full(len(values), np.nan), np.zeros(len(values), np.int64)
    with np.errstate(invalid="ignore"):
        mean[at] = total / np.where(count > 0, weight, np.nan)
    counted[at] = count
    return mean, counted
