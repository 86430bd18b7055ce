"""Dates are read one way for a whole file, or not at all."""

from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crypto_ml.forecasting.schema import DateOrder
from crypto_ml.forecasting.uploads.dates import FIRST_DAY, DateEvidence, read_date
from crypto_ml.forecasting.uploads.unreadable import UnreadableUpload
from crypto_ml_tests.forecasting.uploads.files import csv, line, take

DAYS = st.dates(date(1900, 1, 1), date(2100, 1, 1))


def dated(*texts: str) -> bytes:
    """A file with one row for each of these dates, of another symbol each."""
    return csv(*(line(symbol=f"S{number}", date=text) for number, text in enumerate(texts)))


@pytest.mark.parametrize(
    "text",
    [
        "2018-03-01",
        " 2018-03-01 ",
        "20180301",
        "2018-W09-4",
        "2018-03-01T00:00:00",
        "2018-03-01 23:59:59",
        "2018-03-01T12:30:00Z",
        "2018-03-01 12:30:00.123456789",
        "2018-03-01T12:30:00+02:00",
    ],
)
def test_iso_dates_are_read_and_a_time_of_day_is_dropped(text: str) -> None:
    assert read_date(text, None) == date(2018, 3, 1)


@pytest.mark.parametrize(
    "text",
    [
        *("", "yesterday", "2018-02-30", "2018-13-01", "1519862400", "2018-03-01 lunch", "2018-03-01T25:00:00"),
        *(
            "31/4/2018",
            "0/1/2018",
            "13/13/2018",
            "1/3/2018/4",
            "1.3/2018",
            "2018-W09",
            "2018.03/01",
            "1/3/118",
            "3/2018",
        ),
        *("25/3/2018 99:99:99 XX", "3/25/2018 24:00 EST", "25/3/2018, 12:60", "25/3/2018T12:00:61 CET"),
        *("0000-01-01", "1/1/0000"),
    ],
)
def test_what_is_no_date_is_not_made_one(text: str) -> None:
    assert [read_date(text, order) for order in (None, "dmy", "mdy")] == [None, None, None]


@given(
    day=DAYS,
    order=st.sampled_from(["dmy", "mdy"]),
    padded=st.booleans(),
    time=st.sampled_from(["", " 12:00", "T00:00:00Z", " 23:59:59 EST", ", 9:05 am CET", " noon"]),
)
def test_slashed_dates_are_read_in_the_given_order_and_in_no_other(
    day: date, order: DateOrder, padded: bool, time: str
) -> None:
    first, second = (day.day, day.month) if order == "dmy" else (day.month, day.day)
    text = (f"{first:02d}/{second:02d}/{day.year}" if padded else f"{first}/{second}/{day.year}") + time
    assert read_date(text, order) == day
    assert read_date(text, None) is None


@given(days=st.lists(DAYS, min_size=1), order=st.sampled_from(["dmy", "mdy"]))
def test_the_order_found_is_the_one_written_or_none(days: list[date], order: DateOrder) -> None:
    texts = [f"{d.day}/{d.month}/{d.year}" if order == "dmy" else f"{d.month}/{d.day}/{d.year}" for d in days]
    evidence = DateEvidence().with_dates(texts)
    if any(day.day > 12 for day in days):
        assert evidence.order(None) == order
    elif any(day.day != day.month for day in days):
        with pytest.raises(UnreadableUpload, match="CRYPTO_ML_DATE_ORDER to dmy or mdy"):
            evidence.order(None)
    else:  # the same days either way
        assert [read_date(text, evidence.order(None)) for text in texts] == days


@given(
    texts=st.lists(st.one_of(DAYS.map(lambda d: f"{d.day}/{d.month}/{d.year}"), st.text(max_size=12))),
    cut=st.integers(0, 20),
)
def test_evidence_is_the_same_in_one_piece_and_in_two(texts: list[str], cut: int) -> None:
    assert DateEvidence().with_dates(texts) == DateEvidence().with_dates(texts[:cut]).with_dates(texts[cut:])


