"""The next day's range, ln(high / low), from the ranges of the days before: this can be predicted, unlike the open.

The heterogeneous autoregressive model of realised volatility (Corsi 2009, doi:10.1093/jjfinec/nbp001) on the range:
with y = ln(ln(high / low)), y[t] = intercept + last · y[t−1] + mean_5 · mean of the last 5 + mean_22 · mean of the last
22. The upper bound is exp(ŷ + q), q the conformal quantile of the residuals. A day without a range counts as LEAST.
"""

import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from crypto_ml.forecasting.columns import Rows
from crypto_ml.forecasting.features import BoolArray, FloatArray, IntArray
from crypto_ml.forecasting.intervals import FEWEST_RATIOS, conformal_quantile
from crypto_ml.forecasting.stationary import log_range

DAYS: Final = (1, 5, 22)
LEAST: Final = 1e-4
"""One basis point: what a range of nothing counts as, whose logarithm there is not."""

LEVELS: Final = (0.80, 0.90)
UPPER: Final = 0.90
"""The level of the bound that is published."""

MOST: Final = math.log(math.log(sys.float_info.max) - math.log(math.ulp(0.0)))
"""ŷ of a day from the least to the largest price that float64 has: no range is greater."""

FEWEST_ROWS: Final = 500
"""Rows below which the coefficients are not fitted but those of FROZEN."""


@dataclass(frozen=True)
class RangeModel:
    """Coefficients (dimensionless), and for each of LEVELS what is added to ŷ for the upper bound."""

    intercept: float
    last: float
    mean_5: float
    mean_22: float
    upper: Mapping[float, float] = field(default_factory=dict)

    def predict(self, terms: FloatArray) -> FloatArray:
        """ŷ for terms (n, 3): (n,). One product after the other, so that no row's bits depend on its neighbours."""
        made: FloatArray = self.intercept + self.last * terms[:, 0]
        made = made + self.mean_5 * terms[:, 1]
        return made + self.mean_22 * terms[:, 2]

    def expected(self, terms: FloatArray) -> tuple[FloatArray, FloatArray]:
        """The expected range and its upper bound at UPPER, (n,) each, ln(high / low); NaN where a term is NaN, and the
        bound also where the model has none. The bound is never below what is expected."""
        with np.errstate(over="ignore", invalid="ignore"):
            made = np.minimum(self.predict(terms), MOST)
            bound = np.minimum(made + np.maximum(self.upper.get(UPPER, np.nan), 0.0), MOST)
        return np.exp(made), np.exp(bound)


FROZEN: Final = RangeModel(-0.146, 0.333, 0.258, 0.348)
"""Fitted on 44 coins up to March 2018; 15 % better than the last value on 23 others up to July 2021."""


def range_terms(rows: Rows, starts: IntArray, at: IntArray | None = None) -> tuple[FloatArray, BoolArray]:
    """y of the day before and the means of y over 5 and 22 days before each of n rows, (n, 3), and which rows have all
    22; NaN where they have not. at: the rows that are asked for, where not all are; the others are as if they had not.
    A row's bits are the same."""
    values = observed_log_range(rows)
    n = len(values)
    terms = np.full((n, len(DAYS)), np.nan)
    at = np.arange(n) if at is None else at
    at = at[at - starts[at] >= DAYS[-1]]
    total = np.zeros(len(at))
    for back in range(1, DAYS[-1] + 1):
        total += values[at - back]
        if back in DAYS:
            terms[at, DAYS.index(back)] = total / back
    terms[~np.isfinite(terms).all(axis=1)] = np.nan
    return terms, np.isfinite(terms[:, 0])


def observed_log_range(rows: Rows) -> FloatArray:
    """y of n rows, (n,): what `RangeModel.predict` predicts."""
    with np.errstate(invalid="ignore"):
        return np.asarray(np.log(np.maximum(log_range(rows), LEAST)), np.float64)


def fit_range_model(terms: FloatArray, observed: FloatArray) -> RangeModel:
    """Least squares over n rows; FROZEN's coefficients below FEWEST_ROWS. terms: (n, 3); observed: (n,); finite."""
    model = FROZEN
    if len(observed) >= FEWEST_ROWS:
        found = np.linalg.lstsq(np.column_stack([np.ones(len(observed)), terms]), observed, rcond=None)[0]
        intercept, last, mean_5, mean_22 = map(float, found)
        model = RangeModel(intercept, last, mean_5, mean_22)
    return with_upper_bounds(model, terms, observed)


def with_upper_bounds(model: RangeModel, terms: FloatArray, observed: FloatArray) -> RangeModel:
    """The model with bounds from the residuals of n rows; without any where they are fewer than FEWEST_RATIOS."""
    residuals = observed - model.predict(terms)
    enough = len(residuals) >= FEWEST_RATIOS
    upper = {level: conformal_quantile(residuals, level) for level in LEVELS} if enough else {}
    return RangeModel(model.intercept, model.last, model.mean_5, model.mean_22, upper)
