"""Records are held against what the chain has of them: there, with those bytes, and in a link."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from crypto_ml.audit.verify import verify
from crypto_ml.ledger.chain import EvidenceChain, record_of
from crypto_ml.ledger.formats.chain_v1 import Link
from crypto_ml_tests.audit.verified_site import AT_ONCE, Site
from crypto_ml_tests.forecasting.markets import market
from crypto_ml_tests.stages.road import upload


def test_a_backdated_answer_is_noticed_although_receipt_seal_and_report_agree(site: Site) -> None:
    receipt = site.receipt("third")

    def backdate(document: dict) -> None:  # type: ignore[type-arg]
        document["timings"]["answered_at"] = document["timings"]["received_at"] = "2025-01-01T00:00:00+00:00"

    site.edit(receipt, backdate)
    site.edit("predictions/third_report.json", backdate)
    assert site.kinds()[receipt] == site.kinds(anew=False)[receipt] == "changed"
    (found,) = [one for one in site.look() if one.key == receipt]
    assert (found.link, found.since) == (4, site.links()[3].at)


def test_another_image_and_run_in_a_receipt_and_its_report_is_noticed(site: Site) -> None:
    receipt = site.receipt("third")

    def change(document: dict) -> None:  # type: ignore[type-arg]
        document["run_id"] = "another"
        if "software" in document:
            document["software"]["image"] = "another"

    site.edit(receipt, change)
    site.edit("predictions/third_report.json", change)
    assert site.kinds(anew=False) == {receipt: "changed", "predictions/third_report.json": "published"}


def test_another_approver_in_the_pointer_and_every_receipt_is_noticed(site: Site) -> None:
    pointer, receipt = "models/champion/dev/00000002.json", site.receipt("third")
    site.edit(pointer, lambda document: document.update(by="eve"))
    site.edit(receipt, lambda document: document["champion"].update(by="eve"))
    found = site.kinds(anew=False)
    assert (found[pointer], found[receipt]) == ("changed", "changed")


def test_a_record_that_was_left_out_of_a_chain_made_anew_is_extra(site: Site) -> None:
    left_out = "receipts/answered/00000001.json"
    links = site.links()
    links[0] = replace(links[0], records=[one for one in links[0].records if one.key != left_out])
    later = datetime.fromisoformat(str(links[-1].seen_until)) + timedelta(seconds=1)  # S3 has whole seconds
    links[-1] = replace(links[-1], seen_until=later.isoformat(timespec="seconds"))
    site.forge(links)
    assert site.kinds() == {left_out: "extra"}
    assert {found.kind for found in site.look(anew=False)} >= {"chain", "extra"}


def test_what_was_given_up_may_be_answered_and_nothing_else_may_change(site: Site) -> None:
    key = "receipts/answered/00000005.json"
    site.road.drop(fourth=upload(market({"BTC": 3})))
    (delivery,) = site.road.assign()
    site.store.create_json(
        key, {"uploads/fourth.csv": {"outcome": "REJECTED", "answer_id": None, "reason": "", "retry": 0}}
    )
    site.extend()
    assert site.look() == []
    site.road.answer(delivery.number)
    assert site.look() == []  # not in a link yet
    site.extend()
    assert site.look() == []
    site.edit(key, lambda document: document["uploads/fourth.csv"].update(outcome="SKIPPED"))
    assert site.kinds()[key] == "changed"


def test_bytes_written_again_are_told_and_no_fault(site: Site) -> None:
    key = "receipts/deliveries/00000001.json"
    site.store.replace(key, site.store.read(key))
    found = verify(site.store, tolerance=AT_ONCE)
    assert found.whole
    assert "written again" in found.notes[0]
    # and taken in again, long after it says that it was written
    stored, content = site.store.fetch(key)
    head, now = EvidenceChain(site.store).head(), datetime.now(UTC)
    assert head
    again = replace(record_of(stored, content), written=(now + timedelta(days=1)).isoformat(timespec="seconds"))
    EvidenceChain(site.store).append(Link(head.number + 1, head.sha256, now.isoformat(), [again], deliveries=4))
    taken_in = verify(site.store, tolerance=AT_ONCE)
    assert taken_in.findings == ()
    assert verify(site.store, state=taken_in.state, tolerance=AT_ONCE).findings == ()
