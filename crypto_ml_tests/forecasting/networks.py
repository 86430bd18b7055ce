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


def linear_network(weights: NDArray[np.float32]) -> bytes:
    """A network that is one product: windows (n, 5, 5) → (n, 1), the 25 numbers of a window times these weights."""
    from onnx import TensorProto, checker, helper, numpy_helper

    model = helper.make_model(
        helper.make_graph(
            [
                helper.make_node("Flatten", ["windows"], ["flat"], name="flat"),
                helper.make_node("MatMul", ["flat", "weights"], ["output"], name="output"),
            ],
            "linear",
            [helper.make_tensor_value_info("windows", TensorProto.FLOAT, ["n", 5, 5])],
            [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["n", 1])],
            [numpy_helper.from_array(np.asarray(weights, np.float32).reshape(25, 1), "weights")],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    checker.check_model(model, full_check=True)
    content: bytes = model.SerializeToString(deterministic=True)
    return content
