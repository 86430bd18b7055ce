"""`crypto-ml retract` as its users type it, the same as a job, and what other commands say afterwards."""

import json
from typing import Any

import dagster as dg
import pytest
from click.testing import CliRunner, Result

from crypto_ml.cli import main
from crypto_ml.ledger.deliveries import DeliveryLog
from crypto_ml.ledger.retractions import read_retraction
from crypto_ml.storage.objects import ObjectStore
from crypto_ml_tests.forecasting.markets import market
from crypto_ml_tests.in_process_dagster import InProcessDagster
from crypto_ml_tests.stages.road import Road, upload

DECIDED = ("--by", "ann", "--why", "prices of another exchange")


@pytest.fixture
def road(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> Road:
    """A file, and the day after it in another."""
    monkeypatch.setenv("CRYPTO_ML_BUCKET", store.bucket)
    monkeypatch.setenv("CRYPTO_ML_PREFIX", store.prefix)
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    made, rows = Road(store), market({"BTC": 14})
    for name, part in (("prices", rows[:13]), ("later", rows[13:])):
        made.drop(**{name: upload(part)})
        made.answer_new()
    return made


def crypto_ml(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


def test_the_command_retracts_lists_what_used_the_rows_and_trace_and_doctor_say_so(road: Road) -> None:
    later = str(road.predictions("later")["prediction_id"][0])
    done = crypto_ml("retract", "prices.csv", *DECIDED)
    assert done.exit_code == 0, done.output
    for said in ("13 rows count as void from version 3", "2 past answers were made from them", later, "0 models"):
        assert said in done.stdout
    again = json.loads(crypto_ml("retract", "00000001.0", *DECIDED, "--json").stdout)
    assert [(one["retraction"]["upload_id"], one["rows"], one["versions"]) for one in again] == [
        ("00000001.0", 13, [3])
    ]
    assert [(one["upload"], later in one["used"]) for one in again[0]["answers"]] == [
        ("uploads/prices.csv", False),
        ("uploads/later.csv", True),
    ]
    refused = crypto_ml("retract", "prices.csv", "--by", "bob", "--why", "me too")
    assert (refused.exit_code, refused.stderr.count("\n")) == (1, 1)
    assert "was retracted already, by ann" in refused.stderr
    assert crypto_ml("retract", "prices.csv", "--by", "bob").exit_code == 2
    assert "retracted     by ann (run as " in crypto_ml("trace", "predictions/prices_preds.csv").stdout
    row = crypto_ml("trace", later).stdout
    assert ", retracted 20" in row
    assert "retracted     by" not in row
    assert "retractions: 1; the champion was trained on none" in crypto_ml("doctor").stdout
    assert crypto_ml("replay", "predictions/later_preds.csv").stdout == "IDENTICAL\n"


def test_the_job_retracts_shows_what_it_did_and_is_one_decision_however_often_it_is_tried(
    road: Road, dagster: InProcessDagster
) -> None:
    assert dagster.store.prefix == road.store.prefix
    wanted = {"ops": {"retract": {"config": {"upload": "uploads/prices.csv", "by": "ann", "why": "wrong"}}}}
    result = dagster.run("retract_upload", config=wanted)
    (shown,) = observations(result)
    assert (shown["void_rows"].value, shown["answers"].value, shown["table_version"].value) == (13, 2, 3)
    assert road.store.read_json("predictions/prices_retracted.json")["by"] == "ann"
    assert read_retraction("00000001.0", road.store).decision.startswith(result.run_id)
    other = {"ops": {"retract": {"config": {"upload": "uploads/prices.csv", "by": "bob", "why": "wrong"}}}}
    refused = dagster.run("retract_upload", config=other, raises=False)
    assert not refused.success
    assert road.history.version() == 3
    assert [delivery.id for delivery in DeliveryLog(road.store).deliveries_of("uploads/prices.csv")] == ["00000001"]


def observations(result: dg.ExecuteInProcessResult) -> list[Any]:
    """The metadata of what a run observed."""
    return [
        event.asset_observation_data.asset_observation.metadata
        for event in result.all_events
        if event.event_type == dg.DagsterEventType.ASSET_OBSERVATION
    ]
