"""What happens by the clock: a retrain each week, a forecast at each close. Times are UTC."""

import dagster as dg

from crypto_ml.defs.jobs import daily_forecast, retrain
from crypto_ml.defs.partitions import last_week, week_end
from crypto_ml.defs.resources import Platform
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
    if why_not := why_not_yet(week, week_end(week), platform.deployment.history):
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
