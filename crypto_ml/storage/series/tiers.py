"""The segments of the cache beside the market history, brought forward by what commits added: tiers of sorted rows.

A segment that is no larger than what came after it is merged with that, so that a row is rewritten a logarithmic number
of times. Where segments are merged, rows that others outrank are put apart, in tiers of their own: who drops the same
days again and again reads them once. They count again for an earlier version, and once something more is retracted.
"""

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from crypto_ml.forecasting.current_rows import are_outranked
from crypto_ml.storage.history import SCHEMA
from crypto_ml.storage.objects import rendered
from crypto_ml.storage.series.added_rows import Added, AddedFile, batches_of
from crypto_ml.storage.series.kept_objects import AT_ONCE, KeptObjects, at_once
from crypto_ml.storage.series.manifests import Segment, Segments
from crypto_ml.storage.series.reading import NOTHING, STORED, SeriesReading, brought_by
from crypto_ml.storage.series.sorted_parts import (
    Part,
    by_series,
    encoded,
    holding,
    in_whole_series,
    merged,
    on_days_of,
    series_and_days,
    whole_series,
)

log = logging.getLogger(__name__)

ANY_VERSION: Final = 2**62


@dataclass
class Done:
    """What a refresh has done so far, see `refresh.Refreshed`. hint: by kind, the manifests it wrote last."""

    rows: int = 0
    rewritten: int = 0
    written: int = 0
    removed: int = 0
    hint: dict[str, str] = field(default_factory=dict)


