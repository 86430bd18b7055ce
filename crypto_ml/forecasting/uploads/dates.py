"""How an upload writes its dates: by pattern, and only where the whole file can mean one thing.

2018-03-25, 20180325 and 2018/03/25 mean one day whoever reads them, and so do 25-Mar-2018 and a Unix time, whose size
says in what it counts. 5/3/2018 is the fifth of March or the third of May. One 25/3/2018 anywhere in the file settles
it; where nothing does, the file is refused and the setting that resolves it is named. Nothing is guessed, and
nothing is a date because some parser accepts it.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from functools import partial
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from crypto_ml.forecasting.schema import DateOrder
from crypto_ml.forecasting.uploads.unreadable import UnreadableUpload

FIRST_DAY: Final = date(2009, 1, 3)
"""The day of the first block of the first chain: no coin has a price before it."""

SETTING: Final = "CRYPTO_ML_DATE_ORDER"
SHOWN_DATE: Final = 40
"""Characters of a date that a reason repeats: what stands behind it may be as long as a line."""

CENTURY: Final = 2000
"""Of years written with two digits."""

_MONTHS: Final = (
    *("january", "february", "march", "april", "may", "june", "july"),
    *("august", "september", "october", "november", "december"),
)
_MONTH_OF: Final = {name[:length]: number for number, name in enumerate(_MONTHS, 1) for length in (3, len(name))} | {
    "sept": 9
}
_MONTH: Final = rf"(?P<month>{'|'.join(sorted(_MONTH_OF, key=len, reverse=True))})\.?"
_WEEKDAY: Final = r"(?:(?:mon|tues?|wed(?:nes)?|thu(?:rs)?|fri|sat(?:ur)?|sun)(?:day)?\.?,?\s+)?"
_CLOCK: Final = (
    r"(?:(?:T|,?\s)\s*(?P<h>\d\d?)(?::?(?P<m>\d\d)(?::?(?P<s>\d\d)(?:[.,]\d+)?)?)?(?:\s?(?P<half>[ap])m)?"
    r"\s?(?:Z|UTC|GMT|[+-]\d\d(?::?\d\d(?::?\d\d(?:\.\d+)?)?)?)?)?"
)


def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.ASCII | re.IGNORECASE)


_DAY: Final = r"(?P<day>\d\d?)"
_ISO: Final = _compiled(r"(?P<year>\d{4})-(?P<month>\d\d)-(?P<day>\d\d)" + _CLOCK)
_COMPACT: Final = _compiled(r"(?P<year>\d{4})(?P<month>\d\d)(?P<day>\d\d)" + _CLOCK)
_WEEK: Final = _compiled(
    r"(?P<year>\d{4})(?:-W(?P<week>\d\d)-(?P<weekday>\d)|W(?P<week2>\d\d)(?P<weekday2>\d))" + _CLOCK
)
_YEAR_FIRST: Final = _compiled(r"(?P<year>\d{4})(?P<sep>[-/.])(?P<month>\d\d?)(?P=sep)(?P<day>\d\d?)" + _CLOCK)
_DAY_MONTH: Final = _compiled(
    _WEEKDAY + _DAY + rf"(?:st|nd|rd|th)?[\s./-]*{_MONTH}[\s,./-]*(?P<year>\d{{4}}|\d\d)" + _CLOCK
)
_MONTH_DAY: Final = _compiled(
    _WEEKDAY + _MONTH + rf"[\s./-]*{_DAY}(?:st|nd|rd|th)?(?:,\s*|\s+|[./-])(?P<year>\d{{4}})" + _CLOCK
)
_NO_CLOCK: Final = r"\D*(?:(?:2[4-9]|[3-9]\d|\d{3,}):|\d+:[6-9]\d|\d+:\d+:[6-9]\d)"
"""What begins like a time of day that no clock shows."""
_SLASHED: Final = _compiled(
    rf"(?P<first>\d\d?)(?P<sep>/)(?P<second>\d\d?)/(?P<year>\d{{4}})(?:[ T,](?!{_NO_CLOCK}).*)?"
)
_NUMERIC: Final = _compiled(r"(?P<first>\d\d?)(?P<sep>[-/.])(?P<second>\d\d?)(?P=sep)(?P<year>\d{4}|\d\d)" + _CLOCK)
_NUMBER: Final = _compiled(r"(?P<whole>\d{5}|\d{10}|\d{13}|\d{16}|\d{19})(?:\.\d+)?")
_LOCAL: Final = re.compile(r"\d{1,2}[\s./-]*(?!\d)[^\W\d]{3,}\.?[\s,./-]*\d{2,4}|[^\W\d]{3,}\.?\s\d{1,2},?\s\d{4}")

EXCEL: Final = "Excel serial numbers"
_EPOCHS: Final = {
    10: ("Unix seconds", 1),
    13: ("Unix milliseconds", 1_000),
    16: ("Unix microseconds", 1_000_000),
    19: ("Unix nanoseconds", 1_000_000_000),
}
_EXCEL_BEGIN: Final = date(1899, 12, 30)
"""Day 0 of Excel's calendar since 1900-03-01, in its system that begins in 1900."""

