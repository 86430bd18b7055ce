"""What was observed and forecast of some symbols lately, to be looked at beside a forecast."""

from collections.abc import Collection
from datetime import date, timedelta
from typing import Final

import numpy as np
import pandas as pd
import pyarrow as pa

from crypto_ml.forecasting.current import VALID
from crypto_ml.forecasting.sketches import Series
from crypto_ml.stages.logged_forecasts import ROAD
from crypto_ml.storage.history import SCHEMA, MarketHistory
from crypto_ml.storage.objects import ObjectStore
from crypto_ml.storage.outofcore import queried
from crypto_ml.storage.prediction_log import PredictionLog

DAYS: Final = 60
MOST_SYMBOLS: Final = 6
LARGEST: Final = pa.schema([SCHEMA.field("symbol")])


def recent_opens(store: ObjectStore, history: MarketHistory, version: int, newest: date) -> list[Series]:
    """The last DAYS days of the symbols with the greatest market on the newest day, and what was forecast for them.

    Reads those days only. A day to come has no observed open, one for which nothing was forecast no predicted one.
    """
    since = newest - timedelta(DAYS - 1)
    symbols = _largest(history, version, newest)
    observed = history.current_rows(["symbol", "date", "open"], symbols=symbols, since=since, version=version)
    forecast = PredictionLog(store).recent(ROAD, symbols, since)
    opens = observed.to_pandas().merge(forecast.to_pandas(), on=["symbol", "date"], how="outer")
    return [_series(symbol, opens[opens["symbol"] == symbol]) for symbol in symbols]


def _largest(history: MarketHistory, version: int, newest: date) -> Collection[str]:
    known = history.scan(["symbol", "date", "market", "upload_id", "void"], since=newest, version=version)
    query = f"""
        WITH {VALID} SELECT symbol FROM valid GROUP BY symbol
        ORDER BY max(market) DESC NULLS LAST, symbol LIMIT {MOST_SYMBOLS}
    """  # noqa: S608 - terms of ours
    found: list[str] = pa.Table.from_batches(queried(query, known, LARGEST), LARGEST)["symbol"].to_pylist()
    return found


def _series(symbol: str, opens: pd.DataFrame) -> Series:
    ordered = opens.sort_values("date")
    observed, predicted = (ordered[name].to_numpy(np.float64) for name in ("open", "pred_open"))
    return Series(symbol, ordered["date"].to_numpy("datetime64[D]"), observed, predicted)
