"""Which answer and which row stand in the end, in whatever order runs come to theirs, and what vouches for them."""

from pathlib import Path

import pytest

from crypto_ml.audit.references import Reference
from crypto_ml.audit.trace import trace
from crypto_ml.digest import sha256_of
from crypto_ml.forecasting.inference import Network
from crypto_ml.ledger.deliveries import DeliveryLog
from crypto_ml.ledger.giving_up import give_up
from crypto_ml.ledger.layout import answer_keys, answered_key
from crypto_ml.ledger.receipts import read_receipt
from crypto_ml.stages.publication import Answer, publish_files, publish_report
from crypto_ml.storage.prediction_log import PredictionLog
from crypto_ml_tests.forecasting.markets import market
from crypto_ml_tests.stages.road import Road, upload


def test_an_older_answer_that_comes_late_leaves_the_newer_one_where_it_is(road: Road, tmp_path: Path) -> None:
    """Both runs looked before either published, so only the store can tell who is newer."""
    road.drop(prices=upload(market({"BTC": 8})))
    (older,) = road.answer_new()
    road.drop(prices=upload(market({"BTC": 8}, seed=1)) + b"ragged\n")
    road.answer_new()
    before = {key: etag for key, etag in road.objects().items() if key.startswith("predictions/")}
    late = tmp_path / "late.csv"
    late.write_bytes(b"late")
    late_answer = publish_files(Answer(older.receipts[0], "answer", late, late), road.store)
    publish_report(late_answer, road.store)
    assert late_answer.receipt.outcome == "SKIPPED"
    assert "newer delivery" in str(late_answer.receipt.reason)
    assert {key: etag for key, etag in road.objects().items() if key.startswith("predictions/")} == before


def test_bytes_that_come_back_while_others_are_answered_are_answered_again(road: Road) -> None:
    """A, then B, then A again, where the run of the last A had begun before B was answered."""
    first, second = upload(market({"BTC": 6})), upload(market({"BTC": 6}, seed=1))
    road.drop(prices=first)
    road.answer_new()
    road.drop(prices=second)
    (b,) = road.assign()
    road.drop(prices=first)
    (a_again,) = road.assign()
    road.clean(a_again.number)
    road.answer(b.number)
    road.answer(a_again.number)
    assert road.report("prices")["outcome"] == "PREDICTED"
    assert road.predictions("prices")["val_open"].tolist() == market({"BTC": 6})["open"].tolist()


def test_an_answer_that_stands_is_kept_from_being_replaced_by_what_came_between(road: Road) -> None:
    """A, B, A again: where the last A is answered first, it is a repeat, and B comes too late."""
    first, second = upload(market({"BTC": 6})), upload(market({"BTC": 6}, seed=1))
    road.drop(prices=first)
    road.answer_new()
    published = road.store.read("predictions/prices_preds.csv")
    road.drop(prices=second)
    (b,) = road.assign()
    road.drop(prices=first)
    (a_again,) = road.assign()
    outcomes = [road.answer(delivery.number).receipts[0].outcome for delivery in (a_again, b, a_again)]
    assert outcomes == ["SKIPPED", "SKIPPED", "SKIPPED"]
    assert road.store.read("predictions/prices_preds.csv") == published


def test_a_delivery_given_up_on_and_launched_again_has_one_outcome_in_the_end(road: Road) -> None:
    road.drop(prices=upload(market({"BTC": 6})))
    (delivery,) = road.assign()
    give_up(delivery, "gave up: its process died", "run", road.store)
    assert road.report("prices")["outcome"] == "REJECTED"
    (receipt,) = road.answer(delivery.number).receipts
    assert road.report("prices")["outcome"] == "PREDICTED"
    outcome = road.store.read_json(answered_key(delivery.id))["uploads/prices.csv"]
    assert outcome == {"outcome": "PREDICTED", "answer_id": receipt.answer_id}


def test_giving_up_finds_the_answer_of_a_run_that_died_before_its_report(road: Road) -> None:
    road.drop(prices=upload(market({"BTC": 6})))
    (answers,) = road.answer_new()
    for key in (answer_keys("uploads/prices.csv").report, answered_key("00000001")):
        road.store.client.delete_object(Bucket=road.store.bucket, Key=road.store.physical(key))
    outcomes = give_up(DeliveryLog(road.store).get(1), "gave up: its process died", "run", road.store)
    answer_id = answers.receipts[0].answer_id
    assert outcomes["uploads/prices.csv"] == {"outcome": "PREDICTED", "answer_id": answer_id}
    assert (road.report("prices")["outcome"], road.report("prices")["answer_id"]) == ("PREDICTED", answer_id)


