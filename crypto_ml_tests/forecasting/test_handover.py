"""A handed-over model is read as data, served faithfully, and refused with one sentence where it is another."""

import io
import json
import os
import pickle
from collections.abc import Callable
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crypto_ml.errors import Refused
from crypto_ml.forecasting.bundle import ModelBundle
from crypto_ml.forecasting.handover import bundle_from_handover
from crypto_ml.forecasting.inference import Network
from crypto_ml.forecasting.intake import IntakeRules, Repeats, settled_chunks, take_in
from crypto_ml.forecasting.legacy_network import read_handed_over, read_network
from crypto_ml.forecasting.legacy_scaler import ADMITTED, UnreadableScaler, read_scaler
from crypto_ml.forecasting.network import with_weights
from crypto_ml.forecasting.onnx_graph import WEIGHTS, onnx_bytes, weight_shapes
from crypto_ml.forecasting.schema import Recovery
from crypto_ml.forecasting.scoring import score
from crypto_ml.forecasting.sorting import RowSorter
from crypto_ml_tests.forecasting.networks import random_weights

SYMBOLS = ("BTC", "LTC", "XRP")


@pytest.fixture(scope="module")
def bundle(shared: Path) -> ModelBundle:
    return bundle_from_handover(shared / "handover" / "model.h5", shared / "handover" / "scaler.pkl")


def scored(upload: Path, bundle: ModelBundle, recovery: Recovery) -> pd.DataFrame:
    with TemporaryDirectory() as name, RowSorter(Path(name)) as sorter:
        take_in(upload, IntakeRules(date(2026, 1, 1)), sorter)
        return pd.concat(score(settled_chunks(sorter, Repeats()), bundle, recovery), ignore_index=True)


@pytest.mark.parametrize(("recovery", "tolerance"), [("one_step", 1e-4), ("cumulative", 1e-3)])
def test_the_delivered_upload_gives_the_delivered_expectations(
    bundle: ModelBundle, shared: Path, recovery: Recovery, tolerance: float
) -> None:
    expected = pd.read_csv(shared / "handover" / "expected_BTC.csv", parse_dates=["date"])
    answered = scored(shared / "handover" / "crypto_test.csv", bundle, recovery)
    found = answered[answered["symbol"] == "BTC"].merge(expected, on="date")
    assert len(found) == len(expected) == 119
    assert ((found["pred_open"] - found[recovery]).abs() / found["open"]).max() <= tolerance


@pytest.mark.parametrize("recovery", ["one_step", "cumulative"])
@pytest.mark.parametrize("upload", ["handover/crypto_test.csv", "market/crypto_markets.csv"])
def test_every_row_is_what_the_definitions_give_computed_row_by_row(
    bundle: ModelBundle, shared: Path, upload: str, recovery: Recovery
) -> None:
    answered = scored(shared / upload, bundle, recovery)
    rows = pd.read_csv(shared / upload)
    rows["date"] = pd.to_datetime(rows["date"], dayfirst="market/" in upload)
    weights = read_network((shared / "handover" / "model.h5").read_bytes()).weights
    for symbol in SYMBOLS:
        series = rows[rows["symbol"] == symbol].sort_values("date")
        found = answered.loc[answered["symbol"] == symbol, "pred_open"].to_numpy()
        expected = by_definition(series, symbol, bundle, weights, recovery)
        opens = series["open"].to_numpy()
        assert (np.abs(found - expected) / opens).max() <= (1e-4 if recovery == "one_step" else 1e-3)


