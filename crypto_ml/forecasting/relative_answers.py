"""What a model of the target `relative_gap` says of rows: the open, the interval around it, the range of the day.

For row t of a series, c the last close, s the recent gap size at t (`recent_gaps`), y what the network says of the
window (`stationary`), and of the serving rule κ, q and the model of the range:

    pred_open = c · (1 + s · clip(y, ±κ))      the network's graph has λ in it; c itself below FEWEST gaps, and at λ = 0
    pred_low, pred_high = c · exp(∓q · s)      none below FEWEST gaps (`intervals`), and after a pause (`pauses`)
    expected_range, range_high                 none below 22 earlier rows (`daily_range`)

Belongs here: these numbers for rows at hand. Does not belong here: how they become answers (`scoring`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
import numpy.typing as npt

from crypto_ml.forecasting.bundle import ModelBundle
from crypto_ml.forecasting.columns import Columns, Rows
from crypto_ml.forecasting.daily_range import range_terms
from crypto_ml.forecasting.features import BoolArray, FloatArray, IntArray
from crypto_ml.forecasting.intervals import LEAST_PRICE, MOST_PRICE, bounds
from crypto_ml.forecasting.pauses import after_pause
from crypto_ml.forecasting.recent_gaps import RecentGaps, recent_gaps
from crypto_ml.forecasting.schema import PRICES
from crypto_ml.forecasting.serving_rule import ServingRule
from crypto_ml.forecasting.stationary import Units, recent_range, stationary_block, stationary_windows


@dataclass(frozen=True, eq=False)
class RelativeAnswers:
    """For m rows, (m,) each: the predicted open, NaN where no row of the series stands before (currency); what is said
    beside it, by the names of `answers.BESIDE`, NaN where there is nothing to say; what the prediction is made of.

    served: c in recent gaps, 0 where the last close is predicted. close, size, gaps: the last close (NaN where there is
    none), the recent gap size, and how many gaps that is of.
    """

    price: FloatArray
    beside: Mapping[str, FloatArray]
    served: FloatArray
    close: FloatArray
    size: FloatArray
    gaps: IntArray


@dataclass(frozen=True, eq=False)
class Measured:
    """What predictions of some of n rows are made from. rows: their prices; starts: from `features.series_starts`; at:
    the m rows that are predicted, in order. gaps, terms: of the rows `at`, see `recent_gaps` and `daily_range`. days:
    of all rows, where they are known."""

    rows: Columns
    starts: IntArray
    at: IntArray
    gaps: RecentGaps
    terms: FloatArray
    days: npt.NDArray[np.datetime64] | None = None

    @classmethod
    def of(
        cls, rows: Rows, starts: IntArray, at: IntArray, days: npt.NDArray[np.datetime64] | None = None
    ) -> "Measured":
        """rows: PRICES of n rows, sorted by series and date. days: theirs; without them no pause is known."""
        # numpy's logarithms of what is not contiguous may have other last bits
        prices = Columns({name: np.ascontiguousarray(rows[name], np.float64) for name in PRICES})
        some = None if len(at) == len(starts) else at
        return cls(prices, starts, at, recent_gaps(prices, starts, some), range_terms(prices, starts, some)[0], days)

    @cached_property
    def paused(self) -> BoolArray:
        """Which of the rows `at` stand behind a pause, (m,)."""
        none = np.zeros(len(self.at), bool)
        return none if self.days is None else after_pause(self.days, self.starts, self.at)

    @cached_property
    def units(self) -> Units:
        """What the windows of the rows `at` are measured in."""
        return Units(self.gaps, recent_range(self.rows, self.starts, self.at))

    @cached_property
    def block(self) -> FloatArray:
        """The features of all rows, (n, 5)."""
        return stationary_block(self.rows, self.starts)

    def seen(self) -> FloatArray:
        """All of it as numbers, (n, 11): features of each row; of those `at` their units and terms, of others NaN."""
        measured, gaps, at = np.full((len(self.rows), 6), np.nan), self.gaps, self.at
        columns = [gaps.size[at], gaps.count[at].astype(np.float64), self.units.range[at], self.terms[at]]
        measured[at] = np.column_stack(columns)
        return np.column_stack([self.block, measured])


def predicted(measured: Measured, bundle: ModelBundle, rule: ServingRule, level: float) -> RelativeAnswers:
    """What a bundle with this rule says, with the interval at `level`. Raises what its network raises."""
    starts, at, gaps = measured.starts, measured.at, measured.gaps
    there = at > starts[at]
    close = np.where(there, measured.rows["close"][np.maximum(at - 1, 0)], np.nan)
    size, enough = gaps.size[at], gaps.enough[at]
    served = np.zeros(len(at))
    if enough.any() and not rule.serves_last_close:
        windows = stationary_windows(measured.block, measured.units, bundle.scaler, starts, at[enough])
        served[enough] = np.clip(bundle.network.predict(windows), -rule.cap, rule.cap)
    with np.errstate(over="ignore", under="ignore"):
        price = np.clip(close * (1.0 + size * served), LEAST_PRICE, MOST_PRICE)
    quantile = rule.quantiles.get(level)
    low = high = np.full(len(at), np.nan)
    if quantile is not None:
        low, high = bounds(close, np.where(enough & ~measured.paused, size, np.nan), price, quantile)
    expected, upper = rule.range.expected(measured.terms[at])
    beside = {"pred_low": low, "pred_high": high, "expected_range": expected, "range_high": upper}
    return RelativeAnswers(price, beside, served, close, size, gaps.count[at])


def of_the_next_day(rows: Rows, bundle: ModelBundle, rule: ServingRule, level: float) -> RelativeAnswers:
    """What a bundle says of the day behind n rows of one series, (1,) each. rows: PRICES, in order of days."""
    prices = {name: np.append(np.asarray(rows[name], np.float64), np.nan) for name in PRICES}
    n = len(prices["open"])
    return predicted(Measured.of(Columns(prices), np.zeros(n, np.int64), np.array([n - 1])), bundle, rule, level)


WITHOUT_BOUNDS: Final = ("pred_low", "pred_high")
"""What a running sum of changes has nothing of: its errors add up."""
