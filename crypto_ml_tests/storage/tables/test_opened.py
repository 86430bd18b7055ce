"""A table that is kept open is looked at for what is new, and seen as it is now whoever wrote it."""

from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pytest

from crypto_ml.storage.objects import ObjectStore, connect
from crypto_ml.storage.tables.growing import GrowingTable, TableRefused
from crypto_ml_tests.storage.asked import operations_of

SCHEMA = pa.schema([pa.field("line", pa.int64(), nullable=False)])


def table_of(store: ObjectStore) -> GrowingTable:
    return GrowingTable(store, "numbers", SCHEMA)


def rows(*numbers: int) -> pa.Table:
    return pa.table({"line": numbers}, schema=SCHEMA)


def lines(table: GrowingTable, version: int | None = None) -> list[int]:
    state = table.at(version)
    return [] if state is None else sorted(state.dataset.to_table()["line"].to_pylist())


def another_process(store: ObjectStore) -> GrowingTable:
    """The same table through a client of its own, with nothing in memory."""
    return table_of(connect(store.bucket, store.prefix))


def test_what_others_append_is_seen_and_a_version_stays_what_it_was(store: ObjectStore) -> None:
    ours, others = table_of(store), another_process(store)
    assert lines(ours) == []
    for number in range(1, 4):
        (ours if number % 2 else others).append(rows(number), append_id=str(number))
        assert lines(ours) == lines(others) == list(range(1, number + 1))
        assert ours.version() == others.version() == number
    for version in (1, 3, 2):
        assert lines(ours, version) == list(range(1, version + 1))
    with pytest.raises(TableRefused, match="has no version 4: the newest is 3"):
        ours.at(4)


def test_a_look_without_news_is_one_listing_and_a_version_read_before_is_not_asked_for(store: ObjectStore) -> None:
    table = table_of(store)
    version = table.append(rows(1), append_id="one")
    table.count()
    with operations_of(store) as asked:
        table_of(store).count()
    assert asked == ["ListObjectsV2"]
    with operations_of(store) as asked:
        table_of(store).count(version)
    assert asked == []


def test_a_table_that_was_removed_or_made_anew_is_seen_as_it_is(store: ObjectStore) -> None:
    table, other = table_of(store), another_process(store)
    for number in range(3):
        table.append(rows(number), append_id=str(number))
    assert lines(table) == [0, 1, 2]
    for found in list(store.list("numbers/")):
        store.client.delete_object(Bucket=store.bucket, Key=store.physical(found.key))
    assert table.version() is None
    assert lines(table) == []
    for number in range(7, 12):
        other.append(rows(number), append_id=str(number))
    assert lines(table) == [7, 8, 9, 10, 11]
    assert table.append(rows(12), append_id="one more") == 6


def test_with_other_credentials_the_table_is_opened_anew(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    table = table_of(store)
    table.append(rows(1), append_id="one")
    given = store.delta_options()
    monkeypatch.setattr(store, "delta_options", lambda: given | {"aws_session_token": "renewed"})
    with operations_of(store) as asked:
        assert lines(table, 1) == [1]
    assert table.append(rows(2), append_id="two") == 2
    assert asked == []  # no handle was left to ask for its news: delta-rs opened the table


def test_threads_share_a_table_without_seeing_each_others_work_half_done(store: ObjectStore) -> None:
    table = table_of(store)
    table.append(rows(0), append_id="first")

    def work(number: int) -> bool:
        version = table.append(rows(number), append_id=str(number))
        seen = lines(table, version)
        return number in seen and len(seen) == version == table.count(version)

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(1, 9)))
    assert lines(table) == list(range(9))
