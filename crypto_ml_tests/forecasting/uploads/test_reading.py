"""From bytes to lines of text: what is refused as a whole, and that every line keeps its number."""

import gzip
import io
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crypto_ml.forecasting.uploads.checked_text import BLOCK, LINES_AT_ONCE, LONGEST_LINE
from crypto_ml.forecasting.uploads.layouts import MOST_COLUMNS
from crypto_ml.forecasting.uploads.limits import MOST_EXPANSION, SMALL_EXPANDED
from crypto_ml.forecasting.uploads.reading import UploadReader
from crypto_ml.forecasting.uploads.unreadable import UnreadableUpload
from crypto_ml_tests.forecasting.uploads.files import GOOD, HEADER, csv, line, take

ROW = line()


def refusal(content: bytes, max_bytes: int = 1 << 30) -> str:
    """Why a file is refused as a whole."""
    taken = take(content, max_bytes=max_bytes)
    assert taken.intake.refusal is not None
    assert taken.rows.empty
    assert taken.adds_up
    return taken.intake.refusal


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        pytest.param(b"", "the file is empty", id="nothing at all"),
        pytest.param(b"\xef\xbb\xbf", "the file is empty", id="a byte order mark alone"),
        pytest.param(b"\n\n\n", "the file is empty", id="line feeds alone"),
        pytest.param(gzip.compress(b""), "the file is empty", id="gzip of nothing"),
        pytest.param(csv(), "the file has a header and no rows", id="header only"),
        pytest.param(csv()[:-1], "the file has a header and no rows", id="header without a line feed"),
        pytest.param(csv("", "", ""), "the file has a header and no rows", id="header and blank lines"),
        pytest.param(csv(ROW) + b"\0", "NUL byte at byte 69", id="a NUL byte at the end"),
        pytest.param(b"\0" * 100, "NUL byte at byte 0", id="NUL bytes alone"),
        pytest.param(bytes(range(1, 256)), "is not UTF-8 (near byte 127)", id="binary garbage"),
        pytest.param(b"\x89PNG\r\n\x1a\n" + bytes(range(256)), "NUL byte", id="a picture"),
        pytest.param(csv(ROW).decode().encode("utf-16-le"), "NUL byte at byte 1", id="UTF-16 without its mark"),
        pytest.param(csv(line(symbol="Ö")).decode().encode("latin-1"), "is not UTF-8", id="latin-1"),
        pytest.param(csv(ROW) + "Ö".encode()[:1], "is not UTF-8 (near byte 69)", id="a character cut in two"),
        pytest.param(gzip.compress(csv(ROW))[:-9], "gzip data is damaged or cut short", id="gzip cut short"),
        pytest.param(gzip.compress(csv(ROW))[:12], "gzip data is damaged or cut short", id="gzip cut in its header"),
        pytest.param(
            gzip.compress(csv(ROW)) + b"more", "gzip data is damaged or cut short", id="gzip with something behind it"
        ),
        pytest.param(gzip.compress(gzip.compress(csv(ROW))), "it is not text", id="gzip of gzip"),
        pytest.param(csv('"' + ROW), "line 2 opens a quote and does not close it", id="a quote left open"),
        pytest.param(csv(ROW, ROW + '"'[:0], ROW[:-3] + '"500'), "line 4 opens a quote", id="open in the last line"),
        pytest.param(
            csv('a",2018-03-01,10,12,9,11,"500', ROW), "line 2 opens a quote", id="two quotes of which one opens"
        ),
        pytest.param(csv(line(symbol='"B\nTC"')), "line 2 opens a quote", id="a line feed inside quotes"),
        pytest.param(csv(ROW, header=HEADER + ',"'), "line 1 opens a quote", id="a quote left open in the header"),
        pytest.param(b"x" * 10_000_000, "line 1 is longer than 1,048,576 bytes", id="10 MB in one line"),
        pytest.param(csv(ROW, "y" * 10_000_000), "line 3 is longer than 1,048,576 bytes", id="10 MB in line 3"),
        pytest.param(
            csv(ROW, header=HEADER + "," + "x" * 200_000), "the header cannot be read as CSV", id="a very long column"
        ),
        pytest.param(
            csv(header=HEADER + "," * 4_090),
            "the header has 4,097 columns, more than the 4,096 that are read; leave out those that are not needed",
            id="more columns than a table has",
        ),
    ],
)
def test_a_file_that_is_not_csv_is_refused_with_its_reason(content: bytes, reason: str) -> None:
    assert reason in refusal(content)


