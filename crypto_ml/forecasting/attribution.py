"""Which of the 25 numbers of a window an output comes from, beside the output of an average window.

All numbers of a window are standardised, so 0 is the training rows' mean, and a window of zeros an average one. Of a
linear learner and of trees the parts are Shapley values with that window as the baseline (Lundberg and Lee 2017,
arXiv:1705.07874; Sundararajan and Najmi 2020, arXiv:1908.08474): exact, and together they are the difference of the two
outputs. For the recurrent network there is no such formula that is quick; each number is put to 0 by itself, and the
part is what the output loses (occlusion): these do not add up.
"""

from dataclasses import dataclass
from math import factorial
from typing import Final, Literal

import numpy as np

from crypto_ml.forecasting.bundle import NETWORK, ModelBundle
from crypto_ml.forecasting.columns import Columns, Rows
from crypto_ml.forecasting.features import FloatArray
from crypto_ml.forecasting.inference import Network
from crypto_ml.forecasting.learners.linear_graph import read_linear
from crypto_ml.forecasting.learners.tree_graph import LEAF, Ensemble, Tree, read_trees
from crypto_ml.forecasting.recent_gaps import HALF_LIFE, MOST, ROWS, log_gaps
from crypto_ml.forecasting.schema import PRICES
from crypto_ml.forecasting.shrinkage import unshrunk_network
from crypto_ml.forecasting.stationary import stationary_block, stationary_windows, units
from crypto_ml.forecasting.windows import WindowArray

Method = Literal["Shapley values, exact", "occlusion, which does not add up"]
EXACT: Final[Method] = "Shapley values, exact"
OCCLUSION: Final[Method] = "occlusion, which does not add up"


@dataclass(frozen=True, eq=False)
class Attribution:
    """output, average: what the learner says of the window, and of an average one, in recent gap sizes, before it is
    shrunk. parts: (5, k), the oldest row first: what each number of the window adds."""

    method: Method
    output: float
    average: float
    parts: FloatArray


def attribution(bundle: ModelBundle, window: WindowArray) -> Attribution:
    """The parts of what a bundle of the target `relative_gap` says of a window (5, k); takes the library onnx."""
    content = bundle.files[NETWORK]
    network = Network.from_bytes(unshrunk_network(content), features=len(bundle.features))
    output, average = network.predict(np.stack([window, np.zeros_like(window)])).tolist()
    if (linear := read_linear(content)) is not None:
        return Attribution(EXACT, output, average, linear * window.astype(np.float64))
    if (trees := read_trees(content)) is not None:
        parts = tree_parts(trees, window.ravel(), np.zeros(window.size, np.float32)).reshape(window.shape)
        return Attribution(EXACT, output, average, parts)
    return Attribution(OCCLUSION, output, average, output - network.predict(_occluded(window)).reshape(window.shape))


def next_window(rows: Rows, bundle: ModelBundle) -> WindowArray:
    """The window (5, k) of the day behind n rows of one series, in order of days, of which PRICES are read."""
    prices = Columns({name: np.append(np.asarray(rows[name], np.float64), np.nan) for name in PRICES})
    at = np.array([len(prices["open"]) - 1])
    starts = np.zeros(len(prices["open"]), np.int64)
    measured = units(prices, starts)
    window: WindowArray = stationary_windows(stationary_block(prices, starts), measured, bundle.scaler, starts, at)[0]
    return window


def gap_shares(rows: Rows) -> FloatArray:
    """Which of n rows of one series the recent gap size of the day behind them comes from: shares (n,) that add up to
    1, 0 of rows without a gap or too far back; all 0 where there is no gap."""
    starts = np.zeros(len(np.asarray(rows["open"])), np.int64)
    gaps = np.minimum(np.abs(np.nan_to_num(log_gaps(rows, starts))), MOST)
    back = np.arange(len(gaps))[::-1]
    weighed = np.where(back < ROWS, 0.5 ** (back / HALF_LIFE) * gaps, 0.0)
    total = weighed.sum()
    return weighed / total if total else weighed


def _occluded(window: WindowArray) -> WindowArray:
    """The window once for each of its numbers, which is 0 there: (25, 5, k)."""
    found = np.repeat(window[None], window.size, axis=0)
    found.reshape(window.size, window.size)[np.diag_indices(window.size)] = 0.0
    return found


def tree_parts(ensemble: Ensemble, inputs: WindowArray, baseline: WindowArray) -> FloatArray:
    """Shapley values of the inputs (m,) of trees, against a baseline (m,): (m,).

    A mixture of both reaches a leaf where every question on the way is answered as it leads there. So of the inputs
    asked on the way some must be the inputs' own (A), some the baseline's (B), and where one must be neither the leaf
    is never reached. Its value then counts (|A| − 1)! |B|! / (|A| + |B|)! for each of A, and −|A|! (|B| − 1)! /
    (|A| + |B|)! for each of B.
    """
    parts = np.zeros(len(inputs))
    for tree in ensemble.trees:
        _descend(tree, 0, inputs, baseline, frozenset(), frozenset(), parts)
    return parts


def _descend(  # noqa: PLR0917 - one step of a recursion
    tree: Tree,
    node: int,
    inputs: WindowArray,
    baseline: WindowArray,
    own: frozenset[int],
    theirs: frozenset[int],
    parts: FloatArray,
) -> None:
    feature = int(tree.feature[node])
    if feature == LEAF:
        a, b = len(own), len(theirs)
        for one in own:
            parts[one] += tree.value[node] * factorial(a - 1) * factorial(b) / factorial(a + b)
        for one in theirs:
            parts[one] -= tree.value[node] * factorial(a) * factorial(b - 1) / factorial(a + b)
        return
    ways = [
        int((tree.left if values[feature] <= tree.threshold[node] else tree.right)[node])
        for values in (inputs, baseline)
    ]
    if ways[0] == ways[1]:
        _descend(tree, ways[0], inputs, baseline, own, theirs, parts)
        return
    if feature not in theirs:
        _descend(tree, ways[0], inputs, baseline, own | {feature}, theirs, parts)
    if feature not in own:
        _descend(tree, ways[1], inputs, baseline, own, theirs | {feature}, parts)