def by_definition(
    series: pd.DataFrame, symbol: str, bundle: ModelBundle, weights: dict[str, Any], recovery: Recovery
) -> np.ndarray:
    """The handed-over network's definitions in float64, apart from all code under test."""
    frame = series.reset_index(drop=True)
    spread = frame["high"] - frame["low"]
    ratio = ((frame["close"] - frame["low"]) / spread).where(spread != 0, 0.0)
    levels = pd.DataFrame({n: frame[n] for n in ("open", "high", "low", "close")}).assign(r=ratio, s=spread)
    with np.errstate(divide="ignore"):
        shares = np.log(np.ceil(frame["market"] / frame["close"]))
    features = np.column_stack([levels, levels.diff().fillna(0.0), np.where(np.isfinite(shares), shares, 0.0)])
    at = bundle.statistics.symbols.index(symbol)
    features[:, :12] = (features[:, :12] - bundle.statistics.mean[at]) / bundle.statistics.scale[at]
    padded = np.vstack([np.zeros((5, 13)), features])
    stacked = np.stack([padded[t : t + 5] for t in range(len(frame))])
    change = forward(stacked, weights) * bundle.statistics.scale[at, 6] + bundle.statistics.mean[at, 6]
    opens = frame["open"].to_numpy(float)
    if recovery == "cumulative":
        change[0] = 0.0
        return np.asarray(opens[0] + np.cumsum(change))
    one_step = np.concatenate([[opens[0]], opens[:-1] + change[1:]])
    return np.asarray(one_step)


def forward(x: np.ndarray, w: dict[str, Any], slope: float = 0.2) -> np.ndarray:
    """The network in float64 NumPy; `slope` is that of the hard sigmoid: 0.2 in Keras 2, 1/6 in Keras 3."""
    w = {name: np.asarray(array, np.float64) for name, array in w.items()}

    def gru(steps: list[int], name: str) -> np.ndarray:
        kernel, recurrent, bias = (w[f"{name}.{part}"] for part in ("kernel", "recurrent_kernel", "bias"))
        units = recurrent.shape[0]
        h = np.zeros((len(x), units))
        for t in steps:
            given = x[:, t] @ kernel + bias
            z, r = (
                np.clip(slope * (given[:, gate] + h @ recurrent[:, gate]) + 0.5, 0, 1)
                for gate in (slice(0, units), slice(units, 2 * units))
            )
            candidate = np.tanh(given[:, 2 * units :] + (r * h) @ recurrent[:, 2 * units :])
            h = z * h + (1 - z) * candidate
        return h

    state = np.hstack([gru([0, 1, 2, 3, 4], "forward"), gru([4, 3, 2, 1, 0], "backward")])
    mean, variance = w["normalisation.mean"], w["normalisation.variance"]
    state = (state - mean) / np.sqrt(variance + 1e-3) * w["normalisation.gamma"] + w["normalisation.beta"]
    state = np.tanh(state @ w["dense_tanh.kernel"] + w["dense_tanh.bias"])
    state = np.maximum(state @ w["dense_relu.kernel"] + w["dense_relu.bias"], 0)
    return np.asarray((state @ w["prediction.kernel"] + w["prediction.bias"])[:, 0])


def test_the_other_hard_sigmoid_would_be_percents_off(bundle: ModelBundle, shared: Path) -> None:
    """Keras 3's hard_sigmoid is relu6(x + 3) / 6: whoever rebuilds the network with it gets other predictions."""
    weights = read_network((shared / "handover" / "model.h5").read_bytes()).weights
    windows = np.random.default_rng(0).normal(size=(2000, 5, 13)).astype(np.float32)
    served = bundle.network.predict(windows)
    assert np.abs(served - forward(windows, weights)).max() < 1e-5
    other = forward(windows, weights, slope=1 / 6)
    assert np.abs(served - other).mean() / np.abs(served).mean() > 0.01


@given(seed=st.integers(0, 2**32 - 1), size=st.floats(0.01, 100.0))
def test_network_and_export_agree_on_any_windows(seed: int, size: float) -> None:
    weights = random_weights()
    windows = (np.random.default_rng(seed).normal(size=(16, 5, 13)) * size).astype(np.float32)
    exported = Network.from_bytes(onnx_bytes(weights)).predict(windows)
    kept = _keras_network().predict(windows, verbose=0)[:, 0]
    assert np.abs(exported - kept).max() <= 1e-5 * max(1.0, float(np.abs(kept).max()))


_KEPT: list[Any] = []


def _keras_network() -> Any:
    if not _KEPT:
        _KEPT.append(with_weights(random_weights()))
    return _KEPT[0]


