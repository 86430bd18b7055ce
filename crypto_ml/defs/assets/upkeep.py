"""table_upkeep: the tables kept in good order, so that reading them does not grow with the number of deliveries."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

import dagster as dg

from crypto_ml.defs.assets.uploads import market_history
from crypto_ml.defs.failures import explained
from crypto_ml.defs.machine import taken
from crypto_ml.defs.presentation import links, records
from crypto_ml.defs.resources import Platform
from crypto_ml.ledger.code import code_version
from crypto_ml.ledger.layout import compaction_key

if TYPE_CHECKING:
    from crypto_ml.stages.upkeep import Kept

MOST_LISTED: Final = 20


@dg.asset(
    deps=[dg.AssetDep(market_history, partition_mapping=dg.AllPartitionMapping())],
    kinds={"deltalake", "s3"},
    code_version=code_version("crypto_ml.stages.upkeep"),
    group_name="upkeep",
    owners=["team:data"],
)
def table_upkeep(context: dg.AssetExecutionContext, platform: Platform) -> dg.MaterializeResult:
    """Small files of the market history and of the log of predictions put together, with proof that no row changed;
    and the cache of series brought forward."""
    from crypto_ml.stages.upkeep import keep_series, keep_tables

    with explained():
        store = platform.deployment.store
        kept = keep_tables(store)
        refreshed = keep_series(platform.deployment)
    records_of = [compaction_key(one.table, found.version) for one in kept for found in one.compactions]
    for one in kept:
        context.log.info(
            "%s: %d files became %d in %d versions", one.table, one.before.files, one.after.files, len(one.compactions)
        )
    return dg.MaterializeResult(
        metadata={
            **({f"series_{name}": value for name, value in asdict(refreshed).items()} if refreshed else {}),
            "tables": records([_row(one) for one in kept]),
            "compactions": links(records_of[-MOST_LISTED:], store),
            **{name: value for one in kept for name, value in _numbers(one).items()},
            **taken(),
        }
    )


def _row(one: "Kept") -> dict[str, Any]:
    return {
        "table": one.table,
        "version_before": one.before.version if one.before.version is not None else "none",
        "version_after": one.after.version if one.after.version is not None else "none",
        "files_before": one.before.files,
        "files_after": one.after.files,
        "bytes_before": one.before.bytes,
        "bytes_after": one.after.bytes,
        "files_put_together": sum(len(found.removed) for found in one.compactions),
        "rows_rewritten": sum(found.rows for found in one.compactions),
        "recorded_late": one.healed,
        "seconds": one.seconds,
    }


def _numbers(one: "Kept") -> dict[str, Any]:
    """What plots over time."""
    return {
        f"{one.table}_files": one.after.files,
        f"{one.table}_small_files": one.after.small,
        f"{one.table}_bytes": one.after.bytes,
        f"{one.table}_seconds": one.seconds,
    }
