"""Rows come back sorted, each once, and no series is ever cut in two."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crypto_ml.forecasting import sorting
from crypto_ml.forecasting.schema import OBSERVATION
from crypto_ml.forecasting.sorting import ROWS, RowSorter, as_rows
from crypto_ml_tests.forecasting.markets import market

NAMES = ["A", "B", "a", "A:b", " x", "é", "e\u0301", "Z", "~", "\uffee", "😀", "\U00010000", "ß", "", "10", "9"]


@pytest.fixture(params=[0, sorting.MOST_HELD], ids=["stored", "held"], autouse=True)
def held(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything here holds for rows in a database, and for rows in memory."""
    monkeypatch.setattr(sorting, "MOST_HELD", request.param)


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
        assert list(sort.coins()) == []
        assert sort.rename([]) == {}
        assert list(sort.span_tables()) == []


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


def test_coins_come_by_symbol_in_the_order_in_which_they_first_appear(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crypto_ml.forecasting.sorting.COINS_AT_ONCE", 2)
    rows = market({"A": 3, "B": 3})
    slugs = pd.Series(["late", "early", None, "x", "x", "x"])
    with sorter() as sort:
        sort.add(as_rows(rows.assign(slug=slugs, line=[7, 2, 4, 3, 5, 9]), file=1))
        sort.add(as_rows(market({"Z": 1}), file=0))
        assert list(sort.coins()) == [[("A", "early"), ("A", "late")], [("B", "x")]]


def test_renamed_rows_have_the_name_of_their_series_and_the_others_are_as_they_were() -> None:
    slugs = pd.Series(["late", "early", None, "x", "y", "x"])
    rows = market({"A": 3, "B": 3}).assign(slug=slugs, line=[7, 2, 4, 3, 5, 9])
    with sorter() as sort:
        sort.add(as_rows(rows, file=1))
        sort.add(as_rows(rows[:1], file=0))
        (before,) = sort.chunks()
        shown = sort.rename([{("A", "late"): "A:late"}, {}, {("B", "y"): "B:y", ("C", "z"): "C:z"}])
        (after,) = sort.chunks()
    assert list(shown.items()) == [("A:late", ("A", "late")), ("B:y", ("B", "y"))]
    names = {("A", "late"): "A:late", ("B", "y"): "B:y"}
    coins = zip(before["symbol"], before["slug"], strict=True)
    expected = before.assign(
        symbol=pd.Series([names.get((symbol, slug), symbol) for symbol, slug in coins], dtype="str")
    )
    expected = expected.sort_values(["file", "symbol", "date"], ignore_index=True)
    pd.testing.assert_frame_equal(after, expected)


def test_of_very_many_renamed_series_the_first_are_shown_and_all_renamed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crypto_ml.forecasting.sorting.MOST_RENAMED_SHOWN", 2)
    rows = market({"A": 5}).assign(slug=list("edcba"))
    with sorter() as sort:
        sort.add(as_rows(rows, file=0))
        shown = sort.rename([{("A", slug): f"A:{slug}" for slug in "abcde"}])
        assert list(shown) == ["A:e", "A:d"]
        assert [chunk["symbol"].tolist() for chunk in sort.chunks()] == [[f"A:{slug}" for slug in "abcde"]]


def test_spans_come_in_parts_and_are_the_same_though_rows_are_added_in_between(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crypto_ml.forecasting.sorting.SPANS_AT_ONCE", 2_048)
    names = [f"S{number:05d}" for number in range(5_000)]
    rows = as_rows(market({"A": 1}), file=0).take(pa.array(np.zeros(len(names), int)))
    with sorter() as sort:
        sort.add(rows.set_column(ROWS.get_field_index("symbol"), "symbol", pa.array(names)))
        whole, parts = pa.concat_tables(sort.span_tables()), []
        for part in sort.span_tables():
            parts.append(part)
            sort.add(as_rows(market({"A": 2}), file=0, context=True))
    assert [len(part) for part in parts] == [2_048, 2_048, 904]
    assert pa.concat_tables(parts).equals(whole)


def test_spans_are_of_the_rows_asked_about() -> None:
    with sorter() as sort:
        sort.add(as_rows(market({"A": 3, "B": 1}), file=0))
        sort.add(as_rows(market({"A": 9}), file=0, context=True))
        sort.add(as_rows(market({"C": 9}), file=1, context=True))
        (spans,) = sort.span_tables()
    assert [spans[name].to_pylist() for name in ("file", "symbol", "rows")] == [[0, 0], ["A", "B"], [3, 1]]
    assert spans["last"].to_pylist() == [date(2018, 1, 3), date(2018, 1, 1)]


COINS = ["A", "a", "B", "é", "É", "A:b"]


@settings(max_examples=15)
@given(
    rows=st.lists(
        st.tuples(
            st.integers(0, 2),
            st.sampled_from(COINS[:3]) | st.sampled_from(COINS),
            st.integers(0, 3),
            st.sampled_from([None, "x", "y"]),
            st.booleans(),
        ),
        max_size=30,
    ),
    cuts=st.sets(st.integers(1, 30)),
    most=st.integers(0, 30),
    discarded=st.sampled_from([None, 1]),
)
def test_in_memory_rows_come_out_as_from_a_database(
    rows: list[tuple[int, str, int, str | None, bool]], cuts: set[int], most: int, discarded: int | None
) -> None:
    values = {name: np.arange(len(rows), dtype=float) for name in ("open", "high", "low", "close", "market", "volume")}
    file, symbol, day, slug, context = zip(*rows, strict=True) if rows else ([], [], [], [], [])
    lines = np.random.default_rng(len(rows)).permutation(len(rows))
    columns = {"file": file, "symbol": symbol, "date": pa.array(day, pa.int32()).cast(pa.date32()), **values}
    table = pa.table({**columns, "slug": slug, "line": lines, "context": context}, ROWS)
    bounds = sorted({0, *(cut for cut in cuts if cut < len(rows)), len(rows)})

    def everything(held: int) -> str:
        with pytest.MonkeyPatch.context() as patch, sorter() as sort:
            patch.setattr(sorting, "MOST_HELD", held)
            for begin, end in pairwise(bounds):
                sort.add(table.slice(begin, end - begin))
            if discarded is not None:
                sort.discard(discarded)
            coins = list(sort.coins())
            names = {coin: f"{coin[0]}:{coin[1]}" for some in coins for coin in some if coin[1] == "y"}
            renamed = list(sort.rename([names]).items())
            said = [coins, renamed, list(sort.alike()), [part.to_pylist() for part in sort.span_tables()]]
            batches, chunks = (
                pa.concat_tables([ROWS.empty_table(), *some()]) for some in (sort.batches, sort.chunk_tables)
            )
            return repr([*said, batches.to_pylist(), chunks.to_pylist()])

    assert everything(most) == everything(0)
