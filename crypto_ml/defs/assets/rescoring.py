"""rescored_month: what a model says of a month that is over, when somebody launches it, or backfills a year of them."""

import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import dagster as dg
from pydantic import Field

from crypto_ml.defs.assets.models import champion_model
from crypto_ml.defs.assets.uploads import market_history
from crypto_ml.defs.failures import explained
from crypto_ml.defs.partitions import MONTHS, month_of
from crypto_ml.defs.presentation import link, records
from crypto_ml.defs.resources import Platform
from crypto_ml.ledger.code import code_version
from crypto_ml.visible import visible

if TYPE_CHECKING:
    from crypto_ml.engine.mapping import Ran

log: Final = logging.getLogger("crypto_ml.stages.rescoring")


class Rescoring(dg.Config):
    """By which model a month is scored again."""

    model: str = Field(default="", description="A version in the registry; empty: the champion.")


@dg.asset(
    deps=[dg.AssetDep(market_history, partition_mapping=dg.AllPartitionMapping()), champion_model],
    partitions_def=MONTHS,
    kinds={"onnx", "csv", "s3"},
    code_version=code_version("crypto_ml.stages.rescoring"),
    group_name="models",
    owners=["team:ml"],
)
def rescored_month(context: dg.AssetExecutionContext, platform: Platform, config: Rescoring) -> dg.MaterializeResult:
    """All rows that the history has of a month, scored by one model: the champion, or any other. Launch it at will.

    It answers no upload: what was published stays.
    """
    from crypto_ml.engine.mapping import Engine
    from crypto_ml.stages.progress import logged
    from crypto_ml.stages.rescoring import Asked, rescore
    from crypto_ml.stages.rescoring import month_of as days_of_month

    with explained():
        deployment = platform.deployment
        first, last = days_of_month(month_of(context))
        asked = Asked(first, last, config.model or platform.champion.version)
        tell = logged(log, f"month {first:%Y-%m}")
        done = rescore(asked, deployment, Engine.of(deployment), datetime.now(UTC), tell=tell)
    document, store = done.document, deployment.store
    if done.ran is not None:
        context.log.info(visible(str(done.ran)))
    return dg.MaterializeResult(
        data_version=dg.DataVersion(document["predictions"]["sha256"]),
        metadata={
            "dagster/uri": store.uri(done.predictions),
            "dagster/row_count": document["rows"],
            "model_version": document["model"],
            "history_version": document["history_version"],
            **{name: document[name] for name in ("predicted", "seed", "series")},
            **_error(document),
            "predictions": link(done.predictions, store),
            "record": link(done.key, store),
            **_shards(done.ran),
        },
    )


def _error(document: dict[str, Any]) -> dict[str, Any]:
    error = document["mean_relative_error"]
    return {} if error is None else {"mean_relative_error": error}


def _shards(ran: "Ran | None") -> dict[str, Any]:
    """Where it was computed, and how much of it stood."""
    if ran is None:
        return {"computed": "before: the same model, days and history; it stands"}
    workers = [
        {"worker": visible(worker), "shards": count, "seconds": ran.seconds[worker]}
        for worker, count in sorted(ran.computed.items())
    ]
    return {
        "shards": ran.shards,
        "shards_that_stood": ran.stood,
        **({"workers": records(workers)} if workers else {}),
        **({"dask_dashboard": dg.MetadataValue.url(ran.dashboard)} if ran.dashboard else {}),
    }
