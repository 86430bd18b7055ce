"""daily_forecast: the next opening price of every current symbol, at close, when the day's rows have come, or at will.

Belongs here: how a forecast is made, recorded, logged and published, in this order. `next_opens` says what it is.
"""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd

from crypto_ml.deployment import Deployment
from crypto_ml.ledger.formats.forecast_v1 import ForecastReceipt
from crypto_ml.ledger.registry import Champion
from crypto_ml.stages.forecast_publication import Published, as_it_stands, attempt_after, publish_files, record
from crypto_ml.stages.forecast_receipts import inputs_of, receipt_of
from crypto_ml.stages.logged_forecasts import log_forecast
from crypto_ml.stages.next_opens import ONE_DAY, ForecastSources, forecast, last_days_of, newest_of


@dataclass(frozen=True)
class Forecasted:
    """A forecast that was asked for: its receipt, where it stands, its rows and those it leaves out.

    unchanged: it was made before from the same inputs and stood as it was published, so nothing was published anew.
    """

    receipt: ForecastReceipt
    published: Published
    rows: pd.DataFrame
    left_out: pd.DataFrame
    unchanged: bool

    @property
    def missed(self) -> pd.DataFrame:
        """Those of `left_out` whose last day is the newest one or the day before it; the others are long gone."""
        day_before = pd.Timestamp(self.receipt.newest_day) - ONE_DAY
        return self.left_out[self.left_out["last_day"] >= day_before]


def forecast_now(deployment: Deployment, champion: Champion, *, run_id: str, began: datetime) -> Forecasted | None:
    """`publish_forecast` from the history as it is now."""
    history = deployment.history
    version = history.version()
    if version is None:
        return None
    bundle = deployment.bundle(champion.version)
    sources = ForecastSources(
        deployment.store,
        history,
        version,
        bundle,
        champion,
        deployment.settings,
        run_id,
        series=deployment.series,
    )
    return publish_forecast(sources, began)


def publish_forecast(sources: ForecastSources, began: datetime) -> Forecasted | None:
    """Forecast and publish, unless the same was forecast last; None where there is no symbol to forecast.

    Raises what the store and the history raise.
    """
    last_days = last_days_of(sources.history, sources.history_version)
    if last_days["retracted"].all():
        return None
    target = (newest_of(last_days) + ONE_DAY).date()
    attempt = attempt_after(sources, target)
    with TemporaryDirectory(prefix="crypto_ml-forecast-") as name:
        directory = Path(name)
        if found := as_it_stands(inputs_of(sources, target, attempt).forecast_id, sources.store):
            return Forecasted(found.receipt, Published(found.keys), found.rows, found.left_out, unchanged=True)
        made = forecast(sources, last_days, directory)
        if made.rows.empty:
            return None
        files = record(made, lambda number: receipt_of(sources, made, number, began), attempt, directory, sources.store)
        log_forecast(files.receipt, files.rows, sources.store)
        published = publish_files(files, sources.store)
    return Forecasted(files.receipt, published, files.rows, made.left_out, unchanged=False)
