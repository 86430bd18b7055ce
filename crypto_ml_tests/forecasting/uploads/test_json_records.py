"""Records in JSON are read as the same rows in CSV are, and whatever else is sent is refused with a sentence."""

import csv
import io
import json
import string
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crypto_ml.forecasting.uploads.json_records import FIRST_LINE, as_csv, read_records, record_of
from crypto_ml.forecasting.uploads.unreadable import UnreadableUpload

NAMES = st.lists(
    st.text(string.ascii_letters + " _äß,\"'", min_size=1, max_size=8), min_size=1, max_size=5, unique=True
)
TEXTS = st.text(st.characters(exclude_categories=["Cs", "Cc", "Nd"]), max_size=12)
NUMBERS = st.one_of(
    st.integers(-(10**30), 10**30).map(str),
    st.from_regex(r"-?(0|[1-9][0-9]{0,20})(\.[0-9]{1,25})?([eE][+-]?[0-9]{1,4})?", fullmatch=True),
)
VALUES = st.one_of(TEXTS.map(lambda text: (json.dumps(text), text)), NUMBERS.map(lambda one: (one, one)))
MORE = st.sampled_from([("null", ""), ("true", "true"), ("false", "false")])


def in_json(rows: list[dict[str, tuple[str, str]]]) -> bytes:
    objects = [", ".join(f"{json.dumps(name)}: {value[0]}" for name, value in row.items()) for row in rows]
    return ("[" + ", ".join(f"{{{one}}}" for one in objects) + "]").encode()


@given(names=NAMES, data=st.data())
def test_records_are_the_csv_that_a_person_would_write_with_every_digit_as_it_was(names: list[str], data: Any) -> None:
    row = st.fixed_dictionaries({}, optional=dict.fromkeys(names, VALUES | MORE))
    rows = data.draw(st.lists(row, min_size=1, max_size=6))
    body = in_json(rows)
    seen = list(dict.fromkeys(name for row in rows for name in row))
    found = list(csv.reader(io.StringIO(as_csv(body).decode())))
    assert [line for line in found if line] == [
        line for line in [seen, *([row.get(name, ("", ""))[1] for name in seen] for row in rows)] if line
    ]
    for number, one in enumerate(rows):
        again = json.loads(record_of(body, number + FIRST_LINE), parse_float=str, parse_int=str)
        assert again == json.loads(body, parse_float=str, parse_int=str)[number]
        assert "\n" not in record_of(body, number + FIRST_LINE)
        assert read_records(body)[number] == {name: value[1] for name, value in one.items()}


def test_one_record_is_a_list_of_one_and_a_mark_at_the_beginning_is_none() -> None:
    assert as_csv(b'{"a": 1.50}') == as_csv(b'\xef\xbb\xbf[{"a": 1.50}]\n') == b"a\n1.50\n"
    assert record_of(b'{"a": 1.50, "b": null, "c": "\\u00e4"}', 2) == '{"a": 1.50, "b": null, "c": "ä"}'


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "is not JSON"),
        (b"[", "is not JSON"),
        (b"{'a': 1}", "is not JSON"),
        (b"[{}] x", "is not JSON"),
        (b"[]", "the list of records is empty"),
        (b"3", "neither a record nor a list of records"),
        (b'"text"', "neither a record nor a list of records"),
        (b"[1]", "entry 0 of the list is no record: '1'"),
        (b"[{}, []]", "entry 1 of the list is no record"),
        (b"\xff{}", "not UTF-8 \\(byte 0\\)"),
        ('[{"a": 1}]'.encode("utf-16"), "not UTF-8"),
        (b"[" * 100_000, "lists lie in lists in lists"),
        (b'{"a":' * 100_000, "lists lie in lists in lists"),
        (b'[{"a": {"b": 1}}]', "'a' of record 0 is \"{'b': '1'}\"; give a number or a text"),
        (b'[{"a": [1]}]', "'a' of record 0 is"),
        (b'[{"a": "one\\ntwo"}]', "'a' of record 0 has an end of line in it"),
        (b'[{"a": "one\\rtwo"}]', "has an end of line in it"),
        (b'[{"a\\nb": 1}]', "is no name of a column"),
        (b'[{"": 1}]', "is no name of a column"),
        (b'[{"a": "\\ud800"}]', "half of a pair of surrogates"),
        (b'[{"a\\ud800": 1}]', "is no name of a column"),
        (b'[{"a": 1, "a": 2}]', "'a' stands twice in a record"),
    ],
)
def test_what_is_no_records_is_refused_with_a_sentence(body: bytes, said: str) -> None:
    with pytest.raises(UnreadableUpload, match=said) as raised:
        as_csv(body)
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 300


def test_a_number_means_what_json_says_also_beside_texts_with_other_marks() -> None:
    assert as_csv(b'[{"a": 1.234, "b": "1.234.567"}]') == b"a,b\n1.2340,1.234.567\n"
    assert as_csv(b'[{"a": 1.234, "b": 1234.567}]') == b"a,b\n1.234,1234.567\n"
    assert as_csv(b'[{"a": "1.234", "b": "1.234.567"}]') == b"a,b\n1.234,1.234.567\n"


def test_so_many_columns_that_nobody_means_them_are_refused_and_a_number_of_any_length_is_a_text() -> None:
    many = json.dumps([{f"c{number}": 1 for number in range(100_000)}]).encode()
    with pytest.raises(UnreadableUpload, match="100,000 names, and 1,000 is the most"):
        as_csv(many)
    with pytest.raises(UnreadableUpload, match="1,001 different names, and 1,000 is the most"):
        as_csv(json.dumps([{f"c{number}": 1} for number in range(1_001)]).encode())
    digits = "9" * 100_000
    assert as_csv(f'[{{"a": {digits}, "b": 1e999999}}]'.encode()) == f"a,b\n{digits},1e999999\n".encode()
    assert as_csv(b'[{"a": NaN, "b": -Infinity}]') == b"a,b\nNaN,-Infinity\n"  # refused with the row, as in a file


@pytest.mark.parametrize(
    ("body", "said"),
    [
        # each is small, and took minutes or a gigabyte
        ("{" + ",".join(f'"c{number}":1' for number in range(100_000)) + ',"c1":1}', "100,001 names"),
        ("[" + ",".join(f'{{"c{number % 990}":1}}' for number in range(11_000)) + "]", "most of them in few records"),
        ("[" + "[]," * 100_000 + "[]]", "too many lists"),
        ('{"a": "' + "x" * (2 << 20) + '"}', "'a' of record 0 has 2,097,152 characters"),
    ],
)
def test_what_is_small_only_until_it_is_read_is_refused_before(body: str, said: str) -> None:
    with pytest.raises(UnreadableUpload, match=said):
        as_csv(body.encode())
