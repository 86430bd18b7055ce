"""Every file of a delivery fails alone, also in giving up: the others are told, and the list of outcomes is true."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from crypto_ml.ledger import giving_up
from crypto_ml.ledger.deliveries import Delivery, DeliveryLog
from crypto_ml.ledger.formats.outcomes_v1 import tried_for, was_given_up
from crypto_ml.ledger.giving_up import give_up
from crypto_ml.ledger.layout import answered_key, receipt_key
from crypto_ml.ledger.reports import Report, read_report, write_report
from crypto_ml.ledger.retries import RetryLog, is_open
from crypto_ml.storage.failures import StoreNotUsable, StoreRefused, StoreUnavailable
from crypto_ml.storage.objects import ObjectStore

WHY = "gave up: its process died"
NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def delivery(store: ObjectStore) -> Delivery:
    """Three files that no run has answered."""
    for name in "abc":
        store.replace(f"uploads/{name}.csv", name.encode())
    (made,) = DeliveryLog(store).assign_new(NOW)
    return made


def refusing(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """No report on b.csv can be written."""

    def write(report: Report, store: ObjectStore) -> bool:
        if report.upload_key == "uploads/b.csv":
            raise error
        return write_report(report, store)

    monkeypatch.setattr(giving_up, "write_report", write)


@pytest.mark.parametrize("error", [StoreRefused("the key is too long"), ValueError("purple")])
def test_a_report_that_cannot_be_written_stops_no_other_and_no_outcome(
    delivery: Delivery, store: ObjectStore, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    refusing(monkeypatch, error)
    give_up(delivery, WHY, "run", store)
    outcomes = store.read_json(answered_key(delivery.id))
    assert [one["outcome"] for one in outcomes.values()] == ["REJECTED"] * 3
    assert outcomes["uploads/b.csv"]["reason"] == f"{WHY} (and no report could be written: {error})"
    for name in ("a", "c"):
        report = read_report(f"uploads/{name}.csv", store)
        assert report is not None
        assert report.document["reason"] == outcomes[f"uploads/{name}.csv"]["reason"] == WHY


@pytest.mark.parametrize("error", [StoreUnavailable("away"), StoreNotUsable("no permission")])
def test_a_store_that_is_away_closes_nothing_so_that_it_is_closed_when_it_is_back(
    delivery: Delivery, store: ObjectStore, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    with monkeypatch.context() as patch:
        refusing(patch, error)
        with pytest.raises(type(error)):
            give_up(delivery, WHY, "run", store)
    assert store.head(answered_key(delivery.id)) is None
    give_up(delivery, WHY, "run", store)
    assert len(store.read_json(answered_key(delivery.id))) == 3


def test_a_receipt_that_is_not_as_it_was_written_stops_nothing(delivery: Delivery, store: ObjectStore) -> None:
    store.create(receipt_key(f"{delivery.id}-0123456789abcdef"), b"not json")
    give_up(delivery, WHY, "run", store)
    assert was_given_up(store.read_json(answered_key(delivery.id)))


def test_what_is_given_up_again_says_why_this_time_and_settles_the_request(
    delivery: Delivery, store: ObjectStore
) -> None:
    give_up(delivery, WHY, "run", store)
    request = RetryLog(store).ask([delivery], NOW)
    assert is_open(request.number, store.read_json(answered_key(delivery.id)))
    give_up(delivery, "gave up: again", "run", store, retry=request.number)
    outcomes = store.read_json(answered_key(delivery.id))
    assert tried_for(outcomes) == request.number
    assert not is_open(request.number, outcomes)
    assert {str(one["reason"]) for one in outcomes.values()} == {"gave up: again"}
    report = read_report("uploads/a.csv", store)
    assert report is not None
    assert report.document["reason"] == "gave up: again"


def test_giving_up_never_replaces_an_answer_that_came_in_between(delivery: Delivery, store: ObjectStore) -> None:
    answered: dict[str, Any] = {one.key: {"outcome": "PREDICTED", "answer_id": "x"} for one in delivery.uploads}
    store.create_json(answered_key(delivery.id), answered)
    give_up(delivery, WHY, "run", store, retry=1)
    assert json.loads(store.read(answered_key(delivery.id))) == answered


def test_every_request_has_a_number_of_its_own_and_is_read_once(delivery: Delivery, store: ObjectStore) -> None:
    first, second = RetryLog(store).ask([delivery], NOW), RetryLog(store).ask([delivery], NOW)
    log = RetryLog(store)
    assert list(log.since(0)) == [first, second]
    assert list(log.since(second.number)) == []


def test_a_version_is_overtaken_only_by_one_that_has_predictions(delivery: Delivery, store: ObjectStore) -> None:
    """Two versions of a file are given up, the newer one first: the older one can be asked for again as well."""
    store.replace("uploads/a.csv", b"corrected")
    log = DeliveryLog(store)
    (newer,) = log.assign_new(NOW)
    give_up(newer, WHY, "run", store)
    outcomes = give_up(delivery, WHY, "run", store)
    assert [one["outcome"] for one in outcomes.values()] == ["REJECTED"] * 3
    standing = read_report("uploads/a.csv", store)
    assert standing is not None
    assert standing.delivery == newer.id
