"""The road through Dagster: a tick, a run, what the UI then knows."""

import json
import os
import subprocess
import sys
from datetime import timedelta
from typing import Any

import dagster as dg
import pandas as pd
import pytest

from crypto_ml.defs.presentation import SHOWN_AT_ONCE, in_markdown
from crypto_ml.defs.watch import watch
from crypto_ml.ledger.receipts import read_receipt
from crypto_ml.ledger.registry import Registry
from crypto_ml.ledger.reports import read_report
from crypto_ml.sample import sample_upload
from crypto_ml.stages.spent import NETWORK, PARTS
from crypto_ml.storage.objects import ObjectStore
from crypto_ml_tests.in_process_dagster import InProcessDagster

CHAMPION = dg.AssetKey("champion_model")

BESIDE = ",pred_low,pred_high,expected_range,range_high"
"""What stands beside the open of a model with a serving rule, as that of a fresh clone is."""


def put(store: ObjectStore, name: str, body: bytes) -> None:
    store.replace(f"uploads/{name}", body)


def small_upload(days: int = 40) -> bytes:
    """The first days of the sample's first coin."""
    return b"\n".join(sample_upload().split(b"\n")[: days + 1]) + b"\n"


def materialization(result: dg.ExecuteInProcessResult, asset: str) -> Any:
    events = result.asset_materializations_for_node(asset)
    return events[-1]


def cells(table: Any) -> list[dict[str, Any]]:
    return [dict(record.data) for record in table.records]


def promotion(decision: dict[str, Any]) -> dict[str, Any]:
    return {"ops": {"champion_model": {"config": decision}}}


def failure_of(result: dg.ExecuteInProcessResult) -> str:
    """The sentence with which a promotion failed."""
    assert not result.success
    failure = result.failure_data_for_node("champion_model")
    assert failure is not None
    assert failure.user_failure_data is not None
    return failure.user_failure_data.description or ""


def test_a_dropped_file_is_noticed_answered_and_shown(dagster: InProcessDagster) -> None:
    put(dagster.store, "prices.csv", small_upload())
    (result,) = dagster.answer_new()
    assert result.success
    report = read_report("uploads/prices.csv", dagster.store)
    assert report is not None
    assert report.outcome == "PREDICTED"
    answered = dagster.store.read("predictions/prices_preds.csv").decode().splitlines()
    assert answered[0] == "symbol,index,date,pred_open,val_open,status,prediction_id" + BESIDE
    assert len(answered) == 41
    shown = materialization(result, "predictions").metadata
    assert shown["dagster/row_count"].value == 40
    assert "prices_preds.csv" in shown["published"].value
    assert [row["status"] for row in cells(shown["preview"])] == ["predicted"] * 5
    assert "data:image/svg+xml" in shown["opens"].value
    assert 0 < shown["mean_relative_error"].value < 0.1
    spent = {row["part"]: row["seconds"] for row in cells(shown["spent"])}
    assert [*spent] == ["waiting", "starting", *PARTS, "records of Dagster"]
    assert {part for part in PARTS if not spent[part] > 0} == {NETWORK}  # a fresh clone's model asks none
    assert "data:image/svg+xml" in shown["waterfall"].value
    assert len(shown["waterfall"].value) < SHOWN_AT_ONCE
    history = materialization(result, "market_history").metadata
    assert (history["rows"].value, history["series"].value, history["rows_in_all"].value) == (40, 1, 40)
    assert history["first_day"].value == history["first_day_in_all"].value == answered[1].split(",")[2]
    assert history["last_day"].value == history["last_day_in_all"].value == answered[-1].split(",")[2]
    assert cells(history["preview"])[0]["rows"] == 40
    (noted,) = [entry.message for entry in dagster.instance.all_logs(result.run_id) if "(answer " in entry.message]
    assert str(report.document["answer_id"]) in noted
    assert [column.name for column in shown["dagster/column_schema"].value.columns][:2] == ["symbol", "index"]


