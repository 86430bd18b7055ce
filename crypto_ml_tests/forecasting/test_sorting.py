"""Rows come back sorted, each once, and no series is ever cut in two."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crypto_ml.forecasting.schema import OBSERVATION
from crypto_ml.forecasting.sorting import ROWS, RowSorter, as_rows
from crypto_ml_tests.forecasting.markets import market

NAMES = ["A", "B", "a", "A:b", " x", "é", "e\u0301", "Z", "~", "\uffee", "😀", "\U00010000", "ß", "", "10", "9"]


@contextmanager
def sorter() -> Iterator[RowSorter]:
    with TemporaryDirectory() as name, RowSorter(Path(name)) as made:
        yield made


def shuffled(rows: pd.DataFrame, seed: int) -> pd.DataFrame:
    return rows.sample(frac=1, random_state=seed)


@settings(max_examples=12)
@given(
    lengths=st.dictionaries(st.tuples(st.integers(0, 2), st.sampled_from(NAMES)), st.integers(1, 25), max_size=9),
    size=st.sampled_from([3, 30, 100_000]),
    seed=st.integers(0, 100),
)
def test_rows_come_back_in_order_and_no_series_is_cut(
    lengths: dict[tuple[int, str], int], size: int, seed: int
) -> None:
    parts = [market({name: length}, seed, file=file) for (file, name), length in lengths.items()]
    rows = pd.concat([market({}), *parts], ignore_index=True).assign(line=lambda frame: np.arange(len(frame)))
    with sorter() as sort:
        for piece in np.array_split(np.arange(len(rows)), 3):
            for file, part in shuffled(rows, seed).iloc[piece].groupby("file"):
                sort.add(as_rows(part, file=int(str(file))))
        chunks = list(sort.chunks(size))
    keys = ["file", "symbol", "date", "line"]
    found = [row for chunk in chunks for row in chunk[keys].itertuples(index=False, name=None)]
    assert found == sorted(rows[keys].itertuples(index=False, name=None))
    series = [set(zip(chunk["file"], chunk["symbol"], strict=True)) for chunk in chunks]
    assert sum(map(len, series)) == len(set().union(*series))
    assert all(len(chunk) for chunk in chunks)
    # a chunk is no larger than asked but for the series that it would have cut
    assert all(len(chunk) < 2 * size + max(lengths.values()) for chunk in chunks)


def test_a_chunk_has_the_dtypes_of_an_observation() -> None:
    with sorter() as sort:
        sort.add(as_rows(market({"A": 3}), file=4))
        (chunk,) = sort.chunks()
    assert {name: str(chunk[name].dtype) for name in OBSERVATION} == dict(OBSERVATION)
    assert list(chunk.columns) == ROWS.names
    assert chunk["file"].tolist() == [4, 4, 4]


def test_numbers_come_back_to_the_last_bit() -> None:
    rows = market({"A": 50}, 3)
    with sorter() as sort:
        sort.add(as_rows(shuffled(rows, 1), file=0))
        (chunk,) = sort.chunks()
    for name in ("open", "high", "low", "close", "market", "volume"):
        assert np.array_equal(chunk[name], rows[name], equal_nan=True)


def test_no_rows_give_no_chunk() -> None:
    with sorter() as sort:
        assert list(sort.chunks()) == []
        assert sort.coins() == []
        assert sort.spans().empty


def test_a_discarded_file_leaves_the_others() -> None:
    with sorter() as sort:
        for file in (0, 1):
            sort.add(as_rows(market({"A": 2}), file=file))
        sort.discard(0)
        assert [chunk["file"].tolist() for chunk in sort.chunks()] == [[1, 1]]


@pytest.mark.parametrize("context_line", [0, 1000])
def test_context_gives_way_to_the_files_own_row_of_the_day(context_line: int) -> None:
    rows = market({"A": 10, "B": 4}, 1)
    history = rows.assign(open=-1.0, line=context_line)
    own = rows[(rows["symbol"] == "A") & rows["line"].isin([4, 6, 7])]
    with sorter() as sort:
        sort.add(as_rows(own, file=0))
        sort.add(as_rows(history, file=0, context=True))
        (chunk,) = sort.chunks()
    assert len(chunk) == 14
    assert not chunk.duplicated(["symbol", "date"]).any()
    kept = chunk[~chunk["context"]]
    assert kept["open"].tolist() == own["open"].tolist()
    assert (chunk.loc[chunk["context"], "open"] == -1).all()


def test_equal_rows_of_one_day_all_come_back_because_settling_them_is_not_sorting() -> None:
    rows = market({"A": 2})
    with sorter() as sort:
        sort.add(as_rows(pd.concat([rows, rows.assign(line=rows["line"] + 10)]), file=0))
        (chunk,) = sort.chunks()
    assert chunk["line"].tolist() == [2, 12, 3, 13]


def test_coins_come_in_the_order_in_which_they_first_appear() -> None:
    rows = market({"A": 3, "B": 3})
    slugs = pd.Series(["late", "early", None, "x", "x", "x"])
    with sorter() as sort:
        sort.add(as_rows(rows.assign(slug=slugs, line=[7, 2, 4, 3, 5, 9]), file=1))
        sort.add(as_rows(market({"Z": 1}), file=0))
        assert sort.coins() == [("Z", None), ("A", "early"), ("B", "x"), ("A", None), ("A", "late")]
        sort.rename({("A", "early"): "A", ("A", "late"): "A:late", ("A", None): "A", ("B", "x"): "B", ("Z", None): "Z"})
        assert [name for name, _ in sort.coins()] == ["Z", "A", "B", "A", "A:late"]


def test_spans_are_of_the_rows_asked_about() -> None:
    with sorter() as sort:
        sort.add(as_rows(market({"A": 3, "B": 1}), file=0))
        sort.add(as_rows(market({"A": 9}), file=0, context=True))
        sort.add(as_rows(market({"C": 9}), file=1, context=True))
        spans = sort.spans()
    assert spans[["file", "symbol", "rows"]].values.tolist() == [[0, "A", 3], [0, "B", 1]]
    assert spans["last"].dt.date.tolist() == [date(2018, 1, 3), date(2018, 1, 1)]
