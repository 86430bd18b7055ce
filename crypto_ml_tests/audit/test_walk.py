"""Links are held against each other: none can be put in another place, left out, or made anew with old dates."""

from dataclasses import replace
from datetime import UTC, datetime

from crypto_ml.ledger.chain import EvidenceChain, record_of
from crypto_ml.ledger.formats.chain_v1 import Link, Record
from crypto_ml.ledger.receipts import sealed
from crypto_ml_tests.audit.verified_site import Site


def test_links_that_are_swapped_deleted_truncated_or_changed_are_noticed(site: Site) -> None:
    chain = EvidenceChain(site.store)
    keys = [found.key for found in chain.listed()]
    contents = [site.store.read(key) for key in keys]

    def chained(*order: int) -> set[str]:
        for key in keys:
            site.delete(key)
        for key, number in zip(keys, order, strict=False):
            site.store.replace(key, contents[number])
        return {found.kind for found in site.look()}

    assert chained(0, 2, 1, 3, 4) == {"chain"}
    site.delete(*keys)
    for number in (0, 1, 3, 4):
        site.store.replace(keys[number], contents[number])
    assert "chain" in {found.kind for found in site.look()}
    chained(0, 1, 2, 3, 4)
    site.store.replace(keys[1], contents[1].replace(b'"deliveries": 2', b'"deliveries": 3'))
    assert {(found.kind, found.key) for found in site.look()} == {("chain", keys[1]), ("chain", keys[2])}
    # of a chain whose end is gone, the rest is right: whoever verified it before, or a witness, knows of the end
    assert chained(0, 1, 2) == set()
    assert [one.what for one in site.look(anew=False)] == ["link 5 was verified before, and is gone"]


def test_a_chain_made_anew_that_says_it_is_old_is_known_by_when_s3_says_it_was_written(site: Site) -> None:
    site.forge([replace(link, at="2026-01-01T00:00:00+00:00") for link in site.links()])
    assert {found.kind for found in site.look()} == {"chain"}
    assert all("was written only" in found.what for found in site.look())


def test_a_forged_link_excuses_no_change_and_no_backdating(site: Site) -> None:
    receipt, pointer = site.receipt("third"), "models/champion/dev/00000002.json"
    chain = EvidenceChain(site.store)

    def link(*records: Record, taken_in: bool = False) -> None:
        head = chain.head()
        assert head
        now = datetime.now(UTC).isoformat()
        forged = Link(head.number + 1, head.sha256, now, records, taken_in=taken_in, deliveries=4)
        assert chain.append(forged)

    def record(key: str, **said: bool) -> Record:
        found, content = site.store.fetch(key)
        return replace(record_of(found, content), **said)  # type: ignore[arg-type]

    link(record(receipt, open=True), record("receipts/answered/00000004.json", open=True))
    site.edit(receipt, lambda document: document["timings"].update(answered_at=datetime.now(UTC).isoformat()))
    site.edit(pointer, lambda document: document.update(by="eve"))
    site.store.create_json("receipts/retractions/9.0.json", sealed({"at": "2024-01-01T00:00:00+00:00"}))
    link(record(receipt, open=True), record(pointer), record("receipts/retractions/9.0.json"), taken_in=True)
    kinds = {(found.kind, found.key) for found in site.look()}
    assert kinds >= {
        ("chain", receipt), ("changed", receipt), ("changed", pointer), ("chain", "receipts/answered/00000004.json"),
        ("chain", chain.key(7)), ("backdated", "receipts/retractions/9.0.json"),
    }  # fmt: skip


def test_a_last_pointer_entry_that_was_deleted_and_decided_again_is_noticed(site: Site) -> None:
    pointer = "models/champion/dev/00000002.json"
    version = site.store.read_json(pointer)["version"]
    site.delete(pointer)
    assert site.kinds(anew=False)[pointer] == "missing"
    site.road.registry.promote(version, by="eve", why="mine", at=datetime.now(UTC))
    assert site.kinds(anew=False)[pointer] == "changed"
    site.extend()
    (found,) = [one for one in site.look() if one.key == pointer]
    assert (found.key, found.kind, found.link) == (pointer, "changed", 4)
    assert "between link 4 and link 6" in found.what
