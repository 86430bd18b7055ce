"""A wrong file is taken back: its rows stay and count no more, and what was answered before comes out again."""

import json
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from typing import Any

import pandas as pd
import pytest

from crypto_ml.audit import forecast_replay
from crypto_ml.audit.replay import replay
from crypto_ml.audit.retractions import RetractedUse, used
from crypto_ml.forecasting.bundle import TRAINING_MANIFEST, ModelBundle, make_bundle
from crypto_ml.ledger.layout import FORECAST_RECEIPTS, retraction_key
from crypto_ml.ledger.receipts import receipts_of
from crypto_ml.ledger.retractions import read_retraction
from crypto_ml.stages.retraction import (
    Decision,
    NotAnsweredYet,
    NothingToRetract,
    Retracted,
    RetractedBefore,
    UnexplainedRetraction,
    UnknownUpload,
    WhichUpload,
    retract,
)
from crypto_ml.stages.scaler import choose, rows_of
from crypto_ml.storage.objects import connect
from crypto_ml_tests.forecasting.markets import market, model
from crypto_ml_tests.stages.forecasts import forecast_now, read
from crypto_ml_tests.stages.road import NOW, Road, upload

WRONG = "00000002.0"
AFTER = NOW + timedelta(hours=2)
WHY = "prices of another exchange"


def take_back(road: Road, name: str, *, at: datetime = AFTER, by: str = "ann", **decided: Any) -> list[Retracted]:
    """Retract an upload."""
    return retract(Decision(name, by, WHY, **decided), road.store, road.history, at)


def current(road: Road, **asked: Any) -> list[dict[str, Any]]:
    """The current rows, without what tells when they became known."""
    rows: list[dict[str, Any]] = road.history.current_rows(**asked).drop_columns(["known_at"]).to_pylist()
    return rows


def trained(road: Road, known_by: datetime) -> ModelBundle:
    """A model of random numbers, on what its manifest says."""
    manifest, _ = choose("2018-01-14", date(2018, 1, 14), road.history, known_by)
    base = model("gap", label="trained")
    documents = {TRAINING_MANIFEST: json.dumps(manifest).encode()}
    files, made = base.files, base.manifest
    made_of: dict[str, Any] = {"network_onnx": files["network.onnx"], "weights_sha256": made["weights_sha256"]}
    return make_bundle(
        label="trained", target="gap", scaler=base.statistics, slugs={}, about={}, documents=documents, **made_of
    )


@dataclass
class TakenBack:
    """A road on which a wrong file was dropped, used and taken back, and how it was at every step."""

    road: Road
    before: list[dict[str, Any]]
    newest: int
    trained: ModelBundle
    retracted: Retracted
    used: RetractedUse


@pytest.fixture(scope="module")
def taken(bucket: str) -> Iterator[TakenBack]:
    """Twelve days of two coins; a wrong file corrects the last of them, brings a newer day and a symbol of its own;
    another day follows, and forecasts and a model are made of it all; then it is taken back."""
    road = Road(connect(bucket, f"tests/{uuid.uuid4().hex}"))
    rows, wrong = market({"BTC": 14, "NEW": 14}), market({"BTC": 14, "NEW": 14, "ODD": 14}, seed=5)
    road.drop(first=upload(rows[rows["date"] <= "2018-01-12"]))
    road.answer_new()
    forecast_now(road)
    before = current(road)
    road.now = NOW + timedelta(hours=1)
    road.drop(wrong=upload(wrong[wrong["date"] >= "2018-01-12"]))
    road.answer_new()
    forecast_now(road)
    made = trained(road, road.now)
    road.registry.add(made)
    road.drop(later=upload(rows[rows["date"] == "2018-01-13"]))
    road.answer_new()
    newest = road.history.version()
    assert newest is not None
    (retracted,) = take_back(road, "wrong.csv")
    yield TakenBack(road, before, newest, made, retracted, used(retracted, road.store))


def test_the_rows_stay_and_the_current_ones_go_back_to_what_they_were(taken: TakenBack) -> None:
    history = taken.road.history
    assert (taken.retracted.retraction.upload_id, taken.retracted.rows) == (WRONG, 9)
    assert history.count() == history.count(taken.newest) + 9
    assert list(taken.retracted.versions) == [taken.newest + 1] == [history.version()]
    later = [row for row in current(taken.road, version=taken.newest) if row["upload_id"] == "00000003.0"]
    expected = {(row["symbol"], row["date"]): row for row in [*taken.before, *later]}
    assert current(taken.road) == [expected[key] for key in sorted(expected)]
    assert any(row["upload_id"] == WRONG for row in current(taken.road, version=taken.newest))
    known_before = current(taken.road, known_by=AFTER - timedelta(seconds=1))
    assert known_before == current(taken.road, version=taken.newest)


