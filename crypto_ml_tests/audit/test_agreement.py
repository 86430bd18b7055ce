"""What records say is held against S3's time, and against what other records say."""

import json

from crypto_ml.audit.verify import verify
from crypto_ml.digest import sha256_of
from crypto_ml.ledger.receipts import sealed
from crypto_ml.storage.objects import ObjectStore
from crypto_ml_tests.audit.verified_site import AT_ONCE, Site
from crypto_ml_tests.forecasting.markets import market
from crypto_ml_tests.stages.road import upload


def test_a_record_that_claims_another_time_than_s3_says_is_noticed_when_it_comes(site: Site) -> None:
    site.road.drop(fourth=upload(market({"BTC": 3})))
    site.road.answer_new()
    receipt = site.receipt("fourth")
    site.edit(receipt, lambda document: document["timings"].update(answered_at="2026-01-01T00:00:00+00:00"))
    site.extend()
    found = {one.key: one for one in site.look(anew=False)}
    assert (found[receipt].kind, found[receipt].link) == ("backdated", 6)


def test_deleted_receipts_are_noticed_before_they_are_in_a_link_too(store: ObjectStore) -> None:
    site = Site.made(store)  # outcomes that were put back are read again, and name the receipt
    receipt = site.receipt("third")
    site.delete(receipt)
    assert site.kinds(anew=False) == {receipt: "missing"}
    site.road.drop(fourth=upload(market({"BTC": 3})))
    site.road.answer_new()
    site.delete(site.receipt("fourth"))
    site.extend()
    found = {one.key: one.what for one in site.look(anew=False)}
    assert {receipt, "receipts/answered/00000005.json"} <= set(found)
    assert "there is no receipt" in found["receipts/answered/00000005.json"]


def test_a_receipt_of_a_delivery_that_never_was_is_noticed_and_one_that_no_outcome_names_is_told(site: Site) -> None:
    forged = site.store.read_json(site.receipt("third"))
    keys = []
    for delivery in ("00000099", "00000004"):
        forged["inputs"] |= {"delivery": delivery, "recovery": "cumulative"}
        inputs = sha256_of(json.dumps(forged["inputs"], sort_keys=True).encode())
        forged["answer_id"] = f"{delivery}-{inputs[:16]}"
        keys.append(f"receipts/answers/{forged['answer_id']}.json")
        site.store.create_json(keys[-1], sealed(forged))
    site.extend()
    found = verify(site.store, tolerance=AT_ONCE)
    assert ("extra", keys[0]) in {(one.kind, one.key) for one in found.findings}
    assert any("1 receipt that no outcome names" in note and keys[1] in note for note in found.notes)
