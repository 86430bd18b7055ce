"""Parquet comes out as the same table in CSV would, with the same limits, whatever its pages say of themselves."""

import io
import re
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crypto_ml.forecasting.schema import PRICES
from crypto_ml.forecasting.uploads import parquet_pages
from crypto_ml.forecasting.uploads.dates import read_date
from crypto_ml.forecasting.uploads.numbers import read_numbers
from crypto_ml.forecasting.uploads.parquet import row_of
from crypto_ml.forecasting.uploads.parquet_pages import ParquetPages
from crypto_ml.forecasting.uploads.unreadable import UnreadableUpload
from crypto_ml_tests.forecasting.uploads.files import TODAY, take

NUMBERS = (*PRICES, "market", "volume")
DAYS = [date(2018, 3, 1), date(2018, 3, 2), date(2018, 3, 3)]


def parquet(table: pa.Table, **how: Any) -> bytes:
    out = io.BytesIO()
    pq.write_table(table, out, **how)
    return out.getvalue()


def table(rows: int = 3, **columns: Any) -> pa.Table:
    """A table of as many good rows, with some of its columns replaced."""
    good: dict[str, Any] = {"symbol": [f"S{number}" for number in range(rows)], "date": [DAYS[0]] * rows}
    good |= {name: np.full(rows, value) for name, value in zip(PRICES, (10.5, 12.0, 9.0, 11.0), strict=True)}
    return pa.table({**good, "market": np.full(rows, 500.0), **columns})


@st.composite
def numbers(draw: st.DrawFn) -> tuple[pa.Table, list[list[float]]]:
    """Rows of prices, in whatever types somebody keeps them, and what they are as float64."""
    kind = draw(st.sampled_from([pa.float64(), pa.float32(), pa.int64(), pa.decimal128(30, 6)]))
    price = st.floats(2**-20, 2**30, width=32) if pa.types.is_floating(kind) else st.integers(1, 10**9)
    rows = [sorted(draw(st.tuples(price, price, price, price))) for _ in range(draw(st.integers(1, 5)))]
    columns = {
        name: pa.array([row[at] for row in rows]).cast(kind, safe=False)
        for name, at in zip(PRICES, (1, 3, 0, 2), strict=True)
    }
    values = zip(*(column.cast(pa.float64()).to_pylist() for column in columns.values()), strict=True)
    return table(len(rows), **columns), [list(row) for row in values]


def pages(content: bytes, called: str = "") -> pd.DataFrame:
    """The text of a file, read in this process. Raises UnreadableUpload."""
    with TemporaryDirectory() as name:
        path = Path(name) / "upload"
        path.write_bytes(content)
        tables = list(ParquetPages(path, 1 << 30, name=called))
        return pd.concat([one.to_pandas() for one in tables]) if tables else pd.DataFrame()


@settings(max_examples=25)
@given(given=numbers(), dictionary=st.booleans(), version=st.sampled_from(["1.0", "2.0"]))
def test_every_number_comes_out_as_it_is_kept(
    given: tuple[pa.Table, list[list[float]]], dictionary: bool, version: str
) -> None:
    text = pages(parquet(given[0], use_dictionary=dictionary, data_page_version=version, row_group_size=2))
    numbers = [read_numbers(pa.chunked_array([text[name].tolist()])).tolist() for name in PRICES]
    assert list(map(list, zip(*numbers, strict=True))) == given[1]
    assert text["line"].tolist() == list(range(2, 2 + len(given[1])))


@pytest.mark.parametrize(
    "dates",
    [
        pa.array(DAYS),
        pa.array(DAYS, pa.date64()),
        pa.array(DAYS).cast(pa.timestamp("ns")),
        pa.array(DAYS).cast(pa.timestamp("ms", "UTC")),
        pa.array([str(day) for day in DAYS]),
        pa.array([str(day) for day in DAYS]).dictionary_encode(),
        pa.array([1519862400000, 1519948800000, 1520035200000]),
    ],
    ids=lambda dates: f"{dates.type} {dates[0]}",
)
def test_dates_are_read_in_each_type_that_has_days(dates: pa.Array) -> None:
    text = pages(parquet(table(date=dates)))
    assert [read_date(day, None, TODAY) for day in text["date"]] == DAYS


def test_text_of_dates_is_read_as_the_whole_file_says_and_numbers_in_text_are_plain_or_none() -> None:
    dates = ["01.03.2018", "02.03.2018", "20.03.2018"]
    content = parquet(table(date=dates, open=["1,234.50", "ten", "10.5"], market=[None, 1.0, 2.0], volume=[None, 2, 3]))
    taken = take(content, called="prices.csv")
    assert taken.refused == [(2, "open: missing or not a number"), (3, "open: missing or not a number")]
    assert taken.rows[["date", "market", "volume", "line"]].values.tolist() == [
        [pd.Timestamp("2018-03-20"), 2.0, 3.0, 4]
    ]
    assert taken.intake.date_order == "dmy"
    assert taken.intake.read_as is not None
    assert taken.intake.read_as.in_words() == "Parquet; dates as d.m.yyyy"


