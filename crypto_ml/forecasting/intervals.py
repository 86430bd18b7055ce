"""Intervals of the next open: three numbers of a bundle times the series' own recent gap size.

An interval at level L is close · exp(±q_L · s): s is the recent gap size (`recent_gaps`), and q_L the quantile of R =
|ln(open[t] / close[t−1])| / s at L · (1 + 1/n) over the last year before the holdout: split conformal prediction with a
scaled score (Lei et al. 2018, doi:10.1080/01621459.2017.1307116). Bounds are rounded outwards, so that rounding covers
no less.
"""

from typing import Final

import numpy as np

from crypto_ml.forecasting.features import FloatArray

LEVELS: Final = (0.80, 0.90, 0.95)
DEFAULT_LEVEL: Final = 0.90
CALIBRATION_DAYS: Final = 365
"""Days before the holdout whose gaps the quantiles are taken of."""

FEWEST_RATIOS: Final = 200
"""Rows below which a quantile at 95 % would rest on a handful of days."""

LEAST_PRICE: Final = float(np.nextafter(0.0, 1.0))
MOST_PRICE: Final = float(np.finfo(np.float64).max)
"""A price is a positive number that float64 has."""


def conformal_quantile(scores: FloatArray, level: float) -> float:
    """The `level`·(1 + 1/n) quantile of n scores, the score at or above it (the largest, where the rank exceeds n)."""
    ordered = np.sort(scores)
    rank = int(np.ceil(level * (len(ordered) + 1)))
    return float(ordered[min(rank, len(ordered)) - 1])


def interval_quantiles(ratios: FloatArray) -> dict[float, float]:
    """q_L for each of LEVELS; empty where there are fewer than FEWEST_RATIOS. ratios: R of n rows, (n,)."""
    if len(ratios) < FEWEST_RATIOS:
        return {}
    return {level: conformal_quantile(ratios, level) for level in LEVELS}


def bounds(
    close: FloatArray, size: FloatArray, predicted: FloatArray, quantile: float
) -> tuple[FloatArray, FloatArray]:
    """Lower and upper bound of the next open, (n,) each, in the currency of the closes; NaN where `size` is NaN.

    close: the last closes; size: recent gap sizes; predicted: predicted opens, which lie within. A bound that float64
    cannot hold is the largest number that it can, or the least above 0.
    """
    with np.errstate(over="ignore", under="ignore"):
        low = np.nextafter(close * np.exp(-quantile * size), 0.0)
        high = np.nextafter(close * np.exp(quantile * size), np.inf)
    return np.minimum(np.maximum(low, LEAST_PRICE), predicted), np.minimum(np.maximum(high, predicted), MOST_PRICE)
