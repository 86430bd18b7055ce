"""The five rows before a prediction, as the network takes them."""

import numpy as np
import numpy.typing as npt

from crypto_ml.forecasting.features import FloatArray, IntArray
from crypto_ml.forecasting.schema import WINDOW

WindowArray = npt.NDArray[np.float32]


def window_rows(starts: IntArray, at: IntArray) -> tuple[IntArray, npt.NDArray[np.bool_]]:
    """Which rows stand in the windows of the rows `at`: indices (m, 5), oldest first, and a mask of those that exist.

    An index where the mask is False (before the series' first row) points at row `at` itself, so that it is safe to
    gather; the caller puts zeros there.
    """
    index = at[:, None] + np.arange(-WINDOW, 0)[None, :]
    exists = index >= starts[at][:, None]
    return np.where(exists, index, at[:, None]), exists


def windows(scaled: FloatArray, starts: IntArray, at: IntArray) -> WindowArray:
    """The scaled rows t−5 … t−1 for each t in `at`: shape (m, 5, k), float32.

    `scaled` is (n, k) in the order of the network's features, `starts` is from `series_starts`. Rows before the first
    row of a series are zeros; so are values that are not finite.
    """
    index, exists = window_rows(starts, at)
    gathered = as_input(scaled)[index]
    gathered[~exists] = 0.0
    return gathered


def as_input(values: FloatArray) -> WindowArray:
    """Float32 as the network takes it: what is not finite, or too large for float32, becomes 0."""
    with np.errstate(over="ignore"):
        narrowed = values.astype(np.float32)
    narrowed[~np.isfinite(narrowed)] = 0.0
    return narrowed
