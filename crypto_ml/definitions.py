"""The composition root: everything Dagster is told, put together in one place."""

import dagster as dg

from crypto_ml.defs.alarm_sensor import alarm_sensor
from crypto_ml.defs.assets import (
    backtest,
    evidence,
    forecasts,
    models,
    monitoring,
    refreshing,
    rescoring,
    upkeep,
    uploads,
)
from crypto_ml.defs.assets.requests import served_predictions
from crypto_ml.defs.forecast_sensor import forecast_sensor
from crypto_ml.defs.jobs import (
    chain_evidence,
    daily_forecast,
    monitor,
    promote_model,
    refresh_rule,
    report_on_drift,
    rescore,
    retrain,
    score_uploads,
    verify_evidence,
)
from crypto_ml.defs.jobs import upkeep as upkeep_job
from crypto_ml.defs.requests_sensor import requests_sensor
from crypto_ml.defs.resources import Platform
from crypto_ml.defs.retraction import retract_upload
from crypto_ml.defs.schedules import (
    daily_forecast_at_close,
    daily_monitoring,
    daily_rule_refresh,
    daily_verification,
    evidence_when_new,
    upkeep_when_due,
    weekly_drift_report,
    weekly_retraining,
)
from crypto_ml.defs.sensors import uploads_sensor
from crypto_ml.settings import Settings


def build_defs(settings: Settings) -> dg.Definitions:
    """The whole graph with these settings; tests build the real one with theirs."""
    return dg.Definitions(
        assets=[
            *dg.load_assets_from_modules(
                [uploads, models, backtest, forecasts, upkeep, monitoring, refreshing, rescoring, evidence]
            ),
            served_predictions,
        ],
        jobs=[
            score_uploads(settings.max_run_seconds),
            retrain,
            promote_model,
            daily_forecast,
            retract_upload,
            upkeep_job,
            monitor,
            report_on_drift,
            refresh_rule,
            rescore,
            chain_evidence,
            verify_evidence,
        ],
        schedules=[
            weekly_retraining,
            daily_forecast_at_close,
            daily_monitoring,
            daily_rule_refresh,
            weekly_drift_report,
            upkeep_when_due,
            evidence_when_new,
            daily_verification,
        ],
        sensors=[uploads_sensor, forecast_sensor, requests_sensor, alarm_sensor],
        resources={"platform": Platform.of(settings)},
        # one process for a run: a second interpreter for each step would cost more than the step
        executor=dg.in_process_executor,
    )


@dg.definitions
def defs() -> dg.Definitions:
    """What `dagster` loads; the environment is read now, not at import."""
    return build_defs(Settings.from_environment())
