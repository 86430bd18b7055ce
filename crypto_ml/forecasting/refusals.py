"""The rows of uploads that stay behind: all are counted, with their reasons, and the first of each file are listed.

A file of a million bad rows is bad in the same way a million times; its list would be larger than the file.
"""

import heapq
from collections.abc import Iterator
from dataclasses import dataclass, field
from threading import RLock
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from crypto_ml.forecasting.database import Database

LISTED: Final = 10_000
"""Refused rows of a file that are listed, the first ones by line: more than anybody reads, some MB at the most."""

MOST_HELD: Final = 20_000
MOST_HELD_BYTES: Final = 8 << 20
"""Rows, and their bytes, that are kept in memory."""

ROWS_AT_ONCE: Final = 100_000
REASONS_OF_ONE_DAY: Final = 100
"""How many reasons that only one day's rows have are remembered, those with the most rows: a report names three."""

REFUSED: Final = pa.schema([("file", pa.int32()), ("line", pa.int64()), ("reason", pa.string()), ("text", pa.string())])
"""A refused row: the file and line it stood in, why, and what stood there."""

_NONE: Final = REFUSED.empty_table()


@dataclass
class _Tally:
    """What is known of the refused rows of a file.

    reasons: reason → how many rows, and the first line; there are as many as rules, and lengths of ragged lines. days:
    the same of reasons that only one day has, as (−rows, line, reason). kept: rows that are kept. last_line: no row
    behind this line will be listed; None as long as any may.
    """

    reasons: dict[str, tuple[int, int]] = field(default_factory=dict)
    days: list[tuple[int, int, str]] = field(default_factory=list)
    kept: int = 0
    last_line: int | None = None


