"""What a forecast predicted, into the log of every prediction ever made."""

from datetime import datetime
from typing import Final

import pandas as pd
import pyarrow as pa

from crypto_ml.ledger.formats.forecast_v1 import ForecastReceipt
from crypto_ml.storage.objects import ObjectStore
from crypto_ml.storage.prediction_log import SCHEMA, PredictionLog, with_all_columns

ROAD: Final = "forecast"


def log_forecast(receipt: ForecastReceipt, rows: pd.DataFrame, store: ObjectStore) -> None:
    """Append the rows of a forecast whose receipt was written, once, whatever run comes to this point and how often."""
    if rows.empty:
        return
    logged = rows.assign(
        answer_id=receipt.forecast_id,
        line=range(1, len(rows) + 1),
        road=ROAD,
        date=rows["target_date"],
        made_at=pd.Timestamp(datetime.fromisoformat(receipt.timings.made_at)),
    )
    names = [name for name in SCHEMA.names if name in logged]
    schema = pa.schema([SCHEMA.field(name) for name in names])
    table = with_all_columns(pa.Table.from_pandas(logged[names], schema=schema, preserve_index=False))
    PredictionLog(store).append(table, append_id=receipt.forecast_id)
