"""From a file to rows: nothing is lost, nothing is doubled, and nothing but a refusal ever comes of bad bytes."""

import csv as csv_module
import gzip
import random
from collections.abc import Sequence
from datetime import date, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crypto_ml.forecasting import intake
from crypto_ml.forecasting.alike import LEAST_ALIKE, take_in_alike
from crypto_ml.forecasting.cleaning import FORMULA_STARTS
from crypto_ml.forecasting.intake import (
    FileIntake,
    IntakeRules,
    Repeats,
    name_series,
    settled_chunks,
    take_in,
    take_in_all,
)
from crypto_ml.forecasting.refusals import LISTED, REFUSED
from crypto_ml.forecasting.schema import OBSERVATION, PRICES
from crypto_ml.forecasting.series import series_names
from crypto_ml.forecasting.sorting import RowSorter, as_rows
from crypto_ml.forecasting.uploads.reading import MOST_RAGGED
from crypto_ml_tests.forecasting.markets import market
from crypto_ml_tests.forecasting.uploads.files import HEADER, TODAY, csv, line, take

NAMES = st.text(st.characters(exclude_categories=["Cc", "Cf", "Cs", "Zl", "Zp"]), min_size=1, max_size=12)
SYMBOLS = NAMES.filter(lambda name: name == name.strip() and not name.startswith(FORMULA_STARTS))


class Day(NamedTuple):
    """One well-formed row, as pandas would hold it."""

    symbol: str
    date: date
    open: float
    high: float
    low: float
    close: float
    market: float
    volume: float


@st.composite
def days(draw: st.DrawFn) -> list[Day]:
    """Rows in any order, no series and date twice."""
    keys = st.tuples(SYMBOLS, st.dates(date(2010, 1, 1), TODAY))
    price = st.floats(1e-12, 1e14)
    rows = []
    for symbol, day in draw(st.lists(keys, min_size=1, max_size=12, unique=True)):
        low, *inside, high = sorted(draw(st.tuples(price, price, price, price)))
        open_, close = draw(st.permutations(inside))
        market = draw(st.one_of(st.just(0.0), st.floats(0, 1e18)))
        rows.append(Day(symbol, day, open_, high, low, close, market, draw(st.floats(0, 1e15))))
    return rows


class Written(NamedTuple):
    """How pandas is asked to write a frame."""

    order: Sequence[str]
    upper: bool
    with_index: bool
    end: str
    quoting: int
    packed: bool
    mark: bool

    def bytes_of(self, rows: list[Day]) -> bytes:
        frame = pd.DataFrame(rows, columns=Day._fields)[list(self.order)]
        frame.columns = frame.columns.str.upper() if self.upper else frame.columns
        text = frame.to_csv(index=self.with_index, lineterminator=self.end, quoting=self.quoting)  # type: ignore[call-overload]
        content: bytes = text.encode("utf-8-sig" if self.mark else "utf-8")
        return gzip.compress(content) if self.packed else content


WAYS = st.builds(
    Written,
    order=st.permutations(Day._fields),
    upper=st.booleans(),
    with_index=st.booleans(),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
    quoting=st.sampled_from([csv_module.QUOTE_MINIMAL, csv_module.QUOTE_ALL, csv_module.QUOTE_NONNUMERIC]),
    packed=st.booleans(),
    mark=st.booleans(),
)


@given(rows=days(), way=WAYS)
def test_what_pandas_writes_comes_back_once_with_equal_values(rows: list[Day], way: Written) -> None:
    taken = take(way.bytes_of(rows))
    assert taken.intake.refusal is None
    assert taken.refused == []
    assert taken.adds_up
    assert dict(zip(taken.rows["line"], found_days(taken.rows), strict=True)) == dict(enumerate(rows, 2))


def found_days(rows: pd.DataFrame) -> list[Day]:
    plain = rows.assign(date=rows["date"].dt.date)[list(Day._fields)]
    return [Day(*values) for values in plain.itertuples(index=False)]