def test_of_twelve_files_for_the_same_days_the_last_is_what_history_says(road: Road) -> None:
    files = {f"{number:02d}": upload(market({"BTC": 4}, seed=number)) for number in range(12)}
    road.drop(**files)
    (delivery,) = road.assign()
    road.answer(delivery.number)
    last = delivery.uploads[-1].key.rpartition("/")[2].removesuffix(".csv")
    current = road.history.current_rows(["open"])["open"].to_pylist()
    assert current == market({"BTC": 4}, seed=int(last))["open"].tolist()


def test_a_correction_stays_the_current_row_when_the_file_it_corrects_is_answered_after_it(road: Road) -> None:
    road.drop(export=upload(market({"BTC": 6})))
    (wrong,) = road.assign()
    road.drop(correction=upload(market({"BTC": 6}, seed=1)))
    (right,) = road.assign()
    road.answer(right.number)
    road.answer(wrong.number)
    assert road.history.current_rows(["open"])["open"].to_pylist() == market({"BTC": 6}, seed=1)["open"].tolist()
    road.drop(next=upload(market({"BTC": 8}).tail(1)))
    road.answer_new()
    traced = trace(Reference(str(road.report("next")["answer_id"]), 2), road.store).row
    assert traced is not None
    assert {row.upload for row in traced.earlier_rows} == {"uploads/correction.csv"}


def test_bytes_that_differ_from_those_vouched_for_get_a_name_and_a_receipt_of_their_own(
    road: Road, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A later run computes other bits, as nothing in the identity of an answer could have told."""
    road.drop(prices=upload(market({"BTC": 12})))
    (delivery,) = road.assign()
    (first,) = road.answer(delivery.number).receipts
    predict = Network.predict
    monkeypatch.setattr(Network, "predict", lambda network, windows: predict(network, windows) * 1.5)
    (second,) = road.answer(delivery.number).receipts
    assert (first.inputs.attempt, second.inputs.attempt) == (1, 2)
    assert second.answer_id != first.answer_id
    for receipt in (second, read_receipt(second.answer_id, road.store)):
        for vouched in receipt.published.values():
            assert sha256_of(road.store.read(vouched.key)) == vouched.sha256
    assert set(road.predictions("prices")["prediction_id"].str[:25]) == {second.answer_id}
    (third,) = road.answer(delivery.number).receipts
    assert third == second


def test_every_prediction_is_logged_once_however_often_its_delivery_is_run(road: Road) -> None:
    road.drop(a=upload(market({"BTC": 8, "NEW": 3})), b=upload(market({"LTC": 5})), bad=b"symbol\n")
    (answers,) = road.answer_new()
    road.answer(1)
    road.drop(a=upload(market({"BTC": 8, "NEW": 3}, seed=1)))
    (corrected,) = road.answer_new()
    log = PredictionLog(road.store)
    for receipt in (*answers.receipts, *corrected.receipts):
        logged = log.predictions(receipt.answer_id)
        assert logged.num_rows == receipt.rows.predicted
        assert set(logged["model_version"].to_pylist()) <= {receipt.model.version}
    newest = road.predictions("a")
    newest = newest[newest["status"] == "predicted"]
    logged = log.predictions(corrected.receipts[0].answer_id).to_pydict()
    assert logged["pred_open"] == newest["pred_open"].tolist()
    assert [f"{corrected.receipts[0].answer_id}-{line}" for line in logged["line"]] == newest["prediction_id"].tolist()
    assert log.predictions().num_rows == sum(r.rows.predicted for r in (*answers.receipts, *corrected.receipts))


def test_predictions_that_were_deleted_are_published_again_when_their_file_is_dropped_again(road: Road) -> None:
    body = upload(market({"BTC": 8}))
    road.drop(prices=body)
    road.answer_new()
    key = answer_keys("uploads/prices.csv").predictions
    road.store.client.delete_object(Bucket=road.store.bucket, Key=road.store.physical(key))
    road.drop(prices=body)
    (answers,) = road.answer_new()
    assert [receipt.outcome for receipt in answers.receipts] == ["PREDICTED"]
    assert road.store.head(key) is not None
