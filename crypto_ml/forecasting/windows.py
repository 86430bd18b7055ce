"""The five rows before a prediction, as the network takes them."""

from dataclasses import dataclass
from typing import Protocol

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
    return cut(as_input(scaled), starts, at)


def cut(inputs: WindowArray, starts: IntArray, at: IntArray) -> WindowArray:
    """`windows` of rows that are inputs already (see `as_input`)."""
    index, exists = window_rows(starts, at)
    gathered = inputs[index]
    gathered[~exists] = 0.0
    return gathered


class Drawn(Protocol):
    """Very many windows with their targets (m,) float32, of which each epoch of a fit takes some others."""

    @property
    def targets(self) -> npt.NDArray[np.float32]: ...

    def of_epoch(self, epoch: int) -> IntArray:
        """Which windows an epoch (counted from 0) takes."""
        ...

    def batch(self, chosen: IntArray) -> tuple[WindowArray, npt.NDArray[np.float32]]:
        """The windows chosen, (b, 5, k), and their targets, (b,)."""
        ...


def taken_by(epoch: int, count: int, an_epoch: int, seed: int) -> IntArray:
    """Which of `count` windows an epoch (counted from 0) takes: `an_epoch` of them, those taken least so far."""
    wanted = np.arange(epoch * an_epoch, (epoch + 1) * an_epoch)
    rounds = wanted // count
    taken = [
        np.random.default_rng((seed, number)).permutation(count)[wanted[rounds == number] % count]
        for number in np.unique(rounds).tolist()
    ]
    return np.concatenate(taken)


@dataclass(frozen=True, eq=False)
class DrawnWindows:
    """Very many windows, of which each epoch of a fit takes some others, and which are cut when they are asked for.

    inputs: (n, k) float32, see `as_input`. starts: (n,). at: the m rows whose windows these are. targets: (m,) float32.
    an_epoch: how many an epoch takes. seed: of the order in which they are taken, which is another in each round.
    """

    inputs: WindowArray
    starts: IntArray
    at: IntArray
    targets: npt.NDArray[np.float32]
    an_epoch: int
    seed: int

    def of_epoch(self, epoch: int) -> IntArray:
        """Which windows an epoch (counted from 0) takes: `an_epoch` of 0 … m − 1, those taken least so far."""
        return taken_by(epoch, len(self.at), self.an_epoch, self.seed)

    def batch(self, chosen: IntArray) -> tuple[WindowArray, npt.NDArray[np.float32]]:
        """The windows chosen, (b, 5, k), and their targets, (b,)."""
        return cut(self.inputs, self.starts, self.at[chosen]), self.targets[chosen]


def as_input(values: FloatArray) -> WindowArray:
    """Float32 as the network takes it: what is not finite, or too large for float32, becomes 0."""
    with np.errstate(over="ignore"):
        narrowed = values.astype(np.float32)
    narrowed[~np.isfinite(narrowed)] = 0.0
    return narrowed