@given(st.one_of(st.binary(max_size=3000), st.binary(max_size=1000).map(gzip.compress)))
def test_any_bytes_are_taken_in_or_refused_with_a_reason(content: bytes) -> None:
    taken = take(content)
    assert taken.intake.refusal
    assert taken.adds_up


VALID = csv(
    *(line(symbol=symbol, date=f"2018-02-{day:02d}") for symbol in ("BTC", '"a ""b"", c"') for day in range(1, 6)),
    line(date="13/2/2018"),
    line(symbol="LTC", open="-1"),
    "ragged",
)
SPLICES = st.tuples(
    st.integers(0, len(VALID)),
    st.integers(0, 4),
    st.one_of(
        st.binary(max_size=4), st.sampled_from([b'"', b",", b"\n", b"\r", b"\xef\xbb\xbf", b"/", b"1e999", b"-"])
    ),
)


@settings(max_examples=60)
@given(splices=st.lists(SPLICES, min_size=1, max_size=5), cut=st.integers(0, 2 * len(VALID)), packed=st.booleans())
def test_a_damaged_file_is_refused_or_its_rows_add_up(
    splices: list[tuple[int, int, bytes]], cut: int, packed: bool
) -> None:
    content = gzip.compress(VALID, mtime=0) if packed else VALID
    for at, removed, inserted in splices:
        content = content[:at] + inserted + content[at + removed :]
    taken = take(content[:cut])
    assert taken.adds_up
    assert taken.intake.refusal is None or taken.rows.empty
    assert taken.rows["line"].is_unique
    assert np.isfinite(taken.rows[list(PRICES)].to_numpy(np.float64)).all()


def test_the_files_of_a_delivery_do_not_touch_each_other(tmp_path: Path) -> None:
    contents = [csv(line(), line(symbol="LTC")), csv(line(close="10.5")), csv(line(), line(date="2/3/2018")), b"\0"]
    rules = IntakeRules(TODAY)
    with RowSorter(tmp_path / "sort") as sorter:
        intakes = []
        for number, content in enumerate(contents):
            path = tmp_path / f"{number}"
            path.write_bytes(content)
            intakes.append(take_in(path, rules, sorter, number))
        repeats = Repeats()
        rows = pd.concat(list(settled_chunks(sorter, repeats)), ignore_index=True)
    assert [intake.refusal is None for intake in intakes] == [True, True, False, False]
    assert rows[["file", "symbol", "close"]].values.tolist() == [[0, "BTC", 11.0], [0, "LTC", 11.0], [1, "BTC", 10.5]]
    assert not repeats.contradicting


def test_contradictions_are_told_of_the_file_they_stand_in(tmp_path: Path) -> None:
    with RowSorter(tmp_path / "sort") as sorter:
        for number, content in enumerate([csv(line(), line()), csv(line(), line(close="10.5"))]):
            path = tmp_path / f"{number}"
            path.write_bytes(content)
            take_in(path, IntakeRules(TODAY), sorter, number)
        repeats = Repeats()
        list(settled_chunks(sorter, repeats))
        refused = [batch.column("line").to_pylist() for number in (0, 1) for batch in sorter.refusals.listed(number)]
    assert refused == [[2, 3]]
    assert dict(repeats.contradicting) == {1: 2}
    assert dict(repeats.repeated) == {0: 1}


def test_more_ragged_lines_than_are_gathered_at_once_are_each_counted_and_the_first_listed_where_they_stand() -> None:
    ragged = MOST_RAGGED + 7
    for content in (csv(*["a,b"] * ragged, line()), csv(line(), *["a,b"] * ragged)):
        taken = take(content)
        (good,) = taken.rows["line"]
        assert [number for number, _ in taken.refused] == [n for n in range(2, ragged + 3) if n != good][:LISTED]
        assert taken.intake.refused_rows == ragged
        assert taken.adds_up
    undated = csv(*["a,b"] * ragged, line(date="2/3/2018"), line(date="13/2/2018"))
    assert take(undated).intake.date_order == "dmy"


