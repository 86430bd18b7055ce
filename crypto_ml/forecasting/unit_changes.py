"""Rows that open so far from the close before them that they seem to be in another unit, or to be of another coin.

A file in cents instead of dollars passes every other rule: its rows agree with themselves, and measures over all series
do not move where a tenth of them changes. Such a row is noted, and used as it is: coins were redenominated, and the
real market has two rows like that. What it is worth to a model is the model's affair, who drops the file is told.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import pyarrow as pa

from crypto_ml.forecasting.features import BoolArray, FloatArray, IntArray

MOST: Final = 2.0
"""|ln(open / close before)| that one night may bring: a factor of 7.4."""

MOST_NAMED: Final = 5
_FACTOR: Final = math.exp(MOST)


def unit_changed(opens: FloatArray, closes_before: FloatArray) -> BoolArray:
    """Which of n opens are so far from the closes before them, (n,); one that is NaN is not."""
    with np.errstate(invalid="ignore", over="ignore"):
        return np.asarray((opens > closes_before * _FACTOR) | (opens * _FACTOR < closes_before))


def unit_changes(opens: FloatArray, closes: FloatArray, starts: IntArray) -> BoolArray:
    """Which of n rows changed their unit, (n,), sorted by series and date; a first row never did. starts: from
    `features.series_starts`."""
    before = np.concatenate([[np.nan], closes[:-1]])
    return unit_changed(opens, np.where(starts == np.arange(len(starts)), np.nan, before))


@dataclass
class UnitChanges:
    """What is noted of the rows of uploads on their way to a model: of each file how many, and the first of them."""

    _count: dict[int, int] = field(default_factory=dict)
    _named: dict[int, list[str]] = field(default_factory=dict)

    def seen(self, chunks: Iterable[pa.Table]) -> Iterator[pa.Table]:
        """The chunks as they are (see `scoring.score_tables`), each looked at before it is handed on."""
        for rows in chunks:
            self._see(rows)
            yield rows

    def _see(self, rows: pa.Table) -> None:
        opens, closes = (np.asarray(rows[name].to_numpy(), np.float64) for name in ("open", "close"))
        # few rows are left to be asked whose they are: those where another series begins, and those that are meant
        far = np.flatnonzero(unit_changed(opens[1:], closes[:-1])) + 1
        if not len(far):
            return
        asked, before = rows.take(pa.array(far)), rows.take(pa.array(far - 1))
        own = np.ones(len(far), bool)
        if "context" in rows.schema.names:
            own &= ~np.asarray(asked["context"].to_numpy(), bool)
        for name in ("file", "symbol"):
            own &= np.asarray(asked[name].to_pylist(), object) == np.asarray(before[name].to_pylist(), object)
        for at in np.flatnonzero(own).tolist():
            file = asked["file"][at].as_py()
            self._count[file] = self._count.get(file, 0) + 1
            named = self._named.setdefault(file, [])
            if len(named) < MOST_NAMED:
                times = asked["open"][at].as_py() / before["close"][at].as_py()
                named.append(f"{asked['symbol'][at]} on {asked['date'][at]} (× {times:,.4g})")

    def noted(self) -> dict[str, tuple[int, list[str]]]:
        """What was noted of each file, for `add`; as JSON has it."""
        return {str(file): (count, self._named[file]) for file, count in self._count.items()}

    def add(self, noted: Mapping[str, tuple[int, list[str]]]) -> None:
        """Note what somebody else noted of rows behind those seen so far."""
        for name, (count, named) in noted.items():
            file = int(name)
            self._count[file] = self._count.get(file, 0) + count
            there = self._named.setdefault(file, [])
            there += named[: MOST_NAMED - len(there)]

    def notes(self, file: int) -> list[str]:
        """What to tell whoever dropped a file."""
        count = self._count.get(file, 0)
        if not count:
            return []
        rows = "1 row opens more than" if count == 1 else f"{count:,} rows open more than"
        named = ", ".join(self._named[file])
        more = f" and {count - MOST_NAMED:,} more" if count > MOST_NAMED else ""
        return [
            f"{rows} {_FACTOR:.1f} times above or below the close before: {named}{more}; if that is another unit or "
            "another coin, correct it and drop the file again"
        ]