def test_a_delivery_that_is_answered_again_has_no_lag_for_nobody_waited(dagster: InProcessDagster) -> None:
    put(dagster.store, "twice.csv", small_upload())
    first = dagster.answer_new()[0]
    again = dagster.run("score_uploads", "00000001")
    assert materialization(first, "predictions").metadata["lag_seconds"].value >= 0
    shown = materialization(again, "predictions").metadata
    assert "lag_seconds" not in shown
    assert sum(shown[outcome].value for outcome in ("predicted", "rejected", "skipped")) == 1


def test_a_tick_without_news_says_so_and_keeps_nothing_waiting(dagster: InProcessDagster) -> None:
    put(dagster.store, "prices.csv", small_upload())
    first = dagster.tick()
    assert isinstance(first, dg.SensorResult)
    assert first.cursor == "1"
    again = dagster.tick(cursor=first.cursor)
    assert isinstance(again, dg.SkipReason)
    assert "no new upload" in (again.skip_message or "")


def test_a_lost_cursor_asks_again_for_what_has_no_answer_and_for_nothing_else(
    dagster: InProcessDagster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("crypto_ml.defs.next_step.GRACE", timedelta(0))
    put(dagster.store, "answered.csv", small_upload())
    dagster.answer_new()
    put(dagster.store, "waiting.csv", small_upload(50))
    dagster.tick(cursor="1")
    watch.cache_clear()
    again = dagster.tick(cursor=None)
    assert isinstance(again, dg.SensorResult)
    assert [request.partition_key for request in again.run_requests or []] == ["00000002"]


def test_a_store_out_of_reach_is_a_reason_to_skip_never_an_empty_listing(
    dagster: InProcessDagster, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch.cache_clear()
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    elsewhere = dagster.settings.model_copy(update={"prefix": "elsewhere"})
    result = InProcessDagster.of(elsewhere, dagster.instance).tick()
    assert isinstance(result, dg.SkipReason)
    assert "could not look for uploads" in (result.skip_message or "")


def test_a_refused_file_leaves_a_successful_run_that_shows_why(dagster: InProcessDagster) -> None:
    put(dagster.store, "bad.csv", b"symbol,date\nBTC,2018-01-01\n")
    put(dagster.store, "good.csv", small_upload())
    (result,) = dagster.answer_new()
    assert result.success
    report = read_report("uploads/bad.csv", dagster.store)
    assert report is not None
    assert report.outcome == "REJECTED"
    good = read_report("uploads/good.csv", dagster.store)
    assert good is not None
    assert good.outcome == "PREDICTED"
    checks = {check.check_name: check for check in result.get_asset_check_evaluations()}
    assert not checks["every_upload_predicted"].passed
    said = checks["every_upload_predicted"].description or ""
    assert said.startswith(in_markdown("1 of 2 files refused: bad.csv: the header has the required columns open, high"))
    assert checks["every_upload_predicted"].metadata["refused"].value == 1
    assert [row["upload"] for row in cells(checks["every_upload_predicted"].metadata["refused_files"])] == ["bad.csv"]
    assert checks["every_row_answered"].passed
    assert {name: check.partition for name, check in checks.items()} == dict.fromkeys(
        ("no_row_refused", "every_upload_predicted", "every_row_answered"), "00000001"
    )


def otherwise(dagster: InProcessDagster, **settings: str) -> InProcessDagster:
    """The same deployment with other settings."""
    return InProcessDagster.of(dagster.settings.model_copy(update=settings), dagster.instance)


def test_lineage_names_the_model_that_was_used_before_and_after_a_promotion(dagster: InProcessDagster) -> None:
    registry = Registry(dagster.store)
    put(dagster.store, "one.csv", small_upload())
    (first,) = dagster.answer_new()
    champion = registry.champion()
    assert champion is not None
    assert input_version(first) == champion.sha256

    put(dagster.store, "history.csv", sample_upload())
    dagster.answer_new(cursor="1")
    otherwise(dagster, target="gap").run("retrain", "2023-11-19")  # a network, which serves what it learnt in any case
    candidate = next(version for version in registry.versions() if version != champion.version)
    put(dagster.store, "two.csv", small_upload(41))
    (unapproved,) = dagster.answer_new(cursor="2")
    assert input_version(unapproved) == champion.sha256

    decision = {"version": candidate, "by": "a test", "why": "to see"}
    refused = dagster.run("promote_model", config=promotion(decision), raises=False)
    assert "INCONCLUSIVE: On 150 rows of 5 coins over 30 days" in failure_of(refused)
    assert registry.champion() == champion
    dagster.run("promote_model", config=promotion({**decision, "override": "it is a test"}))
    put(dagster.store, "three.csv", small_upload(42))
    (approved,) = dagster.answer_new(cursor="3")
    promoted = registry.champion()
    assert promoted is not None
    assert promoted.version == candidate
    assert input_version(approved) == promoted.sha256
    report = read_report("uploads/three.csv", dagster.store)
    assert report is not None
    receipt = read_receipt(str(report.document["answer_id"]), dagster.store)
    assert receipt.inputs.bundle_sha256 == promoted.sha256
    assert receipt.inputs.champion_pointer == promoted.pointer == 2


def input_version(result: dg.ExecuteInProcessResult) -> str:
    """The version of champion_model that Dagster's lineage credits a run's predictions to."""
    tags = materialization(result, "predictions").tags
    return str(tags["dagster/input_data_version/champion_model"])


def test_a_promotion_outside_dagster_is_known_to_it_before_the_next_answer(dagster: InProcessDagster) -> None:
    put(dagster.store, "one.csv", small_upload())
    dagster.answer_new()
    registry = Registry(dagster.store)
    first = registry.champion()
    assert first is not None
    put(dagster.store, "history.csv", sample_upload())
    dagster.answer_new(cursor="1")
    dagster.run("retrain", "2023-11-19")
    candidate = next(version for version in registry.versions() if version != first.version)
    registry.promote(candidate, by="a test", why="by command", at=pd.Timestamp("2026-01-01", tz="UTC").to_pydatetime())
    put(dagster.store, "two.csv", small_upload(41))
    (result,) = dagster.answer_new(cursor="2")
    promoted = registry.champion()
    assert promoted is not None
    assert input_version(result) == promoted.sha256


def test_a_promotion_without_a_reason_is_refused_with_one_sentence(dagster: InProcessDagster) -> None:
    put(dagster.store, "one.csv", small_upload())
    dagster.answer_new()
    champion = Registry(dagster.store).champion()
    assert champion is not None
    result = dagster.run("promote_model", config=promotion({"version": champion.version}), raises=False)
    assert "names who decided it and why" in failure_of(result)
    assert Registry(dagster.store).champion() == champion


def test_a_retrain_shows_its_checks_metrics_and_pictures(dagster: InProcessDagster) -> None:
    put(dagster.store, "history.csv", sample_upload())
    dagster.answer_new()
    result = otherwise(dagster, learners="boosting,absolute").run("retrain", "2023-11-19")
    shown = materialization(result, "trained_model").metadata
    of_week = cells(shown["candidates"])
    assert {row["learner"] for row in of_week} == {"boosting", "absolute", "last_close"}
    assert [row["version"] for row in of_week if row["taken"]] == [shown["model_version"].value]
    assert {row["version"] for row in of_week} < set(Registry(dagster.store).versions())
    assert shown["coverage_90"].value > 0.5
    for name in ("picture_predictions", "picture_holdout", "picture_coverage"):
        assert shown[name].value.startswith("![")
        assert "data:image/png;base64," in shown[name].value
    for name in ("loss", "opens"):
        assert "data:image/svg+xml" in shown[name].value
    assert [row["predicted by"] for row in cells(shown["holdout"])] == ["network", "last close", "last open"]
    checks = {check.check_name: check for check in result.get_asset_check_evaluations()}
    assert checks["onnx_equals_keras"].passed
    assert checks["enough_holdout_rows"].passed
    assert checks["history_reaches_week"].passed
    assert set(checks) == {
        "onnx_equals_keras", "enough_holdout_rows", "no_worse_than_last_close", "history_reaches_week"
    }  # fmt: skip
    assert materialization(result, "scaler").metadata["training_set"].value["history_version"] == 1
    champion = materialization(dagster.run("promote_model"), "champion_model").metadata
    candidate = shown["model_version"].value
    compared = {row["predicted by"]: row for row in cells(champion["models"])}
    assert set(compared) > {candidate, "last close", "last open"}
    assert next(iter(compared)).endswith(" (champion)")
    assert (compared[candidate]["saw rows"], compared["last close"]["MASE"]) == ("no", 1)
    assert "180 rows of 5 series" in champion["compared_on"].value


def test_the_daily_forecast_is_published_and_shown_with_what_it_leaves_out(dagster: InProcessDagster) -> None:
    lines = sample_upload().split(b"\n")
    newest = max(line.split(b",")[3] for line in lines[1:] if line)
    stopped = lines[1].split(b",")[0]
    rows = [line for line in lines if not (stopped in line and newest in line)]
    put(dagster.store, "history.csv", b"\n".join(rows))
    dagster.answer_new()
    result = dagster.run("daily_forecast")
    lines = dagster.store.read("forecasts/latest.csv").splitlines()
    assert lines[0] == b"symbol,as_of,target_date,pred_open,model_version,prediction_id" + BESIDE.encode()
    assert len(lines) == 5
    shown = materialization(result, "publish_daily_forecast").metadata
    assert shown["dagster/row_count"].value == 4
    assert shown["outcome"].value == "published"
    assert (shown["left_out"].value, shown["without_newest_day"].value) == (1, 1)
    assert [row["symbol"] for row in cells(shown["left_out_symbols"])] == [stopped.decode()]
    assert "data:image/svg+xml" in shown["opens"].value
    assert "latest_left_out.csv" in shown["published"].value
    assert shown["receipt"].value["forecast_id"] == shown["forecast_id"].value
    assert shown["forecast_id"].value in shown["receipt_object"].value
    (check,) = result.get_asset_check_evaluations()
    assert (check.check_name, check.passed) == ("every_current_symbol_forecast", False)
    assert check.severity == dg.AssetCheckSeverity.WARN
    assert [row["symbol"] for row in cells(check.metadata["missed_symbols"])] == [stopped.decode()]
    expected = in_markdown(f"1 current symbol left out: {stopped.decode()}: no row for the newest")
    assert (check.description or "").startswith(expected)


def test_a_forecast_of_nothing_is_shown_as_that(dagster: InProcessDagster) -> None:
    result = dagster.run("daily_forecast")
    shown = materialization(result, "publish_daily_forecast").metadata
    assert "nothing to forecast" in str(shown["outcome"].value)
    assert dagster.store.head("forecasts/latest.csv") is None


def test_a_scoring_run_never_imports_tensorflow_scikit_learn_or_matplotlib(dagster: InProcessDagster) -> None:
    put(dagster.store, "prices.csv", small_upload())
    dagster.tick()
    script = """
import json, sys
import dagster as dg
from crypto_ml.definitions import build_defs
from crypto_ml.defs.presentation import in_markdown
from crypto_ml.settings import Settings
with dg.DagsterInstance.ephemeral() as instance:
    instance.add_dynamic_partitions("deliveries", ["00000001"])
    job = build_defs(Settings.from_environment()).resolve_job_def("score_uploads")
    assert job.execute_in_process(instance=instance, partition_key="00000001").success
print(json.dumps([name for name in ("tensorflow", "keras", "sklearn", "matplotlib", "PIL") if name in sys.modules]))
"""
    settings = {"CRYPTO_ML_BUCKET": dagster.settings.bucket, "CRYPTO_ML_PREFIX": dagster.settings.prefix}
    command = [sys.executable, "-c", script]
    result = subprocess.run(command, capture_output=True, text=True, env=os.environ | settings, check=True)
    assert json.loads(result.stdout.splitlines()[-1]) == []