@pytest.mark.parametrize(
    ("ragged", "text"),
    [
        ('=HYPERLINK("http://x","BTC")', """'=HYPERLINK("http://x","BTC")"""),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("-1,2", "'-1,2"),
        ("+1,2", "'+1,2"),
        ("\t=1,2", "'\t=1,2"),
        ("BTC,=1", "BTC,=1"),
        (" =1,2", " =1,2"),
        ("'quoted,1", "'quoted,1"),
    ],
)
def test_the_text_of_a_refused_line_is_never_a_formula_and_else_as_it_stood(ragged: str, text: str) -> None:
    (row,) = take(csv(line(), ragged)).refused_rows.to_pylist()
    assert row["text"] == text


@given(texts=st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters='\0\r\n"')), max_size=8))
def test_no_text_of_a_refused_row_begins_as_a_formula_does(texts: list[str]) -> None:
    taken = take(csv(line(), *texts, *(line(symbol=f'"{text}"', open="-1") for text in texts)))
    shown = taken.refused_rows["text"].to_pylist()
    assert not [text for text in shown if text.startswith(("=", "+", "-", "@", "\t", "\r"))]
    assert taken.adds_up


def test_small_files_that_expand_to_large_ones_are_not_held_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    together: list[int] = []
    taken_in_together = intake.take_in_together

    def note(small: Sequence[intake.SmallFile], rules: IntakeRules, sorter: RowSorter) -> dict[int, FileIntake]:
        together.append(sum(one.bytes for one in small))
        return taken_in_together(small, rules, sorter)

    monkeypatch.setattr(intake, "take_in_together", note)
    monkeypatch.setattr(intake, "MOST_TEXT_TOGETHER", 1_000_000)
    contents = [
        *(gzip.compress(csv(*[line(symbol=f"S{number}")] * 50_000)) for number in range(3)),
        *(
            csv(line() + "," * 4_000, header=HEADER + "".join(f",{file}{number}" for number in range(4_000)))
            for file in range(8)
        ),
        *(gzip.compress(csv(line(), *["a,b"] * 100_000)) for _ in range(2)),
        csv(line()),
    ]
    paths = [tmp_path / str(number) for number in range(len(contents))]
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(content)
        assert path.stat().st_size < intake.SMALL_BYTES
    with RowSorter(tmp_path / "sort") as sorter:
        intakes = take_in_all(enumerate(paths), IntakeRules(TODAY), sorter)
        rows = pd.concat(list(settled_chunks(sorter, Repeats())))
    assert [intakes[number].received_rows for number in range(len(paths))] == [50_000] * 3 + [1] * 8 + [100_001] * 2 + [
        1
    ]
    assert rows["file"].tolist() == list(range(len(paths)))
    assert len(together) > 1
    assert max(together) < 2_000_000


COINS = st.lists(
    st.tuples(st.sampled_from("AB"), st.sampled_from([None, "x", "y", "z"]), st.integers(0, 1)), min_size=1, max_size=12
)


@given(coins=COINS, known=st.dictionaries(st.sampled_from("AB"), st.sampled_from("xyz")), at_once=st.integers(1, 4))
def test_series_are_named_the_same_however_many_coins_come_at_once(
    coins: list[tuple[str, str | None, int]], known: dict[str, str], at_once: int
) -> None:
    rows = market({"A": len(coins)}).assign(
        symbol=[symbol for symbol, _, _ in coins],
        slug=pd.Series([slug for _, slug, _ in coins], dtype="str"),
        file=[file for _, _, file in coins],
    )
    appeared = sorted(
        {(symbol, slug) for symbol, slug, _ in coins},
        key=lambda coin: (*rows[own(rows, coin)][["file", "line"]].min(), coin[0], coin[1] or "\U0010ffff"),
    )
    names = series_names(appeared, known)
    with TemporaryDirectory() as name, RowSorter(Path(name)) as sorter, pytest.MonkeyPatch.context() as patch:
        patch.setattr("crypto_ml.forecasting.sorting.COINS_AT_ONCE", at_once)
        for file in (0, 1):
            sorter.add(as_rows(rows[rows["file"] == file], file=file))
        shown = name_series(
            sorter, lambda symbols: {symbol: slug for symbol, slug in known.items() if symbol in symbols}
        )
        found = pd.concat(list(sorter.chunks())).sort_values("line")
    assert list(shown.items()) == [(name, coin) for coin, name in names.items() if name != coin[0]]
    assert found["symbol"].tolist() == [names[symbol, slug] for symbol, slug, _ in coins]


