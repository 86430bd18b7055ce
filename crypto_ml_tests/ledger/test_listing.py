"""A look costs what is new: nothing is overlooked for longer than one round of the sweep."""

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crypto_ml.errors import CryptoMLError
from crypto_ml.ledger.deliveries import Upload
from crypto_ml.ledger.listing import GROWING_FOLDERS, UploadListing
from crypto_ml.storage.objects import ObjectStore, connect

SWEPT = 4


def put(store: ObjectStore, *names: str, body: bytes = b"x") -> None:
    for name in names:
        store.replace(f"uploads/{name}", body)


def seen(listing: UploadListing) -> set[str]:
    return {upload.key.removeprefix("uploads/") for upload in listing.look()}


def requests(store: ObjectStore) -> Iterator[list[str]]:
    """Every listing request from now on."""
    made: list[str] = []
    store.client.meta.events.register("provide-client-params.s3.ListObjectsV2", lambda **_: made.append("list"))
    yield made


def test_a_small_box_is_seen_whole_in_every_look(store: ObjectStore) -> None:
    put(store, "a.csv", "b/c.csv")
    listing = UploadListing(store, SWEPT)
    for _ in range(3):
        assert seen(listing) == {"a.csv", "b/c.csv"}
    put(store, "a/z.csv")
    assert "a/z.csv" in seen(listing)
    assert listing.rounds == 4


def test_a_large_box_is_seen_whole_once_in_every_round(store: ObjectStore) -> None:
    names = {f"{number:02d}.csv" for number in range(10)}
    put(store, *names)
    listing = UploadListing(store, SWEPT)
    for round_ in range(1, 4):
        found: set[str] = set()
        while listing.rounds < round_:
            found |= seen(listing)
        assert found == names


def test_names_that_grow_are_seen_at_once_wherever_the_sweep_is(store: ObjectStore) -> None:
    put(store, *(f"2026-11-{day:02d}/prices.csv" for day in range(1, 13)))
    listing = UploadListing(store, SWEPT)
    while listing.rounds < 1:
        listing.look()
    for name in ("2026-11-12/prices_2.csv", "2026-11-13/prices.csv", "2026-11-13/prices_2.csv"):
        put(store, name)
        assert name in seen(listing)


def test_the_ends_are_known_from_the_first_look_on_where_the_uploads_are(store: ObjectStore) -> None:
    put(store, *(f"2026-11-{day:02d}/prices.csv" for day in range(1, 13)))
    known = {Upload.of(found).identity for found in store.list("uploads/")}
    put(store, "2026-11-13/prices.csv")
    listing = UploadListing(store, SWEPT)
    assert "2026-11-13/prices.csv" not in seen(listing)
    anew = UploadListing(store, SWEPT)
    anew.learn(known)
    assert "2026-11-13/prices.csv" in seen(anew)


def test_a_look_lists_a_few_keys_however_many_there_are(store: ObjectStore) -> None:
    put(store, *(f"{number % 30}/{number}.csv" for number in range(60)))
    listing = UploadListing(store, SWEPT)
    while listing.rounds < 1:
        listing.look()
    (made,) = requests(store)
    listing.look()
    assert 1 <= len(made) <= 1 + GROWING_FOLDERS


def test_a_look_that_fails_leaves_the_next_one_where_it_was(store: ObjectStore) -> None:
    put(store, *(f"{number}.csv" for number in range(10)))
    listing = UploadListing(store, SWEPT)
    assert seen(listing) == {"0.csv", "1.csv", "2.csv", "3.csv"}
    own = listing._store
    listing._store = connect("no-such-bucket", own.prefix)
    with pytest.raises(CryptoMLError):
        listing.look()
    listing._store = own
    assert {"4.csv", "5.csv", "6.csv", "7.csv"} <= seen(listing)


@settings(max_examples=15)
@given(
    steps=st.lists(
        st.lists(st.text("ab/2", min_size=1, max_size=4).filter(lambda name: "//" not in name), max_size=6), max_size=6
    )
)
def test_nothing_is_overlooked_for_longer_than_two_rounds(store: ObjectStore, steps: list[list[str]]) -> None:
    own = ObjectStore(store.client, store.bucket, f"{store.prefix}{datetime.now(UTC).timestamp()}")
    listing = UploadListing(own, 3)
    for names in steps:
        put(own, *(f"{name.strip('/')}.csv" for name in names))
        target, found = listing.rounds + 2, set[Upload]()
        while listing.rounds < target:
            found |= set(listing.look())
        assert found == {Upload.of(each) for each in own.list("uploads/")}
