"""daily_forecast: the next opening price of every symbol in the history, at close or at will."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import numpy as np
import pandas as pd
import pyarrow as pa

from crypto_ml.digest import sha256_of_file
from crypto_ml.forecasting.answers import FORECAST, append_csv
from crypto_ml.forecasting.bundle import ModelBundle
from crypto_ml.forecasting.schema import PRICES
from crypto_ml.forecasting.scoring import PREDICTED, score
from crypto_ml.forecasting.sorting import RowSorter, as_rows
from crypto_ml.ledger.layout import CSV, FORECASTS
from crypto_ml.stages.earlier_rows import earlier_rows
from crypto_ml.storage.history import SCHEMA, MarketHistory
from crypto_ml.storage.objects import ObjectStore
from crypto_ml.storage.outofcore import queried

LAST_DAYS_SQL: Final = "SELECT symbol, max(date) AS date FROM known GROUP BY symbol ORDER BY symbol"
ONE_DAY: Final = pd.Timedelta(days=1)


@dataclass(frozen=True)
class Forecast:
    """A published forecast: rows in the columns of `answers.FORECAST`; `left_out` symbols have too few rows."""

    rows: pd.DataFrame
    left_out: int
    target_date: date | None
    published: Mapping[str, str]


def forecast(
    history: MarketHistory, history_version: int | None, bundle: ModelBundle, directory: Path | None = None
) -> tuple[pd.DataFrame, int]:
    """The next open of every symbol, and how many symbols have too few rows for one.

    The rows have the columns of `answers.FORECAST`: `target_date` is the day after `as_of`, the symbol's last day.
    """
    last_days = _last_days(history, history_version)
    if last_days.empty:
        return pd.DataFrame(columns=FORECAST.names), 0
    to_come = last_days.assign(date=last_days["date"] + ONE_DAY, slug=None, line=0, market=0.0, volume=np.nan)
    to_come = to_come.assign(**dict.fromkeys(PRICES, np.nan))
    with TemporaryDirectory(prefix="crypto_ml-forecast-", dir=directory) as name, RowSorter(Path(name)) as sorter:
        sorter.add(as_rows(to_come, file=0))
        for earlier in earlier_rows(history, sorter.spans(), bundle.coins, history_version):
            sorter.add(earlier)
        scored = pd.concat(score(sorter.chunks(), bundle, "one_step"))
    made = scored[scored["status"] == PREDICTED]
    rows = pd.DataFrame(
        {
            "symbol": made["symbol"],
            "as_of": made["date"] - ONE_DAY,
            "target_date": made["date"],
            "pred_open": made["pred_open"],
            "model_version": bundle.version,
        }
    )
    return rows.reset_index(drop=True), len(scored) - len(made)


def publish_forecast(
    history: MarketHistory, history_version: int | None, bundle: ModelBundle, store: ObjectStore
) -> Forecast:
    """Forecast and publish `forecasts/<date>.csv` and `forecasts/latest.csv`; the date is the newest target date."""
    rows, left_out = forecast(history, history_version, bundle)
    if rows.empty:
        return Forecast(rows, left_out, None, {})
    target = pd.Timestamp(rows["target_date"].max()).date()
    published = {}
    with TemporaryDirectory(prefix="crypto_ml-forecast-") as name:
        path = Path(name) / "forecast.csv"
        append_csv(path, FORECAST, rows)
        for key in (f"{FORECASTS}{target.isoformat()}.csv", f"{FORECASTS}latest.csv"):
            store.upload_file(path, key, create_only=False, content_type=CSV)
            published[key] = sha256_of_file(path)
    return Forecast(rows, left_out, target, published)


def _last_days(history: MarketHistory, version: int | None) -> pd.DataFrame:
    known = history.scan(["symbol", "date"], version=version)
    schema = pa.schema([SCHEMA.field("symbol"), SCHEMA.field("date")])
    table = pa.Table.from_batches(queried(LAST_DAYS_SQL, known, schema), schema)
    days: pd.DataFrame = table.to_pandas(date_as_object=False)
    return days.astype({"date": "datetime64[s]"})
