"""Gaps between close and next open as markets have them, and predictions of them that are as good as is asked for.

Coins share the day (a common part), days differ in size and remember it (volatility), large gaps are many (heavy
tails).
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
CLOSE = 100.0
LESS = 0.15


@dataclass(frozen=True)
class Rows:
    """Columns of the same rows, as `judge` takes them: prices are about 100."""

    days: npt.NDArray[np.datetime64]
    symbols: npt.NDArray[np.str_]
    observed: FloatArray
    predicted: FloatArray
    close: FloatArray


def predictions_of(mase: float, rng: np.random.Generator, days: int, coins: int) -> Rows:
    """Predictions v + w of gaps u + v, whose errors u − w are `mase` times the gaps on average, and exactly as large
    where that is 1: v and w are then distributed alike.

    Where u has the size 1, the smaller of v and w has the size LESS, and the other follows.
    """
    known = np.sqrt((1 + LESS**2) / mase**2 - 1) if mase <= 1 else LESS
    noise = np.sqrt((1 + LESS**2) * mase**2 - 1) if mase > 1 else LESS
    size = _sizes(rng, days, coins)
    u, v, w = (part * size * _shocks(rng, days, coins) for part in (1, known, noise))
    return _rows(u + v, v + w)


def fitted_on_a_random_walk(rng: np.random.Generator, days: int, coins: int) -> Rows:
    """What least squares on the last five gaps, fitted on twice as many days before, predicts of gaps that nothing
    predicts."""
    gaps = _sizes(rng, 3 * days, coins) * _shocks(rng, 3 * days, coins)
    lagged = np.stack([gaps[4 - back : len(gaps) - 1 - back] for back in range(5)], axis=-1)
    target = gaps[5:]
    learnt = slice(0, len(target) - days)
    weights = np.linalg.lstsq(lagged[learnt].reshape(-1, 5), target[learnt].ravel(), rcond=None)[0]
    return _rows(target[-days:], lagged[-days:] @ weights)


def _sizes(rng: np.random.Generator, days: int, coins: int) -> FloatArray:
    """(days, coins): a size of the day that remembers itself, times one of the coin."""
    noise = rng.normal(0, 0.25, days)
    size = np.empty(days)
    size[0] = rng.normal(0, 0.25 / np.sqrt(1 - 0.9**2))
    for day in range(1, days):
        size[day] = 0.9 * size[day - 1] + noise[day]
    return np.asarray(0.1 * np.exp(size)[:, None] * np.exp(rng.normal(0, 0.7, coins)))


def _shocks(rng: np.random.Generator, days: int, coins: int) -> FloatArray:
    """(days, coins): heavy-tailed, with a correlation of 0.3 between the coins of a day."""
    common, own = rng.standard_t(5, (days, 1)), rng.standard_t(5, (days, coins))
    return np.asarray(np.sqrt(0.3) * common + np.sqrt(0.7) * own)


def _rows(gaps: FloatArray, predicted: FloatArray) -> Rows:
    days, coins = gaps.shape
    close = np.full(days * coins, CLOSE)
    return Rows(
        np.repeat(np.datetime64("2021-01-01") + np.arange(days), coins),
        np.tile([f"C{coin:03}" for coin in range(coins)], days),
        close * np.exp(gaps.ravel() / CLOSE),
        close * np.exp(predicted.ravel() / CLOSE),
        close,
    )