def test_the_manifest_names_both_files_and_the_versions_inside_them(bundle: ModelBundle) -> None:
    manifest = bundle.document("training_manifest.json")
    assert manifest["network"]["keras"] == "2.2.4"
    assert manifest["scaler"]["scikit-learn"] == ["0.20.2"]
    assert len(manifest["network"]["sha256"]) == len(manifest["scaler"]["sha256"]) == 64


def test_a_coin_of_another_slug_counts_as_never_seen(shared: Path, tmp_path: Path) -> None:
    slugs = tmp_path / "slugs.csv"
    slugs.write_text("symbol,slug\nBTM,bitmark\nBTC,bitcoin\n")
    folder = shared / "handover"
    bundle = bundle_from_handover(folder / "model.h5", folder / "scaler.pkl", slugs)
    upload = tmp_path / "upload.csv"
    market = pd.read_csv(shared / "market" / "crypto_markets.csv")
    chosen = market[market["slug"].isin(["bytom", "bitcoin"])]
    assert set(chosen["symbol"]) == {"BTM", "BTC"}
    chosen.to_csv(upload, index=False)
    answered = scored(upload, bundle, "one_step")
    by = answered[answered["status"] == "predicted"].groupby("symbol")["scaled_by"].unique()
    assert list(by["BTM"]) == ["own rows"]
    assert list(by["BTC"]) == ["model"]


def test_slugs_that_do_not_fit_the_scaler_are_refused(shared: Path, tmp_path: Path) -> None:
    slugs = tmp_path / "slugs.csv"
    slugs.write_text("symbol,slug\nNOPE,nope\n")
    folder = shared / "handover"
    with pytest.raises(Refused, match="does not have: NOPE"):
        bundle_from_handover(folder / "model.h5", folder / "scaler.pkl", slugs)


