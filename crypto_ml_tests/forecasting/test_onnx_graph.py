"""The ONNX graph computes the formula, and is the same file for the same weights."""

import hashlib
import subprocess
import sys

import numpy as np
import pytest
from numpy.typing import NDArray

from crypto_ml.errors import Refused
from crypto_ml.forecasting.inference import Network
from crypto_ml.forecasting.onnx_graph import NORMALISATION_EPSILON, WEIGHTS, onnx_bytes
from crypto_ml_tests.forecasting.networks import random_weights, random_windows

FloatArray = NDArray[np.float64]


def _scan(rows: FloatArray, kernel: FloatArray, recurrent: FloatArray, bias: FloatArray) -> FloatArray:
    units = len(recurrent)
    state = np.zeros((len(rows), units))
    for step in range(rows.shape[1]):
        given = rows[:, step] @ kernel + bias
        z, r = (
            np.clip(0.2 * (given[:, gate] + state @ recurrent[:, gate]) + 0.5, 0, 1)
            for gate in (slice(units), slice(units, 2 * units))
        )
        candidate = np.tanh(given[:, 2 * units :] + (r * state) @ recurrent[:, 2 * units :])
        state = z * state + (1 - z) * candidate
    return state


def _formula(weights: dict[str, NDArray[np.float32]], windows: NDArray[np.float32]) -> FloatArray:
    w = [weights[name].astype(np.float64) for name in WEIGHTS]
    rows = windows.astype(np.float64)
    states = np.concatenate([_scan(rows, *w[:3]), _scan(rows[:, ::-1], *w[3:6])], axis=1)
    gamma, beta, mean, variance = w[6:10]
    normalised = (states - mean) / np.sqrt(variance + NORMALISATION_EPSILON) * gamma + beta
    hidden = np.maximum(np.tanh(normalised @ w[10] + w[11]) @ w[12] + w[13], 0)
    return np.asarray((hidden @ w[14] + w[15])[:, 0])


def test_the_graph_computes_the_formula_written_out_in_float64() -> None:
    windows = 3 * random_windows(500)
    outputs = Network.from_bytes(onnx_bytes(random_weights())).predict(windows)
    expected = _formula(random_weights(), windows)
    assert np.ptp(expected) > 0.1
    np.testing.assert_allclose(outputs, expected, atol=1e-5)


def test_the_same_weights_give_the_same_bytes_in_another_process_and_without_tensorflow() -> None:
    program = (
        "import hashlib, sys\n"
        "from crypto_ml.forecasting.onnx_graph import onnx_bytes\n"
        "from crypto_ml_tests.forecasting.networks import random_weights\n"
        "print(hashlib.sha256(onnx_bytes(random_weights())).hexdigest())\n"
        "assert not {'tensorflow', 'keras'} & set(sys.modules)\n"
    )
    other = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.strip()
    backwards = dict(reversed(random_weights().items()))
    assert other == hashlib.sha256(onnx_bytes(backwards)).hexdigest()


def test_other_weights_give_other_bytes() -> None:
    assert onnx_bytes(random_weights(0)) != onnx_bytes(random_weights(1))


def test_all_that_is_wrong_with_the_arrays_is_named_at_once() -> None:
    weights = random_weights()
    weights["prediction.bias"] = np.zeros(2, np.float32)
    weights["forward.bias"][0] = np.nan
    with pytest.raises(Refused, match=r"prediction\.bias is float32 \(2,\).*forward\.bias holds"):
        onnx_bytes(weights)


def test_a_missing_array_is_named() -> None:
    weights = random_weights()
    del weights["normalisation.mean"]
    with pytest.raises(Refused, match=r"normalisation\.mean"):
        onnx_bytes(weights)
