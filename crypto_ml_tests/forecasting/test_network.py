"""A fit is repeatable to the bit, and what it exports is what it trained."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from crypto_ml.errors import Refused
from crypto_ml.forecasting.network import (
    ONNX_TOLERANCE,
    FittedNetwork,
    agreement,
    build,
    export_onnx,
    fit,
    load_keras,
    named_weights,
    save_keras,
    weights_sha256,
)
from crypto_ml_tests.forecasting.networks import random_windows

SMALL = random_windows(300)
TARGETS = (0.5 * SMALL[:, -1, 0] + SMALL[:, 2, 3]).astype(np.float32)


def small_fit(seed: int = 7) -> FittedNetwork:
    return fit(SMALL[:240], TARGETS[:240], SMALL[240:], TARGETS[240:], seed=seed, target="gap", epochs=4, batch_size=64)


def fit_in_large_batches() -> FittedNetwork:
    """A fit of whose batches eight threads would cut the sums otherwise than two."""
    windows = random_windows(660)
    targets = (0.5 * windows[:, -1, 0] + windows[:, 2, 3]).astype(np.float32)
    return fit(
        windows[:600], targets[:600], windows[600:], targets[600:], seed=5, target="gap", epochs=2, batch_size=512
    )


@pytest.fixture(scope="module")
def fitted() -> FittedNetwork:
    return small_fit()


def test_the_same_seed_and_data_give_the_same_weights_twice_in_one_process(fitted: FittedNetwork) -> None:
    again = small_fit()
    assert weights_sha256(again.model) == weights_sha256(fitted.model)
    assert again.history == fitted.history


def test_another_process_gives_the_same_weights_and_onnx_file_however_many_threads_it_is_told_to_use(
    tmp_path: Path,
) -> None:
    program = (
        "import sys, pathlib\n"
        "from crypto_ml_tests.forecasting.test_network import fit_in_large_batches\n"
        "from crypto_ml.forecasting.network import export_onnx, weights_sha256\n"
        "model = fit_in_large_batches().model\n"
        "export_onnx(model, pathlib.Path(sys.argv[1]))\n"
        "print(weights_sha256(model))\n"
    )
    other = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "other.onnx")],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "TF_NUM_INTRAOP_THREADS": "8", "TF_NUM_INTEROP_THREADS": "8"},
    )
    here = fit_in_large_batches().model
    export_onnx(here, tmp_path / "here.onnx")
    assert other.stdout.strip() == weights_sha256(here)
    assert (tmp_path / "other.onnx").read_bytes() == (tmp_path / "here.onnx").read_bytes()


def test_a_fit_keeps_the_epoch_of_least_validation_loss(fitted: FittedNetwork) -> None:
    outputs = fitted.model.predict(SMALL[240:], verbose=0)[:, 0]
    error = np.abs(outputs - TARGETS[240:])
    huber = np.where(error <= 1, 0.5 * error**2, error - 0.5).mean()
    assert huber == pytest.approx(min(fitted.history["val_loss"]), rel=1e-5)
    assert fitted.history["val_loss"][fitted.best_epoch - 1] == min(fitted.history["val_loss"])


def test_a_fit_learns_from_its_targets(fitted: FittedNetwork) -> None:
    assert fitted.history["loss"][-1] < 0.8 * fitted.history["loss"][0]


def test_a_gap_beyond_ten_deviations_counts_as_ten() -> None:
    def weights(outlier: float) -> str:
        targets = TARGETS[:64].copy()
        targets[0] = outlier
        result = fit(SMALL[:64], targets, SMALL[64:96], TARGETS[64:96], seed=1, target="gap", epochs=1)
        return weights_sha256(result.model)

    assert weights(10.0) == weights(5000.0)


def test_the_exported_network_agrees_with_keras(fitted: FittedNetwork, tmp_path: Path) -> None:
    export_onnx(fitted.model, tmp_path / "network.onnx")
    assert 0 < agreement(fitted.model, tmp_path / "network.onnx", 3 * random_windows(2000, 5)) <= ONNX_TOLERANCE


def test_agreement_sees_a_network_that_is_not_the_one_exported(fitted: FittedNetwork, tmp_path: Path) -> None:
    export_onnx(build(seed=1), tmp_path / "other.onnx")
    assert agreement(fitted.model, tmp_path / "other.onnx", SMALL) > ONNX_TOLERANCE


def test_a_saved_network_comes_back_with_the_same_name_and_outputs(fitted: FittedNetwork, tmp_path: Path) -> None:
    save_keras(fitted.model, tmp_path / "network.keras")
    loaded = load_keras(tmp_path / "network.keras")
    assert weights_sha256(loaded) == weights_sha256(fitted.model)
    assert np.array_equal(loaded.predict(SMALL, verbose=0), fitted.model.predict(SMALL, verbose=0))


def test_one_changed_weight_changes_the_name_of_the_network() -> None:
    model = build(seed=1)
    before = weights_sha256(model)
    arrays = model.get_weights()
    arrays[-1][0] = np.nextafter(arrays[-1][0], np.float32(1))
    model.set_weights(arrays)
    assert weights_sha256(model) != before


def test_layers_of_another_size_are_another_network() -> None:
    assert named_weights(build(8, 4, 3, seed=1))["forward.kernel"].shape == (13, 24)
    assert weights_sha256(build(8, 4, 3, seed=1)) != weights_sha256(build(seed=1))


def test_another_architecture_is_not_exported(tmp_path: Path) -> None:
    import keras

    model = build(8, 4, 3, seed=1)
    model.layers[3].activation = keras.activations.tanh
    with pytest.raises(Refused, match="not the network this project trains"):
        export_onnx(model, tmp_path / "network.onnx")


def test_a_file_with_code_in_it_is_refused(tmp_path: Path) -> None:
    import keras

    model = keras.Sequential([keras.Input((5, 13)), keras.layers.Lambda(lambda x: x[:, 0, :1])])
    model.save(tmp_path / "lambda.keras")
    with pytest.raises(Refused, match=r"lambda\.keras cannot be loaded"):
        load_keras(tmp_path / "lambda.keras")


@pytest.mark.parametrize("name", ["network.h5", "network.keras"])
def test_a_file_that_is_no_keras_file_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"not a network")
    with pytest.raises(Refused, match=name):
        load_keras(tmp_path / name)


def test_an_empty_validation_set_is_refused() -> None:
    with pytest.raises(Refused, match="validation set"):
        fit(SMALL, TARGETS, SMALL[:0], TARGETS[:0], seed=1, target="gap")


def test_targets_that_are_not_finite_are_refused() -> None:
    with pytest.raises(Refused, match="training set holds numbers that are not finite"):
        fit(SMALL, np.full(len(SMALL), np.nan, np.float32), SMALL, TARGETS, seed=1, target="gap")