class Payload:
    """What an attacker would put into a pickle."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_that_would_run_something_is_refused_and_does_not_run(tmp_path: Path, protocol: int) -> None:
    trace = tmp_path / "ran"
    with pytest.raises(UnreadableScaler, match="was not run"):
        read_scaler(pickle.dumps({"BTC": Payload(trace)}, protocol))
    assert not trace.exists()


@given(st.binary(max_size=400))
def test_no_bytes_make_the_scaler_reader_fail_otherwise_than_by_refusing(content: bytes) -> None:
    with pytest.raises(UnreadableScaler):
        read_scaler(content)


def test_only_five_names_are_admitted_and_none_of_them_is_the_real_thing() -> None:
    assert len(ADMITTED) == 5
    assert all(kind.__module__ == "crypto_ml.forecasting.legacy_scaler" for kind in ADMITTED.values())


@pytest.mark.parametrize("content", [pickle.dumps([]), pickle.dumps({}), pickle.dumps({"BTC": {"open": 1.0}})])
def test_a_pickle_of_something_else_is_refused(content: bytes) -> None:
    with pytest.raises(UnreadableScaler, match="scaler"):
        read_scaler(content)


def test_a_truncated_file_is_refused(shared: Path) -> None:
    for name, read in (("model.h5", read_network), ("scaler.pkl", read_scaler)):
        whole = (shared / "handover" / name).read_bytes()
        for size in (0, 10, len(whole) // 2, len(whole) - 1000):
            with pytest.raises(Refused, match="file"):
                read(whole[:size])


def handed_over(change: Callable[[h5py.File], None] = lambda _file: None) -> bytes:
    """A Keras 2 file of the right architecture with random weights, then changed."""
    shapes = weight_shapes(50, 20, 10)
    weights = random_weights()
    groups = {"input_1": [], "bidirectional_1": WEIGHTS[:6], "batch_normalization_1": WEIGHTS[6:10]}
    groups |= {f"dense_{k + 1}": WEIGHTS[10 + 2 * k : 12 + 2 * k] for k in range(3)}
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file.attrs["keras_version"], file.attrs["backend"] = b"2.2.4", b"tensorflow"
        file.attrs["model_config"] = json.dumps(CONFIG).encode()
        for layer, names in groups.items():
            group = file.create_group(f"model_weights/{layer}")
            group.attrs["weight_names"] = [name.encode() for name in names]
            for name in names:
                assert weights[name].shape == shapes[name]
                group.create_dataset(name, data=weights[name])
        change(file)
    return buffer.getvalue()


def _layer(kind: str, name: str, **config: Any) -> dict[str, Any]:
    return {"class_name": kind, "config": {"name": name, **config}}


GRU = {
    "class_name": "GRU",
    "config": {
        "units": 50,
        "activation": "tanh",
        "recurrent_activation": "hard_sigmoid",
        "reset_after": False,
        "use_bias": True,
        "go_backwards": False,
        "return_sequences": False,
        "stateful": False,
    },
}
CONFIG = {
    "class_name": "Model",
    "config": {
        "layers": [
            _layer("InputLayer", "input_1", batch_input_shape=[None, 5, 13]),
            _layer("Bidirectional", "bidirectional_1", merge_mode="concat", layer=GRU),
            _layer("BatchNormalization", "batch_normalization_1", axis=-1, epsilon=1e-3, center=True, scale=True),
            _layer("Dense", "dense_1", units=20, activation="tanh", use_bias=True),
            _layer("Dense", "dense_2", units=10, activation="relu", use_bias=True),
            _layer("Dense", "dense_3", units=1, activation="linear", use_bias=True),
        ]
    },
}


def configured(position: int, value: Any, *path: str) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        config = json.loads(file.attrs["model_config"])
        here = config["config"]["layers"][position]
        for part in path[:-1]:
            here = here[part]
        here[path[-1]] = value
        file.attrs["model_config"] = json.dumps(config)

    return change


def test_a_file_of_the_right_architecture_is_read_exactly() -> None:
    found = read_network(handed_over()).weights
    for name, array in random_weights().items():
        assert np.array_equal(found[name], array)


KERNEL = "model_weights/dense_3/prediction.kernel"


def _nan(file: h5py.File) -> None:
    file[KERNEL][0] = np.nan


def _reshaped(file: h5py.File) -> None:
    del file[KERNEL]
    file.create_dataset(KERNEL, data=np.zeros((11, 1), np.float32))


def _missing(file: h5py.File) -> None:
    del file[KERNEL]


def _linked_elsewhere(file: h5py.File) -> None:
    del file[KERNEL]
    file[KERNEL] = h5py.ExternalLink("/etc/passwd", "/kernel")


def _no_keras(file: h5py.File) -> None:
    del file.attrs["model_config"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        pytest.param(_no_keras, "no Keras model", id="no Keras model"),
        pytest.param(configured(3, "Conv1D", "class_name"), "layers are", id="another layer"),
        pytest.param(configured(3, "selu", "config", "activation"), "activation is 'selu'", id="unknown activation"),
        pytest.param(
            configured(1, "sigmoid", "config", "layer", "config", "recurrent_activation"), "'sigmoid'", id="other gates"
        ),
        pytest.param(configured(1, True, "config", "layer", "config", "reset_after"), "reset_after", id="reset after"),
        pytest.param(configured(2, 1e-5, "config", "epsilon"), "epsilon is 1e-05", id="other epsilon"),
        pytest.param(configured(0, [None, 6, 13], "config", "batch_input_shape"), "batch_input_shape", id="window"),
        pytest.param(_nan, "not finite", id="NaN weights"),
        pytest.param(_reshaped, r"not float32 \(10, 1\)", id="wrong shape"),
        pytest.param(_missing, "missing", id="missing weights"),
        pytest.param(_linked_elsewhere, "outside the file", id="link to another file"),
    ],
)
def test_another_network_is_refused_and_the_difference_named(change: Callable[[h5py.File], None], reason: str) -> None:
    with pytest.raises(Refused, match=reason):
        read_network(handed_over(change))


def test_links_and_folders_are_no_handed_over_files(tmp_path: Path) -> None:
    real = tmp_path / "model.h5"
    real.write_bytes(b"x")
    link = tmp_path / "link.h5"
    link.symlink_to(real)
    for path in (link, tmp_path, tmp_path / "absent"):
        with pytest.raises(Refused, match="name the file"):
            read_handed_over(path)
