"""Whoever writes a table, in whatever way: its very rows come out, or the file is refused, and never other rows."""

import gzip
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd
import pytest
from hypothesis import event, example, given, settings
from hypothesis import strategies as st

from crypto_ml.forecasting.intake import IntakeRules, Repeats, settled_chunks, take_in, take_in_all
from crypto_ml.forecasting.sorting import RowSorter
from crypto_ml_tests.forecasting.uploads.files import HEADER, csv, line, take

TODAY = date(2026, 11, 21)
COLUMNS = ("open", "high", "low", "close", "market")


@dataclass(frozen=True)
class Style:
    """How a program writes a table."""

    delimiter: str
    decimal: str
    grouping: str
    currency: tuple[str, str]
    places: int
    dates: str
    quoted: bool
    encoding: str
    packed: bool

    def number(self, value: Decimal) -> str:
        whole, _, fraction = f"{value:.{self.places}f}".partition(".")
        digits = [whole[max(0, end - 3) : end] for end in range(len(whole), 0, -3)][::-1]
        text = self.grouping.join(digits) + (self.decimal + fraction if fraction else "")
        return f"{self.currency[0]}{text}{self.currency[1]}"

    def row(self, values: list[str]) -> str:
        quoted = [f'"{value}"' if self.quoted or self.delimiter in value else value for value in values]
        return self.delimiter.join(quoted)


def local(months: list[str]) -> Callable[[date], str]:
    return lambda day: f"{day.day} {months[day.month - 1]} {day.year}"


def unix(factor: int) -> Callable[[date], str]:
    return lambda day: str(int(datetime(day.year, day.month, day.day, 13, tzinfo=UTC).timestamp()) * factor)


def numeric(order: str, sep: str, year: str) -> Callable[[date], str]:
    return lambda day: sep.join(day.strftime(f"%{part}") for part in (*order, year))


DATES: Mapping[str, Callable[[date], str]] = {
    "iso": date.isoformat,
    "iso, with a time": lambda day: f"{day}T00:00:00+02:00",
    "yyyymmdd": lambda day: f"{day:%Y%m%d}",
    "yyyy/m/d": lambda day: f"{day.year}/{day.month}/{day.day}",
    "yyyy.mm.dd": lambda day: f"{day:%Y.%m.%d}",
    **{
        f"{order}, {sep}, {year}": numeric(order, sep, year) for order in ("dm", "md") for sep in "/.-" for year in "yY"
    },
    "d/m/yy unpadded": lambda day: f"{day.day}/{day.month}/{day:%y}",
    "m/d/yy unpadded, with a time": lambda day: f"{day.month}/{day.day}/{day:%y} 0:00",
    "yy-mm-dd": lambda day: f"{day:%y-%m-%d}",
    "ddmmyyyy": lambda day: f"{day:%d%m%Y}",
    "d-Mon-yy": lambda day: f"{day.day}-{day:%b-%y}",
    "Mon d, yyyy": lambda day: f"{day:%b} {day.day}, {day.year}",
    "weekday, d Month yyyy": lambda day: f"{day:%A}, {day.day} {day:%B} {day.year}",
    "Spanish": local(["ene", "feb", "mar", "abr", "may", "jun", "jul", "ago", "sep", "oct", "nov", "dic"]),
    "unix s": unix(1),
    "unix ms": unix(1_000),
    "unix us": unix(1_000_000),
    "unix ns": unix(1_000_000_000),
    "excel": lambda day: str((day - date(1899, 12, 30)).days),
    "excel 1904": lambda day: str((day - date(1904, 1, 1)).days) + ".5d",
    "excel, with a time": lambda day: f"{(day - date(1899, 12, 30)).days}.25",
}

STYLES = st.builds(
    Style,
    delimiter=st.sampled_from(",;\t|"),
    decimal=st.sampled_from(".,"),
    grouping=st.sampled_from(["", "", ",", ".", " ", "\u00a0", "\u202f", "\u2009", "'", "’"]),
    currency=st.sampled_from([("", ""), ("", ""), ("$", ""), ("", " €"), ("USD ", ""), ("£ ", "")]),
    places=st.sampled_from([0, 1, 2, 3, 3, 8]),
    dates=st.sampled_from(sorted(DATES)),
    quoted=st.booleans(),
    encoding=st.sampled_from(["utf-8", "utf-8", "utf-8-sig", "utf-16"]),
    packed=st.booleans(),
).filter(lambda style: style.grouping != style.decimal)

