"""The real market through the whole road: S3, sensor, runs, history, daily file, retrain."""

import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from crypto_ml.forecasting.answers import PREDICTIONS
from crypto_ml.forecasting.cleaning import TOLERANCE
from crypto_ml.forecasting.recent_gaps import FEWEST
from crypto_ml.ledger.registry import Registry
from crypto_ml.ledger.reports import read_report
from crypto_ml.storage.history import MarketHistory
from crypto_ml_tests.in_process_dagster import InProcessDagster

ROWS, COINS = 29_999, 44


@pytest.fixture
def market(shared: Path) -> pd.DataFrame:
    """The market file as pandas reads it, with its dates read day first."""
    rows = pd.read_csv(shared / "market" / "crypto_markets.csv")
    return rows.assign(date=pd.to_datetime(rows["date"], format="%d/%m/%Y"))


def answer(dagster: InProcessDagster, name: str, body: bytes, cursor: str | None = None) -> pd.DataFrame:
    dagster.store.replace(f"uploads/{name}.csv", body)
    (result,) = dagster.answer_new(cursor)
    assert result.success
    report = read_report(f"uploads/{name}.csv", dagster.store)
    assert report is not None
    assert report.outcome == "PREDICTED", report.document["reason"]
    published = dagster.store.read(f"predictions/{name}_preds.csv")
    return pd.read_csv(io.BytesIO(published), parse_dates=["date"])


def daily_file(market: pd.DataFrame) -> pd.DataFrame:
    """One row per symbol for 2018-03-26: each coin opens at its last close."""
    last = market.sort_values("date").groupby("symbol").tail(1)
    last = last[last["date"] == "2018-03-25"]
    return last.assign(
        date="2018-03-26", open=last["close"], low=last["close"] * (1 - TOLERANCE), high=last["close"] * 1.01
    )


def test_the_real_market_comes_back_row_by_row_and_a_daily_file_is_scored_from_its_history(
    dagster: InProcessDagster, shared: Path, market: pd.DataFrame
) -> None:
    answered = answer(dagster, "crypto_markets", (shared / "market" / "crypto_markets.csv").read_bytes())
    keys = ["symbol", "date"]
    expected = market.sort_values(keys).reset_index(drop=True)
    pd.testing.assert_frame_equal(answered[keys], expected[keys], check_dtype=False)
    assert np.array_equal(answered["val_open"], expected["open"])
    assert not answered[PREDICTIONS.names].isna().any().any()
    late = answered["index"] >= FEWEST + 1  # so many gaps of its series stand before it
    steps = answered.groupby("symbol")["date"].diff().dt.days
    usual = steps.groupby(answered["symbol"]).transform(lambda own: own.shift().rolling(20, min_periods=1).median())
    paused = steps > 1.5 * usual  # days are missing before it: ten rows of seven coins
    assert paused.any()
    assert (answered["pred_low"].notna() == (late & ~paused)).all()
    assert answered["prediction_id"].is_unique
    assert (answered["index"] == answered.groupby("symbol").cumcount()).all()
    history = MarketHistory(dagster.store)
    assert history.count() == ROWS == len(answered)
    assert answered["symbol"].nunique() == COINS

    daily = daily_file(market)
    from_history = answer(dagster, "daily", daily.to_csv(index=False).encode(), cursor="1")
    assert len(from_history) == len(daily)
    assert (from_history["status"] == "predicted").all()

    # the same day as the last row of a whole file: nothing may differ, to the last bit
    whole = pd.concat([market.assign(date=market["date"].dt.strftime("%Y-%m-%d")), daily])
    in_one_file = answer(dagster, "whole", whole.to_csv(index=False).encode(), cursor="2")
    last_day = in_one_file[in_one_file["date"] == "2018-03-26"]
    assert np.array_equal(last_day["pred_open"].to_numpy(), from_history["pred_open"].to_numpy())


def test_the_notebook_format_upload_is_answered(dagster: InProcessDagster, shared: Path) -> None:
    answered = answer(dagster, "crypto_test", (shared / "handover" / "crypto_test.csv").read_bytes())
    assert answered["symbol"].value_counts().to_dict() == {"BTC": 120, "LTC": 120, "XRP": 120}


def test_a_retrain_on_the_real_history_keeps_its_metrics_and_baselines_in_the_bundle(
    dagster: InProcessDagster, shared: Path, market: pd.DataFrame
) -> None:
    answer(dagster, "crypto_markets", (shared / "market" / "crypto_markets.csv").read_bytes())
    assert dagster.run("retrain", "2018-03-18").success
    registry = Registry(dagster.store)
    (version,) = [version for version in registry.versions() if version.startswith("2018-03-18-")]
    bundle = registry.load(version)
    manifest, metrics = bundle.document("training_manifest.json"), bundle.document("metrics.json")
    # 2018-03-25 is the first day that the week's model must not know
    assert sum(manifest["rows"].values()) == (market["date"] < "2018-03-25").sum()
    assert manifest["history_version"] == 1
    assert manifest["uploads"] == ["00000001.0"]
    overall = metrics["holdout"]["overall"]
    assert overall["last_close"]["mre"] < overall["last_open"]["mre"]
    assert overall["network"]["mre"] < overall["last_open"]["mre"]
    assert metrics["checks"]["onnx_equals_keras"]["passed"]
    assert metrics["checks"]["no_worse_than_last_close"]["passed"] == (
        overall["network"]["mre"] <= overall["last_close"]["mre"]
    )
    assert len(metrics["holdout"]["by_symbol"]) > COINS / 2
