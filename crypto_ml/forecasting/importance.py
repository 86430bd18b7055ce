"""What a network's output rests on: permutation importance on the holdout (Breiman 2001, doi:10.1023/A:1010933404324).

A column of the windows is shuffled over the rows, and the loss grows by what the network had of it. Measured is the
output as it was learnt, before it is shrunk: of a model that serves the last close it says what would have been served.
"""

from typing import Final

import numpy as np

from crypto_ml.forecasting.features import FloatArray
from crypto_ml.forecasting.inference import Network
from crypto_ml.forecasting.schema import STATIONARY, WINDOW
from crypto_ml.forecasting.windows import WindowArray

MOST_ROWS: Final = 10_000
REPEATS: Final = 3


def permutation_importance(network: Network, windows: WindowArray, target: FloatArray, seed: int) -> dict[str, float]:
    """By how much the mean absolute error grows, as a share of it, when a feature is shuffled (in all five rows of a
    window together), and when a row of the window is (all its features together).

    windows: (n, 5, 5) float32; target: (n,), in recent gap sizes. Keys: the features' names, and `row 1 before` … .
    Empty where there is no error to compare with.
    """
    columns: dict[str, tuple[slice | int, slice | int]] = {
        name: (slice(None), number) for number, name in enumerate(STATIONARY)
    }
    columns |= {f"row {WINDOW - row} before": (row, slice(None)) for row in reversed(range(WINDOW))}
    random = np.random.default_rng(seed)
    if len(target) > MOST_ROWS:
        chosen = np.sort(random.choice(len(target), MOST_ROWS, replace=False))
        windows, target = windows[chosen], target[chosen]
    base = _loss(network, windows, target)
    if not base:
        return {}
    orders = [random.permutation(len(target)) for _ in range(REPEATS)]
    found = {}
    for name, (rows, features) in columns.items():
        losses = []
        for order in orders:
            shuffled = windows.copy()
            shuffled[:, rows, features] = windows[order][:, rows, features]
            losses.append(_loss(network, shuffled, target))
        found[name] = float(np.mean(losses)) / base - 1
    return found


def _loss(network: Network, windows: WindowArray, target: FloatArray) -> float:
    return float(np.abs(target - network.predict(windows)).mean())
