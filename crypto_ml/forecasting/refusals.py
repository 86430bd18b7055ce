"""The rows of uploads that stay behind: all are counted, with their reasons, and the first of each file are listed.

A file of a million bad rows is bad in the same way a million times; its list would be larger than the file.
"""

import heapq
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

LISTED: Final = 10_000
"""Refused rows of a file that are listed, the first ones by line: more than anybody reads, some MB at the most."""

ROWS_AT_ONCE: Final = 100_000
REASONS_OF_ONE_DAY: Final = 100
"""How many reasons that only one day's rows have are remembered, those with the most rows: a report names three."""

REFUSED: Final = pa.schema([("file", pa.int32()), ("line", pa.int64()), ("reason", pa.string()), ("text", pa.string())])
"""A refused row: the file and line it stood in, why, and what stood there."""


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

    connection: to the database that keeps the rows.
    """

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._connection = connection
        self._files: dict[int, _Tally] = {}
        connection.register("empty", REFUSED.empty_table())
        connection.execute("CREATE TABLE refused AS SELECT * FROM empty")

    def add(self, rows: pa.Table) -> None:
        """Count rows with the columns of REFUSED, and keep those that may be listed."""
        counted = rows.group_by(["file", "reason"]).aggregate([("line", "count"), ("line", "min")])
        for row in counted.to_pylist():
            reasons = self._tally(row["file"]).reasons
            before, first = reasons.get(row["reason"], (0, row["line_min"]))
            reasons[row["reason"]] = before + row["line_count"], min(first, row["line_min"])
        self._keep(rows)

    def add_days(self, days: pa.Table, rows: pa.Table) -> None:
        """Count the rows of contradicted days (see `settling.Settled.contradictions`), each of which comes once, and
        keep those of `rows` that may be listed."""
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
        with self._connection.cursor() as cursor:
            found = cursor.sql("SELECT * FROM refused WHERE file = ? ORDER BY line", params=[file])
            yield from found.to_arrow_reader(ROWS_AT_ONCE)

    def commonest_reasons(self, file: int, most: int) -> list[tuple[str, int]]:
        """The reasons for which most rows of a file were refused (at most REASONS_OF_ONE_DAY), and how many."""
        tally = self._tally(file)
        often = [(-rows, line, reason) for reason, (rows, line) in tally.reasons.items()]
        return [(reason, -rows) for rows, _, reason in heapq.nsmallest(most, [*often, *tally.days])]

    def discard(self, file: int) -> None:
        """Take back the refused rows of a file."""
        self._files.pop(file, None)
        with self._connection.cursor() as cursor:
            cursor.execute("DELETE FROM refused WHERE file = ?", [file])

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
            with self._connection.cursor() as cursor:
                cursor.register("incoming", rows.filter(wanted))
                cursor.execute(f"INSERT INTO refused SELECT {', '.join(REFUSED.names)} FROM incoming")  # noqa: S608
        for file in np.unique(files[wanted]).tolist():
            tally = self._tally(file)
            if tally.kept >= (LISTED if tally.last_line is None else 2 * LISTED):
                self._trim(file)

    def _trim(self, file: int) -> None:
        """Keep no more rows of a file than are listed."""
        tally = self._tally(file)
        with self._connection.cursor() as cursor:
            ((tally.kept, tally.last_line),) = cursor.execute(
                "SELECT count(*), max(line) FROM (SELECT line FROM refused WHERE file = ? ORDER BY line LIMIT ?)",
                [file, LISTED],
            ).fetchall()
            cursor.execute("DELETE FROM refused WHERE file = ? AND line > ?", [file, tally.last_line])
