"""A receipt is written once and reads back as it was; a report repeats it for the person who dropped the file."""

import json
import re
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from crypto_ml.errors import Refused
from crypto_ml.ledger.deliveries import Upload
from crypto_ml.ledger.formats.reading import RecordTooNew
from crypto_ml.ledger.formats.receipt_v2 import (
    Fingerprints,
    HistoryVersions,
    Inputs,
    Receipt,
    RowCounts,
    Timings,
    UsedModel,
    Vouched,
)
from crypto_ml.ledger.layout import answer_keys, receipt_key
from crypto_ml.ledger.receipts import (
    DeliveryReceipts,
    ReceiptDamaged,
    document,
    read_receipt,
    receipt_schema,
    receipts_of,
    sealed,
    write_receipt,
)
from crypto_ml.ledger.reports import Report, read_report, report_on, write_report
from crypto_ml.ledger.software import software
from crypto_ml.storage.failures import ObjectMissing, StoreRefused
from crypto_ml.storage.objects import ObjectStore

INPUTS = Inputs(
    upload_key="uploads/ü a+b.csv",
    upload_sha256="aa" * 32,
    delivery="00000007",
    accepted_sha256="bb" * 32,
    history_version=3,
    model_version="m-1",
    bundle_sha256="cc" * 32,
    champion_pointer=2,
    code="0123456789ab",
    recovery="one_step",
    current="delivered",
    libraries={"numpy": "2"},
    processor="x86_64 AVX2",
)
KEYS = answer_keys(INPUTS.upload_key)


def receipt(inputs: Inputs = INPUTS, **changed: Any) -> Receipt:
    made = Receipt(
        outcome="PREDICTED",
        reason=None,
        upload=Upload(inputs.upload_key, "etag", 12, "2018-03-26T00:00:00+00:00"),
        inputs=inputs,
        rows=RowCounts(5, 4, 1, 0, 3, 1),
        fingerprints=Fingerprints("ee" * 32, None, "ff" * 32),
        history=HistoryVersions(read=3, written=2),
        model=UsedModel("m-1", "cc" * 32, "11" * 32, "22" * 32, None),
        champion={"pointer": 2, "by": "ann"},
        settings={"recovery": "one_step", "date_order": None, "epochs": 10},
        software=software(),
        evidence={"received": Vouched("raw/received/00000007.json", "33" * 32)},
        run_id="run",
        timings=Timings("a", "b", "c", "d"),
        ignored_columns=["Colour"],
        notes=["said"],
    )
    return replace(made, **{"published": {"predictions": Vouched(KEYS.predictions, "dd" * 32)}, **changed})


def test_a_receipt_reads_back_as_it_was(store: ObjectStore) -> None:
    written = write_receipt(receipt(date_order="dmy"), store)
    back = read_receipt(written.answer_id, store)
    assert back == written
    assert document(back) == back.recorded == store.read_json(receipt_key(written.answer_id))
    with pytest.raises(ObjectMissing):
        read_receipt("nobody", store)


def test_the_first_receipt_of_an_answer_stands(store: ObjectStore) -> None:
    first = write_receipt(receipt(), store)
    assert write_receipt(receipt(run_id="another run"), store) == first
    assert read_receipt(first.answer_id, store).run_id == "run"


@pytest.mark.parametrize("name", [field.name for field in fields(Inputs)])
def test_whatever_goes_into_an_answer_is_part_of_its_name(name: str) -> None:
    value = getattr(INPUTS, name)
    changed: Any = (
        {**value, "x": "1"} if isinstance(value, dict) else value + 1 if isinstance(value, int) else f"{value}x"
    )
    assert replace(INPUTS, **{name: changed}).answer_id != INPUTS.answer_id
    assert replace(INPUTS, **{name: value}).answer_id == INPUTS.answer_id


@given(key=st.text(st.characters(exclude_categories=["Cs"])), version=st.none() | st.integers(0, 9))
def test_an_answer_is_named_by_its_delivery_and_sixteen_digits_whatever_its_upload_is_called(
    key: str, version: int | None
) -> None:
    name = replace(INPUTS, upload_key=key, history_version=version).answer_id
    assert re.fullmatch(f"{INPUTS.delivery}-[0-9a-f]{{16}}", name)


def test_a_report_reads_back_under_its_own_key_only(store: ObjectStore) -> None:
    report = report_on(receipt(), None)
    write_report(report, store)
    assert read_report(INPUTS.upload_key, store) == report
    assert read_report("uploads/other.csv", store) is None


def test_a_report_on_a_rejection_names_no_predictions() -> None:
    rejected = replace(receipt(), outcome="REJECTED", reason="the file is empty", published={})
    report = report_on(rejected, None)
    assert report.document["reason"] == "the file is empty"
    assert report.document["predictions"] is None


