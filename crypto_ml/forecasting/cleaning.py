"""Which rows of an upload are accepted, and why the others are not.

Row rules look at one row at a time and are listed in `row_rules`, in the order in which a reason is chosen; the rule
that takes more than one row is in `settling`. What concerns the whole file is in `reading` and `dates`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from crypto_ml.forecasting.schema import OBSERVATION, PRICES
from crypto_ml.forecasting.uploads.dates import FIRST_DAY, DateStyle, has_other_dates, read_dates
from crypto_ml.forecasting.uploads.dates import PLAIN as ISO_DATES
from crypto_ml.forecasting.uploads.numbers import (
    NUMBERS,
    NumberStyle,
    has_other_numbers,
    read_columns,
    read_numbers,
    together_in_one,
)
from crypto_ml.forecasting.uploads.numbers import PLAIN as PLAIN_NUMBERS

TOLERANCE: Final = 1e-6
"""How far, relative to the price, open and close may lie outside low..high: sources round each price by itself."""

LARGEST_PRICE: Final = 1e15
"""No market quotes higher; beyond it squares and ratios of prices leave what float64 can hold."""

LONGEST_SYMBOL: Final = 100
"""Characters of a symbol, and of a slug, which may become a part of the series' name."""

FORMULA_STARTS: Final = ("=", "+", "-", "@")
"""Where a cell begins with one of these, a spreadsheet that opens an answer runs it. (Space round a symbol, tabs and
returns among it, is taken off before.)"""

_CONTROL: Final = r"\p{Cc}"
_INVISIBLE: Final = r"[\p{Cf}\p{Zl}\p{Zp}]"
"""Characters that nobody sees, or that change how the text round them is shown: two series would look like one."""


@dataclass(frozen=True)
class Writing:
    """How a whole file writes dates and numbers."""

    dates: DateStyle = ISO_DATES
    numbers: NumberStyle = PLAIN_NUMBERS


PLAIN: Final = Writing()


@dataclass(frozen=True)
class CleanedRows:
    """accepted: the columns of OBSERVATION and `line`, dates as date32. refused: `line` and `reason`, as in `REFUSED`.

    other_dates, other_numbers: whether among what could not be read are values that may be dates, or numbers, written
    otherwise, which only the whole of a file can tell.
    """

    accepted: pa.Table
    refused: pa.Table
    other_dates: bool = False
    other_numbers: bool = False


REFUSED: Final = pa.schema([("line", pa.int64()), ("reason", pa.string())])


class Texts:
    """A column of text of which each distinct value is looked at once: a block of a file has few symbols in many rows.

    Values are without white space round them; a value that is not given is empty.
    """

    def __init__(self, text: pa.ChunkedArray) -> None:
        coded = pc.dictionary_encode(pc.fill_null(text, "")).combine_chunks()
        self._indices: npt.NDArray[np.int32] = coded.indices.to_numpy()
        self._values: pa.Array = pc.utf8_trim_whitespace(coded.dictionary)

    def where(self, test: Callable[[pa.Array], pa.Array]) -> npt.NDArray[np.bool_]:
        """The rows for whose text `test` is true."""
        found = np.asarray(test(self._values).to_numpy(zero_copy_only=False), bool)
        return found[self._indices] if found.any() else np.zeros(len(self._indices), bool)

    def column(self, *, missing: bool = False) -> pa.Array:
        """The text of each row; `missing`: null where it is empty."""
        values = self._values
        if missing:
            values = pc.if_else(pc.equal(values, ""), pa.scalar(None, pa.string()), values)
        return values.take(pa.array(self._indices))


def clean_rows(text: pa.Table, writing: Writing, today: date) -> CleanedRows:
    """Apply the row rules to a table of text (see `reading.UploadReader`).

    writing: how its file writes dates and numbers. today: the UTC day on which the upload is read; later dates are
    refused. Lines without any value are left out silently.
    """
    given = _with_values(text)
    numbers = read_columns(given, writing.numbers)
    rows = _typed(given, writing.dates, numbers)
    rules = row_rules(today)
    broken = np.zeros(given.num_rows, np.int16)  # the number of the first rule that a row breaks, 0 for none
    for number, breaks in enumerate(rules.values(), 1):
        breaking = breaks(rows)
        if breaking.any():
            broken[(broken == 0) & breaking] = number
    kept, lines = _accepted(rows), given["line"]
    refused = np.flatnonzero(broken)
    if len(refused):
        kept, lines = kept.filter(pa.array(broken == 0)), lines.take(pa.array(refused))
    else:
        lines = lines.slice(0, 0)
    reasons = pa.array(["", *rules], pa.string()).take(pa.array(broken[refused]))
    return CleanedRows(
        accepted=kept,
        refused=pa.table([lines, reasons], schema=REFUSED),
        other_dates=has_other_dates(given["date"], rows["date"]),
        other_numbers=any(has_other_numbers(given[name], values) for name, values in numbers.items()),
    )


def is_plain(text: pa.Table) -> bool:
    """Whether no value of a table of text may be a date or a number that is written otherwise than in plain CSV."""
    if has_other_dates(text["date"], read_dates(text["date"])):
        return False
    # as one column: what is asked of each value is the same
    numbers = together_in_one(text, [name for name in NUMBERS if name in text.column_names])
    return not has_other_numbers(numbers, read_numbers(numbers))


