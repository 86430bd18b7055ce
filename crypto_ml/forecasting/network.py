"""The network: built, fitted, named by its weights and exported. The only place that imports keras, and lazily.

Belongs here: what needs keras. Does not belong here: how a window is made, and how a trained network is run
(inference.py, which knows no tensorflow).
"""

import functools
import hashlib
import json
import math
import os
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final, cast

import numpy as np
from numpy.typing import NDArray

from crypto_ml.errors import Refused
from crypto_ml.forecasting.inference import Network
from crypto_ml.forecasting.onnx_graph import INPUT, NORMALISATION_EPSILON, WEIGHTS, onnx_bytes
from crypto_ml.forecasting.progress import Progress, Tell, tell_nobody
from crypto_ml.forecasting.schema import FEATURES, WINDOW, Target
from crypto_ml.forecasting.windows import Drawn

if TYPE_CHECKING:
    from collections.abc import Callable

    import keras

ONNX_TOLERANCE: Final = 1e-5
"""Largest difference between Keras and ONNX, in units of the standardised target, that float32 rounding explains."""

GAP_LIMIT: Final = 10.0
"""Deviations at which a `gap` target is clipped: a listing error must not steer the fit."""

DROPOUT: Final = 0.1

THREADS_OF_A_FIT: Final = "2"
"""Whatever the machine has: from four threads on sums are cut otherwise, and the weights differ by some 1e-6."""


@dataclass(frozen=True)
class FittedNetwork:
    """What a fit leaves behind: the network with its best epoch's weights, and how it got there."""

    model: "keras.Model"
    history: dict[str, list[float]]
    """`loss` and `val_loss` (Huber, in units of the target), one number per epoch."""
    best_epoch: int
    """The epoch, counted from 1, whose weights were kept: the one of least `val_loss`."""


