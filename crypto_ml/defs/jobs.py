"""The jobs, and how many of each may run at once (`dagster.yaml` limits each queue by its tag)."""

from typing import Final

import dagster as dg

QUEUE: Final = "crypto_ml/queue"

score_uploads = dg.define_asset_job(
    "score_uploads",
    selection=["raw_uploads", "cleaned_features", "market_history", "predictions"],
    description="Answer a delivery of uploads. The sensor launches it; launch a past delivery again to answer it anew.",
    tags={QUEUE: "scoring"},
)

retrain = dg.define_asset_job(
    "retrain",
    selection=["scaler", "trained_model"],
    description="Train a candidate on what the history held at the end of a week. It serves only once promoted.",
    tags={QUEUE: "training"},
)

promote_model = dg.define_asset_job(
    "promote_model",
    selection=["champion_model"],
    description="Make a model the champion, or roll back to one: version, by and why in the run's config.",
    tags={QUEUE: "promotion"},
)

daily_forecast = dg.define_asset_job(
    "daily_forecast",
    selection=["daily_forecast"],
    description="Forecast the next open of every symbol and publish it under forecasts/.",
    tags={QUEUE: "forecast"},
)
