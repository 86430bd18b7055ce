"""A model with a serving rule gives the same bits on every road, beside the open as well, and each comes out again."""

import io
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest

from crypto_ml.audit import forecast_replay, forecast_trace
from crypto_ml.audit import trace as tracing
from crypto_ml.audit.references import resolve
from crypto_ml.audit.replay import replay
from crypto_ml.forecasting.answers import BESIDE, FORECAST, PREDICTIONS
from crypto_ml.forecasting.file_scoring import score_file
from crypto_ml.forecasting.intake import IntakeRules
from crypto_ml.forecasting.scoring import score_rows
from crypto_ml.ledger.layout import LATEST_FORECAST
from crypto_ml.settings import Settings
from crypto_ml.storage.objects import ObjectStore
from crypto_ml.storage.prediction_log import PredictionLog
from crypto_ml_tests.forecasting.markets import market, relative_model
from crypto_ml_tests.stages.asking import ask, in_json, records, settle
from crypto_ml_tests.stages.forecasts import forecast_now
from crypto_ml_tests.stages.road import NOW, Road, upload

NUMBERS = ["symbol", "date", "pred_open", *BESIDE.names]
MARKET = market({"BTC": 40, "NEW": 40, "SHORT": 40, "FIRST": 40}, 11)
AGE = MARKET.groupby("symbol").cumcount()
ROWS = MARKET[MARKET["symbol"].map({"SHORT": 32, "FIRST": 39}).fillna(0) <= AGE].reset_index(drop=True)
LAST = ROWS["date"] == ROWS["date"].max()


def read(content: bytes) -> pd.DataFrame:
    return pd.read_csv(io.BytesIO(content))


def numbers(found: pd.DataFrame) -> list[list[Any]]:
    """What is predicted, by symbol and date, empty as None."""
    found = found.assign(date=pd.to_datetime(found["date"])).sort_values(["symbol", "date"])
    return found[NUMBERS].astype(object).where(found[NUMBERS].notna(), None).to_numpy().tolist()


@pytest.mark.parametrize("shrink", [1.0, 0.0])
def test_files_requests_forecasts_and_the_command_say_the_same_and_replay_says_identical(
    store: ObjectStore, tmp_path: Path, shrink: float
) -> None:
    bundle = relative_model(shrink)
    road = Road(store, bundle, Settings(interval_level="0.95"))
    expected = score_rows(ROWS, bundle, "one_step", 0.95)
    last = expected[LAST.to_numpy()]
    assert last["pred_low"].notna().tolist() == [True, False, True, False]  # BTC, FIRST, NEW, SHORT
    assert (
        last["pred_open"].to_numpy()[[0, 2]]
        == ROWS.loc[~LAST].groupby("symbol")["close"].last()[["BTC", "NEW"]].to_numpy()
    ).all() == (shrink == 0)

    road.drop(history=upload(ROWS[~LAST]))
    road.answer_new()
    forecast = forecast_now(road)
    daily = ROWS[LAST]
    (reply,) = ask(road, records(in_json(daily)))
    settle(road, [reply])
    road.drop(daily=upload(daily))
    road.answer_new()
    (tmp_path / "all.csv").write_bytes(upload(ROWS))
    score_file(tmp_path / "all.csv", tmp_path / "out.csv", bundle, "one_step", IntakeRules(NOW.date()), level=0.95)

    history = read(store.read("predictions/history_preds.csv"))
    of_daily = read(store.read("predictions/daily_preds.csv"))
    assert list(history) == [*PREDICTIONS.names, *BESIDE.names]
    assert numbers(pd.concat([history, of_daily])) == numbers(expected)
    assert numbers(read((tmp_path / "out.csv").read_bytes())) == numbers(expected)
    assert numbers(read(reply.predictions_csv)) == numbers(reply.predictions.to_pandas()) == numbers(last)
    forecast_rows = read(store.read(LATEST_FORECAST))
    assert list(forecast_rows) == [*FORECAST.names, *BESIDE.names]
    to_come = forecast_rows.rename(columns={"target_date": "date"})
    assert numbers(to_come) == numbers(last[last["symbol"] != "FIRST"])

    answers = [str(road.report(name)["answer_id"]) for name in ("history", "daily")]
    for answer in (*answers, reply.answer_id):
        verdict = replay(answer, store, full=answer == answers[1])
        assert (str(verdict), verdict.note) == ("IDENTICAL", None)
    assert str(forecast_replay.replay(forecast.receipt.forecast_id, store)) == "IDENTICAL"
    _log_holds(store, answers[1], last[last["status"] == "predicted"])
    _log_holds(store, forecast.receipt.forecast_id, last[last["symbol"] != "FIRST"])
    _log_holds(store, reply.answer_id, last[last["status"] == "predicted"])
    _is_traced(store, str(of_daily["prediction_id"].iloc[0]), last.iloc[0].to_dict(), shrink)
    _is_traced(store, str(forecast_rows["prediction_id"].iloc[0]), last.iloc[0].to_dict(), shrink)