@functools.cache
def _keras() -> ModuleType:
    """keras on tensorflow, silent, and summing in one order on every machine; imported at the first use."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")  # it warns that its results depend on the processor
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    for threads in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
        os.environ[threads] = THREADS_OF_A_FIT
    import keras

    module: ModuleType = keras
    return module


@functools.cache
def keras2_hard_sigmoid() -> "Callable[[Any], Any]":
    """Keras 2's hard sigmoid as a registered Keras activation: clip(0.2·x + 0.5, 0, 1).

    Keras 3 gives the name to relu6(x + 3) / 6, another slope, with which the handed-over network is 2 to 15 % off.
    """
    keras = _keras()

    def keras2_hard_sigmoid(x: Any) -> Any:
        return keras.ops.clip(0.2 * x + 0.5, 0.0, 1.0)

    registered: Callable[[Any], Any] = keras.saving.register_keras_serializable(package="crypto_ml")(
        keras2_hard_sigmoid
    )
    return registered


def build(
    units: int = 50,
    tanh_units: int = 20,
    relu_units: int = 10,
    *,
    seed: int,
    features: int = len(FEATURES),
    dropout: float = DROPOUT,
) -> "keras.Model":
    """The network, untrained: windows (n, 5, `features`) float32 → (n, 1). Architecture of the network handed over.

    Bidirectional GRU (`units` each way, reset gate before the product), batch normalisation, a tanh, a relu and a
    linear layer. Our own training uses Keras 2's hard sigmoid too: one architecture means one exported graph to
    prove, and it is cheaper than the logistic function. Input dropout stands; recurrent dropout is gone.
    Sets the process's random state (`keras.utils.set_random_seed`); the same seed gives the same weights.
    """
    keras = _keras()
    keras.utils.set_random_seed(seed)
    gru = keras.layers.GRU(
        units,
        activation="tanh",
        recurrent_activation=keras2_hard_sigmoid(),
        reset_after=False,
        dropout=dropout,
        unroll=True,  # five steps written out train as fast as a loop and leave no loop for a converter to keep
        name="gru",
    )
    return keras.Sequential(
        [
            keras.Input((WINDOW, features), dtype="float32", name=INPUT),
            keras.layers.Bidirectional(gru, merge_mode="concat", name="both_ways"),
            keras.layers.BatchNormalization(epsilon=NORMALISATION_EPSILON, name="normalisation"),
            keras.layers.Dense(tanh_units, activation="tanh", name="dense_tanh"),
            keras.layers.Dense(relu_units, activation="relu", name="dense_relu"),
            keras.layers.Dense(1, name="prediction"),
        ],
        name="crypto_ml",  # unnamed models are numbered through the process
    )


def fit(
    windows: NDArray[np.float32] | Drawn,
    targets: NDArray[np.float32] | None,
    validation_windows: NDArray[np.float32],
    validation_targets: NDArray[np.float32],
    *,
    seed: int,
    target: Target,
    epochs: int = 40,
    batch_size: int = 512,
    learning_rate: float = 1e-3,
    patience: int = 5,
    units: int = 50,
    dropout: float = DROPOUT,
    tell: Tell = tell_nobody,
) -> FittedNetwork:
    """Trains a new network: windows (n, 5, k) float32, targets (n,) float32 in units of the target.

    Windows that are drawn bring their targets along; an epoch is what one of them takes.
    Huber loss (of `relative_gap` absolute error: of its gaps the median is asked for), Adam; stops when `val_loss` has
    not improved for `patience` epochs and keeps the best epoch's weights. Targets of gaps are clipped at ±10.
    Bit-identical for the same arrays, seed and software: operations are held to their deterministic forms, for the
    whole process (tried on 1 and 2 cores, and across processes). `tell` is told of every batch.
    Raises Refused where arrays do not fit together, are empty or not finite, or the loss is no longer a number.
    """
    features = validation_windows.shape[-1]
    if not isinstance(windows, np.ndarray):
        _check_finite("training", windows.targets)
    elif targets is not None:
        _check_arrays("training", windows, targets, features)
    _check_arrays("validation", validation_windows, validation_targets, features)
    keras = _keras()
    import tensorflow

    tensorflow.config.experimental.enable_op_determinism()
    sizes: dict[str, Any] = {"units": units, "dropout": dropout, "features": features, "seed": seed}
    model = build(**sizes)
    loss = keras.losses.MeanAbsoluteError() if target == "relative_gap" else keras.losses.Huber()
    model.compile(optimizer=keras.optimizers.Adam(learning_rate), loss=loss, jit_compile=False)
    stopping = keras.callbacks.EarlyStopping(monitor="val_loss", patience=patience, restore_best_weights=True)
    given: dict[str, Any]
    if not isinstance(windows, np.ndarray):
        given = {"x": _drawing(keras, windows, target, batch_size), "shuffle": False}
    else:
        given = {"x": windows, "y": _clipped(cast(Any, targets), target), "batch_size": batch_size}
    history = model.fit(
        **given,
        validation_data=(validation_windows, _clipped(validation_targets, target)),
        validation_batch_size=batch_size,
        epochs=epochs,
        callbacks=[stopping, keras.callbacks.TerminateOnNaN(), _telling(keras, tell, epochs)],
        verbose=0,
    ).history
    losses = {name: [float(value) for value in history[name]] for name in ("loss", "val_loss")}
    if not np.isfinite([*losses["loss"], *losses["val_loss"]]).all():
        raise Refused("The loss of the network is no longer a number; train with a smaller learning rate.")
    served = build(**sizes)  # without the optimiser's state, which nothing reads after the fit
    served.set_weights(model.get_weights())
    return FittedNetwork(served, losses, int(np.argmin(losses["val_loss"])) + 1)


def _drawing(keras: ModuleType, windows: Drawn, target: Target, batch_size: int) -> "keras.utils.PyDataset":
    """The batches of each epoch, cut as they are asked for."""

    class Drawing(keras.utils.PyDataset):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.epoch, self.chosen = 0, windows.of_epoch(0)

        def __len__(self) -> int:
            return math.ceil(len(self.chosen) / batch_size)

        def __getitem__(self, number: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
            cut, targets = windows.batch(self.chosen[number * batch_size : (number + 1) * batch_size])
            return cut, _clipped(targets, target)

        def on_epoch_end(self) -> None:
            self.epoch += 1
            self.chosen = windows.of_epoch(self.epoch)

    return Drawing()


def _telling(keras: ModuleType, tell: Tell, epochs: int) -> "keras.callbacks.Callback":
    """What tells how far a fit is, and its loss so far. `epochs` are the most there are: it may stop sooner."""

    class Telling(keras.callbacks.Callback):  # type: ignore[misc, name-defined]
        epoch = 0
        validated = ""

        def on_epoch_begin(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:  # noqa: ARG002
            self.epoch = epoch

        def on_train_batch_end(self, batch: int, logs: Mapping[str, float] | None = None) -> None:
            steps = int(self.params["steps"])
            note = f"epoch {self.epoch + 1} of at most {epochs}, loss {(logs or {}).get('loss', float('nan')):.5f}"
            done = self.epoch * steps + batch + 1
            tell(Progress("training", done, epochs * steps, "batches", note + self.validated))

        def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:  # noqa: ARG002
            self.validated = f" (on validation rows {(logs or {}).get('val_loss', float('nan')):.5f})"

    return Telling()


def named_weights(model: "keras.Model") -> dict[str, NDArray[np.float32]]:
    """The network's arrays by the names of `onnx_graph.WEIGHTS`. Raises Refused where it is another architecture."""
    found = [_layer(layer) for layer in model.layers]
    sizes = [layer.get("forward", layer).get("units", 0) for layer in found]
    if len(found) != 5 or found != _architecture(sizes[0], sizes[2], sizes[3]):
        raise Refused(f"This is not the network this project trains and exports; its layers are {json.dumps(found)}.")
    return dict(zip(WEIGHTS, model.get_weights(), strict=True))