Rows = Mapping[str, Any]
"""Rows of text that was read: a `Texts` for each column of text, an array for each other one, and `unread_market`."""

Rule = Callable[[Rows], npt.NDArray[np.bool_]]


def row_rules(today: date) -> dict[str, Rule]:
    """Reason → which rows it applies to. The first reason that applies is the one reported."""
    tomorrow = np.datetime64(today, "s") + np.timedelta64(1, "D")
    first_day = np.datetime64(FIRST_DAY, "s")

    def price(name: str, test: Callable[[npt.NDArray[np.float64]], npt.NDArray[np.bool_]]) -> Rule:
        return lambda rows: test(rows[name])

    rules: dict[str, Rule] = {
        "symbol: empty": lambda rows: rows["symbol"].where(lambda texts: pc.equal(texts, "")),
        **_name_rules("symbol"),
        f"symbol: begins with {' '.join(FORMULA_STARTS)}, so a spreadsheet would run it as a formula": lambda rows: (
            rows["symbol"].where(lambda texts: pc.is_in(pc.utf8_slice_codeunits(texts, 0, 1), pa.array(FORMULA_STARTS)))
        ),
        "date: not readable as YYYY-MM-DD, d/m/y or m/d/y": lambda rows: np.isnat(rows["date"]),
        f"date: before {FIRST_DAY}": lambda rows: rows["date"] < first_day,
        "date: in the future": lambda rows: rows["date"] >= tomorrow,
    }
    for name in PRICES:
        rules[f"{name}: missing or not a number"] = price(name, np.isnan)
        rules[f"{name}: not finite"] = price(name, np.isinf)
        rules[f"{name}: not positive"] = price(name, lambda values: values <= 0)
        rules[f"{name}: larger than {LARGEST_PRICE:.0e}"] = price(name, lambda values: values > LARGEST_PRICE)
    rules["high: below low"] = lambda rows: rows["high"] < rows["low"]
    for name in ("open", "close"):
        rules[f"{name}: outside low..high"] = lambda rows, name=name: (  # type: ignore[misc]
            (rows[name] < rows["low"] * (1 - TOLERANCE)) | (rows[name] > rows["high"] * (1 + TOLERANCE))
        )
    rules["market: not a number"] = lambda rows: rows["unread_market"]
    rules["market: negative"] = lambda rows: rows["market"] < 0
    return rules | _name_rules("slug")


def _name_rules(column: str) -> dict[str, Rule]:
    """The rules for a text that becomes the name of a series, or a part of it."""

    def matches(pattern: str) -> Rule:
        """Where a text has something that the pattern (of RE2) describes."""
        return lambda rows: rows[column].where(lambda texts: pc.match_substring_regex(texts, pattern))

    return {
        f"{column}: longer than {LONGEST_SYMBOL} characters": lambda rows: rows[column].where(
            lambda texts: pc.greater(pc.utf8_length(texts), LONGEST_SYMBOL)
        ),
        f"{column}: has control characters": matches(_CONTROL),
        f"{column}: has invisible characters, or such as change the direction of text": matches(_INVISIBLE),
    }


def _with_values(text: pa.Table) -> pa.Table:
    """The rows that have any value."""
    has = pc.not_equal(text["symbol"], "")
    for name in text.column_names:
        if pc.all(has, min_count=0).as_py():
            return text
        if name not in {"symbol", "line"}:
            has = pc.or_(has, pc.not_equal(text[name], ""))
    return text.filter(has)


def _typed(text: pa.Table, dates: DateStyle, numbers: Mapping[str, npt.NDArray[np.float64]]) -> dict[str, Any]:
    market, unread = numbers["market"], np.zeros(text.num_rows, bool)
    finite = np.isfinite(market)
    if not finite.all():
        given = pc.not_equal(pc.utf8_trim_whitespace(text["market"]), "").to_numpy().astype(bool)
        unread = given & ~finite & ~_is_nan_text(text["market"])
    volume = numbers.get("volume", np.full(text.num_rows, np.nan))
    slug = text["slug"] if "slug" in text.column_names else pa.chunked_array([pa.repeat("", text.num_rows)])
    return {
        "symbol": Texts(text["symbol"]),
        "date": read_dates(text["date"], dates),
        **{name: numbers[name] for name in PRICES},
        "market": np.where(finite, market, 0.0),
        "volume": np.where(np.isfinite(volume), volume, np.nan),
        "slug": Texts(slug),
        "line": text["line"],
        "unread_market": unread,
    }


def _accepted(rows: Rows) -> pa.Table:
    """Rows that were read as a table with the columns of OBSERVATION and `line`; a number that is missing is null."""
    columns = {name: rows[name] for name in (*OBSERVATION, "line")}
    columns["symbol"], columns["slug"] = rows["symbol"].column(), rows["slug"].column(missing=True)
    columns["date"] = rows["date"].astype("datetime64[D]")
    arrays = (pa.array(one, from_pandas=True) if isinstance(one, np.ndarray) else one for one in columns.values())
    return pa.table(dict(zip(columns, arrays, strict=True)))


def _is_nan_text(text: pa.ChunkedArray) -> npt.NDArray[np.bool_]:
    blank = pc.match_substring_regex(text, r"(?i)^\s*(nan|null|none|n/a|na|-)?\s*$")
    return np.asarray(blank.to_numpy(), bool)
