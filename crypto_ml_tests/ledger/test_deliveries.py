"""Every version of every upload is assigned to one delivery, once, whoever looks."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from itertools import pairwise
from threading import Barrier

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crypto_ml.forecasting.uploads.limits import MOST_EXPANSION
from crypto_ml.ledger.deliveries import MOST_BYTES, MOST_FILES, Delivery, DeliveryLog, Upload, plan, weight
from crypto_ml.ledger.layout import KNOWN, answered_key
from crypto_ml.storage.objects import ObjectStore

NOW = datetime(2018, 3, 26, tzinfo=UTC)
UPLOADS = st.lists(
    st.builds(
        Upload,
        key=st.tuples(st.integers(0, 40), st.sampled_from(["", ".gz", ".GZ"])).map(
            lambda name: f"uploads/{name[0]}.csv{name[1]}"
        ),
        etag=st.sampled_from("abc"),
        size=st.one_of(st.integers(0, 100), st.integers(0, 1_000_000), st.integers(0, 3 * MOST_BYTES)),
        last_modified=st.sampled_from(["2018-03-26T00:00:00+00:00", "2018-03-26T00:00:01+00:00"]),
    ),
    unique=True,
    max_size=60,
)


def drop(store: ObjectStore, *names: str, body: bytes = b"x") -> None:
    for name in names:
        store.replace(f"uploads/{name}", body)


def names(deliveries: list[Delivery]) -> list[str]:
    return [upload.key.removeprefix("uploads/") for delivery in deliveries for upload in delivery.uploads]


@given(listed=UPLOADS, data=st.data())
def test_each_new_upload_is_planned_once_within_the_limits_and_a_known_one_never(
    listed: list[Upload], data: st.DataObject
) -> None:
    known = {upload.identity for upload in data.draw(st.lists(st.sampled_from(listed)) if listed else st.just([]))}
    planned = plan(listed, known)
    found = [upload for uploads in planned for upload in uploads]
    assert Counter(found) == Counter(upload for upload in listed if upload.identity not in known)
    assert found == sorted(found, key=lambda upload: (upload.last_modified, upload.key, found.index(upload)))
    for uploads in planned:
        assert uploads
        assert len(uploads) <= MOST_FILES
        assert len(uploads) == 1 or sum(map(weight, uploads)) <= MOST_BYTES
    # no more deliveries than needed: what is in two that follow each other would not have gone into one
    for one, next_one in pairwise(planned):
        assert len(one) == MOST_FILES or sum(map(weight, [*one, next_one[0]])) > MOST_BYTES


def test_many_small_files_make_few_deliveries() -> None:
    listed = [Upload(f"uploads/{number}.csv", "a", 10, "2018-03-26T00:00:00+00:00") for number in range(10_000)]
    assert [len(uploads) for uploads in plan(listed, set())] == [MOST_FILES] * 10


@given(sizes=st.lists(st.integers(1, 1_000), min_size=1, max_size=50), times=st.integers(1, 200))
def test_many_small_files_of_gzip_make_few_deliveries(sizes: list[int], times: int) -> None:
    listed = [
        Upload(f"uploads/{number}.csv.gz", "a", size, "2018-03-26T00:00:00+00:00")
        for number, size in enumerate(sizes * times)
    ]
    together = MOST_BYTES // (MOST_EXPANSION * max(sizes))
    assert len(plan(listed, set())) <= 1 + len(listed) // min(together, MOST_FILES)


def test_some_hundred_kilobytes_of_gzip_are_a_delivery_of_their_own() -> None:
    names = ["a.csv", "b.csv.gz", "c.csv", "d.CSV.GZ", "e.csv"]
    listed = [Upload(f"uploads/{name}", "a", 400_000, "2018-03-26T00:00:00+00:00") for name in names]
    assert [len(uploads) for uploads in plan(listed, set())] == [1] * 5
    plain = [upload for upload in listed if not upload.key.lower().endswith(".gz")]
    assert [len(uploads) for uploads in plan(plain, set())] == [3]


def test_a_look_assigns_what_is_new_and_nothing_twice(store: ObjectStore) -> None:
    log = DeliveryLog(store)
    assert log.assign_new(NOW) == []
    drop(store, "a.csv", "folder/b.csv", "notes.txt")
    store.replace("uploads/folder/", b"")
    (first,) = log.assign_new(NOW)
    assert (first.id, names([first])) == ("00000001", ["a.csv", "folder/b.csv", "notes.txt"])
    assert log.assign_new(NOW) == []
    drop(store, "c.csv")
    drop(store, "a.csv", body=b"corrected")
    (second,) = log.assign_new(NOW)
    assert sorted(names([second])) == ["a.csv", "c.csv"]
    assert log.get(1) == first
    assert (log.last_number, log.get(2).noticed_at) == (2, NOW.isoformat())


def test_a_log_opened_anew_knows_what_was_assigned(store: ObjectStore) -> None:
    drop(store, "a.csv")
    DeliveryLog(store).assign_new(NOW)
    again = DeliveryLog(store)
    assert again.assign_new(NOW) == []
    drop(store, "b.csv")
    assert names(again.assign_new(NOW)) == ["b.csv"]


def test_an_upload_is_read_as_the_version_that_was_listed(store: ObjectStore) -> None:
    drop(store, "a.csv", body=b"first")
    (delivery,) = DeliveryLog(store).assign_new(NOW)
    (upload,) = delivery.uploads
    assert store.read_pinned(upload.stored()) == b"first"


def test_two_daemons_at_once_assign_every_upload_once(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crypto_ml.ledger.deliveries.MOST_FILES", 3)
    logs = [DeliveryLog(store) for _ in range(3)]
    barrier = Barrier(len(logs))

    def look(log: DeliveryLog) -> list[Delivery]:
        barrier.wait()
        return log.assign_new(NOW)

    expected = []
    for batch in range(3):
        new = [f"{batch}-{number}.csv" for number in range(10)]
        drop(store, *new)
        expected += new
        with ThreadPoolExecutor(len(logs)) as pool:
            made = [delivery for deliveries in pool.map(look, logs) for delivery in deliveries]
        assert sorted(names(made)) == new
    assert all(log.assign_new(NOW) == [] for log in logs)
    kept = [logs[0].get(number) for number in range(1, logs[0].last_number + 1)]
    assert sorted(names(kept)) == sorted(expected)


def test_what_has_no_answer_is_found_without_a_cursor(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crypto_ml.ledger.deliveries.MOST_FILES", 1)
    drop(store, "a.csv", "b.csv", "c.csv")
    log = DeliveryLog(store)
    log.assign_new(NOW)
    store.create_json(answered_key("00000002"), {})
    assert log.unanswered() == [1, 3]


def test_whoever_starts_anew_reads_segments_and_knows_the_same(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("crypto_ml.ledger.deliveries.MOST_FILES", 1)
    monkeypatch.setattr("crypto_ml.ledger.deliveries.SEGMENT", 4)
    drop(store, *(f"{number}.csv" for number in range(11)))
    log = DeliveryLog(store)
    log.assign_new(NOW)
    assert [found.key for found in store.list(KNOWN)] == [f"{KNOWN}{number:08d}.json" for number in (1, 2)]
    read: list[str] = []

    def note(params: dict[str, str], **_: object) -> None:
        read.append(params["Key"])

    monkeypatch.setattr(store, "quick", None)  # the SDK tells of its requests
    store.client.meta.events.register("provide-client-params.s3.GetObject", note)
    anew = DeliveryLog(store)
    assert anew.catch_up() == log.catch_up()
    assert anew.last_number == 11
    assert len(read) == 2 + 3
    drop(store, "12.csv")
    assert [delivery.number for delivery in anew.assign_new(NOW)] == [12]
    assert len(list(store.list(KNOWN))) == 3
    assert DeliveryLog(store).catch_up() == anew.catch_up()


@pytest.mark.parametrize("word", ["", "1", "007", "00000002", "-0000001", "\u0661" * 8, "9" * 5000, "000000001", "a/b"])
def test_only_the_name_of_a_delivery_is_one(store: ObjectStore, word: str) -> None:
    drop(store, "a.csv")
    log = DeliveryLog(store)
    assert [made.id for made in log.assign_new(NOW)] == ["00000001"]
    assert log.has("00000001")
    assert not log.has(word)
