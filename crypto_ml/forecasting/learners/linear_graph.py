"""A linear function of a window as an ONNX graph: Flatten and Gemm.

Gemm and not a sum of products: onnxruntime gives one row the same bits in whatever batch (tried with batches of 1 to
5,000, on 1 and 2 threads), while its ReduceSum adds up a row by itself in another order than rows together.
"""

import hashlib
from typing import Final

import numpy as np

from crypto_ml.forecasting.features import FloatArray
from crypto_ml.forecasting.onnx_graph import INPUT, OUTPUT, model_bytes, stored_arrays
from crypto_ml.forecasting.schema import WINDOW
from crypto_ml.forecasting.windows import WindowArray

COEFFICIENTS, INTERCEPT = "linear.coefficients", "linear.intercept"
TOLERANCE: Final = 1e-4
"""Largest difference that float32 explains: coefficients and products of 25 inputs of at most some tens."""


def linear_graph(coefficients: FloatArray, intercept: float) -> bytes:
    """windows (n, 5, k) → Σ coefficients · window + intercept, (n, 1). coefficients: (5, k)."""
    from onnx import helper

    column, constant = _as_stored(coefficients, intercept)
    nodes = [
        helper.make_node("Flatten", [INPUT], ["linear.inputs"], name="linear.inputs"),
        helper.make_node("Gemm", ["linear.inputs", COEFFICIENTS, INTERCEPT], [OUTPUT], name=OUTPUT),
    ]
    return model_bytes(nodes, {COEFFICIENTS: column, INTERCEPT: constant}, features=coefficients.shape[1])


def linear_sha256(coefficients: FloatArray, intercept: float) -> str:
    """The name of a linear function by what it computes."""
    return hashlib.sha256(
        b"linear\0" + b"".join(one.tobytes() for one in _as_stored(coefficients, intercept))
    ).hexdigest()


def linear_output(coefficients: FloatArray, intercept: float, windows: WindowArray) -> FloatArray:
    """The function in float64, (n,): what the graph is held against."""
    return np.asarray(windows.astype(np.float64).reshape(len(windows), -1) @ coefficients.ravel() + intercept)


def read_linear(network_onnx: bytes) -> FloatArray | None:
    """The coefficients (5, k) of a graph of `linear_graph`, shrunk or not; None where it is another graph."""
    found = stored_arrays(network_onnx).get(COEFFICIENTS)
    return None if found is None else found.astype(np.float64).reshape(WINDOW, -1)


def _as_stored(coefficients: FloatArray, intercept: float) -> tuple[WindowArray, WindowArray]:
    return coefficients.astype("<f4").reshape(-1, 1), np.array([intercept], "<f4")
