"""Networks and windows of random numbers, for tests that need some network and not a good one."""

import numpy as np
from numpy.typing import NDArray

from crypto_ml.forecasting.onnx_graph import weight_shapes
from crypto_ml.forecasting.schema import FEATURES, WINDOW


def random_windows(count: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=(count, WINDOW, len(FEATURES))).astype(np.float32)


def random_weights(seed: int = 0) -> dict[str, NDArray[np.float32]]:
    generator = np.random.default_rng(seed)
    weights = {
        name: (0.2 * generator.normal(size=shape)).astype(np.float32)
        for name, shape in weight_shapes(50, 20, 10).items()
    }
    weights["normalisation.variance"] = np.abs(weights["normalisation.variance"])
    return weights
