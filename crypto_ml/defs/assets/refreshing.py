"""refreshed_rule: the champion's network with a serving rule of today, as a candidate; off until its schedule is on."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import dagster as dg

from crypto_ml.defs.assets.models import champion_model
from crypto_ml.defs.assets.uploads import market_history
from crypto_ml.defs.failures import explained
from crypto_ml.defs.machine import taken
from crypto_ml.defs.presentation import link, records
from crypto_ml.defs.resources import Platform
from crypto_ml.ledger.code import code_version
from crypto_ml.ledger.layout import bundle_prefix

if TYPE_CHECKING:
    from crypto_ml.forecasting.serving_rule import ServingRule


@dg.asset(
    deps=[dg.AssetDep(market_history, partition_mapping=dg.AllPartitionMapping()), champion_model],
    kinds={"onnx", "s3"},
    code_version=code_version("crypto_ml.stages.refreshed_rule"),
    group_name="models",
    owners=["team:ml"],
)
def refreshed_rule(context: dg.AssetExecutionContext, platform: Platform) -> dg.MaterializeResult:
    """The champion's network with λ, intervals and range of the days up to now, as a candidate like any other."""
    from crypto_ml.stages.refreshed_rule import refresh

    with explained():
        store = platform.deployment.store
        candidate = refresh(platform.deployment, platform.champion.version, datetime.now(UTC))
    bundle, found, before = candidate.bundle, candidate.found, candidate.parent.rule
    word = found.judgement.word if found.judgement else "none: λ stayed what it was"
    context.log.info(
        "candidate %s, of %s: λ %g; verdict %s", bundle.version, candidate.parent.version, found.rule.shrink, word
    )
    rules = {"before": before, "refreshed": found.rule}
    return dg.MaterializeResult(
        data_version=dg.DataVersion(bundle.sha256),
        metadata={
            "model_version": bundle.version,
            "of": candidate.parent.version,
            "last_day": str(found.last_day),
            "rules": records([_row(name, rule) for name, rule in rules.items() if rule is not None]),
            "lambda": found.rule.shrink,
            **{f"quantile_{100 * level:g}": one for level, one in found.rule.quantiles.items()},
            "verdict": word,
            "to_promote": f"crypto-ml promote {bundle.version} --by WHO --why TEXT",
            "bundle": link(bundle_prefix(bundle.version) + "serving.json", store),
            **taken(),
        },
    )


def _row(name: str, rule: "ServingRule") -> dict[str, Any]:
    return {
        "rule": name,
        "λ": rule.shrink,
        "κ": rule.cap,
        **{f"q {level:g}": one for level, one in sorted(rule.quantiles.items())},
        "range of the day before": rule.range.last,
        "of 5 days": rule.range.mean_5,
        "of 22 days": rule.range.mean_22,
    }
