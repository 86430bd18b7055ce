"""Examples of the target `relative_gap`: stationary windows and the gap that followed, in recent gap sizes.

Belongs here: which rows can be learnt from, what their windows are, and the scaler fitted on them. A row counts where
enough gaps are before it (`recent_gaps`), and from nothing later than itself.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from crypto_ml.extras import require_training
from crypto_ml.forecasting.features import FloatArray, IntArray
from crypto_ml.forecasting.features import series_starts as starts_of
from crypto_ml.forecasting.learners.learner import Sample
from crypto_ml.forecasting.pooled_scaler import PooledScaler
from crypto_ml.forecasting.recent_gaps import FEWEST, RecentGaps, log_gaps
from crypto_ml.forecasting.schema import STATIONARY
from crypto_ml.forecasting.stationary import Units, in_units, stationary_block, stationary_windows, units
from crypto_ml.forecasting.training_set import Split, TooLittleHistory, groups_of_series
from crypto_ml.forecasting.windows import WindowArray, taken_by

CLIPPED: Final = 10.0
"""Recent gap sizes at which a gap is clipped: a listing error must not steer the fit."""

ROWS_NEEDED: Final = FEWEST + 2
"""Rows a series needs for an example: the first has no gap, and the last is the example."""

CUT_AT_ONCE: Final = 100_000
"""Windows that are cut at once; they are float64 before they are inputs."""


@dataclass(frozen=True, eq=False)
class Examples:
    """Rows that can be learnt from: their position `at` (m,), day and target (m,), and what windows are cut from.

    rows: the n rows they stand in. target: ln(open / close before) in recent gap sizes, as it is; clipped where it is
    learnt from.
    """

    rows: pd.DataFrame
    block: FloatArray
    units: Units
    starts: IntArray
    scaler: PooledScaler
    at: IntArray
    days: npt.NDArray[np.datetime64]
    target: FloatArray

    def __len__(self) -> int:
        return len(self.at)

    def between(self, first: date | None, end: date | None) -> "Examples":
        """Those from `first` on and before `end`, where given."""
        inside = np.ones(len(self.at), bool)
        if first:
            inside &= self.days >= np.datetime64(first)
        if end:
            inside &= self.days < np.datetime64(end)
        return self.of(np.flatnonzero(inside))

    def of(self, chosen: IntArray) -> "Examples":
        """The examples with these numbers."""
        what = (self.rows, self.block, self.units, self.starts, self.scaler)
        return Examples(*what, self.at[chosen], self.days[chosen], self.target[chosen])

    def windows(self, chosen: IntArray | None = None) -> WindowArray:
        """Windows (m, 5, 5) float32, of all or of the examples with these numbers."""
        at = self.at if chosen is None else self.at[chosen]
        parts = [at[begin : begin + CUT_AT_ONCE] for begin in range(0, max(len(at), 1), CUT_AT_ONCE)]
        cut = [stationary_windows(self.block, self.units, self.scaler, self.starts, part) for part in parts]
        return np.concatenate(cut)

    def targets(self, chosen: IntArray | None = None) -> npt.NDArray[np.float32]:
        """What is learnt of each, clipped."""
        target = self.target if chosen is None else self.target[chosen]
        return np.clip(target, -CLIPPED, CLIPPED).astype(np.float32)

    def some(self, most: int, seed: int) -> "Examples":
        """All of them; where there are more than `most`, a seeded sample of so many, in order."""
        if len(self) <= most:
            return self
        return self.of(np.sort(np.random.default_rng(seed).choice(len(self), most, replace=False)))

    def sample(self, most: int, seed: int) -> Sample:
        """`some` of them as a learner takes them."""
        chosen = self.some(most, seed)
        return Sample(chosen.windows(), chosen.targets())

    def drawn(self, an_epoch: int, seed: int) -> "DrawnExamples":
        """All of them, of which each epoch takes `an_epoch` others."""
        return DrawnExamples(self, self.targets(), an_epoch, seed)


@dataclass(frozen=True, eq=False)
class DrawnExamples:
    """See `windows.Drawn`."""

    examples: Examples
    targets: npt.NDArray[np.float32]
    an_epoch: int
    seed: int

    def of_epoch(self, epoch: int) -> IntArray:
        """Which of them an epoch (counted from 0) takes."""
        return taken_by(epoch, len(self.examples), self.an_epoch, self.seed)

    def batch(self, chosen: IntArray) -> tuple[WindowArray, npt.NDArray[np.float32]]:
        """The windows of those chosen, and their targets."""
        return self.examples.windows(chosen), self.targets[chosen]


def examples_of(rows: pd.DataFrame, scaler: PooledScaler) -> Examples:
    """The examples in rows with the OBSERVATION columns, sorted by symbol and date."""
    n = len(rows)
    block, starts = np.empty((n, len(STATIONARY))), np.empty(n, np.int64)
    size, count, ranges, gap = np.empty(n), np.empty(n, np.int64), np.empty(n), np.empty(n)
    for begin, end, group, of_group in _groups(rows):
        measured = units(group, of_group)
        block[begin:end], starts[begin:end] = stationary_block(group, of_group), of_group + begin
        size[begin:end], count[begin:end] = measured.gaps.size, measured.gaps.count
        ranges[begin:end], gap[begin:end] = measured.range, log_gaps(group, of_group)
    measured = Units(RecentGaps(size, count), ranges)
    at = np.flatnonzero(measured.gaps.enough & np.isfinite(gap))
    days = rows["date"].to_numpy("datetime64[D]")[at]
    return Examples(rows, block, measured, starts, scaler, at, days, gap[at] / size[at])


def fit_pooled_scaler(rows: pd.DataFrame, split: Split) -> PooledScaler:
    """One mean and deviation for each feature, over the training rows of all series.

    rows: as for `examples_of`. Fitted is the newest row of the window of every example of the training span, in the
    units of that example. Raises TooLittleHistory where there is none, NotInstalled.
    """
    require_training("Training")
    from crypto_ml.forecasting.scaler_estimator import mean_and_deviation

    found, symbols = [np.zeros((0, len(STATIONARY)))], set()
    for _, _, group, starts in _groups(rows):
        measured = units(group, starts)
        training = group["date"].to_numpy("datetime64[D]") < np.datetime64(split.validation_from)
        at = np.flatnonzero(training & measured.gaps.enough)
        block = stationary_block(group, starts)
        # a window of one row: the last before `at`
        found.append(in_units(block[at - 1][:, None, :], measured, at)[:, 0])
        symbols |= set(group["symbol"].to_numpy()[at])
    values = np.concatenate(found)
    if not len(values):
        raise TooLittleHistory(
            f"no series has {ROWS_NEEDED} rows before {split.validation_from} to train on: {FEWEST} gaps have to be "
            "known before one can be learnt from"
        )
    mean, scale = mean_and_deviation(values)
    return PooledScaler(STATIONARY, mean, scale, tuple(sorted(str(one) for one in symbols)), len(values))


def _groups(rows: pd.DataFrame) -> Iterator[tuple[int, int, pd.DataFrame, IntArray]]:
    """Rows in pieces of whole series: where each begins and ends, the piece, and the starts of its series in it."""
    begin = 0
    for group in groups_of_series(rows):
        yield begin, begin + len(group), group, starts_of(group["symbol"])
        begin += len(group)
