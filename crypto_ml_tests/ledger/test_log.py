"""A log grows by one writer at a time and is never rewritten."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from crypto_ml.ledger.log import AppendOnlyLog, Entry
from crypto_ml.storage.failures import ObjectMissing
from crypto_ml.storage.objects import ObjectStore


@pytest.fixture
def log(store: ObjectStore) -> AppendOnlyLog:
    return AppendOnlyLog(store, "receipts/log/")


def test_an_empty_log_has_no_last_entry(log: AppendOnlyLog) -> None:
    assert log.last() is None
    assert log.is_last(0)
    assert log.last_number() == 0
    assert list(log.entries()) == []
    with pytest.raises(ObjectMissing):
        log.read(1)


def test_entries_come_back_in_order_and_after_a_number(log: AppendOnlyLog) -> None:
    written = [log.append({"n": number}, after=number) for number in range(12)]
    assert written == [Entry(number, {"n": number - 1}) for number in range(1, 13)]
    assert list(log.entries()) == written
    assert list(log.entries(after=9)) == written[9:]
    assert log.last() == written[-1]
    assert log.last_number(at_least=12) == 12
    assert [number for number in range(13) if log.is_last(number)] == [12]


def test_an_entry_is_never_replaced(log: AppendOnlyLog) -> None:
    log.append({"by": "first"}, after=0)
    assert log.append({"by": "second"}, after=0) is None
    assert log.read(1).document == {"by": "first"}


def test_of_ten_writers_at_once_exactly_one_appends(log: AppendOnlyLog) -> None:
    barrier = Barrier(10)

    def append(writer: int) -> Entry | None:
        barrier.wait()
        return log.append({"writer": writer}, after=0)

    with ThreadPoolExecutor(10) as pool:
        (won,) = [entry for entry in pool.map(append, range(10)) if entry]
    assert log.read(1) == won
    assert log.last_number() == 1


def test_writers_that_try_again_lose_nothing(log: AppendOnlyLog) -> None:
    def append(writer: int) -> int:
        while (entry := log.append({"writer": writer}, after=log.last_number())) is None:
            pass
        return entry.number

    with ThreadPoolExecutor(6) as pool:
        numbers = list(pool.map(append, range(12)))
    assert sorted(numbers) == list(range(1, 13))
    assert [entry.document["writer"] for entry in log.entries()] == [numbers.index(n) for n in range(1, 13)]


def test_logs_beside_each_other_do_not_mix(store: ObjectStore) -> None:
    short, long = AppendOnlyLog(store, "models/training_sets/w/"), AppendOnlyLog(store, "models/training_sets/w/x/")
    short.append({"of": "short"}, after=0)
    assert long.last() is None