class Refusals:
    """Takes refused rows in any order; gives back the first LISTED of each file by line, and counts of all by reason.

    The first MOST_HELD that are to be kept are held in memory, more in the database.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._rows: _HeldRefusals | _StoredRefusals = _HeldRefusals()
        self._files: dict[int, _Tally] = {}
        self._adding = RLock()
        """What reads a file in another thread adds ragged lines."""

    def add(self, rows: pa.Table) -> None:
        """Count rows with the columns of REFUSED, and keep those that may be listed."""
        with self._adding:
            self._add(rows)

    def _add(self, rows: pa.Table) -> None:
        counted = rows.group_by(["file", "reason"], use_threads=False).aggregate([("line", "count"), ("line", "min")])
        for row in counted.to_pylist():
            reasons = self._tally(row["file"]).reasons
            before, first = reasons.get(row["reason"], (0, row["line_min"]))
            reasons[row["reason"]] = before + row["line_count"], min(first, row["line_min"])
        self._keep(rows)

    def add_days(self, days: pa.Table, rows: pa.Table) -> None:
        """Count the rows of contradicted days (see `settling.Settled.contradictions`), each of which comes once, and
        keep those of `rows` that may be listed."""
        with self._adding:
            self._add_days(days, rows)

    def _add_days(self, days: pa.Table, rows: pa.Table) -> None:
        for file in pc.unique(days["file"]).to_pylist():
            tally, own = self._tally(file), days.filter(pc.equal(days["file"], file))
            found = zip(*(own[name].to_pylist() for name in ("rows", "line", "reason")), strict=True)
            more = ((-rows, line, reason) for rows, line, reason in found)
            tally.days = heapq.nsmallest(REASONS_OF_ONE_DAY, [*tally.days, *more])
        self._keep(rows)

    def listed(self, file: int) -> Iterator[pa.RecordBatch]:
        """The refused rows of a file that are listed, in order of lines, with the columns of REFUSED."""
        if self._tally(file).kept > LISTED:
            self._trim(file)
        yield from self._rows.listed(file)

    def commonest_reasons(self, file: int, most: int) -> list[tuple[str, int]]:
        """The reasons for which most rows of a file were refused (at most REASONS_OF_ONE_DAY), and how many."""
        tally = self._tally(file)
        often = [(-rows, line, reason) for reason, (rows, line) in tally.reasons.items()]
        return [(reason, -rows) for rows, _, reason in heapq.nsmallest(most, [*often, *tally.days])]

    def discard(self, file: int) -> None:
        """Take back the refused rows of a file."""
        with self._adding:
            self._files.pop(file, None)
            self._rows.discard(file)

    def _tally(self, file: int) -> _Tally:
        return self._files.setdefault(file, _Tally())

    def _keep(self, rows: pa.Table) -> None:
        files, lines = rows["file"].to_numpy(), rows["line"].to_numpy()
        wanted = np.ones(len(files), bool)
        for file in np.unique(files).tolist():
            own = np.flatnonzero(files == file)
            last = self._tally(file).last_line
            if len(own) > LISTED:
                longest = int(np.partition(lines[own], LISTED - 1)[LISTED - 1])
                last = longest if last is None else min(last, longest)
            if last is not None:
                wanted[own] = lines[own] <= last
            self._tally(file).kept += int(wanted[own].sum())
        if wanted.any():
            self._hold(rows.filter(wanted))
        for file in np.unique(files[wanted]).tolist():
            tally = self._tally(file)
            if tally.kept >= (LISTED if tally.last_line is None else 2 * LISTED):
                self._trim(file)

    def _trim(self, file: int) -> None:
        """Keep no more rows of a file than are listed."""
        tally = self._tally(file)
        tally.kept, tally.last_line = self._rows.trim(file)

    def _hold(self, rows: pa.Table) -> None:
        if isinstance(self._rows, _HeldRefusals) and not self._rows.has_room(rows):
            held, self._rows = self._rows, _StoredRefusals(self._database)
            self._rows.add(held.rows)
        self._rows.add(rows)


class _HeldRefusals:
    """Some refused rows in memory."""

    def __init__(self) -> None:
        self._tables: list[pa.Table] = []
        self._count, self._bytes = 0, 0

    def has_room(self, rows: pa.Table) -> bool:
        """Whether these rows may be added."""
        return bool(self._count + rows.num_rows <= MOST_HELD and self._bytes + rows.nbytes <= MOST_HELD_BYTES)

    @property
    def rows(self) -> pa.Table:
        """All of them, in any order."""
        if len(self._tables) != 1:
            self._tables = [pa.concat_tables([_NONE, *self._tables]).combine_chunks()]
        return self._tables[0]

    def add(self, rows: pa.Table) -> None:
        self._tables.append(rows.select(REFUSED.names).cast(REFUSED))
        self._count, self._bytes = self._count + rows.num_rows, self._bytes + rows.nbytes

    def listed(self, file: int) -> Iterator[pa.RecordBatch]:
        yield from self._of(file).combine_chunks().to_batches()

    def discard(self, file: int) -> None:
        left = self.rows.filter(pc.not_equal(self.rows["file"], file))
        self._tables, self._count, self._bytes = [left], left.num_rows, left.nbytes

    def trim(self, file: int) -> tuple[int, int | None]:
        """Keep the first LISTED rows of a file; returns how many these are, and the last one's line."""
        own = self._of(file).slice(0, LISTED)
        self.discard(file)
        self.add(own)
        return own.num_rows, pc.max(own["line"]).as_py()

    def _of(self, file: int) -> pa.Table:
        """The rows of a file by line."""
        return self.rows.filter(pc.equal(self.rows["file"], file)).sort_by("line")


class _StoredRefusals:
    """Any number of refused rows in a database."""

    def __init__(self, database: Database) -> None:
        self._connection = database.connection()
        with self._connection.cursor() as cursor:
            cursor.register("empty", REFUSED.empty_table())
            cursor.execute("CREATE TABLE refused AS SELECT * FROM empty")

    def add(self, rows: pa.Table) -> None:
        with self._connection.cursor() as cursor:
            cursor.register("incoming", rows)
            cursor.execute(f"INSERT INTO refused SELECT {', '.join(REFUSED.names)} FROM incoming")  # noqa: S608

    def listed(self, file: int) -> Iterator[pa.RecordBatch]:
        with self._connection.cursor() as cursor:
            found = cursor.sql("SELECT * FROM refused WHERE file = ? ORDER BY line", params=[file])
            yield from found.to_arrow_reader(ROWS_AT_ONCE)

    def discard(self, file: int) -> None:
        with self._connection.cursor() as cursor:
            cursor.execute("DELETE FROM refused WHERE file = ?", [file])

    def trim(self, file: int) -> tuple[int, int | None]:
        """Keep the first LISTED rows of a file; returns how many these are, and the last one's line."""
        with self._connection.cursor() as cursor:
            ((kept, last_line),) = cursor.execute(
                "SELECT count(*), max(line) FROM (SELECT line FROM refused WHERE file = ? ORDER BY line LIMIT ?)",
                [file, LISTED],
            ).fetchall()
            cursor.execute("DELETE FROM refused WHERE file = ? AND line > ?", [file, last_line])
        return kept, last_line
