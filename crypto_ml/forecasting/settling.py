"""Rows of the same file, series and day: equal ones count once, contradicting ones are all refused.

Rows come sorted, in pieces that may be cut anywhere. Of a day given a million times no more is held than its first row,
how often it came, and the lines that may be listed.
"""

from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

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

    accepted: pa.Table
    refused: pa.Table
    contradictions: pa.Table
    repeated: dict[int, int]


@dataclass(frozen=True)
class _OpenDay:
    """The day in which the rows so far end: its first row, and the rows behind that one."""

    first: pa.Table
    more: int = 0
    contradicted: bool = False
    lines: list[int] = field(default_factory=list)


class Settling:
    """Settles sorted rows, piece by piece. most_listed: how many lines of a day may be named at most."""

    def __init__(self, most_listed: int) -> None:
        self._most_listed = most_listed
        self._open: _OpenDay | None = None

    def settle(self, rows: pa.Table) -> Settled:
        """Settle further rows (`file`, `line`, OBSERVATION), at least one; the last day waits for what comes."""
        before, self._open = self._open, None
        if before:
            rows = pa.concat_tables([before.first, rows])
        days = _Days.of(rows, before)
        last = int(days.begins[-1])
        lines = before.lines if before and len(days) == 1 else []
        further = rows["line"].slice(last + 1, max(0, self._most_listed - len(lines)))
        self._open = _OpenDay(
            rows.slice(last, 1),
            int(days.counts[-1]) - 1,
            bool(days.contradicted[-1]),
            [*lines, *further.to_pylist()],
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
    def of(cls, rows: pa.Table, before: _OpenDay | None) -> "_Days":
        """The days of sorted rows; the first row of the first day stands for those that came `before` as well."""
        again = _same_day_as_the_row_before(rows)
        begins = np.flatnonzero(~again)
        ends = np.append(begins[1:], rows.num_rows)
        counts = ends - begins
        contradicted = np.logical_or.reduceat(_differs_from_the_row_before(rows, again), begins)
        if before:
            counts[0] += before.more
            contradicted[0] |= before.contradicted
        return cls(begins, ends, counts, contradicted)

    def without_last(self) -> "_Days":
        return _Days(self.begins[:-1], self.ends[:-1], self.counts[:-1], self.contradicted[:-1])


def _settled(rows: pa.Table, days: _Days, before: _OpenDay | None) -> Settled:
    one_each = len(days) == 0 or days.begins[-1] == len(days) - 1
    first = rows.slice(0, len(days)) if one_each else rows.take(pa.array(days.begins))
    if not days.contradicted.any():
        return Settled(first, _NO_LINES, _NO_DAYS, _left_out(first, days.counts))
    accepted = first.filter(pa.array(~days.contradicted))
    contradicted = first.select(["file", "line"]).filter(pa.array(days.contradicted))
    begin = "symbol and date: more than once, with different values (first in line "
    reasons = pc.binary_join_element_wise(begin, pc.cast(contradicted["line"], pa.string()), ")", "")
    counts = pa.array(days.counts[days.contradicted])
    contradictions = pa.table([contradicted["file"], reasons, contradicted["line"], counts], schema=_NO_DAYS.schema)
    return Settled(
        accepted=accepted,
        refused=_lines(rows, days, reasons, before),
        contradictions=contradictions,
        repeated=_left_out(accepted, days.counts[~days.contradicted]),
    )


_NO_LINES: Final = pa.schema([("file", pa.int32()), ("line", pa.int64()), ("reason", pa.string())]).empty_table()
_NO_DAYS: Final = pa.schema(
    [("file", pa.int32()), ("reason", pa.string()), ("line", pa.int64()), ("rows", pa.int64())]
).empty_table()


def _left_out(accepted: pa.Table, counts: npt.NDArray[np.intp]) -> dict[int, int]:
    """File → how many rows of the days that are accepted were left out."""
    again = counts > 1
    if not again.any():
        return {}
    files, of_file = np.unique(accepted["file"].to_numpy()[again], return_inverse=True)
    left_out = np.bincount(of_file, weights=counts[again] - 1).astype(np.int64)
    return dict(zip(files.tolist(), left_out.tolist(), strict=True))


def _lines(rows: pa.Table, days: _Days, reasons: pa.ChunkedArray, before: _OpenDay | None) -> pa.Table:
    """`file`, `line` and `reason` of the rows of contradicted days."""
    lengths = days.ends - days.begins
    whose = np.repeat(np.cumsum(days.contradicted) - 1, lengths)[np.repeat(days.contradicted, lengths)]
    among = rows.select(["file", "line"]).take(pa.array(np.flatnonzero(np.repeat(days.contradicted, lengths))))
    refused = pa.table([among["file"], among["line"], reasons.take(pa.array(whose))], schema=_NO_LINES.schema)
    if before and before.lines and days.contradicted[0]:
        same = refused.slice(0, 1).select(["file", "reason"]).take(pa.array(np.zeros(len(before.lines), np.int64)))
        earlier = pa.table([same["file"], pa.array(before.lines, pa.int64()), same["reason"]], schema=refused.schema)
        return pa.concat_tables([earlier, refused])
    return refused


def _same_day_as_the_row_before(rows: pa.Table) -> npt.NDArray[np.bool_]:
    """Where a row has the file, symbol and date of the row before it, shape (n,). Symbols are looked at last: there are
    few rows of the same date one after the other."""
    same = np.zeros(rows.num_rows, bool)
    file, day = rows["file"].to_numpy(), rows["date"].to_numpy()
    at = 1 + np.flatnonzero((file[1:] == file[:-1]) & (day[1:] == day[:-1]))
    if len(at):
        symbols = rows["symbol"].combine_chunks()
        same[at] = pc.equal(symbols.take(pa.array(at)), symbols.take(pa.array(at - 1))).to_numpy(zero_copy_only=False)
    return same


def _differs_from_the_row_before(rows: pa.Table, again: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Where a row of the same day as the row before it (`again`) has other values, shape (n,)."""
    differs = np.zeros(rows.num_rows, bool)
    at = np.flatnonzero(again)
    for name in COMPARED if len(at) else ():
        values = rows[name].to_numpy()
        own, before = values[at], values[at - 1]
        differs[at] |= (own != before) & ~(np.isnan(own) & np.isnan(before))
    return differs
