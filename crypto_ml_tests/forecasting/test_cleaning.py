"""Which rows are accepted, and the reason that each refused one is given."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crypto_ml.forecasting.cleaning import LARGEST_PRICE, TOLERANCE
from crypto_ml.forecasting.schema import OBSERVATION, PRICES
from crypto_ml.forecasting.uploads.numbers import read_numbers
from crypto_ml_tests.forecasting.uploads.files import HEADER, csv, line, take


def reason_for(**values: str) -> str:
    """Why a row with these values is refused, from a file in which it stands beside a good one."""
    taken = take(csv(line(symbol="GOOD"), line(**values)))
    assert taken.intake.refusal is None
    assert taken.rows["symbol"].tolist() == ["GOOD"]
    assert taken.adds_up
    ((number, reason),) = taken.refused
    assert number == 3
    return reason


def accepted(**values: str) -> pd.Series:
    """A row with these values, which is accepted."""
    taken = take(csv(line(**values)))
    assert taken.refused == []
    return taken.rows.iloc[0]


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"symbol": ""}, "symbol: empty"),
        ({"symbol": "   "}, "symbol: empty"),
        ({"symbol": "S" * 3000}, "symbol: longer than 100 characters"),
        ({"symbol": "🚀" * 101}, "symbol: longer than 100 characters"),
        ({"symbol": "B\x07TC"}, "symbol: has control characters"),
        ({"symbol": "B\tTC"}, "symbol: has control characters"),
        ({"symbol": "B\x85TC"}, "symbol: has control characters"),
        *(
            ({"symbol": f"B{character}TC"}, "symbol: has invisible characters, or such as change the direction of text")
            for character in "\u00ad\u200b\u200d\u202a\u202e\u2028\u2029\u2066\u2069\ufeff\U000e0041"
        ),
        *(
            ({"symbol": symbol}, "symbol: begins with = + - @, so a spreadsheet would run it as a formula")
            for symbol in ("=1+1", "+1", "-", "@SUM(A1)", "  =1+1", "\t=1+1", '"=HYPERLINK(""http://x"")"')
        ),
        ({"date": ""}, "date: not readable as YYYY-MM-DD, d/m/y or m/d/y"),
        ({"date": "2018-02-29"}, "date: not readable as YYYY-MM-DD, d/m/y or m/d/y"),
        ({"date": "2018-03-27"}, "date: in the future"),
        ({"date": "2009-01-02"}, "date: before 2009-01-03"),
        ({"date": "0001-01-01"}, "date: before 2009-01-03"),
        ({"open": "13"}, "open: outside low..high"),
        ({"open": "8"}, "open: outside low..high"),
        ({"close": "12.1"}, "close: outside low..high"),
        ({"close": "8.9"}, "close: outside low..high"),
        ({"high": "8.5", "low": "9"}, "high: below low"),
        ({"market": "-1"}, "market: negative"),
        ({"market": "lots"}, "market: not a number"),
        ({"market": "inf"}, "market: not a number"),
        ({"market": "1e400"}, "market: not a number"),
    ],
)
def test_a_bad_row_is_refused_for_its_reason(values: dict[str, str], reason: str) -> None:
    assert reason_for(**values) == reason


def test_each_bad_price_is_refused_for_its_reason() -> None:
    reasons = {
        "missing or not a number": ["", "nan", "ten", "$10", "1_0", "0x10", '"10,5"'],
        "not finite": ["inf", "-Infinity", "1e309", "INF"],
        "not positive": ["0", "-0.0", "-10", "-1e308", "1e-400"],
        f"larger than {LARGEST_PRICE:.0e}": ["1e308", "1.1e15"],
    }
    cases = [(name, value, why) for name in PRICES for why, values in reasons.items() for value in values]
    lines = [line(**{"symbol": f"S{number}", name: value}) for number, (name, value, _) in enumerate(cases)]
    taken = take(csv(*lines, line()))
    assert taken.refused == [(number, f"{name}: {why}") for number, (name, _, why) in enumerate(cases, 2)]
    assert len(taken.rows) == 1


def test_the_first_reason_that_applies_is_the_one_given() -> None:
    assert reason_for(symbol="", date="never", open="-1", high="1", low="2") == "symbol: empty"
    assert reason_for(date="never", open="-1", high="1", low="2") == "date: not readable as YYYY-MM-DD, d/m/y or m/d/y"
    assert reason_for(open="-1", high="1", low="2") == "open: not positive"
    assert reason_for(high="1", low="2") == "high: below low"


@pytest.mark.parametrize("text", ["", "0", "nan", "NaN", "null", "None", "n/a", "NA", "-", " ", "0.0"])
def test_a_market_that_is_nought_or_missing_is_normal(text: str) -> None:
    assert accepted(market=text)["market"] == 0.0


@pytest.mark.parametrize("text", ["10", "10.0", "1e1", "+10", " 10 ", "10.", "0.1E+2", "1000e-2"])
def test_a_number_is_read_in_each_of_its_spellings(text: str) -> None:
    assert accepted(open=text)["open"] == 10.0


@pytest.mark.parametrize(
    "symbol", ["BTC", "a b", "X/Y", "../up", "🚀", "❤️", "Ünï-cödé", "1=1", "A+B-C@D", "S" * 100, "nan", "NULL"]
)
def test_a_symbol_may_be_any_text_that_can_be_seen(symbol: str) -> None:
    assert accepted(symbol=symbol)["symbol"] == symbol


@pytest.mark.parametrize("text", ["2009-01-03", "20090103", "2009-01-03T23:59:59"])
def test_the_first_day_of_all_is_accepted(text: str) -> None:
    assert str(accepted(date=text)["date"].date()) == "2009-01-03"


@pytest.mark.parametrize(
    ("slug", "reason"),
    [
        ("s" * 101, "slug: longer than 100 characters"),
        ("bit\x07coin", "slug: has control characters"),
        ("bit\u202ecoin", "slug: has invisible characters, or such as change the direction of text"),
    ],
)
def test_a_slug_that_may_become_part_of_a_name_is_held_to_the_same_rules(slug: str, reason: str) -> None:
    taken = take(csv(line() + f",{slug}", line(symbol="LTC") + ",litecoin", header=f"{HEADER},slug"))
    assert taken.refused == [(2, reason)]
    assert taken.rows["slug"].tolist() == ["litecoin"]


@pytest.mark.parametrize("slug", ["s" * 100, "-", "=1", "", "ünï cödé"])
def test_a_slug_never_begins_a_cell_so_it_may_be_any_text_that_can_be_seen(slug: str) -> None:
    taken = take(csv(line() + f",{slug}", header=f"{HEADER},slug"))
    assert taken.refused == []


def test_space_round_a_value_is_not_part_of_it() -> None:
    row = accepted(symbol="  BTC ", date=" 2018-03-01", high=" 12 ")
    assert (row["symbol"], row["high"]) == ("BTC", 12.0)


def test_prices_may_lie_outside_by_a_rounding_and_no_more() -> None:
    within, beyond = TOLERANCE * 0.9, TOLERANCE * 1.1
    assert accepted(open=repr(12 * (1 + within)))["open"] > 12
    assert accepted(close=repr(9 * (1 - within)))["close"] < 9
    assert reason_for(open=repr(12 * (1 + beyond))) == "open: outside low..high"
    assert reason_for(close=repr(9 * (1 - beyond))) == "close: outside low..high"


def test_high_equal_to_low_is_accepted() -> None:
    row = accepted(open="9", high="9", low="9", close="9")
    assert row[list(PRICES)].tolist() == [9.0] * 4


def test_unreadable_volume_is_no_reason_to_lose_a_price() -> None:
    taken = take(csv(line() + ",many", line(symbol="LTC") + ",5", header=f"{HEADER},volume"))
    assert taken.refused == []
    assert np.array_equal(taken.rows["volume"], [np.nan, 5.0], equal_nan=True)


def test_an_accepted_row_has_the_columns_and_dtypes_of_an_observation() -> None:
    rows = take(csv(line() + ",bitcoin", header=f"{HEADER},slug")).rows
    assert {name: str(rows[name].dtype) for name in OBSERVATION} == dict(OBSERVATION)
    assert rows["slug"].tolist() == ["bitcoin"]
    without = take(csv(line())).rows
    assert {name: str(without[name].dtype) for name in OBSERVATION} == dict(OBSERVATION)
    assert without["slug"].isna().all()


def test_refused_rows_show_what_stood_in_them() -> None:
    taken = take(csv(line(), line(symbol="LTC", open="ten"), line(symbol="x" * 3000)))
    assert taken.refused_rows["text"].to_pylist() == [
        "symbol=LTC,date=2018-03-01,open=ten,high=12,low=9,close=11,market=500",
        f"symbol={'x' * 40},date=2018-03-01,open=10,high=12,low=9,close=11,market=500",
    ]


def test_a_file_without_one_valid_row_is_refused_with_the_commonest_reasons_and_keeps_them_all() -> None:
    taken = take(csv(line(open="-1"), line(open="0"), line(date="never"), "a,b"))
    assert taken.intake.refusal == (
        "no valid row is left: open: not positive (2 rows); date: not readable as YYYY-MM-DD, d/m/y or m/d/y (1 row); "
        "the line has 2 values where the header names 7 (1 row)"
    )
    assert [number for number, _ in taken.refused] == [2, 3, 4, 5]
    assert taken.intake.received_rows == 4
    assert taken.adds_up


def test_equal_rows_count_once_and_contradicting_rows_are_all_refused() -> None:
    twice, other = line(symbol="TWICE"), line(symbol="OTHER")
    taken = take(csv(twice, other, twice, line(symbol="OTHER", close="10.5"), twice, line(symbol="ONE")))
    assert taken.rows[["symbol", "line"]].values.tolist() == [["ONE", 7], ["TWICE", 2]]
    assert taken.repeats.repeated[0] == 2
    why = "symbol and date: more than once, with different values (first in line 3)"
    assert taken.refused == [(3, why), (5, why)]
    assert taken.adds_up


def test_a_different_market_or_volume_is_a_contradiction_too() -> None:
    taken = take(csv(line(), line(market="501"), line(symbol="LTC")))
    assert [number for number, _ in taken.refused] == [2, 3]
    taken = take(
        csv(line() + ",1", line() + ",", line(symbol="LTC") + ",", line(symbol="LTC") + ",", header=HEADER + ",volume")
    )
    assert [number for number, _ in taken.refused] == [2, 3]
    assert taken.rows["symbol"].tolist() == ["LTC"]


def test_the_same_day_written_in_two_ways_is_one_day() -> None:
    taken = take(csv(line(date="2018-03-01"), line(date="2018-03-01T10:00:00"), line(date="20180302", open="9.5")))
    assert taken.rows["line"].tolist() == [2, 4]
    assert taken.repeats.repeated[0] == 1


@given(
    st.lists(
        st.one_of(
            st.floats().map(repr), st.text(max_size=6), st.from_regex(r"\s*[+-]?\d*\.?\d*(e-?\d+)?\s*", fullmatch=True)
        )
    )
)
def test_numbers_are_read_as_python_reads_them(texts: list[str]) -> None:
    def expected(text: str) -> float:
        try:
            number = float(text.strip(" \t\n\r\f\v")) if text.isascii() and "_" not in text else np.nan
        except ValueError:
            return np.nan
        return np.inf if np.isinf(number) else number

    values = read_numbers(pa.chunked_array([texts], pa.string()))
    # the sign of an infinite price may get lost: it is refused either way
    assert np.array_equal(
        np.where(np.isinf(values), np.inf, values), [expected(text) for text in texts], equal_nan=True
    )