def test_a_training_set_knows_the_rows_until_the_retraction_and_not_after(taken: TakenBack) -> None:
    manifest, rows = choose("2018-01-14", date(2018, 1, 14), taken.road.history, AFTER)
    assert WRONG not in manifest["uploads"]
    assert manifest["known_by"] == taken.retracted.retraction.at
    pd.testing.assert_frame_equal(rows_of(manifest, taken.road.history), rows)
    again, _ = choose("2018-01-14", date(2018, 1, 14), taken.road.history, AFTER - timedelta(seconds=1))
    assert WRONG in again["uploads"]
    old = taken.trained.document(TRAINING_MANIFEST)
    assert choose("2018-01-14", date(2018, 1, 14), taken.road.history, NOW + timedelta(hours=1))[0] == {
        **old,
        "history_version": again["history_version"],
        "uploads": again["uploads"],
        "rows_sha256": again["rows_sha256"],
    }
    assert len(rows_of(old, taken.road.history)) == old_rows(old, taken)


def old_rows(manifest: dict[str, Any], taken: TakenBack) -> int:
    return len(current(taken.road, version=manifest["history_version"], before=date(2018, 1, 14)))


def test_what_had_used_the_rows_is_listed(taken: TakenBack) -> None:
    store = taken.road.store
    answers = {delivery: next(receipts_of(f"{delivery:08d}", store)).answer_id for delivery in (1, 2, 3)}
    assert [one.name for one in taken.used.answers] == [answers[2], answers[3]]
    btc = next(row for row in taken.road.predictions("later").to_dict("records") if row["symbol"] == "BTC")
    assert btc["prediction_id"] in taken.used.answers[1].used
    forecasts = [found.key.removeprefix(FORECAST_RECEIPTS)[:-5] for found in store.list(FORECAST_RECEIPTS)]
    assert [one.name for one in taken.used.forecasts] == [name for name in forecasts if name.startswith("2018-01-15")]
    assert [(one.name, "BTC 2018-01-12" in one.used) for one in taken.used.models] == [(taken.trained.version, True)]


def test_everything_that_was_answered_and_forecast_before_and_after_comes_out_again(taken: TakenBack) -> None:
    store = taken.road.store
    forecast_now(taken.road)
    taken.road.drop(after=upload(market({"BTC": 14}).tail(1)))
    (answers,) = taken.road.answer_new()
    ids = [found.key.rpartition("/")[2].removesuffix(".json") for found in store.list("receipts/answers/")]
    assert answers.receipts[0].answer_id in ids
    assert {str(replay(answer, store)) for answer in ids} == {"IDENTICAL"}
    forecasts = [found.key.rpartition("/")[2].removesuffix(".json") for found in store.list(FORECAST_RECEIPTS)]
    assert {str(forecast_replay.replay(forecast, store)) for forecast in forecasts} == {"IDENTICAL"}
    assert len(forecasts) == 3
    (key,) = [found.key for found in store.list("raw/appends/retraction-")]
    content = store.read(key)
    store.replace(key, content.replace(b'"version": ', b'"version": 0'))
    assert "market_history" in str(replay(answers.receipts[0].answer_id, store, full=True))
    store.replace(key, content)
    objects = [one for one in json.loads(content)["objects"] if one.endswith(".parquet")]
    good = store.read(objects[0])
    store.replace(objects[0], good[:-9] + bytes([good[-9] ^ 1]) + good[-8:])
    assert str(replay(answers.receipts[0].answer_id, store, full=True)).startswith("DIFFERS AT market_history: ")
    assert (
        str(replay(taken.used.answers[1].name, store, full=True)) == "IDENTICAL"
    )  # it was given before there were such rows
    store.replace(objects[0], good)


def test_the_forecast_after_it_is_for_the_earlier_day_and_takes_its_place(taken: TakenBack) -> None:
    forecast_now(taken.road)
    found, left_out = read(taken.road.store), read(taken.road.store, "latest_left_out")
    assert set(found["target_date"]) <= {"2018-01-14", "2018-01-15"}
    assert left_out.set_index("symbol").loc["ODD", "reason"] == "all its rows were retracted"
    assert "ODD" not in set(found["symbol"])


def test_whoever_looks_at_the_predictions_finds_that_they_were_retracted(taken: TakenBack) -> None:
    store, report = taken.road.store, taken.road.report("wrong")
    assert taken.retracted.notice == "predictions/wrong_retracted.json"
    said = store.read_json("predictions/wrong_retracted.json")
    assert (said["by"], said["why"], said["delivery"]) == ("ann", WHY, report["delivery"])


