"""daily_forecast: the next opening price of every symbol, at close or at will."""

from typing import Final

import dagster as dg

from crypto_ml.defs.assets.models import champion_model
from crypto_ml.defs.assets.uploads import market_history
from crypto_ml.defs.failures import explained
from crypto_ml.defs.presentation import column_schema, links, table
from crypto_ml.defs.resources import Platform
from crypto_ml.digest import sha256_of
from crypto_ml.ledger.code import code_version

DAILY_FORECAST: Final = dg.AssetSpec(
    "daily_forecast",
    deps=[dg.AssetDep(market_history, partition_mapping=dg.AllPartitionMapping()), champion_model],
    description="The next opening price of every symbol in the history, published to `forecasts/`.",
    kinds={"onnx", "csv", "s3"},
    group_name="forecasts",
    owners=["team:data"],
    code_version=code_version("crypto_ml.stages.daily_forecast"),
)


# asset and job are both named daily_forecast, and Dagster wants another name for the op between them
@dg.multi_asset(name="publish_daily_forecast", specs=[DAILY_FORECAST])
def publish_daily_forecast(platform: Platform) -> dg.MaterializeResult:
    """Forecast every symbol from the history and the champion as they are now."""
    from crypto_ml.forecasting.answers import FORECAST
    from crypto_ml.stages.daily_forecast import publish_forecast

    with explained():
        deployment, champion = platform.deployment, platform.champion
        store, history = deployment.store, deployment.history
        version = history.version()
        forecast = publish_forecast(history, version, deployment.bundle(champion.version), store)
    return dg.MaterializeResult(
        data_version=dg.DataVersion(next(iter(forecast.published.values()), sha256_of(b""))),
        metadata={
            "dagster/row_count": len(forecast.rows),
            "dagster/column_schema": column_schema(FORECAST),
            "target_date": str(forecast.target_date),
            "left_out": forecast.left_out,
            "published": links(list(forecast.published), store),
            "model_version": champion.version,
            "champion_pointer": champion.pointer,
            "history_version": str(version),
            "preview": table(forecast.rows.head(10)),
        },
    )