def _log_holds(store: ObjectStore, answer: str, said: pd.DataFrame) -> None:
    logged = PredictionLog(store).predictions(answer).to_pandas()
    assert numbers(logged) == numbers(said)
    assert logged["interval_level"].notna().tolist() == logged["pred_low"].notna().tolist()
    assert set(logged["interval_level"].dropna()) == {0.95}


def _is_traced(store: ObjectStore, prediction: str, said: dict[str, Any], shrink: float) -> None:
    named = resolve(prediction, store)
    if named.is_forecast:
        forecast = forecast_trace.trace(named, store)
        made, lines = forecast.document()["row"]["made_of"], forecast_trace.lines(forecast, store)
    else:
        found = tracing.trace(named, store)
        made, lines = found.document()["row"]["made_of"], tracing.lines(found, store)
    text = "\n".join(line for _, line in lines)
    assert {name: made[name] for name in BESIDE.names} == {name: said[name] for name in BESIDE.names}
    assert said["pred_open"] == made["last_close"] * (1 + made["recent_gap"] * made["served"])
    assert (made["shrink"], made["cap"], made["quantile"], made["level"], made["gaps"]) == (shrink, 0.05, 4.5, 0.95, 20)
    assert "made from     22 earlier rows, scaled by model" in text
    assert "at 95%: last close · exp(±4.5" in text
    assert ("so no network was asked" in text) == (shrink == 0)


def test_without_bounds_files_of_a_running_sum_have_their_columns_empty_and_another_level_is_another_answer(
    store: ObjectStore,
) -> None:
    road = Road(store, relative_model(0.5), Settings(recovery="cumulative"))
    road.drop(history=upload(ROWS))
    road.answer_new()
    found = road.predictions("history")
    assert set(found["pred_low"]) == set(found["pred_high"]) == {""}
    assert (found["expected_range"] != "").any()
    assert str(replay(str(road.report("history")["answer_id"]), store)) == "IDENTICAL"
    assert PredictionLog(store).predictions()["interval_level"].null_count == len(found) - 4
    made = forecast_now(road)
    road.settings = Settings(interval_level="0.80")
    other = forecast_now(road)
    assert made.receipt.forecast_id != other.receipt.forecast_id
    wide, narrow = ((one.rows["pred_high"] - one.rows["pred_low"]).dropna() for one in (made, other))
    assert (wide > narrow).all()
    assert forecast_now(road).unchanged


def test_columns_that_were_never_filled_are_read_back_as_numbers(store: ObjectStore) -> None:
    road = Road(store, relative_model(0.5))
    (reply,) = ask(road, records(in_json(ROWS[LAST])))
    assert reply.predictions.schema.field("pred_low") == pa.field("pred_low", pa.float64())
    assert reply.predictions["pred_low"].null_count == 4
