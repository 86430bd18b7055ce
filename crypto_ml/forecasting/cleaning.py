"""Which rows of an upload are accepted, and why the others are not.

Row rules look at one row at a time and are listed in `row_rules`, in the order in which a reason is chosen; the rule
that takes more than one row is in `settling`. What concerns the whole file is in `reading` and `dates`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from crypto_ml.forecasting.schema import PRICES
from crypto_ml.forecasting.uploads.dates import FIRST_DAY, DateStyle, has_other_dates, read_dates
from crypto_ml.forecasting.uploads.dates import PLAIN as ISO_DATES
from crypto_ml.forecasting.uploads.numbers import NUMBERS, NumberStyle, has_other_numbers, read_numbers
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
    """accepted: columns of OBSERVATION and `line`. refused: `line` and `reason`.

    other_dates, other_numbers: whether among what could not be read are values that may be dates, or numbers, written
    otherwise, which only the whole of a file can tell.
    """

    accepted: pd.DataFrame
    refused: pd.DataFrame
    other_dates: bool = False
    other_numbers: bool = False


def clean_rows(text: pa.Table, writing: Writing, today: date) -> CleanedRows:
    """Apply the row rules to a table of text (see `reading.UploadReader`).

    writing: how its file writes dates and numbers. today: the UTC day on which the upload is read; later dates are
    refused. Lines without any value are left out silently.
    """
    given = text.filter(_has_values(text))
    numbers = {name: read_numbers(given[name], writing.numbers, name) for name in NUMBERS if name in given.column_names}
    rows = _typed(given, writing.dates, numbers)
    rules = row_rules(today)
    broken = np.zeros(len(rows), np.int16)  # the number of the first rule that a row breaks, 0 for none
    for number, breaks in enumerate(rules.values(), 1):
        broken[(broken == 0) & breaks(rows)] = number
    accepted = broken == 0
    reasons = np.array(["", *rules], dtype=object)
    kept = rows[accepted].drop(columns="unread_market")
    return CleanedRows(
        accepted=kept.reset_index(drop=True),
        refused=pd.DataFrame({"line": rows["line"][~accepted].to_numpy(), "reason": reasons[broken[~accepted]]}),
        other_dates=has_other_dates(given["date"], rows["date"].to_numpy()),
        other_numbers=any(has_other_numbers(given[name], values) for name, values in numbers.items()),
    )


def is_plain(text: pa.Table) -> bool:
    """Whether no value of a table of text may be a date or a number that is written otherwise than in plain CSV."""
    return not has_other_dates(text["date"], read_dates(text["date"])) and not any(
        has_other_numbers(text[name], read_numbers(text[name])) for name in NUMBERS if name in text.column_names
    )


Rule = Callable[[pd.DataFrame], npt.NDArray[np.bool_]]


def row_rules(today: date) -> dict[str, Rule]:
    """Reason → which rows it applies to. The first reason that applies is the one reported."""
    tomorrow = np.datetime64(today, "s") + np.timedelta64(1, "D")
    first_day = np.datetime64(FIRST_DAY, "s")

    def price(name: str, test: Callable[[pd.Series], pd.Series]) -> Rule:
        return lambda rows: test(rows[name]).to_numpy(bool)

    rules: dict[str, Rule] = {
        "symbol: empty": lambda rows: (rows["symbol"] == "").to_numpy(bool),
        **_name_rules("symbol"),
        f"symbol: begins with {' '.join(FORMULA_STARTS)}, so a spreadsheet would run it as a formula": lambda rows: (
            rows["symbol"].str.startswith(FORMULA_STARTS).to_numpy(bool)
        ),
        "date: not readable as YYYY-MM-DD, d/m/y or m/d/y": lambda rows: rows["date"].isna().to_numpy(bool),
        f"date: before {FIRST_DAY}": lambda rows: (rows["date"] < first_day).to_numpy(bool),
        "date: in the future": lambda rows: (rows["date"] >= tomorrow).to_numpy(bool),
    }
    for name in PRICES:
        rules[f"{name}: missing or not a number"] = price(name, lambda values: values.isna())
        rules[f"{name}: not finite"] = price(name, np.isinf)
        rules[f"{name}: not positive"] = price(name, lambda values: values <= 0)
        rules[f"{name}: larger than {LARGEST_PRICE:.0e}"] = price(name, lambda values: values > LARGEST_PRICE)
    rules["high: below low"] = lambda rows: (rows["high"] < rows["low"]).to_numpy(bool)
    for name in ("open", "close"):
        rules[f"{name}: outside low..high"] = lambda rows, name=name: (  # type: ignore[misc]
            (rows[name] < rows["low"] * (1 - TOLERANCE)) | (rows[name] > rows["high"] * (1 + TOLERANCE))
        ).to_numpy(bool)
    rules["market: not a number"] = lambda rows: rows["unread_market"].to_numpy(bool)
    rules["market: negative"] = lambda rows: (rows["market"] < 0).to_numpy(bool)
    return rules | _name_rules("slug")


def _name_rules(column: str) -> dict[str, Rule]:
    """The rules for a text that becomes the name of a series, or a part of it."""

    def matches(pattern: str) -> Rule:
        return lambda rows: _matches(rows[column], pattern)

    return {
        f"{column}: longer than {LONGEST_SYMBOL} characters": lambda rows: (
            rows[column].str.len() > LONGEST_SYMBOL
        ).to_numpy(bool),
        f"{column}: has control characters": matches(_CONTROL),
        f"{column}: has invisible characters, or such as change the direction of text": matches(_INVISIBLE),
    }


def _matches(texts: pd.Series, pattern: str) -> npt.NDArray[np.bool_]:
    """Where a text has something that the pattern (of RE2) describes; a missing one has nothing."""
    return np.asarray(pc.fill_null(pc.match_substring_regex(pa.array(texts), pattern), False).to_numpy(False), bool)


def _has_values(text: pa.Table) -> pa.ChunkedArray:
    has = pc.not_equal(text["symbol"], "")
    for name in text.column_names:
        if name not in {"symbol", "line"}:
            has = pc.or_(has, pc.not_equal(text[name], ""))
    return has


def _typed(text: pa.Table, dates: DateStyle, numbers: Mapping[str, npt.NDArray[np.float64]]) -> pd.DataFrame:
    market = numbers["market"]
    given = pc.not_equal(pc.utf8_trim_whitespace(text["market"]), "").to_numpy().astype(bool)
    volume = numbers.get("volume", np.full(text.num_rows, np.nan))
    slug = _trimmed(text["slug"]).replace("", None) if "slug" in text.column_names else None
    return pd.DataFrame(
        {
            "symbol": _trimmed(text["symbol"]),
            "date": read_dates(text["date"], dates),
            **{name: numbers[name] for name in PRICES},
            "market": np.where(np.isfinite(market), market, 0.0),
            "volume": np.where(np.isfinite(volume), volume, np.nan),
            "slug": pd.Series([None] * text.num_rows, dtype="str") if slug is None else slug,
            "line": text["line"].to_numpy(),
            "unread_market": given & ~np.isfinite(market) & ~_is_nan_text(text["market"]),
        }
    )


def _trimmed(text: pa.ChunkedArray) -> pd.Series:
    return pd.Series(pc.utf8_trim_whitespace(text).to_pandas(), dtype="str")


def _is_nan_text(text: pa.ChunkedArray) -> npt.NDArray[np.bool_]:
    blank = pc.match_substring_regex(text, r"(?i)^\s*(nan|null|none|n/a|na|-)?\s*$")
    return np.asarray(blank.to_numpy(), bool)
