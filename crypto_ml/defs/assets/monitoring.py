"""What is watched, as assets: daily, and at will. Each looks, shows what it saw, and lets its alarms be looked after.

An asset reads a bounded part of what is stored and writes nothing but the log of alarms (the report: its page). A check
that fails is a warning here: an alarm is somebody's affair, and no reason to stop a run.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import dagster as dg

from crypto_ml.defs.assets.models import champion_model
from crypto_ml.defs.assets.requests import served_predictions
from crypto_ml.defs.assets.uploads import market_history, predictions
from crypto_ml.defs.failures import explained
from crypto_ml.defs.freshness import DAILY
from crypto_ml.defs.presentation import check_result, drawn, link, records
from crypto_ml.defs.resources import Platform
from crypto_ml.ledger.code import code_version
from crypto_ml.visible import visible

if TYPE_CHECKING:
    from crypto_ml.forecasting.evaluation import Verdict
    from crypto_ml.ledger.alarms import Condition

GROUP: Final = "monitoring"
OWNERS: Final = ["team:data"]
WARN: Final = dg.AssetCheckSeverity.WARN
MOST_LISTED: Final = 20
MONITORED: Final = (
    "prediction_performance",
    "model_drift",
    "data_faults",
    "service_health",
    "machine_use",
)
"""What the daily look materialises; the report is weekly."""

HISTORY: Final = dg.AssetDep(market_history, partition_mapping=dg.AllPartitionMapping())
ANSWERS: Final = dg.AssetDep(predictions, partition_mapping=dg.AllPartitionMapping())


def _check(asset: str, name: str, description: str) -> dg.AssetCheckSpec:
    return dg.AssetCheckSpec(name, asset=asset, description=description)


@dg.asset(
    deps=[HISTORY, ANSWERS, "daily_forecast", served_predictions],
    kinds={"deltalake"},
    code_version=code_version("crypto_ml.stages.monitoring.prediction_performance"),
    check_specs=[
        _check(
            "prediction_performance", "not_worse_than_last_close", "Chance explains any loss beyond the last close's."
        ),
        _check(
            "prediction_performance", "intervals_hold", "Opens lie within their intervals about as often as promised."
        ),
    ],
    group_name=GROUP,
    owners=OWNERS,
    freshness_policy=DAILY,
)
def prediction_performance(context: dg.AssetExecutionContext, platform: Platform) -> dg.MaterializeResult:
    """How far predictions of the last 90 days were off, beside the last close and last open; and their intervals."""
    from crypto_ml.stages.monitoring import prediction_performance as stage

    with explained():
        found = stage.performance(platform.deployment)
    shown: dict[str, Any] = {"dagster/row_count": 0}
    if found is not None:
        shown = _shown_performance(found)
    checks = {
        "not_worse_than_last_close": stage.not_worse_than_last_close(found),
        "intervals_hold": stage.intervals_hold(found),
    }
    return looked_after(context, platform, shown, checks, stage.conditions(found))


def _shown_performance(found: Any) -> dict[str, Any]:
    from crypto_ml.forecasting.sketches import OBSERVED, PREDICTED, Line
    from crypto_ml.stages.monitoring.prediction_performance import daily_losses

    overall, losses = found.overall, daily_losses(found)
    ways = (("predictions", overall.network), ("last close", overall.last_close), ("last open", overall.last_open))
    numbers = {
        "mase": overall.network.mase,
        "mase_last_open": overall.last_open.mase,
        "mean_relative_error": overall.network.mre,
        "loss_against_last_close": found.judgement.mean,
        "coverage": found.coverage.share,
    }
    span = f"{found.loss.days[0]} to {found.loss.days[-1]}"
    days = len(losses)
    return {
        "losses": drawn(
            [Line.of([0.0] * days, OBSERVED, thick=True), Line(losses, PREDICTED)],
            f"loss of each day beyond the last close's, as a share of it, {span}; 0 is the last close",
        ),
        **_covered(found),
        "dagster/row_count": len(found.live),
        "verdict": found.judgement.word,
        "models": ", ".join(sorted(set(found.live.models.tolist()))),
        "errors": records(
            [{"of": name, "mae": one.mae, "mre": one.mre, "mase": _told(one.mase)} for name, one in ways]
        ),
        "by_coin": records(
            [
                {"coin": one.symbol, "rows": one.rows, "mase": _told(one.mase), "coverage": _told(one.coverage)}
                for one in found.by_coin[:MOST_LISTED]
            ]
        ),
        **{name: value for name, value in numbers.items() if value is not None},
    }


def _covered(found: Any) -> dict[str, Any]:
    import numpy as np

    from crypto_ml.forecasting.sketches import OBSERVED, PREDICTED, Line

    if found.level is None or not np.isfinite(found.covered_by_day).any():
        return {"coverage_by_day": "none: no prediction has an interval"}
    promised = [found.level] * len(found.covered_by_day)
    caption = f"share of opens within their interval, by day; {100 * found.level:g} % is promised (grey)"
    lines = [Line.of(promised, OBSERVED, thick=True), Line(found.covered_by_day, PREDICTED)]
    return {"coverage_by_day": drawn(lines, caption)}


def _told(value: float | None) -> float | str:
    return "none" if value is None else value


@dg.asset(
    deps=[HISTORY, champion_model, ANSWERS, "daily_forecast", served_predictions],
    kinds={"deltalake"},
    code_version=code_version("crypto_ml.stages.monitoring.model_drift"),
    check_specs=[
        _check("model_drift", "model_is_what_it_was", "The champion's losses have not risen above what they were.")
    ],
    group_name=GROUP,
    owners=OWNERS,
    freshness_policy=DAILY,
)
def model_drift(context: dg.AssetExecutionContext, platform: Platform) -> dg.MaterializeResult:
    """Whether the champion is still as good as it was: the sum of what its daily losses are above that (CUSUM)."""
    from crypto_ml.forecasting.drift import LIMIT
    from crypto_ml.forecasting.sketches import OTHER, PREDICTED, Line
    from crypto_ml.stages.monitoring import model_drift as stage

    with explained():
        found = stage.model_drift(platform.deployment, platform.champion.version)
    shown: dict[str, Any] = {"model_version": platform.champion.version}
    if found is not None:
        shown |= {"days": len(found.losses.days), "mean_daily_loss": float(found.losses.daily.mean())}
    if found is not None and found.sum is not None and len(found.sum.sums):
        sums = found.sum.sums
        shown |= {
            "sum": drawn(
                [Line.of([LIMIT] * len(sums), OTHER), Line(sums, PREDICTED)],
                f"sum of daily losses above what they were, since {found.sum.days[0]}; {LIMIT:g} (orange) is the limit",
            ),
            "cusum": found.sum.now,
            "reference": found.reference.source if found.reference else "none",
        }
    checks = {"model_is_what_it_was": stage.model_is_what_it_was(found)}
    return looked_after(context, platform, shown, checks, stage.conditions(found))


DATA_CHECKS: Final = {
    "gaps_changed": ("gaps_are_what_they_were", "Opens are as far from the closes before them as they were."),
    "days_missing": ("no_day_missing", "Series have a row for each of their days, as they had."),
    "units_changed": ("units_unchanged", "No row opens so far from the close before that it is in another unit."),
    "prices_rounded": ("prices_not_rounded", "Prices have about as many digits as they had."),
    "rows_late": ("rows_keep_coming", "Rows came within the last day and a half."),
}


@dg.asset(
    deps=[HISTORY],
    kinds={"deltalake"},
    code_version=code_version("crypto_ml.stages.monitoring.data_faults"),
    check_specs=[_check("data_faults", name, said) for name, said in DATA_CHECKS.values()],
    group_name=GROUP,
    owners=OWNERS,
    freshness_policy=DAILY,
)
def data_faults(context: dg.AssetExecutionContext, platform: Platform) -> dg.MaterializeResult:
    """Whether the rows of the last 28 days are what rows of the same series were in the 180 days before."""
    from crypto_ml.forecasting.drift import RECENT_DAYS
    from crypto_ml.forecasting.evaluation import Verdict
    from crypto_ml.forecasting.sketches import OTHER, PREDICTED, Line
    from crypto_ml.stages.monitoring import data_faults as stage

    now = datetime.now(UTC)
    with explained():
        one = stage.data_faults(platform.deployment, now)
    if one is None:
        nothing = Verdict(True, {}, 0.0, "the history has no rows yet")
        return looked_after(context, platform, {"dagster/row_count": 0}, dict.fromkeys(_names(), nothing), [])
    found = one.found
    numbers = {"large_gaps": found.large_gaps, "psi": found.psi}
    caption = f"share of opens far from the close before, by day; the limit of {RECENT_DAYS} days is orange"
    lines = [Line.of([found.most_large_gaps] * len(found.by_day), OTHER), Line.of(found.by_day, PREDICTED)]
    shown = {
        **({"gaps": drawn(lines, caption)} if found.by_day else {}),
        "dagster/row_count": found.rows,
        "first_day": str(found.first_day),
        "last_day": str(found.last_day),
        "series": found.series,
        "missing": found.missing,
        "rounded": found.rounded,
        "unit_changes": len(found.unit_changes),
        "changed_rows": records(
            [
                {"coin": symbol, "day": str(day), "times": times}
                for symbol, day, times in found.unit_changes[:MOST_LISTED]
            ]
        ),
        **{name: value for name, value in numbers.items() if value is not None},
        **({"series_of": one.series_of} if one.series_of else {}),
    }
    checks = {DATA_CHECKS[name][0]: verdict for name, verdict in stage.verdicts(one).items()}
    return looked_after(context, platform, shown, checks, stage.conditions(one, now))


def _names() -> list[str]:
    return [name for name, _ in DATA_CHECKS.values()]


@dg.asset(
    deps=[ANSWERS, served_predictions],
    kinds={"s3"},
    code_version=code_version("crypto_ml.stages.monitoring.service_health"),
    check_specs=[
        _check(
            "service_health", "answers_in_time", "Answers come soon after uploads, and none is waited for too long."
        ),
        _check("service_health", "nothing_given_up", "Every delivery came to an end that its files decided."),
    ],
    group_name=GROUP,
    owners=OWNERS,
    freshness_policy=DAILY,
)
def service_health(context: dg.AssetExecutionContext, platform: Platform) -> dg.MaterializeResult:
    """How long answers took in the last seven days, what became of uploads and requests, and what was tried again."""
    from crypto_ml.forecasting.sketches import PREDICTED, Line
    from crypto_ml.stages.monitoring import service_health as stage

    with explained():
        found = stage.service_health(platform.deployment.store, datetime.now(UTC))
    shown: dict[str, Any] = {
        "deliveries": found.deliveries,
        "unanswered_deliveries": len(found.waiting),
        "retries": found.retries,
        "requests": found.requests,
        "rejected_requests": found.rejected_requests,
        "outcomes": records([{"outcome": name, "uploads": count} for name, count in sorted(found.outcomes.items())]),
        **({"slow_seconds": found.slow} if found.slow is not None else {}),
    }
    if len(found.lags):
        shown = {"lags": drawn([Line(found.lags, PREDICTED)], "seconds from upload to answer, by delivery"), **shown}
    checks = {"answers_in_time": stage.answers_in_time(found), "nothing_given_up": stage.nothing_given_up(found)}
    return looked_after(context, platform, shown, checks, stage.conditions(found))


@dg.asset(
    deps=[ANSWERS],
    kinds={"dagster"},
    code_version=code_version("crypto_ml.stages.monitoring.machine_use"),
    check_specs=[
        _check("machine_use", "runs_fit_in_memory", "No run took so much memory that others have none."),
        _check("machine_use", "runs_succeed", "Few runs failed."),
    ],
    group_name=GROUP,
    owners=OWNERS,
    freshness_policy=DAILY,
)
def machine_use(context: dg.AssetExecutionContext, platform: Platform) -> dg.MaterializeResult:
    """What runs took of the machine in the last seven days, memory and processor time, and how they ended."""
    from crypto_ml.defs.machine import machine_use_of
    from crypto_ml.forecasting.sketches import PREDICTED, Line
    from crypto_ml.stages.monitoring import machine_use as stage

    found = machine_use_of(context.instance, datetime.now(UTC))
    used = sorted(found.used, key=lambda one: one.ended)
    pictures = {
        "memory": ("MB that each run took at most, in order of time", [one.peak_memory / 1e6 for one in used]),
        "processor": ("processor seconds of each run, in order of time", [one.processor_seconds for one in used]),
    }
    shown: dict[str, Any] = {
        **{name: drawn([Line.of(values, PREDICTED)], said) for name, (said, values) in pictures.items() if values},
        "peak_memory_bytes": int(found.peak_memory),
        "by_asset": records(stage.by_asset(found)),
        "runs": records(
            [
                {
                    "job": one.job,
                    "ended": one.ended,
                    "failed": one.failed,
                    "again": one.again,
                    "seconds": one.seconds,
                    "longest": one.longest,
                }
                for one in found.runs
            ]
        ),
    }
    checks = {"runs_fit_in_memory": stage.runs_fit_in_memory(found), "runs_succeed": stage.runs_succeed(found)}
    return looked_after(context, platform, shown, checks, stage.conditions(found))


@dg.asset(
    deps=[prediction_performance, model_drift, data_faults, service_health],
    kinds={"html", "s3"},
    code_version=code_version("crypto_ml.stages.monitoring.drift_report"),
    group_name=GROUP,
    owners=OWNERS,
)
def drift_report(context: dg.AssetExecutionContext, platform: Platform) -> dg.MaterializeResult:
    """What was watched in a week as one page that can be sent on, kept under `receipts/watched/`."""
    from crypto_ml.stages.monitoring.drift_report import write_report

    with explained():
        deployment = platform.deployment
        written = write_report(deployment, platform.champion.version, datetime.now(UTC))
    context.log.info("the report of %s is %s", written.week, deployment.store.uri(written.key))
    return dg.MaterializeResult(
        metadata={
            "report": link(written.key, deployment.store),
            "week": written.week,
            "alarms": written.standing,
            "bytes": written.size,
            "dagster/uri": deployment.store.uri(written.key),
        }
    )


def looked_after(
    context: dg.AssetExecutionContext,
    platform: Platform,
    shown: dict[str, Any],
    checks: "dict[str, Verdict]",
    conditions: "Sequence[Condition]",
    *,
    severity: dg.AssetCheckSeverity = WARN,
) -> dg.MaterializeResult:
    """What an asset shows, and what becomes of its alarms."""
    from crypto_ml.stages.monitoring.alarms import look_after

    with explained():
        after = look_after(conditions, platform.deployment.store, platform.settings, datetime.now(UTC))
    for name, verdict in checks.items():
        (context.log.info if verdict.passed else context.log.warning)("%s: %s", name, visible(verdict.explanation))
    if after.not_told:
        context.log.warning("could not tell %s; the next look tries again", ", ".join(after.not_told))
    own = {one.name for one in conditions}
    standing = [one for one in after.standing if one.name in own]
    alarms = [
        {"alarm": one.name, "since": one.since, "times the limit": one.how_bad, "to do": one.todo} for one in standing
    ]
    return dg.MaterializeResult(
        metadata={**shown, "alarms": len(standing), **({"standing_alarms": records(alarms)} if alarms else {})},
        check_results=[check_result(name, verdict, severity) for name, verdict in checks.items()],
    )
