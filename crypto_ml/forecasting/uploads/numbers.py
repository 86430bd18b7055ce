"""How an upload writes its numbers: the mark of its decimals, what stands between thousands, a currency, K M B T.

"1,234" is a thousand or one and a bit. Which of them it is says the whole column, where it has a value that can be read
in one way only, or another column in which the same mark shows what it means; where nothing says it, the file is
refused. Nothing is guessed.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from crypto_ml.forecasting.schema import PRICES
from crypto_ml.forecasting.uploads.unreadable import UnreadableUpload

Mark = Literal[".", ","]

NUMBERS: Final = (*PRICES, "market", "volume")
FEW: Final = 1_000
"""Rows of which calling Arrow for each column takes longer than what it does."""
SCALED: Final = ("market", "volume")
"""Columns in which 1.2B is read."""

SHOWN: Final = 40
"""Characters of a number that a reason repeats."""

_CURRENCY: Final = (
    r"US\$|[$€£¥₹₩₽₺₴₫฿₦]|USDT|USDC|BUSD|USD|EUR|GBP|JPY|CHF|CNY|KRW|INR|AUD|CAD|NZD|SEK|NOK|DKK|PLN|CZK|HUF|BRL|MXN|"
    r"RUB|TRY|ZAR|SGD|HKD|TWD"
)
_SAME: Final = {"US$": "USD"}
_EXPONENT: Final = r"(?:[eE][+-]?\d{1,4})?"
_SPACES: Final = "[\u00a0\u2007\u2009\u202f]"
_APOSTROPHES: Final = "[’ʼ′]"

_NUMBER: Final = rf"^\s*[+-]?(\d+\.?\d*|\.\d+){_EXPONENT}\s*$"
"""A plain number, which needs no other to be read."""

_ANY: Final = (
    rf"^\s*(?P<before>{_CURRENCY})?\s?(?P<number>[+-]?[.,]?\d[\d.,' ]*{_EXPONENT})(?P<scale>\s?[KkMBT]\b)?\s?"
    rf"(?P<after>{_CURRENCY})?\s*$"
)
"""What may be a number in some way of writing; a name of a group is a part of the struct that comes of it."""


def _pattern(decimal: str, grouping: str) -> str:
    """A number with this decimal mark, whole thousands between these marks where there are any."""
    point = rf"\{decimal}"
    grouped = "|".join(rf"[1-9]\d{{0,2}}(?:{'[.]' if mark == '.' else mark}\d{{3}})+" for mark in grouping)
    grouped = f"(?:{grouped})(?:{point}\\d*)?|" if grouped else ""
    return rf"^[+-]?(?:{grouped}(?:\d+{point}?\d*|{point}\d+){_EXPONENT})$"


_AS_POINT: Final = _pattern(".", ", '")
_AS_COMMA: Final = _pattern(",", ". '")


@dataclass(frozen=True)
class NumberStyle:
    """How a whole file writes its numbers.

    decimal: the mark before decimals. grouping: marks that stand between thousands, any of `,` `.` `'` and space.
    currency: what stands before or behind every number of the columns `signed`. scaled: whether 1.2B is read, in
    SCALED.
    """

    decimal: Mark = "."
    grouping: str = ""
    currency: str | None = None
    signed: frozenset[str] = frozenset()
    scaled: bool = False


PLAIN: Final = NumberStyle()


def read_numbers(text: pa.ChunkedArray, style: NumberStyle = PLAIN, column: str = "") -> npt.NDArray[np.float64]:
    """Numbers of a column of text, shape (n,), NaN where there is none; `inf` in any spelling is infinite."""
    if style.decimal == ".":  # where a comma is the decimal mark, 1.234 is a thousand and no plain number
        try:
            return np.asarray(pc.cast(text, pa.float64()).to_numpy(), np.float64)
        except pa.ArrowInvalid:
            pass
    plain = text if style == PLAIN else _as_plain(text, style, column)
    numeric = pc.match_substring_regex(plain, _NUMBER)
    numbers = pc.cast(pc.if_else(numeric, pc.utf8_trim_whitespace(plain), pa.scalar(None, pa.string())), pa.float64())
    values = np.asarray(numbers.to_numpy(), np.float64).copy()
    infinite = pc.match_substring_regex(plain, r"(?i)^\s*[+-]?inf(inity)?\s*$").to_numpy().astype(bool)
    values[infinite] = np.inf
    return values


def read_columns(text: pa.Table, style: NumberStyle = PLAIN) -> dict[str, npt.NDArray[np.float64]]:
    """`read_numbers` of those of NUMBERS that a table of text has, by name; of few rows in one go."""
    names = [name for name in NUMBERS if name in text.column_names]
    if style.decimal == "." and text.num_rows <= FEW:
        try:
            together = pc.cast(together_in_one(text, names), pa.float64()).to_numpy()
            return dict(zip(names, np.split(np.asarray(together, np.float64), len(names)), strict=True))
        except pa.ArrowInvalid:
            pass
    return {name: read_numbers(text[name], style, name) for name in names}


def together_in_one(text: pa.Table, names: Sequence[str]) -> pa.ChunkedArray:
    """Columns one behind the other, as one."""
    return pa.chunked_array([piece for name in names for piece in text[name].chunks], pa.string())


def has_other_numbers(text: pa.ChunkedArray, values: npt.NDArray[np.float64]) -> bool:
    """Whether what could not be read of a column as plain numbers (`values` NaN) may be numbers written otherwise."""
    missing = np.isnan(values)
    if not missing.any():
        return False
    unread = text.filter(pa.array(missing))
    return bool(pc.any(pc.match_substring_regex(_unified(unread), _ANY)).as_py())


def _unified(text: pa.ChunkedArray) -> pa.ChunkedArray:
    """The text with one kind of space and one of apostrophe."""
    return pc.replace_substring_regex(pc.replace_substring_regex(text, _SPACES, " "), _APOSTROPHES, "'")


def _parts(text: pa.ChunkedArray) -> dict[str, pa.ChunkedArray]:
    """before, number, scale, after: the parts of what may be a number, null elsewhere."""
    found = pc.extract_regex(_unified(text), _ANY)
    parts = {name: pc.struct_field(found, name) for name in ("before", "number", "scale", "after")}
    return {name: pc.utf8_trim_whitespace(part) for name, part in parts.items()}


def _as_plain(text: pa.ChunkedArray, style: NumberStyle, column: str) -> pa.ChunkedArray:
    """The numbers of a column as plain ones; empty where there is none."""
    parts = _parts(text)
    number = parts["number"]
    good = pc.match_substring_regex(number, _pattern(style.decimal, style.grouping))
    sign = _sign(parts)
    good = pc.and_(good, pc.equal(sign, style.currency if column in style.signed else ""))
    scale = pc.utf8_upper(parts["scale"])
    if not (style.scaled and column in SCALED):
        good = pc.and_(good, pc.equal(scale, ""))
    for mark in style.grouping:
        number = pc.replace_substring(number, mark, "")
    number = pc.replace_substring(number, ",", ".") if style.decimal == "," else number
    for letter, power in (("K", "e3"), ("M", "e6"), ("B", "e9"), ("T", "e12")):
        scale = pc.replace_substring(scale, letter, power)
    # a number with an exponent of its own and a letter behind it is none
    plain = pc.binary_join_element_wise(number, scale, "")
    whole = pc.utf8_trim_whitespace(text)
    infinite = pc.match_substring_regex(whole, r"(?i)^[+-]?inf(inity)?$")
    return pc.if_else(pc.fill_null(good, False), plain, pc.if_else(infinite, whole, ""))


def _sign(parts: Mapping[str, pa.ChunkedArray]) -> pa.ChunkedArray:
    """The currency of each number; `?` where one stands on either side."""
    both = pc.and_(pc.not_equal(parts["before"], ""), pc.not_equal(parts["after"], ""))
    joined = pc.binary_join_element_wise(parts["before"], parts["after"], "")
    for given, meant in _SAME.items():
        joined = pc.if_else(pc.equal(joined, given), meant, joined)
    return pc.if_else(both, "?", joined)


@dataclass(frozen=True)
class Example:
    """A value, and where it stood."""

    text: str
    line: int
    column: str

    def __str__(self) -> str:
        return f"{self.text[:SHOWN]!r} in line {self.line:,}, column {self.column}"


@dataclass
class _Column:
    """What the numbers of a column say: the first example of each kind."""

    by_point: Example | None = None
    by_comma: Example | None = None
    either: dict[Mark, Example] = field(default_factory=dict)
    grouping: dict[str, Example] = field(default_factory=dict)  # marks that these values show between thousands
    signs: dict[str, Example] = field(default_factory=dict)  # "" where a number has none
    scaled: Example | None = None

    @property
    def decimal(self) -> Mark | None:
        """The one decimal mark with which every number of the column is one; None where both or neither is."""
        if self.by_point and not self.by_comma:
            return "."
        return "," if self.by_comma and not self.by_point else None


class NumberEvidence:
    """What the numbers of a whole file say about how they are written. plain_point: whether a point is the decimal mark
    where nothing speaks against it, as in CSV with commas between values."""

    def __init__(self, *, plain_point: bool) -> None:
        self._plain_point = plain_point
        self._columns: dict[str, _Column] = {}

    def add(self, table: pa.Table) -> None:
        """Look at the numbers of a table of text with the column `line`."""
        for name in NUMBERS:
            if name in table.column_names:
                self._look(name, table[name], table["line"])

    def _look(self, name: str, text: pa.ChunkedArray, lines: pa.ChunkedArray) -> None:
        column = self._columns.setdefault(name, _Column())
        parts = _parts(text)
        number = parts["number"]
        as_point = pc.match_substring_regex(number, _AS_POINT)
        as_comma = pc.match_substring_regex(number, _AS_COMMA)
        is_number = pc.or_(as_point, as_comma)
        if name not in SCALED:
            is_number = pc.and_(is_number, pc.equal(parts["scale"], ""))

        def first(mask: pa.ChunkedArray) -> Example | None:
            at = pc.index(pc.fill_null(pc.and_(is_number, mask), False), True).as_py()
            return None if at < 0 else Example(text[at].as_py(), lines[at].as_py(), name)

        only_point, only_comma = pc.and_not(as_point, as_comma), pc.and_not(as_comma, as_point)
        column.by_point = column.by_point or first(only_point)
        column.by_comma = column.by_comma or first(only_comma)
        has = {mark: pc.match_substring(number, mark) for mark in ",. '"}
        for mark in (".", ","):
            if found := first(pc.and_(pc.and_(as_point, as_comma), has[mark])):
                column.either.setdefault(mark, found)
        for mark, mask in ((",", only_point), (".", only_comma)):
            if found := first(pc.and_(mask, has[mark])):
                column.grouping.setdefault(mark, found)
        for mark in " '":
            if found := first(has[mark]):
                column.grouping.setdefault(mark, found)
        signs = _sign(parts)
        for sign in pc.unique(signs.filter(pc.fill_null(is_number, False))).to_pylist():
            if len(column.signs) < 3 and (found := first(pc.equal(signs, sign))):
                column.signs.setdefault(sign, found)
        column.scaled = column.scaled or first(pc.not_equal(parts["scale"], ""))

    def style(self) -> NumberStyle:
        """The one way in which the file's numbers can be read. Raises UnreadableUpload where there is none."""
        currency, signed = self._currency()
        try:
            style = self._marks()
        except _Contradiction as found:
            if not self._plain_point or any(self._eithers()):
                raise UnreadableUpload(str(found)) from found
            return PLAIN  # each number has one meaning by itself, and those that are not plain are refused, row by row
        scaled = style.decimal == "." and any(column.scaled for column in self._columns.values())
        return replace(style, currency=currency, signed=signed, scaled=scaled)

    def _currency(self) -> tuple[str | None, frozenset[str]]:
        """What stands at every number of some columns. A column in which only some have it is read as if none had."""
        signed = {
            name: column.signs for name, column in self._columns.items() if column.signs and "" not in column.signs
        }
        found: dict[str, Example] = {}
        for signs in signed.values():
            for sign, example in signs.items():
                found.setdefault(sign, example)
        if len(found) > 1:
            one, other = list(found.values())[:2]
            raise UnreadableUpload(f"its numbers are of two currencies: {one}, and {other}; upload one currency")
        return (next(iter(found)), frozenset(signed)) if found and "?" not in found else (None, frozenset())

    def _eithers(self) -> Iterator[Example]:
        for column in self._columns.values():
            yield from column.either.values()

    def _marks(self) -> NumberStyle:
        columns = self._columns.values()
        if torn := next((column for column in columns if column.by_point and column.by_comma), None):
            raise _Contradiction(torn.by_point, torn.by_comma)
        points = [column.by_point for column in columns if column.by_point]
        commas = [column.by_comma for column in columns if column.by_comma]
        if points and commas:
            raise _Contradiction(points[0], commas[0])
        decimal: Mark = "," if commas else "."
        other: Mark = "." if commas else ","
        grouping = {mark for column in columns for mark in column.grouping}
        # in a column that is settled, what stands in the other mark's place is one of thousands
        grouping |= {other for column in columns if column.decimal == decimal and other in column.either}
        plain = self._plain_point and not commas and not grouping & {","}
        for column in columns:
            if column.decimal is not None:
                continue
            for mark, example in column.either.items():
                shown = bool(points or commas) if mark == decimal else other in grouping
                by_default = mark == "." and plain and not any("," in one.either for one in columns)
                if not shown and not by_default:
                    raise UnreadableUpload(_ambiguous(mark, example))
        return NumberStyle(decimal, "".join(sorted(grouping)))


class _Contradiction(Exception):  # noqa: N818 - reads as what happened
    """Numbers that cannot all be read the same way."""

    def __init__(self, point: Example | None, comma: Example | None) -> None:
        super().__init__(
            f"its numbers cannot all be read the same way: {point} has a decimal point, {comma} a decimal comma; write "
            "all with a decimal point, and nothing between thousands"
        )


def _ambiguous(mark: Mark, example: Example) -> str:
    thousand, fraction = example.text.replace(mark, ""), example.text.replace(mark, ".")
    return (
        f"its numbers can be read in two ways: {example} may be {thousand.strip()[:SHOWN]} or "
        f"{fraction.strip()[:SHOWN]}, and nothing in the file says which; write numbers with a decimal point, and "
        "nothing between thousands"
    )