class Tiers:
    """What brings segments forward for `SeriesRefresh`."""

    def __init__(self, reading: SeriesReading) -> None:
        self._reading = reading
        self._sizes = reading.sizes

    def extended(self, version: int, most_rows: int | None, done: Done) -> Segments:
        """The segments with what the commits up to a version added; every million rows or so they are a state to go on
        from, also for another process."""
        base = self._reading.segments.at(version, 0, self._reading.hint, later=True) or NOTHING
        if most_rows is not None and not self._reading.much_since(base, version):
            return base  # where a book has to wait for a refresh without a limit, these do not grow by each delivery
        while base.version < version and (most_rows is None or done.rows < most_rows):
            commits: list[Added] = []
            ahead = min(version - base.version, self._sizes.chunk_rows // 1_000 + 1)
            for added in at_once(self._reading.added, range(base.version + 1, base.version + 1 + ahead)):
                commits.append(added)
                if sum(one.rows for one in commits) >= self._sizes.chunk_rows:
                    break
            with self._reading.segments.using(base):
                base = self._after(base, commits, done)
                if commits[-1].version >= version or most_rows is not None:
                    base = self._tiered(base, most_rows, done)
            done.hint["segments"] = self._reading.segments.put(base)
            done.written += 1
            log.info("The cache of the market history has %d rows, up to version %d", base.rows, base.version)
        return base

    def _after(self, base: Segments, commits: Sequence[Added], done: Done) -> Segments:
        """The segments with what commits added, sorted; a single one of many rows becomes several segments."""
        segments: list[Segment] = []
        void = [STORED.empty_table()]
        for rows in self._chunks_of(commits):
            void.append(rows.filter(pc.fill_null(rows["void"], False)))
            segments += self._stored([rows], done)
            done.rows += rows.num_rows
        said = pa.concat_tables(void)
        outranked: list[Segment] = []
        again: list[Segment] = []
        for segment in base.outranked:
            counts, stays = self._counting_again(segment, said, done) if said.num_rows else ([], [segment])
            again += counts
            outranked += stays
        retracted = {*base.retracted, *said["upload_id"].unique().to_pylist()}
        return Segments(
            version=commits[-1].version,
            commit=commits[-1].sha256,
            segments=(*base.segments, *again, *segments),
            outranked=tuple(outranked),
            retracted=tuple(sorted(retracted)),
        )

    def _counting_again(self, segment: Segment, void: pa.Table, done: Done) -> tuple[list[Segment], list[Segment]]:
        """Of a segment of outranked rows those that may count again, on days of which something became void, and the
        others. Objects without such series stay as they are."""
        parts = self._reading.parts_of(segment)
        touched = holding(parts, sorted(void["symbol"].unique().to_pylist()))
        again, others = self._writer(), self._writer()
        for part in parts:
            if part not in touched:
                others.keep(part)
                continue
            (rows,) = self._reading.part_tables([part], None, ANY_VERSION)
            counts = pa.array(on_days_of(rows, void))
            again.add(rows.filter(counts))
            others.add(rows.filter(pc.invert(counts)))
        return again.finished(done), others.finished(done)

    def _chunks_of(self, commits: Sequence[Added]) -> Iterator[pa.Table]:
        """What commits added, so many rows at a time as are sorted in memory, and sorted."""
        waiting: list[pa.Table] = []
        rows = 0
        for table in self._tables_of(commits):
            waiting.append(table)
            rows += table.num_rows
            if rows >= self._sizes.chunk_rows:
                yield by_series(pa.concat_tables(waiting).combine_chunks())
                waiting, rows = [], 0
        if rows:
            yield by_series(pa.concat_tables(waiting).combine_chunks())

    def _tables_of(self, commits: Sequence[Added]) -> Iterator[pa.Table]:
        """What commits added, in their order; small files are read some at a time, large ones a batch at a time."""
        files = [(added.version, file) for added in commits for file in added.files]
        for number in range(0, len(files), AT_ONCE):
            some = files[number : number + AT_ONCE]
            if sum(file.rows for _, file in some) > self._sizes.due_rows:
                for version, file in some:
                    for batch in batches_of(file, self._reading.store):
                        yield brought_by(version, pa.Table.from_batches([batch]))
            else:
                yield from at_once(self._table_of, some)

    def _table_of(self, brought: tuple[int, AddedFile]) -> pa.Table:
        version, file = brought
        return brought_by(version, pa.Table.from_batches(batches_of(file, self._reading.store), SCHEMA))

    def _tiered(self, base: Segments, most_rows: int | None, done: Done) -> Segments:
        """The segments with those merged that are due."""
        most = base.rows if most_rows is None else most_rows
        segments, outranked = list(base.segments), list(base.outranked)
        if (begin := _due(segments, most)) is not None:
            current, apart = self._writer(), self._writer()
            for rows in self._merged(segments[begin:], done):
                _, days = series_and_days(rows)
                behind = pa.array(are_outranked(rows, days, base.retracted))
                current.add(rows.filter(pc.invert(behind)))
                apart.add(rows.filter(behind))
            segments = [*segments[:begin], *current.finished(done)]
            outranked += apart.finished(done)
        every = sum(one.rows for one in outranked)
        if most_rows is None and (begin := _due(outranked, every)) is not None:  # nobody waits for fewer of these
            outranked = [*outranked[:begin], *self._stored(self._merged(outranked[begin:], done), done)]
        return Segments(base.version, base.commit, tuple(segments), tuple(outranked), base.retracted)

    def _merged(self, segments: Sequence[Segment], done: Done) -> Iterator[pa.Table]:
        """The rows of segments in pieces of whole series."""
        streams = [self._reading.part_tables(self._reading.parts_of(one), None, ANY_VERSION) for one in segments]
        done.rewritten += sum(one.rows for one in segments)
        return in_whole_series(merged(streams), self._sizes.part_rows)

    def _stored(self, pieces: Iterable[pa.Table], done: Done) -> list[Segment]:
        """Rows sorted by series, in pieces of whole series, as one segment; none without rows."""
        writer = self._writer()
        for rows in pieces:
            writer.add(rows)
        return writer.finished(done)

    def _writer(self) -> "_SegmentWriter":
        return _SegmentWriter(self._reading.objects, self._sizes.part_rows)


def _due(segments: Sequence[Segment], most: int) -> int | None:
    """From which segment on they are to be merged: one that is no larger than what came after it, if it is not more
    than so many rows; None where none is."""
    behind = [sum(one.rows for one in segments[number + 1 :]) for number in range(len(segments))]
    fitting = (
        number
        for number, one in enumerate(segments[:-1])
        if one.rows <= behind[number] and one.rows + behind[number] <= most
    )
    return next(fitting, None)


class _SegmentWriter:
    """A segment, as it is written."""

    def __init__(self, objects: KeptObjects, part_rows: int) -> None:
        self._objects = objects
        self._part_rows = part_rows
        self._parts: list[Part] = []
        self._waiting: list[pa.Table] = []

    def add(self, rows: pa.Table) -> None:
        """Rows sorted by series, of whole series, behind those that were added before."""
        self._waiting.append(rows)
        if sum(some.num_rows for some in self._waiting) >= self._part_rows:
            self._write()

    def keep(self, part: Part) -> None:
        """A part that was written already, behind what was added before."""
        self._write()
        self._parts.append(part)

    def finished(self, done: Done) -> list[Segment]:
        """The segment; none without rows."""
        self._write()
        if not self._parts:
            return []
        done.written += len(self._parts) + 1
        index = self._objects.put(rendered([asdict(part) for part in self._parts]))
        return [Segment(sum(part.rows for part in self._parts), index)]

    def _write(self) -> None:
        if self._waiting:
            piece = pa.concat_tables(self._waiting).combine_chunks()
            self._waiting = []
            for rows in whole_series(piece, self._part_rows):
                body = encoded(rows)
                symbols = rows["symbol"]
                name = self._objects.put(body)
                self._parts.append(Part(name, len(body), rows.num_rows, symbols[0].as_py(), symbols[-1].as_py()))
