"""What happens by the clock: a retrain each week, a forecast at each close. Times are UTC."""

import dagster as dg

from crypto_ml.defs.jobs import daily_forecast, retrain

weekly_retraining = dg.build_schedule_from_partitioned_job(
    retrain,
    name="weekly_retraining",
    description="Sundays at 01:00, when the week is complete, train a candidate on it.",
    hour_of_day=1,
    default_status=dg.DefaultScheduleStatus.RUNNING,
)

daily_forecast_at_close = dg.ScheduleDefinition(
    name="daily_forecast_at_close",
    job=daily_forecast,
    cron_schedule="0 0 * * *",
    execution_timezone="UTC",
    description="At the UTC day boundary, which is a crypto market's close.",
    default_status=dg.DefaultScheduleStatus.RUNNING,
)
