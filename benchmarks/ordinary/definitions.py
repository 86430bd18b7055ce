"""Uploads answered by an ordinary Dagster project: five assets, written the way tutorials show it.

Everything is Dagster's default: the sensor's interval, `get_objects`, the queue, the launcher, an executor with a
process for each step, the IO manager that pickles between them. The rules are plain and vectorised pandas; the network
is one that crypto_ml has served with, as Keras keeps it. No claim, no receipt, no correction, no second file in a run:
it does less than crypto_ml, and is there to be measured beside it.
"""

import io
import os
from pathlib import Path
from typing import Any

import boto3
import dagster as dg
import numpy as np
import pandas as pd
from dagster_aws.s3.sensor import get_objects

BUCKET = os.environ.get("CRYPTO_ML_BUCKET", "crypto-ml")
NETWORK = Path(__file__).resolve().parents[1] / "served" / "model" / "network.keras"
PRICES = ["open", "high", "low", "close"]
WINDOW = 5


class Upload(dg.Config):
    """The file that a run is about."""

    key: str


@dg.asset
def raw_uploads(config: Upload) -> pd.DataFrame:
    """The upload as it is."""
    body = boto3.client("s3").get_object(Bucket=BUCKET, Key=config.key)["Body"].read()
    return pd.read_csv(io.BytesIO(body))


@dg.asset
def cleaned_features(raw_uploads: pd.DataFrame) -> pd.DataFrame:
    """Valid rows, in order, with the features that the network sees."""
    rows = raw_uploads.rename(columns=str.lower).dropna(subset=PRICES)
    rows = rows[(rows[PRICES] > 0).all(axis=1) & (rows["high"] >= rows["low"])]
    rows["date"] = pd.to_datetime(rows["date"])
    rows = rows.drop_duplicates(["symbol", "date"]).sort_values(["symbol", "date"], ignore_index=True)
    rows["spread"] = rows["high"] - rows["low"]
    rows["close_ratio"] = ((rows["close"] - rows["low"]) / rows["spread"]).fillna(0)
    rows["log_shares"] = np.log(np.maximum(np.ceil(rows["market"] / rows["close"]), 1))
    for name in [*PRICES, "close_ratio", "spread"]:
        rows[f"v_{name}"] = rows.groupby("symbol")[name].diff().fillna(0)
    return rows


@dg.asset
def market_history(config: Upload, cleaned_features: pd.DataFrame) -> str:
    """Every row ever received, a file for each upload; returns where these are."""
    key = f"ordinary/market_history/{Path(config.key).stem}.parquet"
    body = io.BytesIO()
    cleaned_features.to_parquet(body)
    boto3.client("s3").put_object(Bucket=BUCKET, Key=key, Body=body.getvalue())
    return key


@dg.asset
def champion_model() -> str:
    """Where the model is that serves."""
    return str(NETWORK)


@dg.asset(deps=[market_history])
def predictions(config: Upload, cleaned_features: pd.DataFrame, champion_model: str) -> dg.MaterializeResult:
    """The next open of every row, beside the observed one, as CSV."""
    import keras

    @keras.saving.register_keras_serializable(package="crypto_ml")  # type: ignore[untyped-decorator]
    def keras2_hard_sigmoid(x: Any) -> Any:  # by this name: a copy of the layer is made that looks it up again
        return keras.ops.clip(0.2 * x + 0.5, 0.0, 1.0)

    network = keras.models.load_model(champion_model)
    rows = cleaned_features
    names = [*PRICES, "close_ratio", "spread", *(f"v_{name}" for name in [*PRICES, "close_ratio", "spread"])]
    by_symbol = rows.groupby("symbol")
    mean, scale = by_symbol[names].transform("mean"), by_symbol[names].transform("std").replace(0, 1).fillna(1)
    scaled = np.column_stack([((rows[names] - mean) / scale).to_numpy(), rows["log_shares"]]).astype(np.float32)
    position = by_symbol.cumcount().to_numpy()
    windows = np.zeros((len(rows), WINDOW, scaled.shape[1]), np.float32)
    for step in range(1, WINDOW + 1):
        there = np.flatnonzero(position >= step)
        windows[there, WINDOW - step] = scaled[there - step]
    change = network.predict(windows, verbose=0)[:, 0]
    previous = by_symbol["close"].shift().fillna(rows["open"])
    answer = pd.DataFrame(
        {
            "symbol": rows["symbol"],
            "index": position,
            "date": rows["date"],
            "pred_open": previous + change * scale["v_open"],
            "val_open": rows["open"],
        }
    )
    key = f"ordinary/predictions/{Path(config.key).stem}_preds.csv"
    boto3.client("s3").put_object(Bucket=BUCKET, Key=key, Body=answer.to_csv(index=False).encode())
    return dg.MaterializeResult(metadata={"rows": len(answer), "published": key})


score_uploads = dg.define_asset_job("score_uploads", selection="*")


@dg.sensor(job=score_uploads, default_status=dg.DefaultSensorStatus.RUNNING)
def uploads_sensor(context: dg.SensorEvaluationContext) -> Any:
    """A run for each new object."""
    since = context.cursor or None
    found = get_objects(bucket=BUCKET, prefix="uploads/", since_last_modified=pd.Timestamp(since) if since else None)
    if not found:
        return dg.SkipReason("no new objects")
    requests = [
        dg.RunRequest(
            run_key=one["Key"],
            run_config=dg.RunConfig(
                {name: Upload(key=one["Key"]) for name in ("raw_uploads", "market_history", "predictions")}
            ),
        )
        for one in found
    ]
    return dg.SensorResult(run_requests=requests, cursor=str(found[-1]["LastModified"]))


defs = dg.Definitions(
    assets=[raw_uploads, cleaned_features, market_history, champion_model, predictions],
    jobs=[score_uploads],
    sensors=[uploads_sensor],
)