_MOST_MONTHS: Final = 12
_UNIX_BEGIN: Final = date(1970, 1, 1)


@dataclass(frozen=True)
class DateStyle:
    """How a whole file writes its dates.

    order: that of day and month where both are numbers; None where the file has no such date. until: the last day that
    a bare number may mean, None where none is read.
    """

    order: DateOrder | None = None
    until: date | None = None


PLAIN: Final = DateStyle()
"""Dates in ISO 8601 and no others."""


def read_date(text: str, order: DateOrder | None, until: date | None = None) -> date | None:
    """The day a text names, None where it names none; a time of day is dropped. until: see `DateStyle`."""
    text = text.strip()
    if match := _SLASHED.fullmatch(text) or _NUMERIC.fullmatch(text):
        return _in_order(match, order) if order else None
    return _one_meaning(text, until)


def read_dates(text: pa.ChunkedArray, style: DateStyle = PLAIN) -> npt.NDArray[np.datetime64]:
    """Days of a column of text, datetime64[s], NaT where unreadable. Each distinct text is read once."""
    coded = pc.dictionary_encode(text).combine_chunks()
    texts = coded.dictionary.to_pylist()
    if style == PLAIN:
        known = [_iso(value.strip()) for value in texts]
    else:
        known = [read_date(value, style.order, style.until) for value in texts]
    days = np.array([np.datetime64("NaT") if day is None else day for day in known], "datetime64[D]")
    return days.astype("datetime64[s]")[coded.indices.to_numpy()] if len(days) else np.zeros(0, "datetime64[s]")


def has_other_dates(text: pa.ChunkedArray, days: npt.NDArray[np.datetime64]) -> bool:
    """Whether what could not be read of a column as plain dates (`days` NaT) may be dates written otherwise."""
    unread = np.isnat(days)
    if not unread.any():
        return False
    return any(_may_be_date(value.strip()) for value in pc.unique(text.filter(pa.array(unread))).to_pylist())


def _may_be_date(text: str) -> bool:
    return any(pattern.fullmatch(text) for pattern in (*_FORMS, _SLASHED, _NUMERIC, _NUMBER)) or bool(
        _LOCAL.match(text)
    )


def _iso(text: str) -> date | None:
    if match := _ISO.fullmatch(text) or _COMPACT.fullmatch(text):
        return _calendar(match, int(match["month"]))
    if match := _WEEK.fullmatch(text):
        week, weekday = match["week"] or match["week2"], match["weekday"] or match["weekday2"]
        return _valid(partial(date.fromisocalendar, int(match["year"]), int(week), int(weekday)), match)
    return None


def _named(match: re.Match[str]) -> date | None:
    return _calendar(match, _MONTH_OF[match["month"].lower()])


_FORMS: Final[Mapping[re.Pattern[str], tuple[str, Callable[[re.Match[str]], date | None]]]] = {
    _YEAR_FIRST: ("year first", lambda match: _calendar(match, int(match["month"]))),
    _DAY_MONTH: ("day, name of the month, year", _named),
    _MONTH_DAY: ("name of the month, day, year", _named),
}
"""Forms that mean one day whatever else the file has, by what a report calls them."""

_FORM_NAMES: Final = frozenset(name for name, _ in _FORMS.values())
_NAMED: Final = frozenset(_FORMS[pattern][0] for pattern in (_DAY_MONTH, _MONTH_DAY))


def _one_meaning(text: str, until: date | None) -> date | None:
    """The day of a date that means the same whatever else its file has."""
    if (day := _iso(text)) is not None:
        return day
    for pattern, (_, read) in _FORMS.items():
        if match := pattern.fullmatch(text):
            return read(match)
    if until is not None and (match := _NUMBER.fullmatch(text)):
        return _counted(match["whole"], until)
    return None


