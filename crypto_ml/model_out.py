"""The model bundle a fresh clone serves with, and where it stands."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from crypto_ml.errors import Refused

if TYPE_CHECKING:
    from crypto_ml.forecasting.bundle import ModelBundle

SETTING: Final = "CRYPTO_ML_MODEL_OUT"


class NoFirstBundle(Refused):
    """There is no model to begin with."""


def model_out() -> Path:
    """The folder of the first bundle: CRYPTO_ML_MODEL_OUT, or `model_out/` beside the package's sources."""
    given = os.environ.get(SETTING)
    return Path(given) if given else Path(__file__).resolve().parents[1] / "model_out"


def first_bundle() -> "ModelBundle":
    """The bundle in `model_out()`. Raises NoFirstBundle where there is none, BundleDamaged where it is not whole."""
    from crypto_ml.forecasting.bundle import MANIFEST, ModelBundle

    directory = model_out()
    if not (directory / MANIFEST).is_file():
        raise NoFirstBundle(
            f"there is no model bundle in {directory}: set {SETTING} to the folder of one, or run `make model`"
        )
    return ModelBundle.load(directory)