def with_weights(weights: Mapping[str, NDArray[np.float32]]) -> "keras.Model":
    """The network with these arrays, by the names of `onnx_graph.WEIGHTS`; layer sizes are read from their shapes."""
    units, relu_units = weights["forward.recurrent_kernel"].shape[0], weights["prediction.kernel"].shape[0]
    features = weights["forward.kernel"].shape[0]
    model = build(units, weights["dense_tanh.kernel"].shape[1], relu_units, seed=0, features=features)
    model.set_weights([weights[name] for name in WEIGHTS])
    return model


def weights_sha256(model: "keras.Model") -> str:
    """Name of a network by what it computes: sha256 over its layers (sorted JSON) and its arrays.

    Each array enters with name, shape and little-endian float32 bytes. Not over the .keras file, whose bytes depend on
    the version of Keras. Raises Refused where it is another architecture.
    """
    weights = named_weights(model)
    digest = hashlib.sha256(json.dumps([_layer(layer) for layer in model.layers], sort_keys=True).encode())
    for name, array in weights.items():
        digest.update(json.dumps([name, list(array.shape)]).encode())
        digest.update(np.ascontiguousarray(array, dtype="<f4").tobytes())
    return digest.hexdigest()


def export_onnx(model: "keras.Model", path: Path) -> None:
    """Writes the network as ONNX, `windows` (n, 5, k) → `output` (n, 1); the same weights give the same bytes.

    The graph comes from `onnx_graph`. Raises Refused where it is another architecture or a weight is not finite.
    """
    path.write_bytes(onnx_bytes(named_weights(model)))


def agreement(model: "keras.Model", onnx_path: Path, windows: NDArray[np.float32]) -> float:
    """Largest absolute difference between Keras and onnxruntime on `windows` (n ≥ 1); compare with `ONNX_TOLERANCE`.

    In units of the network's target. Raises Refused for no windows, and as `Network.predict` does.
    """
    if not len(windows):
        raise Refused("Keras and ONNX cannot be compared on no windows; give at least one.")
    exported = Network.from_bytes(onnx_path.read_bytes(), features=windows.shape[-1]).predict(windows)
    own = model.predict(windows, batch_size=8192, verbose=0)[:, 0].astype(np.float64)
    return float(np.abs(exported - own).max())


def save_keras(model: "keras.Model", path: Path) -> None:
    """Saves the network as a .keras file, for training on; what serves is the ONNX file.

    The same weights give the same bytes: a bundle that a broken run left half stored can then be stored by another.
    """
    model.save(path)
    with zipfile.ZipFile(path) as saved:
        parts = {name: saved.read(name) for name in saved.namelist()}
    # Keras writes when it was saved, and where in memory each initialiser stood
    described = json.loads(parts["metadata.json"]) | {"date_saved": "1980-01-01@00:00:00"}
    parts |= {"metadata.json": json.dumps(described).encode(), "config.json": _renumbered(parts["config.json"])}
    with zipfile.ZipFile(path, "w") as kept:
        for name, content in parts.items():
            kept.writestr(zipfile.ZipInfo(name), content)


