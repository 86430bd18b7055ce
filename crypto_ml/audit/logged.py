"""Whether the log of predictions holds what an answer or a forecast predicted: each row once, as it comes out again."""

import math
from datetime import datetime
from itertools import pairwise
from typing import Final

import pandas as pd

from crypto_ml.audit.differences import Differs, at_stage
from crypto_ml.audit.distance import MOST_ULP, float32_ulps
from crypto_ml.storage.objects import ObjectStore
from crypto_ml.storage.prediction_log import LOGGED_BESIDE, PredictionLog

STAGE: Final = "prediction_log"
AS_LOGGED: Final = ("symbol", "date", "road", "model_version", "made_at")
MOST_NAMED: Final = 3


def logged_as_made(answer_id: str, made: pd.DataFrame, store: ObjectStore, *, exactly: bool) -> bool:
    """Return whether the answer stands in the log, where what is there is what was made. Raises Differs.

    made: `line`, `pred_open`, the columns of AS_LOGGED and those of LOGGED_BESIDE that it has, of each prediction.
    exactly: whether the numbers are to be the same to the last bit, or within MOST_ULP, where another processor made
    them.
    """
    rows: pd.DataFrame = at_stage(STAGE, lambda: PredictionLog(store).rows(answer_id).to_pandas())
    if rows.empty:
        return made.empty
    logged = rows.sort_values("line")["line"].tolist()
    if doubled := sorted({one for one, other in pairwise(logged) if one == other}):
        raise Differs(STAGE, f"{_named(answer_id, doubled)} stands there more than once")
    lines = set(made["line"])
    if missing := sorted(lines - set(logged)):
        raise Differs(STAGE, f"{_named(answer_id, missing)} is not there")
    if unknown := sorted(set(logged) - lines):
        raise Differs(STAGE, f"{_named(answer_id, unknown)} is there, and was never predicted")
    for now, then in zip(
        made.sort_values("line").to_dict("records"), rows.sort_values("line").to_dict("records"), strict=True
    ):
        close = _alike(now["pred_open"], then["pred_open"], exactly=exactly)
        beside = all(_alike(now[name], then[name], exactly=exactly) for name in LOGGED_BESIDE.names if name in now)
        if not (close and beside) or any(now[name] != then[name] for name in AS_LOGGED):
            raise Differs(STAGE, f"{_named(answer_id, [then['line']])} is not what was predicted")
    return True


def _alike(now: float, then: float, *, exactly: bool) -> bool:
    if math.isnan(now) or math.isnan(then):
        return math.isnan(now) == math.isnan(then)
    return bool(now == then) or (not exactly and float32_ulps(now, then) <= MOST_ULP)


def as_logged(made: pd.DataFrame, *, road: str, model_version: str, made_at: str) -> pd.DataFrame:
    """Predictions (`line`, `symbol`, `date`, `pred_open`) with what the log says of each."""
    time = pd.Timestamp(datetime.fromisoformat(made_at))
    return made.assign(road=road, model_version=model_version, made_at=time, date=pd.to_datetime(made["date"]).dt.date)


def _named(answer_id: str, lines: list[int]) -> str:
    more = f" and {len(lines) - MOST_NAMED} more" if len(lines) > MOST_NAMED else ""
    return ", ".join(f"{answer_id}-{line}" for line in lines[:MOST_NAMED]) + more