Row = tuple[str, date, Decimal, Decimal, Decimal, Decimal, Decimal]


@st.composite
def tables(draw: st.DrawFn) -> list[Row]:
    """Rows of a market, each series and day once, within a month or within all years."""
    first = draw(st.dates(date(2009, 1, 3), TODAY - timedelta(days=40)))
    last = first + timedelta(days=draw(st.sampled_from([3, 40]))) if draw(st.booleans()) else TODAY
    keys = st.tuples(st.sampled_from(["BTC", "ETH", "a;b,c"]), st.dates(first, last))
    places = draw(st.integers(0, 6))
    price = st.integers(1, 10 ** draw(st.integers(3, 9))).map(lambda number: Decimal(number).scaleb(-places))
    rows = []
    for symbol, day in draw(st.lists(keys, min_size=1, max_size=25, unique=True)):
        low, one, other, high = sorted(draw(st.tuples(price, price, price, price)))
        rows.append((symbol, day, one, high, low, other, draw(price) * draw(st.sampled_from([0, 1, 10**6]))))
    return rows


def written(rows: list[Row], style: Style) -> tuple[bytes, list[list[object]]]:
    """A file, and the rows that stand in it, rounded as it rounds them."""
    lines, expected = [style.delimiter.join(HEADER.split(","))], []
    for number, (symbol, day, *values) in enumerate([*rows], 2):
        rounded = [round(value, style.places) for value in values]
        text = [style.number(value) for value in rounded]
        lines.append(style.row([symbol, DATES[style.dates](day), *text]))
        if min(rounded[:4]) > 0:
            expected.append([symbol, day, *map(float, rounded), number])
    content = ("\n".join(lines) + "\n").encode(style.encoding)
    return gzip.compress(content) if style.packed else content, expected


def rows_of(frame: pd.DataFrame) -> list[list[object]]:
    if frame.empty:
        return []
    plain = frame.assign(date=pd.to_datetime(frame["date"]).dt.date).sort_values("line")
    return plain[["symbol", "date", *COLUMNS, "line"]].values.tolist()


PLAIN = Style(",", ".", "", ("", ""), 2, "iso", False, "utf-8", False)
A_ROW: Row = (
    *("BTC", date(2018, 3, 25)),
    *(Decimal("1234.5"), Decimal(1300), Decimal("1200.25"), Decimal(1250), Decimal(865103000000)),
)


NIGHTLY = os.environ.get("HYPOTHESIS_PROFILE") == "nightly"


@settings(max_examples=100 if NIGHTLY else 5)
@given(st.lists(st.tuples(tables(), STYLES), min_size=1, max_size=20))
@example([([A_ROW], PLAIN)])
@example([([A_ROW], replace(PLAIN, delimiter="\t", decimal=",", grouping=".", places=0))])
def test_the_very_rows_that_were_written_come_out_or_the_file_is_refused(files: list[tuple[list[Row], Style]]) -> None:
    rules = IntakeRules(TODAY)
    with TemporaryDirectory() as name, RowSorter(Path(name) / "sort") as sorter:
        paths, expected = [], {}
        for number, (rows, style) in enumerate(files):
            content, expected[number] = written(rows, style)
            paths.append(Path(name) / str(number))
            paths[-1].write_bytes(content)
        together = take_in_all(enumerate(paths), rules, sorter)
        apart = {number: take_in(path, rules, sorter, len(files) + number) for number, path in enumerate(paths)}
        found = pd.concat([pd.DataFrame({"file": []}), *settled_chunks(sorter, Repeats())])
    assert together == apart
    for number, intake in together.items():
        event(f"{'refused' if intake.refusal else 'read'}")
        for file in (number, len(files) + number):
            own = rows_of(found[found["file"] == file])
            assert own == ([] if intake.refusal else expected[number]), files[number]