def test_a_retraction_is_decided_once(taken: TakenBack) -> None:
    before = taken.road.objects()
    (again,) = take_back(taken.road, WRONG, at=AFTER + timedelta(hours=1))
    assert again == replace(taken.retracted, retraction=again.retraction)
    assert again.retraction == read_retraction(WRONG, taken.road.store)
    for name in ("wrong.csv", WRONG, "2.0"):
        with pytest.raises(RetractedBefore, match=f"retracted already, by ann .*at {again.retraction.at[:10]}.*{WHY}"):
            take_back(taken.road, name, by="bob")
    assert taken.road.objects() == before


@pytest.mark.parametrize(
    ("name", "failure", "said"),
    [
        ("none.csv", UnknownUpload, "nothing was ever received under uploads/none.csv"),
        ("9.0", UnknownUpload, "there is no delivery 00000009"),
        ("1.7", UnknownUpload, "has 1 uploads"),
        ("٢.0", UnknownUpload, "nothing was ever received under uploads/٢.0"),
    ],
)
def test_what_was_never_received_is_refused(taken: TakenBack, name: str, failure: type, said: str) -> None:
    with pytest.raises(failure, match=said):
        take_back(taken.road, name)
    with pytest.raises(UnexplainedRetraction):
        retract(Decision(WRONG, "ann", "  "), taken.road.store, taken.road.history, AFTER)


def test_a_key_with_spaces_at_its_ends_is_not_the_one_without(road: Road) -> None:
    for key in (" prices.csv", "prices.csv"):
        road.store.replace(f"uploads/{key}", upload(market({key.strip() + str(len(key)): 12})))
    road.answer_new()
    (spaced,) = take_back(road, " prices.csv")
    assert spaced.retraction.upload.key == "uploads/ prices.csv"
    (pasted,) = take_back(road, "prices.csv ")
    assert pasted.retraction.upload.key == "uploads/prices.csv"


def test_a_mistaken_retraction_is_undone_by_dropping_the_file_again_and_a_repeat_is_named(road: Road) -> None:
    content = upload(market({"BTC": 12}))
    road.drop(prices=content, bad=b"not,a,market\n")
    with pytest.raises(UnknownUpload):
        take_back(road, "prices.csv")
    road.assign()
    with pytest.raises(NotAnsweredYet, match="still to be answered"):
        take_back(road, "uploads/prices.csv")
    road.answer(1)
    with pytest.raises(NothingToRetract, match=r"no rows in the market history: it is REJECTED, .*"):
        take_back(road, "bad.csv")
    before = current(road)
    take_back(road, "prices.csv")
    assert current(road) == []
    road.drop(prices=content)
    (answers,) = road.answer_new()
    assert [receipt.outcome for receipt in answers.receipts] == ["PREDICTED"]
    assert [(row["symbol"], row["open"]) for row in current(road)] == [(row["symbol"], row["open"]) for row in before]
    assert str(replay(answers.receipts[0].answer_id, road.store)) == "IDENTICAL"
    road.drop(prices=content)
    assert [receipt.outcome for answers in road.answer_new() for receipt in answers.receipts] == ["SKIPPED"]
    with pytest.raises(WhichUpload, match=r"received 2 times: 00000002.0 \(uploaded .*\), 00000003.0 "):
        take_back(road, "prices.csv", by="bob")
    assert [one.retraction.upload_id for one in take_back(road, "prices.csv", by="bob", everything=True)] == [
        "00000002.0",
        "00000003.0",
    ]
    assert current(road) == []


def test_a_retraction_that_died_is_carried_out_by_whoever_comes_next(
    road: Road, monkeypatch: pytest.MonkeyPatch
) -> None:
    road.drop(prices=upload(market({"BTC": 12})))
    road.answer_new()
    with monkeypatch.context() as patch:
        patch.setattr("crypto_ml.stages.retraction.carry_out", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            take_back(road, "prices.csv")
    assert road.store.head(retraction_key("00000001.0"))
    assert len(current(road)) == 12
    with pytest.raises(RetractedBefore, match="by ann"):
        take_back(road, "prices.csv", by="bob")
    assert current(road) == []
    assert read_retraction("00000001.0", road.store).by == "ann"


def test_rows_that_another_cleaning_brings_are_void_too(road: Road, monkeypatch: pytest.MonkeyPatch) -> None:
    road.drop(prices=upload(market({"BTC": 12})) + b"BTC,2018-01-13,100,100,100,110,1\n")
    road.answer_new()
    (before,) = take_back(road, "prices.csv")
    monkeypatch.setattr("crypto_ml.forecasting.cleaning.TOLERANCE", 0.5)
    road.settings = road.settings.model_copy(update={"max_upload_bytes": 1 << 30})  # another cleaning
    road.answer(1)
    assert {str(row["date"]) for row in road.history.scan(["date"]).read_all().to_pylist()} >= {"2018-01-13"}
    assert current(road) == []
    assert len(current(road, known_by=AFTER - timedelta(seconds=1))) == 13
    (again,) = take_back(road, "prices.csv")
    assert (len(before.versions), len(again.versions)) == (1, 2)