def test_a_skipped_upload_names_the_answer_it_had_before() -> None:
    earlier = report_on(receipt(), None)
    again = replace(INPUTS, delivery="00000008")
    skipped = receipt(again, outcome="SKIPPED", reason="the same", earlier_answer=INPUTS.answer_id, published={})
    report = report_on(replace(skipped, published={}), earlier)
    assert (report.outcome, report.delivery) == ("SKIPPED", "00000008")
    for name in ("answer_id", "rows", "predictions", "receipt", "model_version"):
        assert report.document[name] == earlier.document[name]


def test_a_field_that_a_later_release_adds_is_kept_and_harms_nobody(store: ObjectStore) -> None:
    said = {**document(receipt()), "colour": "red"}
    said["rows"] = {**said["rows"], "painted": 3}
    store.create_json(receipt_key(INPUTS.answer_id), sealed(said))
    back = read_receipt(INPUTS.answer_id, store)
    assert back == receipt()
    assert document(back)["colour"] == "red"


def test_a_receipt_of_a_later_format_is_refused_by_name(store: ObjectStore) -> None:
    store.create_json(receipt_key(INPUTS.answer_id), sealed({**document(receipt()), "format": 9}))
    with pytest.raises(RecordTooNew, match="a receipt of format 9, and this crypto_ml knows 2 at most"):
        read_receipt(INPUTS.answer_id, store)


def test_every_byte_of_a_receipt_counts(store: ObjectStore) -> None:
    written = write_receipt(receipt(), store)
    key = receipt_key(written.answer_id)
    content = store.read(key)
    for at in range(0, len(content), 17):
        flipped = content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]
        store.replace(key, flipped)
        with pytest.raises(Refused) as refused:
            read_receipt(written.answer_id, store)
        assert isinstance(refused.value, ReceiptDamaged | StoreRefused)


def test_a_receipt_keeps_to_the_published_schema() -> None:
    published = json.loads((Path(__file__).parents[2] / "docs" / "receipt.schema.json").read_text())
    assert published == receipt_schema(), "make schema writes it anew"
    Draft202012Validator.check_schema(published)
    written = json.loads(json.dumps(document(receipt(date_order="dmy"))))
    Draft202012Validator(published).validate(written)
    assert set(written) == set(published["properties"])
    written["colour"] = "red"
    assert list(Draft202012Validator(published).iter_errors(written))


def test_a_report_of_an_older_delivery_never_takes_the_place_of_a_newer_one(store: ObjectStore) -> None:
    newer, older = report_on(receipt(replace(INPUTS, delivery="00000009")), None), report_on(receipt(), None)
    assert write_report(newer, store)
    assert not write_report(older, store)
    assert read_report(INPUTS.upload_key, store) == newer


@given(
    document=st.dictionaries(
        st.text(max_size=5),
        st.recursive(
            st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        ),
        max_size=5,
    )
)
def test_a_report_is_written_byte_for_byte_as_earlier_releases_wrote_it(document: dict[str, Any]) -> None:
    assert Report(document).rendered() == json.dumps(document, indent=2, ensure_ascii=False).encode() + b"\n"


def test_of_two_runs_that_write_receipts_together_the_later_one_sees_what_the_earlier_one_wrote(
    store: ObjectStore,
) -> None:
    alone = write_receipt(receipt(), store)
    inputs = [replace(INPUTS, upload_key=f"uploads/{name}.csv") for name in "abc"]
    one, other = DeliveryReceipts(INPUTS.delivery, store), DeliveryReceipts(INPUTS.delivery, store)
    assert one.next_key == other.next_key
    first = [receipt(made, stands_in=one.next_key) for made in inputs[:2]]
    assert one.add(first)
    assert not other.add([receipt(inputs[2], stands_in=other.next_key)])
    other.catch_up()
    assert inputs[1].answer_id in other
    assert inputs[2].answer_id not in other
    assert other.add([receipt(inputs[2], stands_in=other.next_key)])
    found = list(receipts_of(INPUTS.delivery, store))
    assert {one.answer_id for one in found} == {alone.answer_id, *(made.answer_id for made in inputs)}
    for made in found:
        assert read_receipt(made.answer_id, store) == made
        said = store.read_json(made.key)
        assert document(made) == (said if made.stands_in is None else said["receipts"][made.answer_id])
    assert len({made.key for made in found}) == 3
    store.replace(first[0].key, store.read(first[0].key).replace(b'"ann"', b'"bob"'))
    for made in first:
        with pytest.raises(ReceiptDamaged, match="restore it"):
            read_receipt(made.answer_id, store)
