"""Reading a handed-over Keras 2 network as data: its configuration as JSON, its weights as arrays.

Current Keras does not open such a file, and would build the recurrent layer with another hard sigmoid if it did. What
is read is checked against the one architecture that this package computes, so nothing is guessed.
"""

import json
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from crypto_ml.errors import Refused
from crypto_ml.forecasting.onnx_graph import NORMALISATION_EPSILON, WEIGHTS, weight_shapes
from crypto_ml.forecasting.schema import FEATURES, WINDOW

if TYPE_CHECKING:
    import h5py

LARGEST: Final = 256 << 20
LARGEST_LAYER: Final = 4096
Weights = dict[str, npt.NDArray[np.float32]]


class UnreadableNetwork(Refused):
    """A file that does not hold the one network this package can serve."""


@dataclass(frozen=True)
class LegacyNetwork:
    """A network's arrays by the names of `onnx_graph.WEIGHTS`, and the Keras version and backend that wrote it."""

    weights: Weights
    keras_version: str
    backend: str


def read_handed_over(path: Path, largest: int = LARGEST) -> bytes:
    """The bytes of a handed-over file, which must be an ordinary one. Raises Refused."""
    try:
        kind = path.lstat()
    except OSError as error:
        raise Refused(f"{path} cannot be read: {error.strerror}; name the file that was handed over") from error
    if not stat.S_ISREG(kind.st_mode):
        raise Refused(f"{path} is not an ordinary file (a link or a folder, say); name the file itself")
    if kind.st_size > largest:
        raise Refused(f"{path} has {kind.st_size:,} bytes, more than the {largest:,} that a model can have")
    return path.read_bytes()


def read_network(content: bytes) -> LegacyNetwork:
    """The network in the bytes of a Keras 2 `.h5` file. Raises UnreadableNetwork with every mismatch."""
    import io

    import h5py

    try:
        with h5py.File(io.BytesIO(content), "r") as file:
            config = _configuration(file)
            layers = _layers(config)
            _check_architecture(layers)
            weights = _weights(file, layers)
            version, backend = (_text(file.attrs.get(name, "unknown")) for name in ("keras_version", "backend"))
    except UnreadableNetwork:
        raise
    except Exception as error:
        raise UnreadableNetwork(f"the network file is damaged or no HDF5 ({type(error).__name__}: {error})") from error
    return LegacyNetwork(weights, version, backend)


def _configuration(file: "h5py.File") -> Mapping[str, Any]:
    if "model_config" not in file.attrs or "model_weights" not in file:
        raise UnreadableNetwork("the network file is HDF5 but no Keras model: it has no model_config or no weights")
    config: Mapping[str, Any] = json.loads(_text(file.attrs["model_config"]))
    return config


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _layers(config: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    found: Any = config["config"]
    layers: Sequence[Mapping[str, Any]] = found["layers"] if isinstance(found, dict) else found
    return layers


def _check_architecture(layers: Sequence[Mapping[str, Any]]) -> None:
    """That the layers are those of `network.build`, one after another, with the settings that its formulas assume."""
    kinds = [layer["class_name"] for layer in layers]
    expected = ["InputLayer", "Bidirectional", "BatchNormalization", "Dense", "Dense", "Dense"]
    if kinds != expected:
        raise UnreadableNetwork(
            f"the network's layers are {', '.join(kinds)}; only {', '.join(expected)} can be served"
        )
    wanted: list[tuple[int, str, Any]] = [
        (0, "batch_input_shape", [None, WINDOW, len(FEATURES)]),
        (1, "merge_mode", "concat"),
        (1, "layer.class_name", "GRU"),
        (1, "layer.config.activation", "tanh"),
        (1, "layer.config.recurrent_activation", "hard_sigmoid"),
        (1, "layer.config.reset_after", False),
        (1, "layer.config.use_bias", True),
        (1, "layer.config.go_backwards", False),
        (1, "layer.config.return_sequences", False),
        (1, "layer.config.stateful", False),
        (2, "axis", -1),
        (2, "epsilon", NORMALISATION_EPSILON),
        (2, "center", True),
        (2, "scale", True),
        *((position, "use_bias", True) for position in (3, 4, 5)),
        *((position, "activation", name) for position, name in ((3, "tanh"), (4, "relu"), (5, "linear"))),
        (5, "units", 1),
    ]
    settings = [(position, name, _setting(layers[position]["config"], name), value) for position, name, value in wanted]
    wrong = [
        f"{kinds[position]} {name} is {given!r}, not {value!r}"
        for position, name, given, value in settings
        if given not in (value, [value])  # the axis is written as a list by some versions
    ]
    inbound = [layer.get("inbound_nodes", []) for layer in layers]
    names = [layer["config"]["name"] for layer in layers]
    wrong += [
        f"{name} does not follow {before}"
        for before, name, nodes in zip(names, names[1:], inbound[1:], strict=False)
        if nodes and [node[0] for node in nodes[0]] != [before]
    ]
    if wrong:
        raise UnreadableNetwork(f"the network is another than this package computes: {'; '.join(wrong)}")


def _setting(config: Any, name: str) -> Any:
    for part in name.split("."):
        config = config.get(part) if isinstance(config, dict) else None
    return config


def _weights(file: "h5py.File", layers: Sequence[Mapping[str, Any]]) -> Weights:
    units = [layers[1]["config"]["layer"]["config"]["units"], *(layers[k]["config"]["units"] for k in (3, 4))]
    if not all(isinstance(size, int) and 0 < size <= LARGEST_LAYER for size in units):
        raise UnreadableNetwork(f"the network's layers have {units} units; each must have 1 to {LARGEST_LAYER:,}")
    shapes = weight_shapes(*units)
    groups = [_group(file, layer["config"]["name"]) for layer in layers[1:]]
    datasets = [(group, _text(name)) for group in groups for name in group.attrs["weight_names"]]
    if len(datasets) != len(WEIGHTS):
        raise UnreadableNetwork(f"the network has {len(datasets)} arrays of weights instead of {len(WEIGHTS)}")
    return {ours: _array(group, theirs, shapes[ours]) for ours, (group, theirs) in zip(WEIGHTS, datasets, strict=True)}


def _group(file: "h5py.File", layer: str) -> "h5py.Group":
    import h5py

    found = file["model_weights"].get(layer, getlink=False) if _is_inside(file["model_weights"], layer) else None
    if not isinstance(found, h5py.Group) or "weight_names" not in found.attrs:
        raise UnreadableNetwork(f"the network has no weights for its layer {layer}")
    return found


def _is_inside(group: "h5py.Group", path: str) -> bool:
    """Whether every step of a path is a plain member: a link could lead to another file of this machine."""
    import h5py

    here: Any = group
    for part in path.split("/"):
        if not isinstance(here, h5py.Group) or not isinstance(here.get(part, getlink=True), h5py.HardLink):
            return False
        here = here[part]
    return True


def _array(group: "h5py.Group", name: str, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    import h5py

    found = group[name] if _is_inside(group, name) else None
    if not isinstance(found, h5py.Dataset) or found.external or found.is_virtual:
        raise UnreadableNetwork(f"the network's weights {name} are missing, or kept outside the file")
    if found.shape != shape or found.dtype != np.dtype("<f4"):
        raise UnreadableNetwork(f"the network's weights {name} are {found.dtype} {found.shape}, not float32 {shape}")
    values = np.asarray(found[()], np.float32)
    if not np.isfinite(values).all():
        raise UnreadableNetwork(f"the network's weights {name} have values that are not finite numbers")
    return values