def refusal(*lines: str, header: str = HEADER) -> str:
    return str(take(csv(*lines, header=header), today=TODAY).intake.refusal)


def quoted(**values: str) -> str:
    return ",".join(f'"{value}"' for value in ({"symbol": "BTC", "date": "2018-03-01"} | PRICES | values).values())


PRICES = {"open": "10", "high": "12", "low": "9", "close": "11", "market": "500"}


@pytest.mark.parametrize(
    ("lines", "shown"),
    [
        (
            [quoted(market="1,234"), quoted(symbol="ETH", market="56,789")],
            "'1,234' in line 2, column market may be 1234",
        ),
        ([quoted(open="10.5", market="1,234")], "'1,234' in line 2, column market may be 1234 or 1.234"),
        ([quoted(open="10,5", market="1.234")], "'1.234' in line 2, column market may be 1234 or 1.234"),
        (
            [quoted(open="10,5"), quoted(close="11.5", market="1.234")],
            "'11.5' in line 3, column close has a decimal point",
        ),
        (
            [quoted(open="1.0", close="1,234.5", market="1.234,5"), quoted(market="1.234")],
            "cannot all be read the same way",
        ),
        (
            [quoted(open="$10", high="$12", low="$9", close="€11")],
            "two currencies: '$10' in line 2, column open, and '€11'",
        ),
    ],
)
def test_numbers_that_may_be_two_refuse_the_file_with_one_of_them_and_its_line(lines: list[str], shown: str) -> None:
    assert shown in refusal(*lines)


def test_a_file_of_other_marks_is_ambiguous_where_none_of_them_shows_what_it_means() -> None:
    for mark in ";\t|":
        header = HEADER.replace(",", mark)
        row = mark.join(["BTC", "2018-03-01", "1.100", "1.200", "1.000", "1.150", "5"])
        assert "'1.100' in line 2, column open may be 1100 or 1.100" in refusal(row, header=header)
        assert take(csv(row.replace("1.150", "1.15"), header=header)).rows["open"].tolist() == [1.1]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (("$1,234.50", "999", "$2.5"), [1234.5, None, 2.5]),
        (("10.5%", "(10.5)", "10.5"), [None, None, 10.5]),
        (("10.5", "10,5", "1_0"), [10.5, None, None]),
        (("1.5K", "10.5", "2M"), [None, 10.5, None]),
        (("12 345.5", "1 23", "10.5"), [12345.5, None, 10.5]),
    ],
)
def test_what_is_no_number_as_the_whole_column_writes_them_refuses_its_row(
    values: tuple[str, ...], expected: list[float | None]
) -> None:
    signed = {name: f"${value}" for name, value in PRICES.items() if values[0].startswith("$") and name != "market"}
    lines = [quoted(symbol=f"S{at}", open=value, high=value, low=value, close=value) for at, value in enumerate(values)]
    taken = take(csv(*lines, quoted(symbol="GOOD", **signed)), today=TODAY)
    assert taken.intake.refusal is None
    found = dict(zip(taken.rows["symbol"], taken.rows["open"], strict=True))
    if signed:  # a column in which not every number has a sign is read as if none had
        assert found == {"S1": 999.0}
    else:
        assert [found.get(f"S{at}") for at in range(len(values))] == expected


def test_what_a_column_in_billions_means_is_read_for_what_is_no_price() -> None:
    lines = [quoted(symbol="A", market="1.25B"), quoted(symbol="B", market="$3K"), quoted(symbol="C", market="2T")]
    taken = take(csv(*lines[::2]), today=TODAY)
    assert taken.rows["market"].tolist() == [1.25e9, 2e12]
    comma = take(csv(quoted(open="10,5", market="1,25B"), quoted(symbol="B", market="5")), today=TODAY)
    assert comma.refused == [(2, "market: not a number")]


