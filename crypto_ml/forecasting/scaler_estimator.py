"""The scaler as a scikit-learn estimator: one standardisation per series. Only training imports this module.

Belongs here: learning the numbers. Applying them while scoring is scaling.py, which needs no scikit-learn.
"""

from typing import Self

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.preprocessing import StandardScaler
from sklearn.utils.validation import check_is_fitted

from crypto_ml.errors import Refused
from crypto_ml.forecasting.features import FloatArray, IntArray
from crypto_ml.forecasting.scaling import SeriesStatistics
from crypto_ml.forecasting.schema import SCALED

SYMBOL = "symbol"
GAP = "gap"


class SeriesStandardScaler(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Standardises the columns `SCALED` of each series with that series' own mean and deviation.

    As scikit-learn's StandardScaler within a series: population deviation, 1 where a column does not vary. Each
    series is summed by itself in two passes (mean first, then squared distances from it), so that neither the order
    of series nor the other series change a bit of its numbers. Learnt: `statistics_` (SeriesStatistics; its
    `gap_scale` is the deviation of the column `gap`, NaN left out), `feature_names_in_`, `n_features_in_`.
    """

    def fit(self, X: pd.DataFrame, y: object = None) -> Self:  # noqa: ARG002 - scikit-learn passes it
        """Learns from rows with `symbol`, the twelve `SCALED` columns and `gap` (open[t] − close[t−1], currency).

        Rows and columns in any order, other columns ignored; `gap` is NaN on a series' first row. Raises Refused
        where columns are missing, there are no rows, or a value other than a `gap` is not finite.
        """
        _require(X, (SYMBOL, *SCALED, GAP))
        values = X[list(SCALED)].to_numpy(np.float64)
        if not len(values):
            raise Refused("The scaler has no rows to learn from; take a longer training period.")
        if not np.isfinite(values).all():
            bad = [name for name, column in zip(SCALED, values.T, strict=True) if not np.isfinite(column).all()]
            raise Refused(
                f"The scaler cannot learn from numbers that are not finite (in {', '.join(bad)}); clean the rows."
            )
        codes, names = pd.factorize(X[SYMBOL], sort=True)
        if (codes < 0).any():
            raise Refused("The scaler met rows without a symbol; clean the rows first.")
        mean, scale = _mean_and_deviation(values, codes, len(names))
        gap = X[GAP].to_numpy(np.float64)
        known = np.isfinite(gap)
        _, gap_scale = _mean_and_deviation(gap[known, None], codes[known], len(names))
        self.statistics_ = SeriesStatistics(
            symbols=tuple(str(name) for name in names), mean=mean, scale=scale, gap_scale=gap_scale[:, 0]
        )
        self.feature_names_in_ = np.asarray(X.columns, dtype=object)
        self.n_features_in_ = X.shape[1]
        return self

    def transform(self, X: pd.DataFrame) -> pd.DataFrame:
        """`X` with its `SCALED` columns as (x − mean) / scale, dimensionless; index, order and other columns stay.

        Raises Refused where a symbol was not there in the fit (all are named) or columns are missing, and
        sklearn.exceptions.NotFittedError before a fit.
        """
        values, codes = self._values_and_codes(X)
        return self._with(X, (values - self.statistics_.mean[codes]) / self.statistics_.scale[codes])

    def inverse_transform(self, X: pd.DataFrame) -> pd.DataFrame:
        """Takes `transform` back: x · scale + mean, in the units of the fit. Raises as `transform` does."""
        values, codes = self._values_and_codes(X)
        return self._with(X, values * self.statistics_.scale[codes] + self.statistics_.mean[codes])

    def get_feature_names_out(self, input_features: object = None) -> np.ndarray:  # noqa: ARG002 - scikit-learn's
        """Names of the columns that `transform` gives: those of the fit."""
        check_is_fitted(self)
        return self.feature_names_in_

    def _values_and_codes(self, X: pd.DataFrame) -> tuple[FloatArray, IntArray]:
        check_is_fitted(self)
        _require(X, (SYMBOL, *SCALED))
        codes = self.statistics_.codes(X[SYMBOL])
        if (codes < 0).any():
            unseen = sorted({str(name) for name in X[SYMBOL].to_numpy()[codes < 0]})
            shown = ", ".join(unseen[:20]) + (f" and {len(unseen) - 20} more" if len(unseen) > 20 else "")
            raise Refused(
                f"The scaler was fitted without {shown}; fit it on rows of these series too, or leave them out."
            )
        return X[list(SCALED)].to_numpy(np.float64), codes

    @staticmethod
    def _with(X: pd.DataFrame, values: FloatArray) -> pd.DataFrame:
        return X.assign(**dict(zip(SCALED, values.T, strict=True)))


def mean_and_deviation(values: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Mean and population deviation of n rows (1 where a column does not vary), (k,) each: a StandardScaler's."""
    fitted = StandardScaler().fit(values)
    return np.asarray(fitted.mean_, np.float64), np.asarray(fitted.scale_, np.float64)


def _mean_and_deviation(values: FloatArray, codes: IntArray, groups: int) -> tuple[FloatArray, FloatArray]:
    """Mean and population deviation (1 where 0) of each group's rows, both (groups, k); 0 and 1 without rows."""
    order = np.argsort(codes, kind="stable")
    values, codes = values[order], codes[order]
    counts = np.bincount(codes, minlength=groups)
    present = counts > 0
    firsts = (np.cumsum(counts) - counts)[present]
    divisor = counts[present, None]

    def sums(addends: FloatArray) -> FloatArray:
        return np.add.reduceat(addends, firsts, axis=0) if len(firsts) else np.zeros((0, values.shape[1]))

    mean = np.zeros((groups, values.shape[1]))
    variance = np.zeros_like(mean)
    mean[present] = sums(values) / divisor
    distance = values - mean[codes]
    # the second sum takes back what rounding left in the mean (Chan, Golub, LeVeque 1983)
    variance[present] = (sums(distance**2) - sums(distance) ** 2 / divisor) / divisor
    # the bound below which a variance is rounding: scikit-learn's _is_constant_feature
    rows = np.maximum(counts, 1)[:, None]
    resolution = np.finfo(np.float64).eps
    constant = variance <= rows * resolution * variance + (rows * mean * resolution) ** 2
    return mean, np.where(constant, 1.0, np.sqrt(np.where(constant, 1.0, variance)))


def _require(X: pd.DataFrame, columns: tuple[str, ...]) -> None:
    missing = [name for name in columns if name not in X.columns]
    if missing:
        raise Refused(
            f"The scaler needs the columns {', '.join(missing)}; add them with crypto_ml.forecasting.features."
        )
