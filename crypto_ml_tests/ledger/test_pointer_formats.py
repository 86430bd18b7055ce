"""Entries of the champion pointer as every release wrote them: read, served, and held against what receipts repeat."""

from datetime import UTC, datetime
from typing import Any

import pytest

from crypto_ml.audit.references import Reference
from crypto_ml.audit.replay import replay
from crypto_ml.audit.trace import lines, trace
from crypto_ml.ledger.formats import pointer_v1, pointer_v2
from crypto_ml.ledger.formats.reading import RecordDamaged, RecordTooNew, read_record
from crypto_ml.ledger.receipts import read_receipt
from crypto_ml.ledger.registry import Registry, repeated_champion
from crypto_ml.storage.objects import ObjectStore
from crypto_ml_tests.forecasting.markets import market, model
from crypto_ml_tests.stages.road import Road, upload

NOW = datetime(2018, 3, 26, tzinfo=UTC)
ONE, OTHER = model("gap", label="one"), model("change", label="other")

FIRST_START_OF_0_1: dict[str, Any] = {
    "version": ONE.version,
    "sha256": ONE.sha256,
    "action": "first start",
    "at": "2018-03-26T00:00:00+00:00",
    "by": "crypto_ml",
    "why": "first start of this deployment",
}
PROMOTION_OF_0_1: dict[str, Any] = {
    **FIRST_START_OF_0_1,
    "action": "promotion",
    "by": "ann",
    "why": "closer",
    "gates": [{"name": "onnx_equals_keras", "passed": False, "explanation": "Not equal.", "numbers": {"ulp": 3.0}}],
    "override": "urgent",
}
OF_TODAY: dict[str, Any] = {"format": 2, "gates": [], "override": None, "decision": "d1", **FIRST_START_OF_0_1}
WITH_A_LATER_FIELD = {**OF_TODAY, "approved_by": ["ann", "bob"]}
KNOWN = [FIRST_START_OF_0_1, PROMOTION_OF_0_1, OF_TODAY, WITH_A_LATER_FIELD, {**PROMOTION_OF_0_1, "later": 1}]


@pytest.fixture
def registry(store: ObjectStore) -> Registry:
    made = Registry(store)
    made.add(ONE)
    made.add(OTHER)
    return made


def write(registry: Registry, document: Any, number: int = 1) -> None:
    registry.store.create_json(registry.pointer_key(number), document)


@pytest.mark.parametrize("document", KNOWN)
def test_an_entry_of_any_known_format_is_read_and_its_document_is_kept_as_it_stands(
    registry: Registry, document: dict[str, Any]
) -> None:
    write(registry, document)
    entry = registry.champion()
    assert entry is not None
    assert entry.recorded == document
    assert registry.entry(1) == entry
    assert (entry.version, entry.by, entry.action) == (ONE.version, document["by"], document["action"])
    assert (entry.decision, entry.override) == (document.get("decision"), document.get("override"))
    assert list(entry.gates) == document.get("gates", [])
    assert registry.champion_or_first(lambda: OTHER, NOW) == entry
    assert registry.promote(OTHER.version, by="ann", why="better", at=NOW).pointer == 2
    assert registry.roll_back(by="ann", why="worse", at=NOW).version == ONE.version


@pytest.mark.parametrize("document", KNOWN)
def test_an_answer_given_with_an_entry_of_any_known_format_is_traced_and_comes_out_again(
    store: ObjectStore, document: dict[str, Any]
) -> None:
    road = Road(store, bundle=ONE)
    road.registry.add(ONE)
    write(road.registry, document)
    road.drop(prices=upload(market({"BTC": 12})))
    road.answer_new()
    answer = str(road.report("prices")["answer_id"])
    receipt = read_receipt(answer, store)
    assert receipt.champion == {"pointer": 1, **document}
    said = [line for _, line in lines(trace(Reference(answer), store), store)]
    assert f"approval        entry 1, {document['action']} by {document['by']}: {document['why']}" in said
    assert str(replay(answer, store)) == "IDENTICAL"


@pytest.mark.parametrize("document", [FIRST_START_OF_0_1, PROMOTION_OF_0_1])
def test_what_a_receipt_of_0_1_repeats_is_the_entry_as_it_is_recorded(
    registry: Registry, document: dict[str, Any]
) -> None:
    write(registry, document)
    in_receipt = {"pointer": 1, "gates": [], "override": None, **document}
    assert registry.entry(1).is_repeated_by(in_receipt)
    assert repeated_champion(in_receipt).by == document["by"]
    assert not registry.entry(1).is_repeated_by({**in_receipt, "why": "because"})
    assert not registry.entry(1).is_repeated_by({**in_receipt, "pointer": 2})


def test_what_a_receipt_repeats_differs_where_only_an_unknown_field_does(registry: Registry) -> None:
    write(registry, WITH_A_LATER_FIELD)
    entry = registry.entry(1)
    assert entry.is_repeated_by(entry.repeated())
    assert not entry.is_repeated_by({**entry.repeated(), "approved_by": ["bob"]})
    assert not entry.is_repeated_by({"pointer": 1, **OF_TODAY})


def test_an_entry_of_a_later_format_is_refused_by_name(registry: Registry) -> None:
    write(registry, {"format": 3, "bundle": ONE.version})
    with pytest.raises(RecordTooNew, match=r"00000001\.json is a pointer of format 3, .* later release"):
        registry.champion()


def test_an_entry_that_lacks_what_its_format_has_is_damaged(registry: Registry) -> None:
    write(registry, {name: value for name, value in OF_TODAY.items() if name != "sha256"})
    with pytest.raises(RecordDamaged, match=r"00000001\.json is not as it was written \(at sha256\)"):
        registry.champion()


def test_what_is_written_is_format_2_to_the_letter(registry: Registry) -> None:
    registry.promote(ONE.version, by="ann", why="closer", at=NOW, decision="d1")
    assert registry.store.read_json(registry.pointer_key(1)) == {
        "format": 2,
        "version": ONE.version,
        "sha256": ONE.sha256,
        "by": "ann",
        "why": "closer",
        "at": "2018-03-26T00:00:00+00:00",
        "action": "promotion",
        "gates": [],
        "override": None,
        "decision": "d1",
    }


def test_a_known_format_is_read_back_as_it_was_written() -> None:
    entry = read_record(pointer_v2.PointerEntry, WITH_A_LATER_FIELD, "here")
    assert pointer_v2.written(entry) == OF_TODAY
    assert read_record(pointer_v1.PointerEntry, PROMOTION_OF_0_1, "here").override == "urgent"
