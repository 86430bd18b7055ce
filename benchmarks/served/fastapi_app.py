"""The bundle in FastAPI, as every tutorial has it: `uvicorn benchmarks.served.fastapi_app:app --workers 2`.

SERVED_BY says what runs the network: `keras`, by `model.predict`, or `onnxruntime`.
"""

import os
from pathlib import Path
from typing import Any

import pandas as pd
from fastapi import FastAPI
from pydantic import BaseModel

from benchmarks.served.scoring import HISTORY, MODEL, with_keras, with_onnx

app = FastAPI()
made = {"keras": with_keras, "onnxruntime": with_onnx}[os.environ["SERVED_BY"]]
scorer = made(Path(os.environ[MODEL]), Path(os.environ[HISTORY]))


class Record(BaseModel):
    """One day of one coin."""

    symbol: str
    date: str
    open: float
    high: float
    low: float
    close: float
    market: float


@app.post("/predict")
def predict(records: list[Record]) -> list[dict[str, Any]]:
    """The predicted open of each record."""
    return scorer.predict(pd.DataFrame([record.model_dump() for record in records]))