def _renumbered(config: bytes) -> bytes:
    """A Keras configuration with its objects numbered in order."""
    numbers: dict[bytes, int] = {}
    return re.sub(
        rb'("shared_object_id": )(\d+)',
        lambda found: found[1] + str(numbers.setdefault(found[2], len(numbers) + 1)).encode(),
        config,
    )


def load_keras(path: Path) -> "keras.Model":
    """Loads a .keras file that holds this architecture; code inside a file is never run (Keras' safe mode).

    Raises Refused where it is no such file, would need code from it, or holds another architecture.
    """
    if path.suffix != ".keras":  # for any other ending Keras falls back to its older format, which has no safe mode
        raise Refused(f"{path.name} is no .keras file; hand over an older model with `crypto-ml handover`.")
    keras = _keras()
    keras2_hard_sigmoid()  # registered before the file names it
    try:
        model = keras.saving.load_model(path, compile=False, safe_mode=True)
    except (ValueError, TypeError, OSError, KeyError, AttributeError) as error:
        first_line = (str(error).splitlines() or [type(error).__name__])[0]
        raise Refused(f"{path.name} cannot be loaded as a network of this project: {first_line[:200]}") from error
    named_weights(model)
    return model


def _layer(layer: "keras.Layer") -> dict[str, Any]:
    """What a layer computes: its class and the settings that its outputs depend on (dropout only acts in a fit)."""
    keras = _keras()
    described: dict[str, Any] = {"class": type(layer).__name__}
    if isinstance(layer, keras.layers.Bidirectional):
        described["merge_mode"] = layer.merge_mode
        return described | {"forward": _layer(layer.forward_layer), "backward": _layer(layer.backward_layer)}
    for setting in ("units", "epsilon", "reset_after", "go_backwards"):
        if hasattr(layer, setting):
            described[setting] = getattr(layer, setting)
    for setting in ("activation", "recurrent_activation"):
        if hasattr(layer, setting):
            described[setting] = keras.saving.get_registered_name(getattr(layer, setting))
    return described


def _architecture(units: int, tanh_units: int, relu_units: int) -> list[dict[str, Any]]:
    """The layers of `build`, as `_layer` describes them: what `onnx_graph` writes."""
    gru = {"class": "GRU", "units": units, "reset_after": False, "activation": "tanh"}
    gru |= {"recurrent_activation": "crypto_ml>keras2_hard_sigmoid"}
    return [
        {
            "class": "Bidirectional",
            "merge_mode": "concat",
            "forward": gru | {"go_backwards": False},
            "backward": gru | {"go_backwards": True},
        },
        {"class": "BatchNormalization", "epsilon": NORMALISATION_EPSILON},
        {"class": "Dense", "units": tanh_units, "activation": "tanh"},
        {"class": "Dense", "units": relu_units, "activation": "relu"},
        {"class": "Dense", "units": 1, "activation": "linear"},
    ]


def _clipped(targets: NDArray[np.float32], target: Target) -> NDArray[np.float32]:
    return np.clip(targets, -GAP_LIMIT, GAP_LIMIT) if target in ("gap", "relative_gap") else targets


def _check_arrays(what: str, windows: NDArray[np.float32], targets: NDArray[np.float32], features: int) -> None:
    if windows.shape != (len(targets), WINDOW, features) or targets.ndim != 1 or not len(targets):
        raise Refused(
            f"The {what} set needs windows (n, {WINDOW}, {features}) and targets (n,), n at least 1, "
            f"not {windows.shape} and {targets.shape}; take a longer period."
        )
    _check_finite(what, windows, targets)


def _check_finite(what: str, *arrays: NDArray[np.float32]) -> None:
    if not all(np.isfinite(array).all() for array in arrays):
        raise Refused(f"The {what} set holds numbers that are not finite; clean the rows it was made from.")
