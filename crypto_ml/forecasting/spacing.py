"""Uploads whose rows are a week or more apart throughout: candles of another length than the day that is predicted.

They are answered as they are, each open from the row before it, and whoever dropped them is told so. A file in which
any two rows of a series are of neighbouring days is daily, whatever pauses it has.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import pyarrow as pa

from crypto_ml.forecasting.sorting import begins_series

APART: Final = 6
"""Days between two rows from which on they are no neighbours: markets that close at weekends have three, or four."""

FEWEST: Final = 3


@dataclass
class Spacing:
    """What is noted of the rows of uploads on their way to a model: of each file how far its rows are apart."""

    _daily: set[int] = field(default_factory=set)
    _apart: dict[int, Counter[int]] = field(default_factory=dict)

    def seen(self, chunks: Iterable[pa.Table]) -> Iterator[pa.Table]:
        """The chunks as they are (see `scoring.score_tables`), each looked at before it is handed on."""
        for rows in chunks:
            self._see(rows)
            yield rows

    def _see(self, rows: pa.Table) -> None:
        files = np.asarray(rows["file"].to_numpy())[1:]
        apart = np.diff(np.asarray(rows["date"].to_numpy()).astype("datetime64[D]").astype(np.int64))
        same = ~begins_series(rows)[1:]  # of whole series, so that it is the same however rows are cut into chunks
        self._daily.update(np.unique(files[same & (apart > 0) & (apart < APART)]).tolist())
        far = same & (apart >= APART)
        if far.any():
            pairs, counts = np.unique(np.column_stack([files[far], apart[far]]), axis=0, return_counts=True)
            for (file, days), count in zip(pairs.tolist(), counts.tolist(), strict=True):
                self._apart.setdefault(file, Counter())[days] += count

    def noted(self) -> list[list[int]]:
        """What was noted, for `add`: the number of a daily file alone, of others it, days apart, and how often."""
        apart = [[file, days, count] for file, found in self._apart.items() for days, count in found.items()]
        return [*([file] for file in sorted(self._daily)), *apart]

    def add(self, noted: Iterable[Sequence[int]]) -> None:
        """Note what somebody else noted of other series."""
        for file, *found in noted:
            if found:
                self._apart.setdefault(file, Counter())[found[0]] += found[1]
            else:
                self._daily.add(file)

    def notes(self, file: int) -> list[str]:
        """What to tell whoever dropped a file."""
        found = self._apart.get(file, Counter())
        if file in self._daily or found.total() < FEWEST:
            return []
        days = min(found, key=lambda days: (-found[days], days))
        return [
            f"its rows are {days} days apart: each open is predicted from the row before it, "
            "whenever that was, and a forecast is for the next day; upload one row for each symbol and UTC day"
        ]