def own(rows: pd.DataFrame, coin: tuple[str, str | None]) -> pd.Series:
    return (rows["symbol"] == coin[0]) & (rows["slug"].isna() if coin[1] is None else rows["slug"] == coin[1])


def test_the_same_file_is_taken_in_the_same_way_a_day_later_but_for_its_future(tmp_path: Path) -> None:
    content = csv(line(), line(date=(TODAY + timedelta(days=1)).isoformat()))
    assert len(take(content).rows) == 1
    assert len(take(content, today=TODAY + timedelta(days=1)).rows) == 2


def test_a_delivery_has_the_columns_of_an_observation_and_where_each_row_stood() -> None:
    assert set(OBSERVATION) | {"file", "line", "context"} == set(take(csv(line())).rows.columns)


PIECES: list[bytes] = [
    csv(line()),
    csv(line(symbol="ETH"), line(symbol="ETH", date="2018-01-02")).removesuffix(b"\n"),
    csv(line(open="0"), line()),
    csv(line(open="1,5")),
    csv(line(), "a,b"),
    csv(line(), ""),
    csv(line(symbol='"A"')),
    csv(line(symbol="ü")),
    csv(line(date="2018-01-01 12:00")),
    csv(line(date="03/25/2018")),
    csv(line(date="1514764800")),
    csv(line(open="$5")),
    csv(line(), header=HEADER + ",colour"),
    csv(line() + ",red", header=HEADER + ",colour"),
    csv(line()).replace(b"\n", b"\r\n"),
    csv(line(date="")),
    csv(),
    b"",
    gzip.compress(csv(line())),
]
"""Small files, one more unlike the others than the next."""


@given(
    odd=st.lists(st.sampled_from(PIECES), max_size=4),
    plain=st.integers(0, 30),
    places=st.randoms(use_true_random=False),
)
@settings(max_examples=12)
def test_files_that_are_alike_are_taken_in_as_each_would_be_by_itself(
    odd: list[bytes], plain: int, places: random.Random
) -> None:
    contents = [*(csv(line(symbol=f"S{number}")) for number in range(plain)), *odd]
    places.shuffle(contents)
    rules = IntakeRules(TODAY)
    with TemporaryDirectory() as name:
        directory = Path(name)
        paths = [directory / str(number) for number in range(len(contents))]
        for path, content in zip(paths, contents, strict=True):
            path.write_bytes(content)
        with RowSorter(directory / "one") as one, RowSorter(directory / "other") as other:
            expected = take_in_all(enumerate(paths), rules, one)
            found = take_in_alike(dict(enumerate(contents)), rules, other, directory)
            assert len(found) >= plain - (2 * len(odd) + 1) * LEAST_ALIKE  # a few are left to the other way
            found |= take_in_all(((n, path) for n, path in enumerate(paths) if n not in found), rules, other)
            assert found == expected
            assert everything(one) == everything(other)
            for number in expected:
                listed = [pa.Table.from_batches(sorter.refusals.listed(number), REFUSED) for sorter in (one, other)]
                assert listed[0].equals(listed[1])


def everything(sorter: RowSorter) -> str:
    """All rows of a sorter, in order."""
    rows = list(sorter.chunks())
    return str(pd.concat(rows).to_csv(index=False)) if rows else ""