def test_what_pandas_keeps_is_read_and_its_index_is_no_column() -> None:
    frame = table(1).to_pandas().rename(columns=str.upper).assign(NOTE="x")
    for written in (frame, frame.set_index("DATE", append=True)):
        text = pages(written.to_parquet())
        assert text[["symbol", "date", "open", "market"]].values.tolist() == [["S0", "2018-03-01", "10.5", "500"]]
    dated = frame.set_index("DATE").drop(columns=["SYMBOL", "MARKET"]).to_parquet()
    assert pages(dated, "BTC-USD.parquet")[["symbol", "market"]].values.tolist() == [["BTC", ""]]


def nested(rows: Sequence[float]) -> pa.Array:
    return pa.array([[value] for value in rows])


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (parquet(table(open=nested([1, 2, 3]))), "is of the type list<element: int64>, which is no number"),
        (parquet(table(open=[True, False, True])), "its column open is of the type bool, which is no number"),
        (parquet(table(date=pa.array(DAYS).cast(pa.timestamp("ns", "Asia/Tokyo")))), "in the time zone Asia/Tokyo"),
        (parquet(table().drop_columns(["high"])), "the required column high missing"),
        (parquet(table(symbol=[b"\xff", b"a", b"b"])), "its column symbol is not UTF-8"),
        (parquet(table())[:-9], "does not end so: it is cut short"),
        (parquet(table())[:-8] + b"\xff\xff\xff\x7fPAR1", "the footer of the Parquet file has 2,147,483,647"),
        (b"PAR1" + bytes(200) + b"\x10\0\0\0PAR1", "begins as Parquet does and cannot be read"),
        (b"PARE" + bytes(200), "an encrypted Parquet file"),
        (parquet(table().select(["symbol"])), "date, open, high, low, close, market missing"),
        (parquet(table(1, symbol=["S" * 2_000_000]), use_dictionary=True), "line 2 is longer than 1,048,576 bytes"),
        (parquet(table(1, symbol=["S" * 900_000]), use_dictionary=False), "have more than 4,096 bytes on the average"),
        (
            parquet(table(1, symbol=["S"]), use_dictionary=False, column_encoding={"symbol": "DELTA_BYTE_ARRAY"}),
            "in the encoding DELTA_BYTE_ARRAY, which is not read",
        ),
        (
            parquet(table(400_000, symbol=["S" * 100] * 400_000, date=DAYS[:1] * 400_000), compression="zstd"),
            "bytes of Parquet expand to more than 200 times as many",
        ),
    ],
    ids=range(14),
)  # fmt: skip
def test_a_file_that_cannot_be_read_or_expands_beyond_measure_is_refused(content: bytes, reason: str) -> None:
    if content.startswith(b"PAR1"):
        with pytest.raises(UnreadableUpload, match=re.escape(reason)):
            pages(content)
    else:
        assert reason in str(take(content).intake.refusal)


def test_a_page_is_not_unpacked_that_is_larger_than_any_writer_makes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet_pages, "MOST_PAGE", 100_000)
    for rows, refused in ((12_000, False), (13_000, True)):
        content = parquet(table(rows, symbol=["S"] * rows, open=np.arange(1.0, rows + 1)), use_dictionary=False)
        if refused:
            with pytest.raises(UnreadableUpload, match="bytes once unpacked, more than the 100,000 that are read"):
                pages(content)
        else:
            assert len(pages(content)) == rows


@pytest.mark.parametrize("damage", ["cut", "header of a page", "footer", "data", "none"])
def test_a_damaged_file_is_refused_with_a_reason_whatever_becomes_of_its_reader(damage: str) -> None:
    content = bytearray(parquet(table(2_000), compression="none"))
    if damage == "cut":
        del content[len(content) // 2 :]
    elif damage != "none":
        begin, end = {"header of a page": (4, 30), "footer": (-900, -10), "data": (40, 20_000)}[damage]
        for at in range(begin, end, 7):
            content[at] ^= 0xA5
    taken = take(bytes(content))
    assert taken.adds_up
    assert (taken.intake.refusal is None) == (damage == "none")
    assert taken.rows.empty or damage == "none"


def test_a_row_of_a_file_is_found_by_the_line_that_it_would_stand_in(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(parquet(table(5), row_group_size=2))
    assert row_of(tmp_path / "a", 4).startswith("symbol=S2, date=2018-03-01, open=10.5")
    assert (row_of(tmp_path / "a", 1), row_of(tmp_path / "a", 7)) == ("", "")
