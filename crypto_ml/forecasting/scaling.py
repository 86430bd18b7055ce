"""The numbers a scaler learnt, applied with numpy alone.

The estimator that learns them is `scaler_estimator`; scoring needs only these, and never imports scikit-learn.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
import numpy.typing as npt

from crypto_ml.errors import Refused
from crypto_ml.forecasting.features import FloatArray, IntArray
from crypto_ml.forecasting.running import RunningSums, Seeds
from crypto_ml.forecasting.schema import SCALED

V_OPEN: Final = "v_open"


class BadStatistics(Refused):
    """Scaler statistics that do not fit together."""


@dataclass(frozen=True, eq=False)
class SeriesStatistics:
    """Mean and deviation of k series.

    symbols: k names, sorted, unique. columns: the c features that are standardised, the first of a network's, in its
    order; `v_open` is among them. mean, scale: (k, c) float64, currency units (close_ratio dimensionless); a scale is
    never 0. gap_scale: (k,) float64, deviation of open[t] − close[t−1], currency.
    Raises BadStatistics where shapes, order or values are wrong.
    """

    symbols: tuple[str, ...]
    mean: FloatArray
    scale: FloatArray
    gap_scale: FloatArray
    columns: tuple[str, ...] = SCALED

    def __post_init__(self) -> None:
        k, c = len(self.symbols), len(self.columns)
        wrong = [
            complaint
            for complaint, holds in (
                ("symbols must be sorted and unique", list(self.symbols) == sorted(set(self.symbols))),
                ("v_open must be among the columns", V_OPEN in self.columns),
                (f"mean must have shape ({k}, {c})", self.mean.shape == (k, c)),
                (f"scale must have shape ({k}, {c})", self.scale.shape == (k, c)),
                (f"gap_scale must have shape ({k},)", self.gap_scale.shape == (k,)),
                ("means must be finite", bool(np.isfinite(self.mean).all())),
                ("scales must be finite and positive", _positive(self.scale) and _positive(self.gap_scale)),
            )
            if not holds
        ]
        if wrong:
            raise BadStatistics(f"these scaler statistics cannot be used: {'; '.join(wrong)}")

    @property
    def v_open(self) -> int:
        """Which of the columns is the change of the open."""
        return self.columns.index(V_OPEN)

    @cached_property
    def _positions(self) -> dict[str, int]:
        return {symbol: position for position, symbol in enumerate(self.symbols)}

    def codes(self, symbols: npt.ArrayLike) -> IntArray:
        """The position of each of n symbols in `self.symbols`, shape (n,), −1 where the scaler has never seen it."""
        names = np.asarray(symbols, object).tolist()
        return np.fromiter((self._positions.get(name, -1) for name in names), np.int64, len(names))

    def scale_block(self, block: FloatArray, codes: IntArray) -> FloatArray:
        """Standardise a feature block: (x − mean) / scale on the columns that are standardised, the others as they are.

        Rows whose code is −1 come back as NaN in the standardised columns.
        """
        scaled = block.copy()
        width = len(self.columns)
        if self.symbols:
            scaled[:, :width] = (block[:, :width] - self.mean[codes]) / self.scale[codes]
        scaled[codes < 0, :width] = np.nan
        return scaled


def _positive(values: FloatArray) -> bool:
    return bool((np.isfinite(values) & (values > 0)).all())


@dataclass(frozen=True, eq=False)
class OwnStatistics:
    """Statistics of each row's own earlier rows, for series the scaler has never seen.

    count: (n,) earlier rows; mean, scale: (n, c) over rows start … t−1 of the row's series; gap_scale: (n,). columns:
    as in `SeriesStatistics`.
    """

    count: IntArray
    mean: FloatArray
    scale: FloatArray
    gap_scale: FloatArray
    columns: tuple[str, ...] = SCALED

    @property
    def v_open(self) -> int:
        """Which of the columns is the change of the open."""
        return self.columns.index(V_OPEN)


def own_statistics(
    block: FloatArray,
    gap: FloatArray,
    starts: IntArray,
    columns: tuple[str, ...] = SCALED,
    seeds: Seeds | None = None,
) -> OwnStatistics:
    """Expanding mean and population deviation of the rows strictly before each row.

    block: features of n rows, those to be standardised first; gap: (n,) with NaN on first rows; starts: from
    `series_starts`; seeds: of series whose first rows are folded (see `running`). A deviation that is 0 but for
    rounding (or of no rows) counts as 1, as in scikit-learn's StandardScaler.
    """
    width = len(columns)
    sums = RunningSums.of(block[:, :width], gap, starts, seeds)
    mean, scale = _expanding(sums, slice(None, width), sums.count)
    _, gap_scale = _expanding(sums, slice(width, None), np.maximum(sums.count - 1, 0))
    return OwnStatistics(count=sums.count, mean=mean, scale=scale, gap_scale=gap_scale[:, 0], columns=columns)


def _expanding(sums: RunningSums, terms: slice, count: IntArray) -> tuple[FloatArray, FloatArray]:
    """Mean and population deviation of some terms, both (n, k), of the `count` rows before each."""
    divisor = np.maximum(count, 1)[:, None]
    first = sums.total[:, terms] / divisor
    second = sums.squares[:, terms] / divisor
    mean = sums.origin[:, terms] + first
    return mean, _deviation(second - first**2, mean, second, divisor)


def _deviation(variance: FloatArray, mean: FloatArray, square: FloatArray, count: IntArray) -> FloatArray:
    """Square root of a variance of `count` values; 1 where it is no more than what rounding leaves of none.

    square: mean of the squares that the variance was got from by subtraction. The bound on the mean is the one of
    scikit-learn's `_is_constant_feature`, and of the scaler that training fits.
    """
    resolution = count * np.finfo(np.float64).eps
    constant = variance <= resolution * square + (resolution * mean) ** 2
    return np.where(constant, 1.0, np.sqrt(np.where(constant, 1.0, variance)))
