"""The jobs, and how many of each may run at once (`dagster.yaml` limits each queue by its tag).

Processes that died are run again; a step that failed is not, whatever the instance's own `run_retries` say: what was
refused once would be refused again, or be done twice. The steps themselves try again what was unavailable.
"""

from typing import Any, Final

import dagster as dg

from crypto_ml.defs.dagster_internals import RETRY_ON_ASSET_OR_OP_FAILURE_TAG

QUEUE: Final = "crypto_ml/queue"
ONLY_DEAD_PROCESSES: Final = {RETRY_ON_ASSET_OR_OP_FAILURE_TAG: "false"}
SCORE_UPLOADS: Final = "score_uploads"


def score_uploads(max_run_seconds: int) -> Any:
    """The job that answers a delivery; run monitoring ends a run after so many seconds."""
    return dg.define_asset_job(
        SCORE_UPLOADS,
        selection=["raw_uploads", "cleaned_features", "market_history", "predictions"],
        description="Answer a delivery of uploads. The sensor launches it; launch a past one again to answer it anew.",
        tags={QUEUE: "scoring", dg.MAX_RUNTIME_SECONDS_TAG: str(max_run_seconds), **ONLY_DEAD_PROCESSES},
    )


retrain = dg.define_asset_job(
    "retrain",
    selection=["scaler", "trained_model"],
    description="Train a candidate on what the history held at the end of a week. It serves only once promoted.",
    tags={QUEUE: "training", **ONLY_DEAD_PROCESSES},
)

promote_model = dg.define_asset_job(
    "promote_model",
    selection=["champion_model"],
    description="Make a model the champion, or roll back to one: version, by and why in the run's config.",
    tags={QUEUE: "promotion", **ONLY_DEAD_PROCESSES},
)

daily_forecast = dg.define_asset_job(
    "daily_forecast",
    selection=["daily_forecast"],
    description="Forecast the next open of every symbol and publish it under forecasts/.",
    tags={QUEUE: "forecast", **ONLY_DEAD_PROCESSES},
)

upkeep = dg.define_asset_job(
    "upkeep",
    selection=["table_upkeep"],
    description="Put small files of the tables together. The schedule launches it when there are some; nothing waits "
    "for it, and it may be launched at any time.",
    tags={QUEUE: "upkeep", **ONLY_DEAD_PROCESSES},
)

monitor = dg.define_asset_job(
    "monitor",
    selection=["prediction_performance", "model_drift", "data_faults", "service_health", "machine_use"],
    description="Look at predictions, model, data, service and machine, and raise alarms. The schedule launches it "
    "each day, and it may be launched at any time.",
    tags={QUEUE: "monitoring", **ONLY_DEAD_PROCESSES},
)

report_on_drift = dg.define_asset_job(
    "report_on_drift",
    selection=["drift_report"],
    description="Write what was watched in a week as one HTML page, kept under receipts/watched/.",
    tags={QUEUE: "monitoring", **ONLY_DEAD_PROCESSES},
)

refresh_rule = dg.define_asset_job(
    "refresh_rule",
    selection=["refreshed_rule"],
    description="Make the serving rule of the champion anew, as a candidate with the same network. It serves only once "
    "promoted.",
    tags={QUEUE: "training", **ONLY_DEAD_PROCESSES},
)

rescore = dg.define_asset_job(
    "rescore",
    selection=["rescored_month"],
    description="Score the rows of a month again, by the champion or another model; backfill it for a year.",
    tags={QUEUE: "training", **ONLY_DEAD_PROCESSES},
)

chain_evidence = dg.define_asset_job(
    "chain_evidence",
    selection=["evidence_chain"],
    description="Take what came since into the chain of evidence. The schedule launches it when something came, and it "
    "may be launched at any time.",
    tags={QUEUE: "monitoring", **ONLY_DEAD_PROCESSES},
)

verify_evidence = dg.define_asset_job(
    "verify_evidence",
    selection=["evidence_chain", "evidence_verified"],
    description="Take in what came, and hold the whole record against the chain of evidence. The schedule launches it "
    "each day, and it may be launched at any time.",
    tags={QUEUE: "monitoring", **ONLY_DEAD_PROCESSES},
)
