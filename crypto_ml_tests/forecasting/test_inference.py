"""A network gives each window its own answer, and refuses what is no network of ours."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import helper

from crypto_ml.errors import Refused
from crypto_ml.forecasting.inference import BATCH, Network
from crypto_ml.forecasting.onnx_graph import onnx_bytes
from crypto_ml_tests.forecasting.networks import random_weights, random_windows

NETWORK = Network.from_bytes(onnx_bytes(random_weights()))


def _passing_through(shape: list[str | int], kind: int = onnx.TensorProto.FLOAT) -> bytes:
    values = [helper.make_tensor_value_info(name, kind, shape) for name in ("in", "out")]
    graph = helper.make_graph([helper.make_node("Identity", ["in"], ["out"])], "g", values[:1], values[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    serialised: bytes = model.SerializeToString()
    return serialised


@settings(deadline=None)
@given(neighbours=st.integers(0, 60), position=st.integers(0, 60), seed=st.integers(0, 2**32 - 1))
def test_a_windows_result_is_the_same_bits_whatever_stands_beside_it(neighbours: int, position: int, seed: int) -> None:
    window = random_windows(1, 1)
    beside = 100 * random_windows(neighbours, seed)
    at = min(position, neighbours)
    together = NETWORK.predict(np.concatenate([beside[:at], window, beside[at:]]))
    assert together[at] == NETWORK.predict(window)[0]


def test_windows_beyond_a_full_batch_get_the_same_bits_as_alone() -> None:
    windows = random_windows(BATCH + 3)
    together = NETWORK.predict(windows)
    assert np.array_equal(together[BATCH:], NETWORK.predict(windows[BATCH:]))
    assert np.array_equal(together[::1000], np.concatenate([NETWORK.predict(w[None]) for w in windows[::1000]]))


def test_the_number_of_threads_does_not_change_a_bit() -> None:
    one, two = (Network.from_bytes(onnx_bytes(random_weights()), threads=threads) for threads in (1, 2))
    windows = random_windows(2 * BATCH)
    assert np.array_equal(one.predict(windows), two.predict(windows))


def test_no_windows_give_no_outputs() -> None:
    outputs = NETWORK.predict(random_windows(0))
    assert outputs.shape == (0,)
    assert outputs.dtype == np.float64


@pytest.mark.parametrize("windows", [np.zeros((2, 5, 13)), np.zeros((2, 4, 13), np.float32), np.zeros(65, np.float32)])
def test_windows_of_another_shape_or_type_are_refused(windows: NDArray[np.float32]) -> None:
    with pytest.raises(Refused, match=r"Windows must be float32 \(n, 5, 13\)"):
        NETWORK.predict(windows)


def test_an_output_that_is_no_number_is_refused_with_the_window_it_came_from() -> None:
    windows = random_windows(4)
    windows[2, 0, 0] = np.nan
    with pytest.raises(Refused, match="1 of 4 windows, first for window 2"):
        NETWORK.predict(windows)


@pytest.mark.parametrize("content", [b"", b"no network", onnx_bytes(random_weights())[:-100]])
def test_bytes_that_are_no_network_are_refused(content: bytes) -> None:
    with pytest.raises(Refused, match="cannot be loaded"):
        Network.from_bytes(content)


@pytest.mark.parametrize("shape", [["n", 5, 13], ["n", 1], [1, 5, 13], ["n", 6, 13]])
def test_a_network_of_other_shapes_is_refused(shape: list[str | int]) -> None:
    with pytest.raises(Refused, match=r"float32 windows \(n, 5, 13\)"):
        Network.from_bytes(_passing_through(shape))


def test_a_file_that_is_not_there_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"absent\.onnx"):
        Network.from_file(tmp_path / "absent.onnx")
