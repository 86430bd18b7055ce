"""daily_forecast: the next open of every current symbol, at close, when the day's rows have come, or at will."""

from contextlib import suppress
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any, Final

import dagster as dg

from crypto_ml.defs.assets.models import champion_model
from crypto_ml.defs.assets.uploads import market_history
from crypto_ml.defs.failures import explained
from crypto_ml.defs.freshness import DAILY
from crypto_ml.defs.machine import taken
from crypto_ml.defs.presentation import check_result, column_schema, link, links, opens, table
from crypto_ml.defs.resources import Platform
from crypto_ml.digest import sha256_of
from crypto_ml.errors import CryptoMLError
from crypto_ml.ledger.code import code_version
from crypto_ml.ledger.layout import forecast_receipt_key

if TYPE_CHECKING:
    from crypto_ml.deployment import Deployment
    from crypto_ml.stages.daily_forecast import Forecasted
    from crypto_ml.storage.objects import ObjectStore

MOST_LISTED: Final = 20
MOST_PREVIEWED: Final = 10

DAILY_FORECAST: Final = dg.AssetSpec(
    "daily_forecast",
    deps=[dg.AssetDep(market_history, partition_mapping=dg.AllPartitionMapping()), champion_model],
    description="The next opening price of every current symbol, published to `forecasts/`, and the symbols left out.",
    kinds={"onnx", "csv", "s3"},
    group_name="forecasts",
    owners=["team:data"],
    code_version=code_version("crypto_ml.stages.daily_forecast"),
    freshness_policy=DAILY,
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
        said = "no symbol has a row for the newest day and enough rows before it"
        check = dg.AssetCheckResult(check_name=EVERY_CURRENT_SYMBOL.name, passed=True, description=said)
        context.log.warning("nothing to forecast: %s", said)
        nothing: dict[str, Any] = {
            "dagster/row_count": 0,
            "outcome": f"nothing to forecast: {said}",
        }
        return dg.MaterializeResult(
            data_version=dg.DataVersion(sha256_of(b"")), metadata=nothing, check_results=[check]
        )
    receipt = forecasted.receipt
    context.log.info(
        "forecast %s for %s of %s symbols: %s",
        receipt.forecast_id,
        receipt.inputs.target_date,
        f"{receipt.symbols.forecast:,}",
        _outcome(forecasted),
    )
    for key, newer in forecasted.published.stayed.items():
        context.log.warning("%s stays as it is: forecast %s is newer", key, newer)
    return dg.MaterializeResult(
        data_version=dg.DataVersion(receipt.published["forecast"].sha256),
        metadata={**_drawn(forecasted, deployment), **_shown(forecasted, deployment.store), **taken()},
        check_results=[_check(forecasted)],
    )


def _drawn(forecasted: "Forecasted", deployment: "Deployment") -> dict[str, Any]:
    """The forecast beside what was observed before. It is published by now: what cannot be drawn is not its failure."""
    from crypto_ml.stages.recent_opens import recent_opens

    receipt, store = forecasted.receipt, deployment.store
    version, newest = receipt.inputs.history_version, date.fromisoformat(receipt.newest_day)
    with suppress(CryptoMLError):
        return opens(recent_opens(store, deployment.history, version, newest))
    return {}


def _shown(forecasted: "Forecasted", store: "ObjectStore") -> dict[str, Any]:
    from crypto_ml.forecasting.answers import FORECAST, FORECAST_READ
    from crypto_ml.ledger.forecasts import document

    receipt, published = forecasted.receipt, forecasted.published
    inputs, symbols = receipt.inputs, receipt.symbols
    schema = FORECAST_READ if "pred_low" in forecasted.rows else FORECAST
    return {
        "dagster/row_count": symbols.forecast,
        "dagster/column_schema": column_schema(schema),
        "preview": table(forecasted.rows[["symbol", "as_of", "target_date", "pred_open"]].head(MOST_PREVIEWED)),
        "outcome": _outcome(forecasted),
        "forecast_symbols": symbols.forecast,
        "left_out": symbols.without_newest_day + symbols.too_few_rows,
        "without_newest_day": symbols.without_newest_day,
        "too_few_rows": symbols.too_few_rows,
        "left_out_symbols": table(_days(forecasted.left_out)),
        "newest_day": receipt.newest_day,
        "target_date": inputs.target_date,
        "model_version": inputs.model_version,
        "champion_pointer": inputs.champion_pointer,
        "history_version": inputs.history_version,
        "forecast_id": receipt.forecast_id,
        "published": links(published.keys, store),
        "receipt_object": link(forecast_receipt_key(receipt.forecast_id), store),
        "receipt": dg.MetadataValue.json(document(receipt)),
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
    from crypto_ml.stages.next_opens import every_current_symbol

    missed = {"missed_symbols": table(_days(forecasted.missed))} if len(forecasted.missed) else {}
    verdict = every_current_symbol(forecasted.receipt.symbols, forecasted.missed, forecasted.receipt.newest_day)
    return check_result(EVERY_CURRENT_SYMBOL.name, verdict, dg.AssetCheckSeverity.WARN, **missed)


def _days(left_out: Any) -> Any:
    """Symbols that were left out as they are shown: the first of them, with days that are no times."""
    shown = left_out.head(MOST_LISTED)
    return shown.assign(last_day=shown["last_day"].dt.strftime("%Y-%m-%d"))
