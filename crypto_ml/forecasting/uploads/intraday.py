"""Whether a file has several rows a day, which is another kind of data than is predicted from here."""

from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from crypto_ml.forecasting.uploads.dates import DateStyle, read_dates
from crypto_ml.forecasting.uploads.unreadable import UnreadableUpload

LEAST: Final = 2
ISO_DAY: Final = 10
"""Characters of a day without a time."""


class Intraday:
    """Counts the rows of a file that are of the same series and day as the row before them, at another time."""

    def __init__(self) -> None:
        self._rows = 0
        self._again = 0
        self._first: tuple[str, int] | None = None

    def look(self, table: pa.Table, style: DateStyle) -> None:
        """Look at a table of text; where no date has a time of day, that costs little."""
        dates = table["date"]
        self._rows += table.num_rows
        longest = pc.max(pc.binary_length(dates)).as_py() or 0
        if longest < ISO_DAY or (longest == ISO_DAY and not dates[0].as_py().isdigit()):  # or Unix seconds
            return
        codes = pc.dictionary_encode(dates).combine_chunks().indices.to_numpy()
        symbols = pc.dictionary_encode(table["symbol"]).combine_chunks().indices.to_numpy()
        days = read_dates(dates, style)
        again = (codes[1:] != codes[:-1]) & (symbols[1:] == symbols[:-1]) & (days[1:] == days[:-1])
        self._again += int(again.sum())
        if self._first is None and again.any():
            at = int(np.flatnonzero(again)[0]) + 1
            self._first = dates[at].as_py()[:40], table["line"][at].as_py()

    def refuse(self) -> None:
        """Raise UnreadableUpload where at least half of the rows are of the day of the row before them."""
        if self._first and self._again >= max(LEAST, self._rows / 2):
            text, line = self._first
            raise UnreadableUpload(
                f"it has several rows a day, so it is no daily data ({text} in line {line:,} is of the same day as the "
                "row before it); upload one row for each symbol and UTC day"
            )
