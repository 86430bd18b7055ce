"""Reading the scalers of a handed-over pickle as data: nothing that a pickle can name is ever imported or run.

A pickle is a program. This reader lets it name five things, the ones that a dict of fitted scikit-learn scalers is made
of, and gives it inert stand-ins for each; any other name ends the reading. Numbers are decoded here from their bytes.
"""

import io
import math
import pickle
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from crypto_ml.errors import Refused
from crypto_ml.forecasting.scaling import SeriesStatistics
from crypto_ml.forecasting.schema import SCALED

LARGEST: Final = 256 << 20
SETTINGS_KEY: Final = "model_hypers"
"""Beside the scalers, the dict has the network's hyperparameters under this name; they are not needed."""


class UnreadableScaler(Refused):
    """A pickle that is not a dict of fitted scalers for each symbol and column."""


class _Inert:
    """Stands in for an object: takes what the pickle says of it, and does nothing with it."""

    arguments: tuple[Any, ...] = ()
    state: Any = None

    def __init__(self, *arguments: Any) -> None:
        self.arguments = arguments

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Scaler(_Inert): ...


class _Array(_Inert): ...


class _ArrayType(_Inert): ...


class _Scalar(_Inert): ...


class _Dtype(_Inert): ...


ADMITTED: Final[Mapping[tuple[str, str], type[_Inert]]] = {
    ("sklearn.preprocessing.data", "StandardScaler"): _Scaler,
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy.core.multiarray", "scalar"): _Scalar,
    ("numpy", "ndarray"): _ArrayType,
    ("numpy", "dtype"): _Dtype,
}


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ADMITTED:
            raise UnreadableScaler(
                f"the scaler file names {module}.{name}, which a dict of scalers does not need; it was not run, and "
                "the file is refused"
            )
        return ADMITTED[module, name]

    def persistent_load(self, pid: object) -> Any:
        raise UnreadableScaler(f"the scaler file refers to something outside itself ({pid!r}); it is refused")


@dataclass(frozen=True)
class LegacyScaler:
    """The statistics of a handed-over scaler, and the scikit-learn versions that wrote it."""

    statistics: SeriesStatistics
    versions: tuple[str, ...]


def read_scaler(content: bytes) -> LegacyScaler:
    """Statistics from a pickled dict symbol → column → fitted StandardScaler.

    Gap deviations, which such a scaler does not have, are 1. Raises UnreadableScaler.
    """
    if len(content) > LARGEST:
        raise UnreadableScaler(f"the scaler file is larger than {LARGEST:,} bytes; it cannot be a dict of scalers")
    try:
        found = _Reader(io.BytesIO(content)).load()
    except UnreadableScaler:
        raise
    except Exception as error:
        raise UnreadableScaler(f"the scaler file is damaged or no pickle ({type(error).__name__}: {error})") from error
    if not isinstance(found, dict):
        raise UnreadableScaler("the scaler file holds no dict of scalers by symbol")
    scalers = {symbol: columns for symbol, columns in found.items() if symbol != SETTINGS_KEY}
    return _statistics(scalers)


def _statistics(scalers: Mapping[Any, Any]) -> LegacyScaler:
    wrong = [
        f"{symbol!r} lacks {', '.join(name for name in SCALED if not _is_scaler(columns, name))}"
        for symbol, columns in scalers.items()
        if not isinstance(symbol, str) or not all(_is_scaler(columns, name) for name in SCALED)
    ]
    if wrong or not scalers:
        raise UnreadableScaler(f"the scaler file has no scaler for every column: {'; '.join(wrong) or 'it is empty'}")
    symbols = tuple(sorted(scalers))
    mean, scale = np.empty((len(symbols), len(SCALED))), np.empty((len(symbols), len(SCALED)))
    versions = set()
    for row, symbol in enumerate(symbols):
        for column, name in enumerate(SCALED):
            state = scalers[symbol][name].state
            mean[row, column] = _number(state, "mean_", symbol, name)
            scale[row, column] = _number(state, "scale_", symbol, name)
            versions.add(str(state.get("_sklearn_version", "unknown")))
    return LegacyScaler(SeriesStatistics(symbols, mean, scale, np.ones(len(symbols))), tuple(sorted(versions)))


def _is_scaler(columns: object, name: str) -> bool:
    found = columns.get(name) if isinstance(columns, dict) else None
    return isinstance(found, _Scaler) and isinstance(found.state, dict)


def _number(state: Mapping[str, Any], name: str, symbol: str, column: str) -> float:
    """The one float64 of an array of shape (1,), from its little-endian bytes."""
    try:
        _, shape, dtype, _, content = state[name].state
        kind, order = dtype.arguments[0], dtype.state[1]
        if shape == (1,) and kind == "f8" and order == "<" and len(content) == 8:
            (value,) = struct.unpack("<d", content)
            if math.isfinite(value):
                return float(value)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError):
        pass
    raise UnreadableScaler(f"the scaler of {symbol!r}, {column}, has no {name} that is one finite float64")