def _counted(whole: str, until: date) -> date | None:
    """The day of a Unix time or an Excel serial; no two units have a number of so many digits in common."""
    if whole.startswith("0"):
        return None
    if len(whole) == 5:
        day = _EXCEL_BEGIN + timedelta(days=int(whole))
    else:
        days = int(whole) // _EPOCHS[len(whole)][1] // 86_400
        day = _UNIX_BEGIN + timedelta(days=days)
    return day if FIRST_DAY <= day <= until else None


def _calendar(match: re.Match[str], month: int, day: int | None = None, year: int | None = None) -> date | None:
    """The day of a match; another day or year where they are not what the pattern calls so."""
    return _valid(lambda: date(year or _year(match["year"]), month, int(match["day"]) if day is None else day), match)


def _in_order(match: re.Match[str], order: DateOrder) -> date | None:
    first, second = int(match["first"]), int(match["second"])
    day, month = (first, second) if order == "dmy" else (second, first)
    return _valid(lambda: date(_year(match["year"]), month, day), match)


def _year(text: str) -> int:
    return int(text) + (CENTURY if len(text) == 2 else 0)


def _valid(day: Callable[[], date], match: re.Match[str]) -> date | None:
    """The day, where calendar and clock have it."""
    parts = match.groupdict()
    hour, latest = int(parts.get("h") or 0), 12 if parts.get("half") else 23
    if hour > latest or int(parts.get("m") or 0) > 59 or int(parts.get("s") or 0) > 59:
        return None
    try:
        return day()
    except ValueError:
        return None


@dataclass(frozen=True)
class Dated:
    """A date as it stood in a file, and in which line, where that is known."""

    text: str
    line: int | None = None

    def __str__(self) -> str:
        return self.text if self.line is None else f"{self.text} in line {self.line:,}"


Form = tuple[str, int]
"""What day, month and year are separated by, and with how many digits a year is written."""


@dataclass(frozen=True)
class _Orders:
    """What dates of one form say about their order: an example of each kind, None where there is none.

    same: one that is the same day in both orders. year_first: one that can only be a year of two digits, month and day.
    not_year_first: one that cannot.
    """

    only_dmy: Dated | None = None
    only_mdy: Dated | None = None
    either: Dated | None = None
    same: Dated | None = None
    year_first: Dated | None = None
    not_year_first: Dated | None = None

    def with_date(self, match: re.Match[str], shown: Dated, until: date | None) -> "_Orders":
        if len(match["year"]) == 4 and self.not_year_first and self._has_one_like(match):
            return self
        dmy, mdy = _in_order(match, "dmy"), _in_order(match, "mdy")
        as_year_first = _two_digit_year_first(match, until)
        if not dmy and not mdy and not as_year_first:
            return self
        found = {
            "only_dmy": dmy and not mdy,
            "only_mdy": mdy and not dmy,
            "either": dmy and mdy and dmy != mdy,
            "same": dmy and dmy == mdy,
            "year_first": as_year_first and not any(_in_range(day, until) for day in (dmy, mdy)),
            "not_year_first": not as_year_first,
        }
        return _Orders(**{name: getattr(self, name) or (shown if has else None) for name, has in found.items()})

    def _has_one_like(self, match: re.Match[str]) -> bool:
        """Whether there is an example already of the only kind that a date with a year of four digits can be of."""
        first, second = int(match["first"]), int(match["second"])
        if first > _MOST_MONTHS or second > _MOST_MONTHS:
            return bool(self.only_dmy if first > _MOST_MONTHS else self.only_mdy)
        return bool(self.same if first == second else self.either)

    def with_worded_date(self, text: str, shown: Dated, until: date | None) -> "_Orders":
        """These and a date like 18-Mar-09, whose year may be first where it has two digits and the day has too."""
        match = _DAY_MONTH.fullmatch(text)
        if not match or len(match["year"]) == 4:
            return self
        month = _MONTH_OF[match["month"].lower()]
        day = _calendar(match, month)
        swapped = _calendar(match, month, int(match["year"]), CENTURY + int(match["day"]))
        as_year_first = len(match["day"]) == 2 and _in_range(swapped, until)
        return replace(
            self,
            either=self.either or shown,
            year_first=self.year_first or (shown if as_year_first and not _in_range(day, until) else None),
            not_year_first=self.not_year_first or (None if as_year_first else shown),
        )

    @property
    def year_first_is_possible(self) -> bool:
        """Whether there are such dates, and their year may come first."""
        return bool(self.year_first or (self.any and not self.not_year_first))

    @property
    def any(self) -> Dated | None:
        """A date in which the day comes first, or the month."""
        return self.only_dmy or self.only_mdy or self.either or self.same


