"""What a training run leaves behind: a bundle, and the verdicts on it.

Belongs here: what every training run records alike, whatever its target and learner.
"""

import json
import platform
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

import pandas as pd

from crypto_ml.forecasting.bundle import ModelBundle
from crypto_ml.forecasting.evaluation import Evaluation, Verdict
from crypto_ml.forecasting.pictures import predicted_against_actual
from crypto_ml.forecasting.plan import Plan
from crypto_ml.forecasting.processor import processor
from crypto_ml.forecasting.sketches import Series
from crypto_ml.forecasting.verdicts import Judgement

METRICS: Final = "metrics.json"
LIBRARIES: Final = (
    *("tensorflow-cpu", "tensorflow"),  # the same library, under the name that its build has for this machine
    *("keras", "onnx", "onnxruntime", "scikit-learn", "numpy", "pandas"),
)


@dataclass(frozen=True)
class Trained:
    """A bundle, and the verdicts on it; `onnx` must pass before anything may serve it.

    loss: `loss` and `val_loss`, one number for each epoch (of trees: each tree). longest: the series with most rows
    in the holdout. judgement: the word on the shrunk predictions against the last close, of the target `relative_gap`.
    """

    bundle: ModelBundle
    evaluation: Evaluation
    onnx: Verdict
    baseline: Verdict
    loss: Mapping[str, Sequence[float]]
    longest: Series
    holdout_size: Verdict
    judgement: Judgement | None = None

    @property
    def learner(self) -> str:
        """Who learnt."""
        return str(self.bundle.manifest["about"]["plan"]["learner"])


def about(plan: Plan, created_at: str, image: str | None = None) -> dict[str, Any]:
    """What a bundle says of the run that made it: shown, and never hashed. image: None where that is not known."""
    return {
        "origin": "trained",
        "created_at": created_at,
        "plan": asdict(plan),
        "libraries": _libraries(),
        "python": platform.python_version(),
        "processor": processor(),
        "image": image,
    }


def as_document(content: Mapping[str, Any]) -> bytes:
    """A document of a bundle, as bytes. Numbers that JSON has no word for are refused: none may be in it."""
    return json.dumps(dict(content), indent=2, allow_nan=False).encode() + b"\n"


def _libraries() -> dict[str, str]:
    found = {}
    for name in LIBRARIES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def picture_of(series: Series) -> bytes:
    """A series' observed and predicted opens of the holdout, as PNG."""
    return predicted_against_actual(series.days, series.observed, series.predicted, f"{series.symbol}, holdout")


def slugs_of(rows: pd.DataFrame) -> dict[str, str]:
    """symbol → slug where the history knows it, so that a colliding symbol is noticed when the bundle serves."""
    given = rows.loc[rows["slug"].notna(), ["symbol", "slug"]].drop_duplicates("symbol")
    return dict(zip(given["symbol"], given["slug"], strict=True))