def test_all_missing_columns_are_named_in_one_message() -> None:
    assert refusal(b"symbol,DATE,price\nBTC,2018-03-01,1\n") == (
        "the header has the required columns open, high, low, close, market missing; its columns are: "
        "symbol, DATE, price; where they have other names, say so: CRYPTO_ML_COLUMNS=open=NAME,…"
    )


def test_missing_and_doubled_columns_are_named_in_one_message() -> None:
    reason = refusal(csv(ROW, header="symbol,date,open,Open,low,close,market"))
    assert "the required column high missing and more than one column for open" in reason


def test_two_names_of_the_same_column_are_one_column_too_many() -> None:
    assert "more than one column for market" in refusal(csv(ROW + ",1", header=HEADER + ",marketcap"))


def test_a_header_of_other_things_is_shown_shortened() -> None:
    reason = refusal(b"x" * 5000 + b"\n1\n")
    assert reason.endswith("x…")
    assert len(reason) < 400


def test_a_file_beyond_the_limit_is_refused_and_one_at_the_limit_is_not() -> None:
    content = csv(ROW, line(symbol="LTC"))
    assert take(content, max_bytes=len(content)).intake.refusal is None
    assert f"larger than the limit of {len(content) - 1:,} bytes" in refusal(content, len(content) - 1)


def test_the_limit_counts_what_gzip_unpacks_to() -> None:
    packed = gzip.compress(csv(*([ROW] * 100_000)))
    assert len(packed) < 100_000
    assert "CRYPTO_ML_MAX_UPLOAD_BYTES" in refusal(packed, max_bytes=1_000_000)


def test_a_file_of_as_many_columns_as_are_read_is_read() -> None:
    more = MOST_COLUMNS - len(HEADER.split(","))
    taken = take(csv(ROW + "," * more, header=HEADER + "".join(f",c{number}" for number in range(more))))
    assert taken.rows["line"].tolist() == [2]
    assert len(taken.intake.ignored_columns) == more


REPEATED = csv(*([ROW] * 600_000))
EXPANDS = (
    r"the [\d,]+ bytes of gzip expand to more than 200 times as many, which market data does not; upload the file as"
)


