"""Forecasts without Dagster: made on a road's store as the asset makes them, and read back as other programs do."""

import io
from datetime import UTC, datetime

import pandas as pd

from crypto_ml.ledger.forecasts import standing
from crypto_ml.stages.daily_forecast import Forecasted, publish_forecast
from crypto_ml.stages.next_opens import ForecastSources
from crypto_ml.storage.objects import ObjectStore
from crypto_ml_tests.stages.road import Road


def forecast_sources(road: Road, run_id: str = "run") -> ForecastSources:
    """What a forecast made now is made from."""
    champion, version = road.serving(), road.history.version()
    assert version is not None
    bundle = road.registry.load(champion.version)
    return ForecastSources(road.store, road.history, version, bundle, champion, road.settings, run_id)


def forecast_now(road: Road) -> Forecasted:
    """Forecast and publish."""
    made = publish_forecast(forecast_sources(road), datetime.now(UTC))
    assert made is not None
    return made


def read(store: ObjectStore, name: str = "latest") -> pd.DataFrame:
    """`forecasts/<name>.csv`; numbers to the last bit."""
    return pd.read_csv(io.BytesIO(store.read(f"forecasts/{name}.csv")), keep_default_na=False)


def stands(store: ObjectStore, name: str = "latest") -> str | None:
    """The id of the forecast at `forecasts/<name>.csv`."""
    found = standing(f"forecasts/{name}.csv", store)
    return found.forecast_id if found else None
