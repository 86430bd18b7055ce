"""However many rows are refused, in whatever order: all are counted, and the first of each file are listed."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crypto_ml.forecasting import refusals as module
from crypto_ml.forecasting.database import Database
from crypto_ml.forecasting.refusals import REFUSED, Refusals

Row = tuple[int, int, str]
FEW = 5


HELD = pytest.mark.parametrize("held", [0, 7, 20_000])
"""How many rows may be in memory."""


@contextmanager
def refusals(held: int) -> Iterator[Refusals]:
    with TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "LISTED", FEW)
        patch.setattr(module, "MOST_HELD", held)
        database = Database(Path(name), "100MB")
        yield Refusals(database)
        database.close()


def table(rows: list[Row]) -> pa.Table:
    """Rows of file, line and reason, with the line as their text."""
    columns = zip(*((file, line, reason, str(line)) for file, line, reason in rows), strict=True)
    return pa.table(dict(zip(REFUSED.names, columns, strict=True)), REFUSED)


def listed(kept: Refusals, file: int) -> list[tuple[int, str, str]]:
    found = pa.Table.from_batches(kept.listed(file), REFUSED).to_pylist()
    return [(row["line"], row["reason"], row["text"]) for row in found]


ROWS = st.lists(
    st.tuples(st.integers(0, 2), st.integers(2, 60), st.sampled_from(["a", "b", "c"])),
    unique_by=lambda row: row[:2],
    max_size=60,
)


@given(rows=ROWS, cuts=st.sets(st.integers(1, 60)), held=st.sampled_from([0, 7, 20_000]))
def test_the_first_rows_are_listed_and_all_are_counted_in_whatever_order_they_come(
    rows: list[Row], cuts: set[int], held: int
) -> None:
    with refusals(held) as kept:
        bounds = sorted({0, *(cut for cut in cuts if cut < len(rows)), len(rows)})
        for begin, end in pairwise(bounds):
            kept.add(table(rows[begin:end]))
        for file in range(3):
            own = sorted((line, reason) for number, line, reason in rows if number == file)
            assert listed(kept, file) == [(line, reason, str(line)) for line, reason in own[:FEW]]
            first = {reason: min(line for line, why in own if why == reason) for _, reason in own}
            counts = sorted(Counter(reason for _, reason in own).items(), key=lambda one: (-one[1], first[one[0]]))
            assert kept.commonest_reasons(file, 2) == counts[:2]


def test_what_is_not_listed_is_not_kept_on_disk_either() -> None:
    with refusals(0) as kept:
        for begin in range(2, 2_002, 100):
            kept.add(table([(0, line, "why") for line in range(begin, begin + 100)]))
        assert kept._database.connection().execute("SELECT count(*) FROM refused").fetchall() == [(FEW,)]
        assert kept.commonest_reasons(0, 1) == [("why", 2_000)]


@HELD
def test_days_that_contradict_themselves_are_counted_with_the_rows_that_are_not_named(held: int) -> None:
    days = pa.table({"file": [0, 0, 1], "reason": ["day 9", "day 2", "day 3"], "line": [9, 2, 3], "rows": [40, 40, 2]})
    with refusals(held) as kept:
        kept.add(table([(0, line, "bad") for line in range(10, 10 + 2 * FEW)]))
        kept.add_days(
            days, table([(0, 9, "day 9"), (0, 2, "day 2"), (0, 30, "day 2"), (1, 3, "day 3"), (1, 4, "day 3")])
        )
        assert [line for line, _, _ in listed(kept, 0)] == [2, 9, 10, 11, 12]
        assert kept.commonest_reasons(0, 3) == [("day 2", 40), ("day 9", 40), ("bad", 2 * FEW)]
        assert kept.commonest_reasons(1, 3) == [("day 3", 2)]


@HELD
def test_a_discarded_file_leaves_nothing_behind(held: int) -> None:
    with refusals(held) as kept:
        kept.add(table([(file, line, "why") for file in (0, 1) for line in range(2, 40)]))
        kept.discard(0)
        assert (listed(kept, 0), kept.commonest_reasons(0, 1)) == ([], [])
        kept.add(table([(0, 70, "again")]))
        assert listed(kept, 0) == [(70, "again", "70")]
        assert kept.commonest_reasons(1, 1) == [("why", 38)]
