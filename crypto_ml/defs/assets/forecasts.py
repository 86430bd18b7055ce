"""daily_forecast: the next open of every current symbol, at close, when the day's rows have come, or at will."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import dagster as dg

from crypto_ml.defs.assets.models import champion_model
from crypto_ml.defs.assets.uploads import market_history
from crypto_ml.defs.failures import explained
from crypto_ml.defs.presentation import column_schema, link, links, table
from crypto_ml.defs.resources import Platform
from crypto_ml.digest import sha256_of
from crypto_ml.ledger.code import code_version
from crypto_ml.ledger.layout import forecast_receipt_key

if TYPE_CHECKING:
    from crypto_ml.stages.daily_forecast import Forecasted
    from crypto_ml.storage.objects import ObjectStore

MOST_LISTED: Final = 20

DAILY_FORECAST: Final = dg.AssetSpec(
    "daily_forecast",
    deps=[dg.AssetDep(market_history, partition_mapping=dg.AllPartitionMapping()), champion_model],
    description="The next opening price of every current symbol, published to `forecasts/`, and the symbols left out.",
    kinds={"onnx", "csv", "s3"},
    group_name="forecasts",
    owners=["team:data"],
    code_version=code_version("crypto_ml.stages.daily_forecast"),
)

EVERY_CURRENT_SYMBOL: Final = dg.AssetCheckSpec(
    "every_current_symbol_forecast",
    asset="daily_forecast",
    description="No symbol that had a row on the newest day of the history, or on the day before it, was left out.",
)


# asset and job are both named daily_forecast, and Dagster wants another name for the op between them
@dg.multi_asset(name="publish_daily_forecast", specs=[DAILY_FORECAST], check_specs=[EVERY_CURRENT_SYMBOL])
def publish_daily_forecast(context: dg.AssetExecutionContext, platform: Platform) -> dg.MaterializeResult:
    """Forecast every current symbol from the history and the champion as they are now."""
    from crypto_ml.stages.daily_forecast import forecast_now

    began = datetime.now(UTC)
    with explained():
        deployment = platform.deployment
        forecasted = forecast_now(deployment, platform.champion, run_id=context.run.run_id, began=began)
    if forecasted is None:
        check = dg.AssetCheckResult(check_name=EVERY_CURRENT_SYMBOL.name, passed=True)
        nothing: dict[str, Any] = {
            "dagster/row_count": 0,
            "outcome": "nothing to forecast: no symbol has a row for the newest day and enough rows before it",
        }
        return dg.MaterializeResult(
            data_version=dg.DataVersion(sha256_of(b"")), metadata=nothing, check_results=[check]
        )
    for key, newer in forecasted.published.stayed.items():
        context.log.warning("%s stays as it is: forecast %s is newer", key, newer)
    return dg.MaterializeResult(
        data_version=dg.DataVersion(forecasted.receipt.published["forecast"].sha256),
        metadata=_shown(forecasted, deployment.store),
        check_results=[_check(forecasted)],
    )


def _shown(forecasted: "Forecasted", store: "ObjectStore") -> dict[str, Any]:
    from crypto_ml.forecasting.answers import FORECAST
    from crypto_ml.ledger.forecasts import document

    receipt, published = forecasted.receipt, forecasted.published
    inputs, symbols = receipt.inputs, receipt.symbols
    return {
        "dagster/row_count": symbols.forecast,
        "dagster/column_schema": column_schema(FORECAST),
        "outcome": _outcome(forecasted),
        "forecast_id": receipt.forecast_id,
        "newest_day": receipt.newest_day,
        "target_date": inputs.target_date,
        "left_out": symbols.without_newest_day + symbols.too_few_rows,
        "left_out_without_newest_day": symbols.without_newest_day,
        "left_out_too_few_rows": symbols.too_few_rows,
        "left_out_symbols": table(_days(forecasted.left_out)),
        "published": links(published.keys, store),
        "receipt_link": link(forecast_receipt_key(receipt.forecast_id), store),
        "receipt": dg.MetadataValue.json(document(receipt)),
        "model_version": inputs.model_version,
        "champion_pointer": inputs.champion_pointer,
        "history_version": str(inputs.history_version),
        "preview": table(forecasted.rows[FORECAST.names].head(10)),
    }


def _outcome(forecasted: "Forecasted") -> str:
    """What became of the forecast, in a sentence."""
    if forecasted.unchanged:
        return "nothing was published anew: the same inputs were forecast before, and that forecast stands unchanged"
    stayed = forecasted.published.stayed
    if not stayed:
        return "published"
    newer = ", ".join(sorted(set(stayed.values())))
    if forecasted.published.keys:
        return f"published for its day; the latest is the newer forecast {newer}, which stays"
    return f"not published: the newer forecast {newer} stays"


def _check(forecasted: "Forecasted") -> dg.AssetCheckResult:
    missed = forecasted.missed
    return dg.AssetCheckResult(
        check_name=EVERY_CURRENT_SYMBOL.name,
        passed=missed.empty,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={
            "missed": len(missed),
            "missed_symbols": table(_days(missed)),
            "left_out": len(forecasted.left_out),
            "newest_day": forecasted.receipt.newest_day,
        },
    )


def _days(left_out: Any) -> Any:
    """Symbols that were left out as they are shown: the first of them, with days that are no times."""
    shown = left_out.head(MOST_LISTED)
    return shown.assign(last_day=shown["last_day"].dt.strftime("%Y-%m-%d"))
