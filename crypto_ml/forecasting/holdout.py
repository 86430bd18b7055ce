"""What a bundle predicts for rows that nothing was fitted on, and how far off it is there."""

import numpy as np
import pandas as pd

from crypto_ml.forecasting.bundle import ModelBundle
from crypto_ml.forecasting.evaluation import Evaluation, evaluate
from crypto_ml.forecasting.scoring import PREDICTED, score_rows
from crypto_ml.forecasting.sketches import Series
from crypto_ml.forecasting.training_set import Split, TooLittleHistory, days_before, groups_of_series


def holdout_predictions(rows: pd.DataFrame, split: Split, bundle: ModelBundle) -> pd.DataFrame:
    """What the bundle predicts for the holdout, on the road every upload takes.

    Columns of `scoring.score`, and the baselines `last_open` and `last_close` (currency).
    """
    found = []
    for group in groups_of_series(rows):
        asked = group.assign(file=0, line=0, context=days_before(group, split.holdout_from))
        before = group.groupby("symbol", sort=False)[["open", "close"]].shift(1)[~asked["context"]]
        scored = score_rows(asked, bundle, "one_step")
        scored = scored.assign(last_open=before["open"].to_numpy(), last_close=before["close"].to_numpy())
        found.append(scored[scored["status"] == PREDICTED])
    predicted = pd.concat(found, ignore_index=True) if found else rows
    if predicted.empty:
        raise TooLittleHistory(f"no row from {split.holdout_from} on can be predicted, so nothing can be evaluated")
    return predicted


def evaluated(holdout: pd.DataFrame) -> Evaluation:
    """The errors of what `holdout_predictions` gave."""
    columns = [holdout[name].to_numpy(np.float64) for name in ("val_open", "pred_open", "last_open", "last_close")]
    return evaluate(holdout["symbol"].to_numpy(), *columns)


def longest_series(holdout: pd.DataFrame) -> Series:
    """The series with most rows in what `holdout_predictions` gave."""
    symbol = holdout["symbol"].value_counts(sort=True).index[0]
    rows = holdout[holdout["symbol"] == symbol]
    observed, predicted = (rows[name].to_numpy(np.float64) for name in ("val_open", "pred_open"))
    return Series(str(symbol), rows["date"].to_numpy("datetime64[D]"), observed, predicted)