@dataclass(frozen=True)
class DateEvidence:
    """What the dates of a file say about how they are written. until: the last day that a bare number may mean.

    orders: of dates in which both day and month are numbers, by form. kinds: an example of each other way of writing
    them that is not ISO 8601. wordy: one that names its month in no English word. unknown: one that may be a date
    otherwise, and is none. early, late: one with the month known that is of the first twelve days of a month, and one
    that is not, which no spreadsheet can have read with day and month exchanged. day_before_month: one that begins with
    the year and has a month only where the day should be. worded: what those say whose year and day have two digits.
    """

    until: date | None = None
    orders: Mapping[Form, _Orders] = field(default_factory=dict)
    kinds: Mapping[str, Dated] = field(default_factory=dict)
    plain: Dated | None = None
    wordy: Dated | None = None
    unknown: Dated | None = None
    early: Dated | None = None
    late: Dated | None = None
    day_before_month: Dated | None = None
    worded: _Orders = _Orders()

    def with_dates(self, texts: Iterable[str], lines: Sequence[int] | None = None) -> "DateEvidence":
        """This evidence and that of further dates, each in the line beside it."""
        orders, kinds, plain = dict(self.orders), dict(self.kinds), self.plain
        wordy, unknown = self.wordy, self.unknown
        early, late, day_before_month, worded = self.early, self.late, self.day_before_month, self.worded
        for at, given in enumerate(texts):
            text = given.strip()
            shown = Dated(given[:SHOWN_DATE], None if lines is None else lines[at])
            if match := _SLASHED.fullmatch(text) or _NUMERIC.fullmatch(text):
                form = match["sep"], len(match["year"])
                orders[form] = orders.get(form, _Orders()).with_date(match, shown, self.until)
            elif (day := _iso(text)) is not None:
                plain = plain or shown
                early, late = (early or shown, late) if day.day <= _MOST_MONTHS else (early, late or shown)
            elif (kind := _kind(text, self.until)) is not None:
                kinds.setdefault(kind, shown)
                if kind in _FORM_NAMES and (day := _one_meaning(text, None)):
                    early, late = (early or shown, late) if day.day <= _MOST_MONTHS else (early, late or shown)
                worded = worded.with_worded_date(text, shown, self.until)
            elif (match := _YEAR_FIRST.fullmatch(text)) and _calendar(match, int(match["day"]), int(match["month"])):
                day_before_month = day_before_month or shown
            elif _LOCAL.match(text):
                wordy = wordy or shown
            elif _may_be_date(text):
                unknown = unknown or shown
        return DateEvidence(
            *(self.until, orders, kinds, plain, wordy, unknown), *(early, late, day_before_month, worded)
        )

    def with_column(self, dates: pa.ChunkedArray, lines: pa.ChunkedArray) -> "DateEvidence":
        """This evidence and that of a column of text, and the lines it stood in."""
        coded = pc.dictionary_encode(dates).combine_chunks()
        _, first = np.unique(coded.indices.to_numpy(), return_index=True)
        return self.with_dates(coded.dictionary.to_pylist(), lines.to_numpy()[first].tolist())

    def style(self, setting: DateOrder | None) -> DateStyle:
        """The one way in which the file's dates can be read. Raises UnreadableUpload where there is none."""
        order = self.order(setting) if self.orders else None
        readable = self.plain or self.kinds or any(orders != _Orders() for orders in self.orders.values())
        if self.wordy and (not readable or self.kinds.keys() & _NAMED):
            raise UnreadableUpload(
                f"its dates name months in another language than English ({self.wordy}, say); write them as YYYY-MM-DD"
            )
        if self.unknown and not readable:
            raise UnreadableUpload(
                f"none of its dates can be read ({self.unknown}, say), as no year is before 2009; write them as "
                "YYYY-MM-DD"
            )
        if EXCEL in self.kinds and (other := self._beside(EXCEL)):
            raise UnreadableUpload(
                f"its dates are written in ways that do not go together: {self.kinds[EXCEL]} is a serial number of "
                f"Excel, and {other} is not, so Excel may have read some of them with day and month exchanged; write "
                "all as YYYY-MM-DD"
            )
        if self.day_before_month and self.early and not self.late:
            raise UnreadableUpload(
                f"its dates begin with the year, {self.day_before_month} has the day before the month, and no date of "
                "the file shows that the others have not; write them as YYYY-MM-DD"
            )
        if self.early and not self.late and (other := self._never_exchanged()):
            raise UnreadableUpload(
                f"its dates are written in ways that do not go together: {other} and {self.early} are not written "
                "alike, no day of the one kind is before the 13th and none of the other after the 12th, so a "
                "spreadsheet may have read some of them with day and month exchanged; write all as YYYY-MM-DD"
            )
        if setting is None and self.worded.year_first_is_possible:
            raise UnreadableUpload(
                "its dates can be read with the day first and with the year first "
                f"({self.worded.year_first or self.worded.any}, say); write them as YYYY-MM-DD"
            )
        return DateStyle(order, self.until)

    def _never_exchanged(self) -> Dated | None:
        """A date with day and month as numbers, where none of that kind could be read in both orders."""
        orders = self.orders.values()
        if any(one.either or one.same for one in orders):
            return None
        return next((one.any for one in orders if one.any), None)

    def order(self, setting: DateOrder | None) -> DateOrder:
        """The one order in which day and month can be read. Raises UnreadableUpload where there is no such order."""
        if setting:
            return setting
        orders = self.orders.values()
        dmy = next((one.only_dmy for one in orders if one.only_dmy), None)
        mdy = next((one.only_mdy for one in orders if one.only_mdy), None)
        if dmy and mdy:
            raise UnreadableUpload(
                f"its dates cannot all be read the same way: {dmy} is d/m/y, {mdy} is m/d/y; write dates as YYYY-MM-DD"
            )
        found: DateOrder = "mdy" if mdy else "dmy"
        for (_, digits), one in self.orders.items():
            if digits == 2 and one.year_first_is_possible:
                raise UnreadableUpload(
                    f"its dates can be read with the day first and with the year first ({one.year_first or one.any}, "
                    f"say); write them as YYYY-MM-DD, or set {SETTING} to dmy or mdy"
                )
            if one.either and not (one.only_dmy or one.only_mdy):
                raise UnreadableUpload(
                    f"its dates can be read as d/m/y and as m/d/y ({one.either}, say); write them as YYYY-MM-DD, or "
                    f"set {SETTING} to dmy or mdy"
                )
        return found

    def told(self, order: DateOrder | None) -> list[str]:
        """The ways in which the file writes its dates, for people; none where all are ISO 8601."""
        forms = [_form_told(form, order) for form, orders in self.orders.items() if orders != _Orders()]
        return sorted({*forms, *self.kinds, *(["YYYY-MM-DD"] if self.plain and (forms or self.kinds) else [])})

    def _beside(self, kind: str) -> Dated | None:
        """A date that is written otherwise."""
        numeric = [one.any for one in self.orders.values()]
        others = [self.plain, *(shown for other, shown in self.kinds.items() if other != kind), *numeric]
        return next((shown for shown in others if shown), None)


def _kind(text: str, until: date | None) -> str | None:
    """What a way of writing dates is called that means one day by itself."""
    for pattern, (kind, read) in _FORMS.items():
        if match := pattern.fullmatch(text):
            return kind if read(match) else None
    if until is not None and (match := _NUMBER.fullmatch(text)) and _counted(match["whole"], until):
        return EXCEL if len(match["whole"]) == 5 else _EPOCHS[len(match["whole"])][0]
    return None


def _form_told(form: Form, order: DateOrder | None) -> str:
    separator, digits = form
    year = "y" * digits if digits == 2 else "yyyy"
    return separator.join(["d", "m", year] if order == "dmy" else ["m", "d", year])


def _two_digit_year_first(match: re.Match[str], until: date | None) -> bool:
    """Whether a date of three times two digits may be year, month and day, which nobody writes with one digit."""
    parts = match["first"], match["second"], match["year"]
    if any(len(part) != 2 for part in parts):
        return False
    year, month, day = map(int, parts)
    try:
        return _in_range(date(CENTURY + year, month, day), until)
    except ValueError:
        return False


def _in_range(day: date | None, until: date | None) -> bool:
    return day is not None and day >= FIRST_DAY and (until is None or day <= until)