def test_one_date_anywhere_settles_how_the_whole_file_is_read() -> None:
    taken = take(dated("2018-01-02", "5/3/2018", "1/2/2018", "25/1/2018"))
    assert taken.intake.date_order == "dmy"
    assert taken.rows["date"].dt.strftime("%Y-%m-%d").tolist() == [
        "2018-01-02",
        "2018-03-05",
        "2018-02-01",
        "2018-01-25",
    ]


def test_an_american_file_is_read_as_one() -> None:
    taken = take(dated("3/5/2018", "1/25/2018"))
    assert taken.intake.date_order == "mdy"
    assert taken.rows["date"].dt.strftime("%m-%d").tolist() == ["03-05", "01-25"]


def test_an_ambiguous_file_is_refused_and_the_setting_resolves_it() -> None:
    content = dated("2018-01-01", "2/3/2018", "3/3/2018")
    reason = take(content).intake.refusal
    assert reason == (
        "its dates can be read as d/m/y and as m/d/y (2/3/2018 in line 3, say); write them as YYYY-MM-DD, or set "
        "CRYPTO_ML_DATE_ORDER to dmy or mdy"
    )
    for order, month in (("dmy", 3), ("mdy", 2)):
        taken = take(content, date_order=order)  # type: ignore[arg-type]
        assert taken.intake.refusal is None
        assert taken.rows["date"].dt.month.tolist() == [1, month, 3]


def test_dates_that_contradict_each_other_refuse_the_file_and_name_one_of_each() -> None:
    taken = take(dated("13/1/2018", "2/3/2018", "1/14/2018"))
    assert taken.intake.refusal == (
        "its dates cannot all be read the same way: 13/1/2018 in line 2 is d/m/y, 1/14/2018 in line 4 is m/d/y; write "
        "dates as YYYY-MM-DD"
    )
    assert taken.rows.empty


def test_with_the_setting_dates_of_the_other_order_are_rows_refused() -> None:
    taken = take(dated("13/1/2018", "2/3/2018", "1/14/2018"), date_order="dmy")
    assert taken.refused == [(4, "date: not readable as YYYY-MM-DD, d/m/y or m/d/y")]
    assert len(taken.rows) == 2


def test_the_evidence_may_stand_blocks_behind_the_first_slashed_date() -> None:
    name = "n" * 900
    lines = [line(symbol=f"S{number}", date="2/3/2018") + f",{name}" for number in range(10_000)]
    taken = take(
        csv(*lines, line(symbol="LAST", date="25/3/2018") + ",", header="symbol,date,open,high,low,close,market,name")
    )
    assert taken.intake.date_order == "dmy"
    assert set(taken.rows["date"].dt.strftime("%Y-%m-%d")) == {"2018-03-02", "2018-03-25"}


def test_an_ambiguous_file_leaves_no_row_of_its_first_blocks_behind() -> None:
    lines = [line(symbol=f"S{number}") + f",{'n' * 900}" for number in range(20_000)]
    taken = take(
        csv(*lines, line(symbol="LAST", date="2/3/2018") + ",", header="symbol,date,open,high,low,close,market,name")
    )
    assert "CRYPTO_ML_DATE_ORDER" in (taken.intake.refusal or "")
    assert taken.rows.empty
    assert taken.adds_up


def test_the_day_of_the_upload_is_accepted_and_the_next_is_not() -> None:
    taken = take(dated("2018-03-26", "2018-03-27", "2018-03-26T23:59:59Z", "9999-12-31"))
    assert taken.refused == [(3, "date: in the future"), (5, "date: in the future")]
    assert taken.rows["line"].tolist() == [2, 4]


def test_a_reason_repeats_of_a_date_what_a_reader_needs() -> None:
    reason = take(dated("5/3/2018 " + "x" * 5_000)).intake.refusal
    assert reason is not None
    assert "(5/3/2018 xxx" in reason
    assert len(reason) < 300


def test_no_day_before_the_first_block_is_accepted_however_it_is_written() -> None:
    taken = take(
        dated("0001-01-01", "1600-02-29", "2/1/2009", "2009-01-02T23:59:59", "20090102", "3/1/2009", "31/1/2009")
    )
    assert taken.rows["date"].dt.date.tolist() == [FIRST_DAY, date(2009, 1, 31)]
    assert taken.refused == [(line, "date: before 2009-01-03") for line in range(2, 7)]
