"""A key that an asker repeats names one delivery for ever, unless whoever claimed it died before it answered."""

from datetime import UTC, datetime, timedelta

import pytest

from crypto_ml.ledger.formats.reading import RecordTooNew
from crypto_ml.ledger.requests import (
    ABANDONED,
    KeyTaken,
    asked_key,
    asked_name,
    claim,
    claim_key,
    delivery_in,
    is_json,
    is_request,
    pack_key,
    time_of,
)
from crypto_ml.ledger.settlements import LATE
from crypto_ml.storage.objects import ObjectStore

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)


def test_a_key_names_the_delivery_of_whoever_came_first_and_another_body_is_refused(store: ObjectStore) -> None:
    named = claim("ann", "key", b"body", NOW, store)
    assert claim("ann", "key", b"body", NOW + ABANDONED / 2, store) == named
    assert len({named, claim("bob", "key", b"body", NOW, store), claim("ann k", "ey", b"body", NOW, store)}) == 3
    with pytest.raises(KeyTaken, match="came with another body before"):
        claim("ann", "key", b"other", NOW, store)
    store.create(pack_key(named), b"a pack")
    assert claim("ann", "key", b"body", NOW + timedelta(days=9), store) == named


def test_a_claim_that_was_never_answered_is_made_anew_while_a_sweep_can_still_find_it(store: ObjectStore) -> None:
    assert ABANDONED < LATE
    named = claim("ann", "key", b"body", NOW, store)
    later = NOW + ABANDONED
    anew = claim("ann", "key", b"body", later, store)
    assert time_of(anew) == later
    assert claim("ann", "key", b"body", later, store) == anew != named
    with pytest.raises(KeyTaken):
        claim("ann", "key", b"other", later, store)
    document = store.read_json(claim_key("ann", "key"))
    store.replace(claim_key("ann", "key"), b'{"format": 2}')
    with pytest.raises(RecordTooNew):
        claim("ann", "key", b"body", later, store)
    assert document["delivery"] == named


def test_the_names_of_requests_are_told_from_those_of_files() -> None:
    assert is_request("179500000000000042")
    assert not any(map(is_request, ("00000001", "123456789", "17950000000000004x", "1795000000000000420")))
    key = asked_key("179500000000000042", 3, "my-id", "json")
    assert (asked_name(key), is_json(key), delivery_in(key)) == ("my-id.json", True, "179500000000000042")
    assert delivery_in(f"predictions/{key}") == "179500000000000042"
    assert delivery_in("uploads/requests/179500000000000042/a.csv") is None