@pytest.mark.parametrize("members", [1, 30])
def test_gzip_that_expands_beyond_all_measure_is_refused_with_what_to_do(members: int) -> None:
    piece = REPEATED[: len(REPEATED) // members + 1]
    packed = gzip.compress(csv(ROW)) + b"".join(gzip.compress(piece) for _ in range(members))
    assert MOST_EXPANSION * len(packed) < SMALL_EXPANDED < members * len(piece)
    assert re.match(EXPANDS, refusal(packed))


def test_gzip_of_little_is_read_however_far_it_expands() -> None:
    content = REPEATED[:SMALL_EXPANDED].rpartition(b"\n")[0]
    taken = take(gzip.compress(content))
    assert taken.intake.refusal is None
    assert taken.repeats.repeated[0] == content.count(b"\n") - 1


def test_gzip_of_much_is_read_where_it_expands_as_market_data_does() -> None:
    lines = [f"S{number % 5_000},2018-03-01,10,12,9,11,{number}" for number in range(600_000)]
    packed = gzip.compress(csv(*lines), 1)
    assert len(csv(*lines)) > SMALL_EXPANDED
    assert take(packed).intake.received_rows == len(lines)


@pytest.mark.parametrize("header", ["market", "marketcap", "market_cap", "MarketCap", " MARKET_CAP "])
def test_market_is_found_under_each_of_its_names(header: str) -> None:
    taken = take(csv(ROW, header=HEADER.replace("market", header)))
    assert taken.rows["market"].tolist() == [500.0]


def test_column_order_and_letter_case_do_not_matter() -> None:
    names = list(reversed(HEADER.split(",")))
    taken = take(csv(",".join(GOOD[name] for name in names), header=",".join(name.upper() for name in names)))
    assert taken.rows[["symbol", "open", "high", "low", "close"]].values.tolist() == [["BTC", 10, 12, 9, 11]]


def test_only_columns_that_mean_nothing_here_are_named_as_ignored() -> None:
    header = f"{HEADER},index,,name,ranknow,close_ratio,spread,volume,slug,Colour,note"
    taken = take(csv(ROW + ",0,1,Bitcoin,1,0.5,3,7,bitcoin,red,", header=header))
    assert taken.intake.ignored_columns == ("Colour", "note")
    assert taken.rows[["volume", "slug"]].values.tolist() == [[7.0, "bitcoin"]]


def test_of_a_long_name_of_an_ignored_column_the_beginning_is_shown() -> None:
    names = ["n" * 100, "m" * 101, "k" * 50_000]
    taken = take(csv(ROW + ",,,", header=",".join([HEADER, *names])))
    assert taken.intake.ignored_columns == ("n" * 100, "m" * 100 + "…", "k" * 100 + "…")


@pytest.mark.parametrize("second", ["", "index"])
def test_the_second_column_of_a_two_level_index_is_no_obstacle(second: str) -> None:
    header = HEADER.replace("symbol,", f"symbol,{second},")
    taken = take(csv(ROW.replace("BTC,", "BTC,0,"), header=header))
    assert taken.rows["symbol"].tolist() == ["BTC"]
    assert taken.intake.ignored_columns == ()


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_each_kind_of_line_end_is_read_alike(end: str) -> None:
    taken = take(csv(ROW, line(symbol="LTC", open="-1"), line(symbol="XRP"), end=end))
    assert taken.rows[["symbol", "line"]].values.tolist() == [["BTC", 2], ["XRP", 4]]
    assert taken.refused == [(3, "open: not positive")]


@pytest.mark.parametrize(
    "content",
    [csv(ROW), csv(ROW)[:-1], b"\xef\xbb\xbf" + csv(ROW), gzip.compress(csv(ROW)), gzip.compress(csv(ROW)[:-1])],
    ids=["plain", "no line feed at the end", "byte order mark", "gzip", "gzip, no line feed at the end"],
)
def test_the_same_row_comes_out_of_each_wrapping(content: bytes) -> None:
    taken = take(content)
    assert taken.intake.refusal is None
    assert taken.rows[["symbol", "open", "market", "line"]].values.tolist() == [["BTC", 10.0, 500.0, 2]]


def test_quotes_that_close_are_read_and_those_inside_a_value_stay() -> None:
    taken = take(csv(line(symbol='"a ""b"", c"'), line(symbol='5" disk'), line(symbol='"x"y"z"')))
    assert taken.rows["symbol"].tolist() == ['5" disk', 'a "b", c', 'xy"z"']


def test_a_line_that_does_not_fit_the_header_is_refused_by_itself() -> None:
    taken = take(csv("BTC,2018-03-01,10", ROW, ROW + ",1,2", "x" * 900))
    assert taken.refused == [
        (2, "the line has 3 values where the header names 7"),
        (4, "the line has 9 values where the header names 7"),
        (5, "the line has 1 values where the header names 7"),
    ]
    assert taken.rows["line"].tolist() == [3]
    assert taken.adds_up
    assert {len(text) for text in taken.refused_rows["text"].to_pylist()} == {17, len(ROW) + 4, 500}


@pytest.mark.parametrize("blank", ["", "   ", "\t", ",,,,,,", ",,", ' "" '])
def test_a_line_without_any_value_is_no_row(blank: str) -> None:
    taken = take(csv(blank, ROW, blank, line(symbol="LTC"), blank))
    assert taken.refused == []
    assert taken.intake.received_rows == 2
    assert taken.rows["line"].tolist() == [3, 5]


def lines_of(content: bytes, path: Path) -> dict[str, int]:
    """symbol → the line a reader gives it."""
    path.write_bytes(content)
    tables = list(UploadReader(path, 1 << 30))
    pairs = [pair for table in tables for pair in zip(table["symbol"].to_pylist(), table["line"].to_pylist())]  # noqa: B905
    named = [(name, number) for name, number in pairs if name]  # blank lines come as rows without a value
    assert len(named) == len(dict(named))
    return dict(named)


@given(
    kinds=st.lists(st.sampled_from(["row", "row", "ragged", "blank", "few"]), max_size=60),
    end=st.sampled_from(["\n", "\r\n"]),
)
def test_line_numbers_are_those_of_the_file(kinds: list[str], end: str, tmp_path: Path) -> None:
    shown = {"ragged": "x" + ROW + ",1", "blank": "", "few": "a,b"}
    lines = [line(symbol=f"S{number}") if kind == "row" else shown[kind] for number, kind in enumerate(kinds, 2)]
    expected = {f"S{number}": number for number, kind in enumerate(kinds, 2) if kind == "row"}
    found = lines_of(csv(*lines, end=end), tmp_path / "upload")
    assert found == expected


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_line_numbers_stay_right_across_blocks(end: str, tmp_path: Path) -> None:
    out = io.StringIO()
    expected, ragged = {}, []
    header = f"{HEADER},name"
    out.write(header + end)
    for number in range(2, 32_000):
        if number % 7 == 0:
            out.write(end)
        elif number % 11 == 0 or 14_000 < number < 14_100:
            out.write(f"ragged,{'r' * (number % 900)}{end}")
            ragged.append(number)
        else:
            out.write(line(symbol=f"S{number}") + "," + "n" * (number % 1400) + end)
            expected[f"S{number}"] = number
    content = out.getvalue().encode()
    assert len(content) > 2 * BLOCK
    found = lines_of(content, tmp_path / "upload")
    assert found == expected
    reader = UploadReader(tmp_path / "upload", 1 << 30)
    assert sum(table.num_rows for table in reader) >= len(expected)
    assert [bad.line for bad in reader.ragged] == ragged


def test_line_numbers_stay_right_where_a_block_has_more_lines_than_are_given_on_at_once(tmp_path: Path) -> None:
    blank = LINES_AT_ONCE - 1
    lines = [*[""] * blank, line(symbol="A"), *[""] * blank, line(symbol="B"), "a,b", *[""] * blank, line(symbol="C")]
    assert lines_of(csv(*lines), tmp_path / "upload") == {"A": blank + 2, "B": 2 * blank + 3, "C": 3 * blank + 5}


def test_a_return_and_its_line_feed_in_two_blocks_end_one_line(tmp_path: Path) -> None:
    header = f"{HEADER},name\r\n"
    filler = line(symbol="FILL") + ","
    first = "".join(line(symbol=f"S{number}") + "," + "n" * 1000 + "\r\n" for number in range(2, 2 + (BLOCK // 1100)))
    count = BLOCK // 1100
    room = BLOCK - 1 - len(header) - len(first) - len(filler)
    content = (header + first + filler + "n" * room + "\r\n" + line(symbol="LAST") + ",x\r\n").encode()
    assert content[BLOCK - 1 : BLOCK + 1] == b"\r\n"
    found = lines_of(content, tmp_path / "upload")
    assert (found["FILL"], found["LAST"]) == (count + 2, count + 3)


def test_the_longest_line_allowed_is_read(tmp_path: Path) -> None:
    name = "n" * (LONGEST_LINE - len(line()) - 2)
    found = lines_of(csv(line() + "," + name, header=f"{HEADER},name"), tmp_path / "upload")
    assert found == {"BTC": 2}


def test_a_reader_of_a_damaged_file_says_so_when_it_gets_there(tmp_path: Path) -> None:
    path = tmp_path / "upload"
    path.write_bytes(csv(*(line(symbol=f"S{number}") for number in range(300_000))) + b"\xff\n")
    reader = UploadReader(path, 1 << 30)
    with pytest.raises(UnreadableUpload, match="is not UTF-8"):
        list(reader)
