"""Rows of the same file, series and day: equal ones count once, contradicting ones are all refused.

Rows come sorted, in pieces that may be cut anywhere. Of a day given a million times no more is held than its first row,
how often it came, and the lines that may be listed.
"""

from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from crypto_ml.forecasting.schema import PRICES

COMPARED: Final = (*PRICES, "market", "volume")
"""Columns in which the rows of a day contradict each other; a volume that is missing equals another that is."""


@dataclass(frozen=True)
class Settled:
    """What became of the days that are over.

    accepted: the first row of each day that has one. refused: `file`, `line` and `reason` of rows that contradict each
    other; of a day that goes on for long, only its first lines. contradictions: `file`, `reason`, `line` (the first)
    and `rows` (all of them) of each such day. repeated: file → how many rows were left out because they are equal.
    """

    accepted: pd.DataFrame
    refused: pd.DataFrame
    contradictions: pd.DataFrame
    repeated: dict[int, int]


@dataclass(frozen=True)
class _OpenDay:
    """The day in which the rows so far end: its first row, and the rows behind that one."""

    first: pd.DataFrame
    more: int = 0
    contradicted: bool = False
    lines: list[int] = field(default_factory=list)


class Settling:
    """Settles sorted rows, piece by piece. most_listed: how many lines of a day may be named at most."""

    def __init__(self, most_listed: int) -> None:
        self._most_listed = most_listed
        self._open: _OpenDay | None = None

    def settle(self, rows: pd.DataFrame) -> Settled:
        """Settle further rows (`file`, `line`, OBSERVATION), at least one; the last day waits for what comes."""
        before, self._open = self._open, None
        if before:
            rows = pd.concat([before.first, rows], ignore_index=True)
        days = _Days.of(rows, before)
        last = days.begins[-1]
        lines = before.lines if before and len(days) == 1 else []
        further = rows["line"].iloc[last + 1 :][: self._most_listed - len(lines)]
        self._open = _OpenDay(
            rows[last : last + 1].reset_index(drop=True),
            int(days.counts[-1]) - 1,
            bool(days.contradicted[-1]),
            [*lines, *further.tolist()],
        )
        return _settled(rows, days.without_last(), before)

    def rest(self) -> Settled | None:
        """Settle the last day, once no further rows come; None where there never were any."""
        before, self._open = self._open, None
        return _settled(before.first, _Days.of(before.first, before), before) if before else None


@dataclass(frozen=True, eq=False)
class _Days:
    """For each of n days: between which indices its rows stand, how many it has in all, whether they contradict."""

    begins: npt.NDArray[np.intp]
    ends: npt.NDArray[np.intp]
    counts: npt.NDArray[np.intp]
    contradicted: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.begins)

    @classmethod
    def of(cls, rows: pd.DataFrame, before: _OpenDay | None) -> "_Days":
        """The days of sorted rows; the first row of the first day stands for those that came `before` as well."""
        again = _same_day_as_the_row_before(rows)
        begins = np.flatnonzero(~again)
        ends = np.append(begins[1:], len(rows))
        counts = ends - begins
        contradicted = np.logical_or.reduceat(_differs_from_the_row_before(rows, again), begins)
        if before:
            counts[0] += before.more
            contradicted[0] |= before.contradicted
        return cls(begins, ends, counts, contradicted)

    def without_last(self) -> "_Days":
        return _Days(self.begins[:-1], self.ends[:-1], self.counts[:-1], self.contradicted[:-1])


def _settled(rows: pd.DataFrame, days: _Days, before: _OpenDay | None) -> Settled:
    first = rows.iloc[days.begins]
    accepted, refused = first[~days.contradicted], first.loc[days.contradicted, ["file", "line"]]
    begin = "symbol and date: more than once, with different values (first in line "
    contradictions = refused.assign(
        reason=begin + refused["line"].astype("str") + ")", rows=days.counts[days.contradicted]
    )
    left_out = pd.Series(days.counts[~days.contradicted] - 1).groupby(accepted["file"].to_numpy()).sum()
    return Settled(
        accepted=accepted.reset_index(drop=True),
        refused=_lines(rows, days, contradictions, before),
        contradictions=contradictions.reset_index(drop=True),
        repeated={int(str(file)): int(count) for file, count in left_out.items() if count},
    )


def _lines(rows: pd.DataFrame, days: _Days, contradictions: pd.DataFrame, before: _OpenDay | None) -> pd.DataFrame:
    """`file`, `line` and `reason` of the rows of contradicted days."""
    there = (days.ends - days.begins) * days.contradicted
    among = rows.iloc[np.flatnonzero(np.repeat(days.contradicted, days.ends - days.begins))]
    reasons = contradictions["reason"].to_numpy()
    refused = pd.DataFrame(
        {
            "file": among["file"].to_numpy(),
            "line": among["line"].to_numpy(),
            "reason": np.repeat(reasons, there[there > 0]),
        }
    )
    if before and len(days) and days.contradicted[0]:
        earlier = pd.DataFrame({"line": before.lines}, dtype="int64")
        earlier = earlier.assign(file=refused["file"].iloc[0], reason=refused["reason"].iloc[0])
        refused = pd.concat([earlier[refused.columns], refused], ignore_index=True)
    return refused


def _same_day_as_the_row_before(rows: pd.DataFrame) -> npt.NDArray[np.bool_]:
    """Where a row has the file, symbol and date of the row before it, shape (n,). Symbols are looked at last: there are
    few rows of the same date one after the other."""
    same = np.zeros(len(rows), bool)
    file, day = rows["file"].to_numpy(), rows["date"].to_numpy()
    at = 1 + np.flatnonzero((file[1:] == file[:-1]) & (day[1:] == day[:-1]))
    symbols = rows["symbol"]
    same[at] = symbols.iloc[at].to_numpy() == symbols.iloc[at - 1].to_numpy()
    return same


def _differs_from_the_row_before(rows: pd.DataFrame, again: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Where a row of the same day as the row before it (`again`) has other values, shape (n,)."""
    differs = np.zeros(len(rows), bool)
    at = np.flatnonzero(again)
    for name in COMPARED:
        values = rows[name].to_numpy()
        own, before = values[at], values[at - 1]
        differs[at] |= (own != before) & ~(np.isnan(own) & np.isnan(before))
    return differs
