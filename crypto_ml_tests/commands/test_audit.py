"""`crypto-ml trace`, `replay`, `corrections`, and the registry's commands, as an auditor types them."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from crypto_ml.cli import main
from crypto_ml.forecasting.handover import bundle_from_handover
from crypto_ml.storage.objects import ObjectStore
from crypto_ml_tests.forecasting.markets import market, model
from crypto_ml_tests.stages.asking import ask, csv
from crypto_ml_tests.stages.road import Road, upload

COMMAND = [str(Path(sys.executable).with_name("crypto-ml"))]


@pytest.fixture
def road(store: ObjectStore) -> Road:
    made = Road(store)
    rows = market({"BTC": 12, "NEW": 12})
    made.drop(prices=upload(rows))
    made.answer_new()
    return made


def crypto_ml(road: Road, *arguments: str) -> subprocess.CompletedProcess[str]:
    settings = {"CRYPTO_ML_BUCKET": road.store.bucket, "CRYPTO_ML_PREFIX": road.store.prefix}
    command = [*COMMAND, *arguments]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **settings}, check=False)


def data(road: Road, *arguments: str) -> Any:
    done = crypto_ml(road, *arguments, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_trace_shows_one_number_to_people_and_to_programs(road: Road) -> None:
    row = road.predictions("prices").iloc[8]
    named = ["predictions/prices_preds.csv", "--symbol", str(row["symbol"]), "--date", str(row["date"])]
    done = crypto_ml(road, "trace", *named)
    assert done.returncode == 0, done.stderr
    for shown in (
        repr(float(row["pred_open"])),
        row["prediction_id"],
        "first start",
        road.bundle.version,
        "stands unchanged",
    ):
        assert str(shown) in done.stdout
    found = data(road, "trace", *named)
    assert found["row"]["prediction_id"] == row["prediction_id"]
    assert found["row"]["pred_open"] == row["pred_open"]
    assert len(found["row"]["earlier_rows"]) == 6
    assert found == data(road, "trace", str(row["prediction_id"]))
    assert found["answer_id"] == road.report("prices")["answer_id"]


def test_replay_ends_with_0_where_the_answer_comes_out_again_and_with_1_where_it_does_not(road: Road) -> None:
    done = crypto_ml(road, "replay", "predictions/prices_preds.csv")
    assert (done.returncode, done.stdout) == (0, "IDENTICAL\n"), done.stderr
    content = road.store.read("predictions/prices_preds.csv")
    road.store.replace("predictions/prices_preds.csv", content.replace(b"predicted", b"Predicted", 1))
    done = crypto_ml(road, "replay", "predictions/prices_preds.csv")
    assert done.returncode == 1
    assert done.stdout.startswith("DIFFERS AT predictions: ")
    assert done.stderr.count("\n") == 1


def test_a_model_from_elsewhere_cannot_be_trained_again_and_that_is_said_in_one_line(road: Road) -> None:
    done = crypto_ml(road, "replay", "predictions/prices_preds.csv", "--retrain")
    assert done.returncode == 1
    assert "cannot be trained again" in done.stderr
    assert done.stderr.count("\n") == 1


def test_corrections_lists_what_had_used_the_old_values(road: Road) -> None:
    later = market({"BTC": 14})[12:]
    road.drop(later=upload(later))
    road.answer_new()
    (used,) = road.predictions("later")["prediction_id"][:1]
    rows = market({"BTC": 12, "NEW": 12})
    rows["close"] = rows["close"].where(rows.index != 11, rows["low"])
    road.drop(prices=upload(rows))
    road.answer_new()
    found = data(road, "corrections", "uploads/prices.csv")
    assert [(one["symbol"], one["date"]) for one in found["corrections"]] == [("BTC", "2018-01-12")]
    assert [(one["upload"], used in one["used"]) for one in found["answers"]] == [("uploads/later.csv", True)]
    assert found["models"] == []
    assert "corrected 1 rows" in crypto_ml(road, "corrections", "uploads/prices.csv").stdout


def test_the_commands_promote_list_and_roll_back(road: Road) -> None:
    other = model("gap", label="other")
    road.registry.add(other)
    refused = crypto_ml(road, "promote", other.version, "--by", "ann", "--why", "closer")
    assert refused.returncode == 1
    assert "left no verdict" in refused.stderr
    assert refused.stderr.count("\n") == 1
    done = crypto_ml(road, "promote", other.version, "--by", "ann", "--why", "closer", "--override", "seen by hand")
    assert done.returncode == 0, done.stderr
    listed = data(road, "models")
    assert listed["champion"]["version"] == other.version
    assert (listed["comparison"]["rows"], listed["not_compared"]) == (4, None)
    compared = {one["version"]: one["compared"] for one in listed["models"]}
    assert compared.keys() == {other.version, road.bundle.version}
    shown = crypto_ml(road, "models")
    assert (
        "although onnx_equals_keras, no_worse_than_last_close, no_worse_than_champion failed: seen by hand"
        in shown.stderr
    )
    assert "same rows: 4 rows of 2 series, 2018-01-11 to 2018-01-12" in shown.stderr
    (champion,) = [line for line in shown.stdout.splitlines() if line.startswith(f"* {other.version}")]
    assert f"same rows: error {100 * compared[other.version]['mean_relative_error']:.3f} %" in champion
    assert "may have been fitted on some" in champion
    assert shown.stdout.splitlines()[-2].split()[:2] == ["last", "close"]
    assert crypto_ml(road, "rollback", "--by", "bob", "--why", "drift").returncode == 0
    entries = data(road, "models", "--history")
    assert [entry["action"] for entry in entries] == ["first start", "promotion", "rollback"]
    (served,) = data(road, "models", "--at", entries[1]["at"])
    assert served["version"] == other.version
    assert crypto_ml(road, "models", "--at", "1999-01-01").returncode == 1
    assert crypto_ml(road, "promote", other.version, "--by", "a", "--why", "b", "--environment", "moon").returncode == 2


def test_a_handed_over_model_is_traced_and_replayed_like_any_other(shared: Path, store: ObjectStore) -> None:
    handover = shared / "handover"
    road = Road(store, bundle=bundle_from_handover(handover / "model.h5", handover / "scaler.pkl", None))
    road.drop(crypto_test=(handover / "crypto_test.csv").read_bytes())
    road.answer_new()
    assert crypto_ml(road, "replay", "predictions/crypto_test_preds.csv").stdout == "IDENTICAL\n"
    row = road.predictions("crypto_test").iloc[7]
    found = data(road, "trace", str(row["prediction_id"]))
    assert (found["row"]["pred_open"], found["row"]["scaled_by"]) == (row["pred_open"], "model")
    assert found["trained_on"]["source"] == "handed over"


def test_an_answer_to_a_request_is_traced_and_replayed_by_the_ids_that_it_names_and_corrects_nothing(
    road: Road, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CRYPTO_ML_BUCKET", road.store.bucket)
    monkeypatch.setenv("CRYPTO_ML_PREFIX", road.store.prefix)
    (reply,) = ask(road, csv(upload(market({"BTC": 13})[12:]), "mine"))
    prediction = str(reply.predictions["prediction_id"][0])
    shown = CliRunner().invoke(main, ["trace", prediction])
    assert shown.exit_code == 0, shown.output
    assert "request         mine.csv  sha256 " in shown.output
    found = json.loads(CliRunner().invoke(main, ["trace", prediction, "--json"]).stdout)
    assert (found["row"]["prediction_id"], found["answer_id"]) == (prediction, reply.answer_id)
    again = CliRunner().invoke(main, ["replay", prediction])
    assert (again.exit_code, again.stdout) == (0, "IDENTICAL\n")
    assert "not in prediction_log yet" in again.stderr
    refused = CliRunner().invoke(main, ["corrections", prediction])
    assert refused.exit_code == 1
    assert "is of a request, which corrects nothing" in refused.stderr
