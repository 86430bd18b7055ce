"""One mean and deviation for each feature, fitted over the training rows of all series together, applied with numpy.

What is standardised has no unit and means the same for every coin (see `stationary`), so that a series nobody trained
on is treated as every other. The numbers are fitted by `learners`' training and travel with the model.
"""

import json
from dataclasses import dataclass

import numpy as np

from crypto_ml.errors import Refused
from crypto_ml.forecasting.features import FloatArray


class BadScaler(Refused):
    """Scaler numbers that do not fit together."""


@dataclass(frozen=True, eq=False)
class PooledScaler:
    """columns: the k features, in the network's order. mean, scale: (k,) float64, dimensionless; a scale is never 0.
    symbols: the series that were trained on, sorted; nothing is kept of each but its name. rows: how many were fitted.

    Raises BadScaler where shapes or values are wrong.
    """

    columns: tuple[str, ...]
    mean: FloatArray
    scale: FloatArray
    symbols: tuple[str, ...] = ()
    rows: int = 0

    def __post_init__(self) -> None:
        k = len(self.columns)
        fits = self.mean.shape == self.scale.shape == (k,) and list(self.symbols) == sorted(set(self.symbols))
        if not fits or not (np.isfinite(self.mean) & np.isfinite(self.scale) & (self.scale > 0)).all():
            raise BadScaler(
                f"these scaler numbers cannot be used: {k} features need as many finite means and positive deviations, "
                "and symbols that are sorted and unique"
            )


def write_scaler(scaler: PooledScaler) -> bytes:
    """A scaler as JSON; Python writes the shortest decimal that reads back as the same float64."""
    said = {
        "pooled": 1,
        "columns": list(scaler.columns),
        "mean": scaler.mean.tolist(),
        "scale": scaler.scale.tolist(),
        "rows": scaler.rows,
        "symbols": list(scaler.symbols),
    }
    return json.dumps(said, allow_nan=False).encode()


def read_scaler(content: bytes) -> PooledScaler:
    """The inverse of `write_scaler`. Raises BadScaler."""
    try:
        said = json.loads(content)
        mean, scale = (np.asarray(said[name], np.float64) for name in ("mean", "scale"))
        return PooledScaler(tuple(said["columns"]), mean, scale, tuple(said["symbols"]), int(said["rows"]))
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise BadScaler(f"a scaler that is not as this program writes one ({error!r})") from error
