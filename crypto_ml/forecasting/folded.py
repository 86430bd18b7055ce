"""The states of the series that are scored, many of them on local disk beside their rows: memory is bounded by a chunk.

A series of a file whose first rows are folded (see `running`) has a state beside the rows that come in a chunk.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from crypto_ml.forecasting.columns import Rows
from crypto_ml.forecasting.features import IntArray
from crypto_ml.forecasting.running import STATE

FILE: Final = pa.field("file", pa.int32(), nullable=False)
FOLDED: Final = pa.schema([FILE, *STATE])
"""A state, and the file of the delivery to whose series it belongs."""

Key = tuple[int, str]

MOST_HELD_BYTES: Final = 16 << 20
"""States that are kept in memory: those of a daily file of 10,000 series."""


class FoldedSeries:
    """Takes states of series of files, sorted by both, and gives back those that belong to a chunk."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._parts: list[tuple[Key, Key, pa.Table | Path]] = []
        self._held = 0

    def add(self, states: pa.Table) -> None:
        """Take in states with the columns of FOLDED and of which rows are folded, sorted by file and symbol."""
        if not states.num_rows:
            return
        part = states.select(FOLDED.names).cast(FOLDED).combine_chunks()
        self._held += part.nbytes
        kept = part if self._held <= MOST_HELD_BYTES else self._written(part)
        self._parts.append((_key(states, 0), _key(states, states.num_rows - 1), kept))

    def _written(self, states: pa.Table) -> Path:
        self._directory.mkdir(parents=True, exist_ok=True)
        path = self._directory / f"{len(self._parts)}.arrow"
        with pa.OSFile(str(path), "wb") as out, pa.ipc.new_file(out, FOLDED) as writer:
            writer.write_table(states)
        return path

    def of(self, rows: Rows, starts: IntArray) -> pa.Table | None:
        """The states of the series of a chunk, in their order, with nulls for those without one; None where none has.

        rows: sorted by file and symbol; starts: from `features.series_starts`.
        """
        begins = np.flatnonzero(starts == np.arange(len(starts)))
        if not self._parts or not len(begins):
            return None
        files, symbols = (np.asarray(rows[name])[begins] for name in ("file", "symbol"))
        first, last = (int(files[0]), str(symbols[0])), (int(files[-1]), str(symbols[-1]))
        parts = [_between(part, first, last) for least, most, part in self._parts if least <= last and most >= first]
        found = parts[0] if len(parts) == 1 else pa.concat_tables([FOLDED.empty_table(), *parts]).combine_chunks()
        if not found.num_rows:
            return None
        at = np.full(len(begins), -1)
        held = found["file"].to_numpy()
        for file, begin, end in _runs(files):
            of_file = np.flatnonzero(held == file)
            names = found["symbol"].take(pa.array(of_file)).combine_chunks()
            places = pc.index_in(pa.array(symbols[begin:end], pa.string()), value_set=names)
            where = places.fill_null(-1).to_numpy()
            at[begin:end] = np.where(where >= 0, of_file[where] if len(of_file) else -1, -1)
        if len(at) == found.num_rows and (at == np.arange(len(at))).all():
            return found
        return found.take(pa.array(at, mask=at < 0)) if (at >= 0).any() else None


def _key(states: pa.Table, at: int) -> Key:
    return states["file"][at].as_py(), states["symbol"][at].as_py()


def _between(part: pa.Table | Path, first: Key, last: Key) -> pa.Table:
    """The states from one series to another; of the others only those are read that a search looks at."""
    if isinstance(part, Path):
        with pa.memory_map(str(part)) as source:
            part = pa.ipc.open_file(source).read_all()
    found = range(part.num_rows)
    begin = bisect_left(found, first, key=lambda at: _key(part, at))
    return part.slice(begin, bisect_right(found, last, key=lambda at: _key(part, at)) - begin)


def _runs(files: IntArray) -> Iterator[tuple[int, int, int]]:
    bounds = [0, *(np.flatnonzero(files[1:] != files[:-1]) + 1), len(files)]
    return ((int(files[begin]), int(begin), int(end)) for begin, end in pairwise(bounds))
