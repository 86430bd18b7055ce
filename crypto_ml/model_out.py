"""The model bundle a fresh clone serves with, and where it stands."""

from pathlib import Path
from typing import TYPE_CHECKING

from crypto_ml.errors import Blocked
from crypto_ml.packaged import MODEL_OUT

if TYPE_CHECKING:
    from crypto_ml.forecasting.bundle import ModelBundle


class NoFirstBundle(Blocked):
    """There is no model to begin with."""


def first_bundle(directory: Path = MODEL_OUT) -> "ModelBundle":
    """The bundle in `directory`. Raises NoFirstBundle where there is none, BundleDamaged where it is not whole."""
    from crypto_ml.forecasting.bundle import MANIFEST, ModelBundle

    if not (directory / MANIFEST).is_file():
        raise NoFirstBundle(
            f"there is no model bundle in {directory}: set CRYPTO_ML_MODEL_OUT to the folder of one or run `make model`"
        )
    return ModelBundle.load(directory)
