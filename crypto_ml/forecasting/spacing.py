"""Uploads whose rows are a week or more apart throughout: candles of another length than the day that is predicted.

They are answered as they are, each open from the row before it, and whoever dropped them is told so. A file in which
any two rows of a series are of neighbouring days is daily, whatever pauses it has.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import pyarrow as pa

APART: Final = 6
"""Days between two rows from which on they are no neighbours: markets that close at weekends have three, or four."""

FEWEST: Final = 3
MOST_LOOKED_AT: Final = 1_000
"""Pairs of rows of a chunk that are asked whose they are."""


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
        files = np.asarray(rows["file"].to_numpy())
        apart = np.diff(np.asarray(rows["date"].to_numpy()).astype("datetime64[D]").astype(np.int64))
        same = files[1:] == files[:-1]
        self._daily.update(np.flatnonzero(np.bincount(files[1:][same & (apart > 0) & (apart < APART)])).tolist())
        far = np.flatnonzero(same & (apart >= APART))
        far = far[~np.isin(files[far], list(self._daily))][:MOST_LOOKED_AT]
        if not len(far):
            return
        before, after = (rows["symbol"].take(pa.array(far + one)).to_pylist() for one in (0, 1))
        for at, one, other in zip(far.tolist(), before, after, strict=True):
            if one == other:
                self._apart.setdefault(int(files[at]), Counter())[int(apart[at])] += 1

    def notes(self, file: int) -> list[str]:
        """What to tell whoever dropped a file."""
        found = self._apart.get(file, Counter())
        if file in self._daily or found.total() < FEWEST:
            return []
        return [
            f"its rows are {found.most_common(1)[0][0]} days apart: each open is predicted from the row before it, "
            "whenever that was, and a forecast is for the next day; upload one row for each symbol and UTC day"
        ]
