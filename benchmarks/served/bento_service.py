"""The bundle behind BentoML's server: `bentoml serve benchmarks.served.bento_service:Ordinary`.

It runs in an environment of its own, which has BentoML.
"""

import os
from pathlib import Path
from typing import Any

import bentoml  # type: ignore[import-not-found]
import pandas as pd

from benchmarks.served.scoring import HISTORY, MODEL, with_onnx


@bentoml.service(workers=2)
class Ordinary:
    """Made once by each worker."""

    def __init__(self) -> None:
        """Read network, scaler and earlier rows."""
        self.scorer = with_onnx(Path(os.environ[MODEL]), Path(os.environ[HISTORY]))

    @bentoml.api  # type: ignore[untyped-decorator]
    def predict(self, records: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The predicted open of each record."""
        return self.scorer.predict(pd.DataFrame(records))
