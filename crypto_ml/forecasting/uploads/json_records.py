"""Records in JSON as the CSV that uploads are: the same words, in the same order, so that they are read by one reader.

A number keeps the digits that it was written with, and null is an empty value. A record is a line: the first one is
line 2, behind the header.
"""

import csv
import io
import json
import re
from typing import Any, Final

from crypto_ml.forecasting.uploads.unreadable import UnreadableUpload
from crypto_ml.visible import visible

FIRST_LINE: Final = 2
MOST_COLUMNS: Final = 1_000
MOST_EMPTY: Final = 10_000_000
"""Places without a value, where records have different names: each costs a comma in CSV, and nothing in JSON."""

MOST_LISTS: Final = 100_000
"""Beginnings of lists, in texts, too. The parser holds every other thread up while it makes lists of which none is a
record."""

MOST_CHARACTERS: Final = 1 << 20
"""Of one value; no line of a file may be as long."""

SHOWN: Final = 80
MARKED: Final = re.compile(r"[0-9][.,][0-9]")
THREE_DECIMALS: Final = re.compile(r"-?[0-9]{1,3}\.[0-9]{3}")


def as_csv(body: bytes) -> bytes:
    """A list of records, or one record, as CSV; columns are in the order in which they are first seen.

    Raises UnreadableUpload where it is neither, or where a value is no text, number, true, false or null.
    """
    records = read_records(body)
    columns = list(dict.fromkeys(name for record in records for name in record))
    if len(columns) > MOST_COLUMNS:
        raise UnreadableUpload(f"the records have {len(columns):,} different names, and {MOST_COLUMNS:,} is the most")
    for name in columns:
        if not name.isprintable() or not name:
            raise UnreadableUpload(f"{_shown(name)} is no name of a column; name them symbol, date, open, …")
    empty = len(records) * len(columns) - sum(map(len, records))
    if empty > MOST_EMPTY:
        raise UnreadableUpload(
            f"the records have {len(columns):,} different names, and most of them in few records: give all the same"
        )
    if any(MARKED.search(value) and not isinstance(value, _Digits) for record in records for value in record.values()):
        records = [{name: _beyond_doubt(value) for name, value in record.items()} for record in records]
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(columns)
    try:
        lines.writerows([record.get(name, "") for name in columns] for record in records)
        return text.getvalue().encode()
    except UnicodeEncodeError as error:
        raise UnreadableUpload("a text in the records is no Unicode (half of a pair of surrogates)") from error


def read_records(body: bytes) -> list[dict[str, str]]:
    """The records, each value as the text that stood there. Raises UnreadableUpload."""
    if body.count(b"[") > MOST_LISTS:
        raise UnreadableUpload("the body is not a list of records: it has too many lists in it")
    try:
        found = json.loads(
            body.decode("utf-8-sig"),
            parse_float=_Digits,
            parse_int=_Digits,
            parse_constant=_Digits,
            object_pairs_hook=_of_pairs,
        )
    except UnreadableUpload:
        raise
    except UnicodeDecodeError as error:
        raise UnreadableUpload(f"the body is not UTF-8 (byte {error.start})") from error
    except RecursionError as error:
        raise UnreadableUpload("the body is not a list of records: lists lie in lists in lists") from error
    except ValueError as error:
        raise UnreadableUpload(f"the body is not JSON: {error}") from error
    records = [found] if isinstance(found, dict) else found
    if not isinstance(records, list):
        raise UnreadableUpload("the body is neither a record nor a list of records")
    if not records:
        raise UnreadableUpload("the list of records is empty; send one record at least")
    return [_record(number, record) for number, record in enumerate(records)]


def record_of(body: bytes, line: int) -> str:
    """The record of a line, as JSON on one line."""
    found = json.loads(body.decode("utf-8-sig"), parse_float=_Digits, parse_int=_Digits, parse_constant=_Digits)
    record = ([found] if isinstance(found, dict) else found)[line - FIRST_LINE]
    pairs = (f"{json.dumps(name, ensure_ascii=False)}: {_as_json(value)}" for name, value in record.items())
    return "{" + ", ".join(pairs) + "}"


class _Digits(str):
    """A number as it was written."""

    __slots__ = ()


def _of_pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(pairs) > MOST_COLUMNS:
        raise UnreadableUpload(f"a record has {len(pairs):,} names, and {MOST_COLUMNS:,} is the most")
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in found if names.count(name) > 1)
        raise UnreadableUpload(f"{_shown(twice)} stands twice in a record; give each name once")
    return found


def _record(number: int, record: Any) -> dict[str, str]:
    if not isinstance(record, dict):
        raise UnreadableUpload(f"entry {number} of the list is no record: {_shown(record)}")
    return {name: _text(number, name, value) for name, value in record.items()}


def _text(number: int, name: str, value: Any) -> str:
    if isinstance(value, str):
        if len(value) > MOST_CHARACTERS:
            raise UnreadableUpload(f"{_shown(name)} of record {number} has {len(value):,} characters: that is no value")
        if "\n" in value or "\r" in value:
            raise UnreadableUpload(f"{_shown(name)} of record {number} has an end of line in it")
        return value
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    raise UnreadableUpload(f"{_shown(name)} of record {number} is {_shown(value)}; give a number or a text")


def _beyond_doubt(value: str) -> str:
    """A number with a zero more where a file could mean thousands by its point: a number of JSON means one thing, also
    beside texts in which a comma is the point."""
    return f"{value}0" if isinstance(value, _Digits) and THREE_DECIMALS.fullmatch(value) else value


def _as_json(value: Any) -> str:
    return str(value) if isinstance(value, _Digits) else json.dumps(value, ensure_ascii=False)


def _shown(value: Any) -> str:
    return repr(visible(str(value)))[:SHOWN]
