"""What happens by the clock: a retrain each week, a forecast at each close, a look at how all of it does each day,
upkeep when it is due. Times are UTC."""

import dagster as dg

from crypto_ml.defs.jobs import (
    chain_evidence,
    daily_forecast,
    monitor,
    refresh_rule,
    report_on_drift,
    retrain,
    upkeep,
    verify_evidence,
)
from crypto_ml.defs.partitions import last_week, week_end
from crypto_ml.defs.resources import Platform
from crypto_ml.errors import CryptoMLError
from crypto_ml.visible import visible


@dg.schedule(
    name="weekly_retraining",
    job=retrain,
    cron_schedule="0 1 * * 0",
    execution_timezone="UTC",
    description="Sundays at 01:00, when the week is complete, train a candidate on it, where rows of it have come.",
    default_status=dg.DefaultScheduleStatus.RUNNING,
)
def weekly_retraining(context: dg.ScheduleEvaluationContext, platform: Platform) -> dg.RunRequest | dg.SkipReason:
    """One tick, for the last week that is over."""
    from crypto_ml.stages.scaler import why_not_yet

    week = last_week(context.scheduled_execution_time.date())
    deployment = platform.deployment
    if why_not := why_not_yet(week, week_end(week), deployment.history, deployment.settings.target):
        return dg.SkipReason(visible(why_not))
    return dg.RunRequest(run_key=week, partition_key=week)


daily_forecast_at_close = dg.ScheduleDefinition(
    name="daily_forecast_at_close",
    job=daily_forecast,
    cron_schedule="0 0 * * *",
    execution_timezone="UTC",
    description="At the UTC day boundary, which is a crypto market's close.",
    default_status=dg.DefaultScheduleStatus.RUNNING,
)


daily_rule_refresh = dg.ScheduleDefinition(
    name="daily_rule_refresh",
    job=refresh_rule,
    cron_schedule="0 5 * * *",
    execution_timezone="UTC",
    description="Each morning, where it is switched on: λ, intervals and range of the champion from the days up to "
    "now, as a candidate.",
    default_status=dg.DefaultScheduleStatus.STOPPED,
)

daily_monitoring = dg.ScheduleDefinition(
    name="daily_monitoring",
    job=monitor,
    cron_schedule="30 5 * * *",
    execution_timezone="UTC",
    description="Each morning, when the rows of the day before have come as a rule.",
    default_status=dg.DefaultScheduleStatus.RUNNING,
)

weekly_drift_report = dg.ScheduleDefinition(
    name="weekly_drift_report",
    job=report_on_drift,
    cron_schedule="0 6 * * 1",
    execution_timezone="UTC",
    description="Mondays at 06:00, after the look of the day.",
    default_status=dg.DefaultScheduleStatus.RUNNING,
)


@dg.schedule(
    name="upkeep_when_due",
    job=upkeep,
    cron_schedule="7,22,37,52 * * * *",
    execution_timezone="UTC",
    description="Four times an hour, beside the hours at which other things begin, where small files are to be put "
    "together.",
    default_status=dg.DefaultScheduleStatus.RUNNING,
)
def upkeep_when_due(platform: Platform) -> dg.RunRequest | dg.SkipReason:
    """One tick: a look at how many files the tables have. What is asked for twice finds nothing left to do."""
    from crypto_ml.stages.upkeep import is_due

    try:
        due = is_due(platform.deployment)
    except CryptoMLError as error:
        return dg.SkipReason(visible(f"could not look at the tables: {error}"))
    return dg.RunRequest() if due else dg.SkipReason("nothing to put together")


@dg.schedule(
    name="evidence_when_new",
    job=chain_evidence,
    cron_schedule="4-59/10 * * * *",
    execution_timezone="UTC",
    description="Every ten minutes, where records came that no link of the chain of evidence names yet.",
    default_status=dg.DefaultScheduleStatus.RUNNING,
)
def evidence_when_new(context: dg.ScheduleEvaluationContext, platform: Platform) -> dg.RunRequest | dg.SkipReason:
    """One tick: a look whether there is anything. What is asked for twice finds nothing left to do."""
    from crypto_ml.stages.evidence_chain import is_due

    try:
        due = is_due(platform.deployment.store, context.scheduled_execution_time)
    except CryptoMLError as error:
        return dg.SkipReason(visible(f"could not look at the evidence: {error}"))
    return dg.RunRequest() if due else dg.SkipReason("nothing came")


daily_verification = dg.ScheduleDefinition(
    name="daily_verification",
    job=verify_evidence,
    cron_schedule="20 4 * * *",
    execution_timezone="UTC",
    description="Each morning: the whole record held against the chain of evidence.",
    default_status=dg.DefaultScheduleStatus.RUNNING,
)