@pytest.mark.parametrize(
    ("dates", "shown"),
    [
        (
            ["25 mars 2018", "26 avril 2018"],
            "name months in another language than English (25 mars 2018 in line 2, say)",
        ),
        (["3 mar 2018", "4 abr 2018"], "(4 abr 2018 in line 3, say)"),
        (["25.03.18", "26.03.18"], "with the day first and with the year first (25.03.18 in line 2, say)"),
        (["18-03-27", "28-03-18"], "with the day first and with the year first (18-03-27"),
        (["43160", "2018-03-02"], "43160 in line 2 is a serial number of Excel, and 2018-03-02 in line 3 is not"),
        (["43160", "25/3/2018"], "43160 in line 2 is a serial number of Excel"),
        (
            ["2018-03-04", "13/04/2018"],
            "13/04/2018 in line 3 and 2018-03-04 in line 2 are not written alike, no day of the",
        ),
        (["13.4.2018", "4-Mar-18", "5-Mar-18"], "may have read some of them with day and month exchanged"),
        (["2018-04-03", "2018-13-03"], "2018-13-03 in line 3 has the day before the month, and no date of the file"),
        (["2018/04/03", "2018/13/03"], "2018/13/03 in line 3 has the day before the month, and no date of the file"),
        (["18-Mar-09", "18-Mar-10"], "with the day first and with the year first (18-Mar-09 in line 2, say)"),
        (["09-Mar-18", "18-Mar-27"], "with the day first and with the year first (18-Mar-27 in line 3, say)"),
        (["3/4/18", "25.3.18"], "can be read as d/m/y and as m/d/y (3/4/18 in line 2, say)"),
        (["25.3.2018", "3/25/2018"], "25.3.2018 in line 2 is d/m/y, 3/25/2018 in line 3 is m/d/y"),
        (["1230940799", "1230940798"], "none of its dates can be read (1230940799 in line 2, say)"),
        (["9999999999"], "none of its dates can be read (9999999999 in line 2, say)"),
        (
            ["1.5201216e9"],
            "no valid row is left: date: not readable as YYYY-MM-DD, d/m/y or m/d/y (1 row), '1.5201216e9' in",
        ),
    ],
)
def test_dates_that_may_be_two_or_none_refuse_the_file_with_one_of_them_and_its_line(
    dates: list[str], shown: str
) -> None:
    assert shown in refusal(*(line(symbol=f"S{at}", date=day) for at, day in enumerate(dates)))


@pytest.mark.parametrize(
    ("dates", "days"),
    [
        (["2018-03-14", "13/04/2018"], ["2018-03-14", "2018-04-13"]),
        (["2018-03-04", "13/04/2018", "5/4/2018"], ["2018-03-04", "2018-04-13", "2018-04-05"]),
        (["2018-03-14", "2018-13-03", "2018-03-04"], ["2018-03-14", "2018-03-04"]),
        (["18-Mar-10", "10-Mar-00"], ["2010-03-18"]),
        (["10-Mar-18", "1-Mar-18"], ["2018-03-10", "2018-03-01"]),
        (["10-Mar-18", "08-Mar-18", "31-Jan-18"], ["2018-03-10", "2018-03-08", "2018-01-31"]),
    ],
)
def test_one_date_that_shows_which_part_is_which_is_enough(dates: list[str], days: list[str]) -> None:
    taken = take(csv(*(line(symbol=f"S{at}", date=day) for at, day in enumerate(dates))), today=TODAY)
    assert taken.intake.refusal is None
    assert [str(day) for day in taken.rows["date"].dt.date] == days


def test_no_number_is_a_year_and_the_day_after_an_upload_is_the_last_that_a_number_may_mean() -> None:
    seconds = [1230940800, 1520121600, int(datetime(2026, 11, 22, 23, tzinfo=UTC).timestamp())]
    taken = take(csv(*(line(symbol=f"S{at}", date=str(second)) for at, second in enumerate(seconds))), today=TODAY)
    assert [str(day) for day in taken.rows["date"].dt.date] == ["2009-01-03", "2018-03-04"]
    assert taken.refused == [(4, "date: in the future")]


def test_the_setting_resolves_what_the_file_does_not() -> None:
    content = csv(line(date="3/4/18"), line(date="05.04.18"))
    taken = take(content, today=TODAY, date_order="dmy")
    assert [str(day) for day in taken.rows["date"].dt.date] == ["2018-04-03", "2018-04-05"]
    assert taken.intake.read_as is not None
    assert taken.intake.read_as.dates == ["d.m.yy", "d/m/yy"]
