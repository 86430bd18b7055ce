"""The bundle as a `pyfunc` model for MLflow's server; it runs in an environment of its own, which has MLflow.

SERVED_MODEL=model_out SERVED_HISTORY=earlier.csv python -m benchmarks.served.mlflow_model FOLDER
"""

import os
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd

from benchmarks.served.scoring import HISTORY, MODEL, with_onnx

CODE = Path(__file__).resolve().parents[1]


class Ordinary(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
    """Loaded once by each worker; asked with one frame for each request."""

    def load_context(self, context: Any) -> None:
        """Read network, scaler and earlier rows."""
        self.scorer = with_onnx(Path(context.artifacts["model"]), Path(context.artifacts["history"]))

    def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> Any:  # noqa: ARG002
        """The predicted open of each record."""
        return self.scorer.predict(model_input)


if __name__ == "__main__":
    made = import_module("benchmarks.served.mlflow_model")  # by this name the server finds the class, not as __main__
    mlflow.pyfunc.save_model(
        sys.argv[1],
        python_model=made.Ordinary(),
        artifacts={"model": os.environ[MODEL], "history": os.environ[HISTORY]},
        code_paths=[str(CODE)],
        pip_requirements=[],
    )
