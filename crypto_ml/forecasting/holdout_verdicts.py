"""The word on what models predict of the same rows: against the last close, and against each other.

Belongs here: from predicted rows to a judgement. Does not belong here: which rows those are, and what follows.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd

from crypto_ml.forecasting.verdicts import LEVEL, DailyLoss, Judgement, daily_loss, judge

KEYS: Final = ["symbol", "date"]


@dataclass(frozen=True)
class Judged:
    """A judgement, and the days that it was made from."""

    judgement: Judgement
    loss: DailyLoss


def against_last_close(rows: pd.DataFrame, *, level: float = LEVEL) -> Judged:
    """rows: `symbol`, `date`, and in currency `val_open`, `pred_open`, `last_close`. Raises Refused as `judge` does."""
    return _judged(rows, rows["last_close"], level=level, against="the last close")


def against_model(rows: pd.DataFrame, others: pd.DataFrame, who: str, *, level: float = LEVEL) -> Judged | None:
    """What is predicted in `rows` against what `who` predicts in `others`, on the rows of both; columns as above.

    None where they have no row in common.
    """
    both = rows.merge(others[[*KEYS, "pred_open"]].rename(columns={"pred_open": "other"}), on=KEYS)
    return _judged(both, both["other"], level=level, against=who) if len(both) else None


def _judged(rows: pd.DataFrame, reference: pd.Series, *, level: float, against: str) -> Judged:
    observed, predicted, close = (rows[name].to_numpy(np.float64) for name in ("val_open", "pred_open", "last_close"))
    columns = (rows["date"].to_numpy(), rows["symbol"].to_numpy(str), observed, predicted)
    other = reference.to_numpy(np.float64)
    return Judged(judge(*columns, other, close, level=level, against=against), daily_loss(*columns, other, close))
