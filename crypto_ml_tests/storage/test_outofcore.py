"""Queries over streams: each has its own tables, however many run at once, and leaves nothing on the disk."""

import os
import random
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crypto_ml.storage import outofcore
from crypto_ml.storage.outofcore import BATCH_ROWS, queried

NUMBERS = pa.schema([pa.field("number", pa.int64())])
SORTED = "SELECT number FROM known WHERE number NOT IN (SELECT number FROM without) ORDER BY number"


def stream(numbers: Iterator[int] | range | list[int]) -> pa.RecordBatchReader:
    return pa.table({"number": list(numbers)}, schema=NUMBERS).to_reader()


def sorted_without(numbers: list[int], without: list[int]) -> Iterator[pa.RecordBatch]:
    return queried(SORTED, stream(numbers), NUMBERS, without=pa.table({"number": without}, schema=NUMBERS))


def in_order(batches: Iterator[pa.RecordBatch]) -> list[int]:
    return [number for batch in batches for number in batch["number"].to_pylist()]


@settings(max_examples=10)
@given(
    asked=st.lists(st.tuples(st.lists(st.integers(0, 99)), st.lists(st.integers(0, 99), max_size=5)), max_size=6),
    order=st.randoms(use_true_random=False),
)
def test_queries_in_any_order_and_left_in_the_middle_see_their_own_tables_alone(
    asked: list[tuple[list[int], list[int]]], order: random.Random
) -> None:
    begun = [sorted_without(numbers, without) for numbers, without in asked]
    firsts = [next(one, None) for one in begun]
    for at in order.sample(range(len(begun)), len(begun)):
        numbers, without = asked[at]
        expected = sorted(set_aside(numbers, without))
        first = firsts[at]
        assert (first["number"].to_pylist() if first else []) + in_order(begun[at]) == expected
        next(sorted_without([3, 2, 1], []))  # and is not read to its end
    assert len(outofcore._idle) <= outofcore.MOST_IDLE


def set_aside(numbers: list[int], without: list[int]) -> Iterator[int]:
    return (number for number in numbers if number not in without)


def test_a_stream_that_breaks_is_told_as_it_broke_and_the_next_query_is_none_the_worse() -> None:
    def broken() -> Iterator[pa.RecordBatch]:
        yield from stream(range(10))
        raise ConnectionError("the store has gone")

    with pytest.raises(ConnectionError, match="the store has gone"):
        in_order(queried("FROM known", pa.RecordBatchReader.from_batches(NUMBERS, broken()), NUMBERS))
    assert in_order(sorted_without([2, 1], [])) == [1, 2]


def test_threads_that_ask_at_once_are_each_answered() -> None:
    with ThreadPoolExecutor(8) as pool:
        found = pool.map(lambda number: in_order(sorted_without([number + 1, number], [])), range(40))
        assert list(found) == [[number, number + 1] for number in range(40)]


def test_what_does_not_fit_in_memory_continues_on_disk_and_nothing_stays_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(outofcore, "QUERY_MEMORY", "64MB")
    outofcore._close_idle()
    rows = 120 * BATCH_ROWS
    batches = queried("FROM known ORDER BY hash(number)", stream(range(rows)), NUMBERS)
    first = next(batches)
    assert list(tmp_path.iterdir()), "it fitted"
    assert len(first) + sum(map(len, batches)) == rows
    assert list(tmp_path.iterdir()) == []
    in_order(sorted_without([1], []))
    assert list(tmp_path.iterdir()) == []
    outofcore._close_idle()


def test_a_process_that_was_forked_asks_databases_of_its_own() -> None:
    in_order(sorted_without([1], []))
    assert outofcore._idle
    child = os.fork()
    if not child:
        os._exit(in_order(sorted_without([2, 1], [])) != [1, 2])
    assert os.waitpid(child, 0)[1] == 0
    assert in_order(sorted_without([3, 1], [])) == [1, 3]
