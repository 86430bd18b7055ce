"""How an upload writes its dates: ISO 8601, or slashes that the whole file can only be read one way.

5/3/2018 is the fifth of March or the third of May. One 25/3/2018 anywhere in the file settles it; where nothing does,
the file is refused and the setting that resolves it is named. Nothing is guessed.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from crypto_ml.forecasting.reading import UnreadableUpload
from crypto_ml.forecasting.schema import DateOrder

FIRST_DAY: Final = date(2009, 1, 3)
"""The day of the first block of the first chain: no coin has a price before it."""

SETTING: Final = "CRYPTO_ML_DATE_ORDER"
SHOWN_DATE: Final = 40
"""Characters of a date that a reason repeats: what stands behind it may be as long as a line."""

_SLASHED: Final = re.compile(r"(\d{1,2})/(\d{1,2})/(\d{4})(?:[ T].*)?")
_TIME_OF_DAY: Final = re.compile(r"[T ].*$")


@dataclass(frozen=True)
class DateEvidence:
    """What the dates of a file say about their order: an example of each kind, None where there is none."""

    only_dmy: str | None = None
    only_mdy: str | None = None
    either: str | None = None

    def with_dates(self, texts: Iterable[str]) -> "DateEvidence":
        """This evidence and that of further dates."""
        only_dmy, only_mdy, either = self.only_dmy, self.only_mdy, self.either
        for text in texts:
            match = _SLASHED.fullmatch(text.strip())
            if not match:
                continue
            as_dmy, as_mdy = _slashed(match, "dmy"), _slashed(match, "mdy")
            shown = text[:SHOWN_DATE]
            if as_dmy and not as_mdy:
                only_dmy = only_dmy or shown
            elif as_mdy and not as_dmy:
                only_mdy = only_mdy or shown
            elif as_dmy != as_mdy:  # 5/5/2018 is the same day either way
                either = either or shown
        return DateEvidence(only_dmy, only_mdy, either)

    def with_column(self, dates: pa.ChunkedArray) -> "DateEvidence":
        """This evidence and that of a column of text."""
        return self.with_dates(pc.unique(dates.filter(pc.match_substring(dates, "/"))).to_pylist())

    def order(self, setting: DateOrder | None) -> DateOrder:
        """The one order in which the file can be read. Raises UnreadableUpload where there is no such order."""
        if setting:
            return setting
        if self.only_dmy and self.only_mdy:
            raise UnreadableUpload(
                f"its dates cannot all be read the same way: {self.only_dmy} is d/m/y, {self.only_mdy} is m/d/y; "
                "write dates as YYYY-MM-DD"
            )
        if self.only_mdy:
            return "mdy"
        if self.only_dmy or not self.either:
            return "dmy"
        raise UnreadableUpload(
            f"its dates can be read as d/m/y and as m/d/y ({self.either}, say); write them as YYYY-MM-DD, or set "
            f"{SETTING} to dmy or mdy"
        )


def has_slashes(dates: pa.ChunkedArray) -> bool:
    """Whether any date of a column of text is written with slashes, and so needs a `DateOrder` to be read."""
    return bool(pc.any(pc.match_substring(dates, "/")).as_py())


def read_date(text: str, order: DateOrder | None) -> date | None:
    """The day a text names, None where it names none; a time of day is dropped."""
    text = text.strip()
    if match := _SLASHED.fullmatch(text):
        return _slashed(match, order) if order else None
    try:
        return date.fromisoformat(_TIME_OF_DAY.sub("", text)) if _valid_time(text) else None
    except ValueError:
        return None


def _valid_time(text: str) -> bool:
    if not _TIME_OF_DAY.search(text):
        return True
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return True


def _slashed(match: re.Match[str], order: DateOrder) -> date | None:
    first, second, year = (int(part) for part in match.groups())
    day, month = (first, second) if order == "dmy" else (second, first)
    try:
        return date(year, month, day)
    except ValueError:
        return None
