"""Bringing the cache beside the market history up to a version of it, and removing what of it nobody can need.

Whatever dies here leaves objects that no manifest names; what was finished of a long build is gone on from.
"""

import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from crypto_ml.forecasting.running import SeriesBook, fold
from crypto_ml.storage.history import SCHEMA
from crypto_ml.storage.objects import rendered
from crypto_ml.storage.series.added_rows import Added, AddedFile, batches_of
from crypto_ml.storage.series.books import advanced, current_of, joined, pieces_of
from crypto_ml.storage.series.kept_objects import AT_ONCE, CacheDamaged, at_once, removed
from crypto_ml.storage.series.manifests import (
    Book,
    BookPart,
    Listed,
    Manifests,
    Segment,
    Segments,
    read_book,
    read_hint,
    write_hint,
)
from crypto_ml.storage.series.reading import NOTHING, SeriesReading, brought_by
from crypto_ml.storage.series.sorted_parts import (
    Part,
    by_series,
    encoded,
    in_whole_series,
    merged,
    rows_up_to,
    whole_series,
)

log = logging.getLogger(__name__)

ANY_VERSION: Final = 2**62
FORGOTTEN_SECONDS: Final = 30 * 24 * 3_600.0
"""After so long books of another definition are those of a release that does not run any more."""


@dataclass(frozen=True)
class Refreshed:
    """What a refresh did.

    version: that the segments stand at now. book: that the newest book is of, None where there is none at that version
    or before. rows: read from the history. rewritten: rows of segments that were merged. segments: how many there are.
    written, removed: objects.
    """

    version: int
    book: int | None
    rows: int
    rewritten: int
    segments: int
    written: int
    removed: int


@dataclass
class _Done:
    """What a refresh has done so far."""

    rows: int = 0
    rewritten: int = 0
    written: int = 0
    removed: int = 0
    hint: dict[str, str] = field(default_factory=dict)


class SeriesRefresh:
    """What refreshes for `SeriesCache`; it raises CacheDamaged where it has to be begun again."""

    def __init__(self, reading: SeriesReading) -> None:
        self._reading = reading
        self._sizes = reading.sizes

    def refreshed(self, version: int, most_rows: int | None) -> Refreshed:
        done = _Done()
        segments = self._extended(version, most_rows, done)
        if segments.version >= version:
            self._bring_book(version, segments, most_rows, done)
        if done.hint:
            write_hint(
                self._reading.store,
                self._reading.prefix,
                {**read_hint(self._reading.store, self._reading.prefix), **done.hint},
            )
            done.removed += self._thin_books()
            done.removed += self._thin_segments()
        if most_rows is None:
            done.removed += self._remove_orphans()
        book = self._reading.books.at(version, 0, self._reading.hint)
        return Refreshed(
            version=segments.version,
            book=None if book is None else book.version,
            rows=done.rows,
            rewritten=done.rewritten,
            segments=len(segments.segments),
            written=done.written,
            removed=done.removed,
        )

    def _extended(self, version: int, most_rows: int | None, done: _Done) -> Segments:
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
                segments = [*base.segments, *self._new_segments(commits, done)]
                if commits[-1].version >= version or most_rows is not None:
                    segments = self._tiered(segments, most_rows, done)
            base = Segments(commits[-1].version, commits[-1].sha256, tuple(segments))
            done.hint["segments"] = self._reading.segments.put(base)
            done.written += 1
            log.info("The cache of the market history has %d rows, up to version %d", base.rows, base.version)
        return base

    def _new_segments(self, commits: Sequence[Added], done: _Done) -> Iterator[Segment]:
        """What commits added, sorted; a single one of many rows becomes several segments."""
        waiting: list[pa.Table] = []
        rows = 0
        for table in self._tables_of(commits):
            waiting.append(table)
            rows += table.num_rows
            if rows >= self._sizes.chunk_rows:
                yield self._stored([by_series(pa.concat_tables(waiting).combine_chunks())], done)
                done.rows += rows
                waiting, rows = [], 0
        if rows:
            yield self._stored([by_series(pa.concat_tables(waiting).combine_chunks())], done)
            done.rows += rows

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

    def _tiered(self, segments: Sequence[Segment], most_rows: int | None, done: _Done) -> list[Segment]:
        """The segments with those merged that are no larger than what came after them."""
        behind = [sum(one.rows for one in segments[number + 1 :]) for number in range(len(segments))]
        most = sum(one.rows for one in segments) if most_rows is None else most_rows
        fitting = (
            number
            for number, one in enumerate(segments[:-1])
            if one.rows <= behind[number] and one.rows + behind[number] <= most
        )
        begin = next(fitting, None)
        if begin is None:
            return list(segments)
        streams = [
            self._reading.part_tables(self._reading.parts_of(one), None, ANY_VERSION) for one in segments[begin:]
        ]
        done.rewritten += segments[begin].rows + behind[begin]
        return [*segments[:begin], self._stored(in_whole_series(merged(streams), self._sizes.part_rows), done)]

    def _stored(self, pieces: Iterable[pa.Table], done: _Done) -> Segment:
        """Rows sorted by series, in pieces of whole series, as one segment."""
        parts: list[Part] = []
        for piece in pieces:
            for rows in whole_series(piece, self._sizes.part_rows):
                body = encoded(rows)
                symbols = rows["symbol"]
                name = self._reading.objects.put(body)
                parts.append(Part(name, len(body), rows.num_rows, symbols[0].as_py(), symbols[-1].as_py()))
        done.written += len(parts) + 1
        return Segment(
            sum(part.rows for part in parts), self._reading.objects.put(rendered([asdict(part) for part in parts]))
        )

    def _bring_book(self, version: int, segments: Segments, most_rows: int | None, done: _Done) -> None:
        base = self._reading.books.at(version, 0, self._reading.hint)
        if base is not None and base.version == version:
            return
        since = self._reading.since(base, version)
        if base is None or sum(added.rows for added in since) > self._sizes.tail_rows:
            if most_rows is not None and segments.rows > most_rows:
                return
            parts, retracted = self._whole_book(version, done)
        else:
            with self._reading.books.using(base):
                parts, retracted = self._next_book(base, self._reading.rows_of(since, None), version, done)
        book = Book(version, self._reading.added(version).sha256, tuple(parts), tuple(sorted(retracted)))
        done.hint["books"] = self._reading.books.put(book)
        done.written += 1

    def _whole_book(self, version: int, done: _Done) -> tuple[list[BookPart], set[str]]:
        swept = self._reading.swept(None, version)
        if swept is None:
            raise CacheDamaged("the segments that a book was to be made of are gone")
        parts: list[BookPart] = []
        retracted: set[str] = set()
        waiting: list[SeriesBook] = []
        for rows in swept:
            retracted |= _retracted(rows)
            waiting.append(fold(None, current_of(rows)))
            if sum(book.states.num_rows for book in waiting) >= self._sizes.part_series:
                parts += self._book_parts(joined(waiting), done)
                waiting = []
        return [*parts, *self._book_parts(joined(waiting), done)], retracted

    def _next_book(self, base: Book, later: pa.Table, version: int, done: _Done) -> tuple[list[BookPart], set[str]]:
        later = by_series(later)
        parts: list[BookPart] = []
        begin = 0
        places: Sequence[BookPart | None] = base.parts or (None,)
        for part in places:
            end = later.num_rows if part is None or part is places[-1] else rows_up_to(later, part.last)
            some = later.slice(begin, end - begin)
            begin = end
            if part is not None and not some.num_rows:
                parts.append(part)
                continue
            book = self._reading.book_part(part) if part is not None else joined([])
            after = advanced(book, some, base.retracted, lambda symbols: self._reading.anew(symbols, version))
            parts += self._book_parts(after, done)
        return parts, {*base.retracted, *_retracted(later)}

    def _book_parts(self, book: SeriesBook, done: _Done) -> Iterator[BookPart]:
        for piece in pieces_of(book, self._sizes.part_series):
            states, rows = encoded(piece.states), encoded(piece.rows)
            names = piece.states["symbol"]
            part = BookPart(
                name=self._reading.objects.put(states + rows),
                size=len(states) + len(rows),
                rows=piece.rows.num_rows,
                first=names[0].as_py(),
                last=names[-1].as_py(),
                states_size=len(states),
            )
            self._reading.remember(part, SeriesBook(piece.states.combine_chunks(), piece.rows.combine_chunks()))
            done.written += 1
            yield part

    def _thin_books(self) -> int:
        """Remove books of which a newer one stands for the same versions, with what only they name."""
        listed = list(self._reading.books.manifests.listed())
        stays: list[bool] = []
        for number, one in enumerate(listed):
            newest_of_its_time = (
                number == 0 or listed[number - 1].version // self._sizes.every != one.version // self._sizes.every
            )
            stays.append(number < self._sizes.newest_books or newest_of_its_time or not self._is_old(one))
        removed = 0
        for number, one in enumerate(listed):
            if stays[number]:
                continue
            newer = next((listed[at] for at in range(number - 1, -1, -1) if stays[at]), None)
            older = next((listed[at] for at in range(number + 1, len(listed)) if stays[at]), None)
            beside = [self._reading.books.read(found.key) for found in (newer, older) if found]
            book = self._reading.books.read(one.key)
            self._reading.books.remove(one.key)
            if book is not None:
                named = book.names().difference(*(other.names() for other in beside if other is not None))
                self._reading.objects.remove(named)
                removed += len(named)
            removed += 1
        return removed

    def _thin_segments(self) -> int:
        """Remove segments that newer ones stand for: those have every row that they have."""
        listed = list(self._reading.segments.manifests.listed())
        old = [one for one in listed[2:] if self._is_old(one)]
        if not old:
            return 0
        stay = [self._segment_names(one) for one in listed if one not in old]
        removed = 0
        for one in old:
            named = self._segment_names(one).difference(*stay)
            self._reading.segments.remove(one.key)
            self._reading.objects.remove(named)
            removed += 1 + len(named)
        return removed

    def _remove_orphans(self) -> int:
        """Remove objects that no manifest names, and books of definitions in which nobody writes any more: what
        processes left that died, and earlier releases."""
        reading, books = self._reading, self._reading.books.manifests.prefix
        prefix = reading.objects.prefix
        unnamed = {
            found.key.removeprefix(prefix)
            for found in reading.store.list(prefix)
            if _seconds_since(found.last_modified) > self._sizes.orphan_seconds
        }
        forgotten = []
        for listed in list(reading.segments.manifests.listed()) if unnamed else []:
            unnamed -= self._segment_names(listed)
        for found in list(reading.store.list(f"{reading.prefix}books/")) if unnamed else []:
            if not found.key.startswith(books) and _seconds_since(found.last_modified) > FORGOTTEN_SECONDS:
                forgotten.append(found.key)
                continue
            with suppress(CacheDamaged):
                manifests = Manifests(reading.store, found.key.rpartition("/")[0] + "/", read_book)
                unnamed -= manifests.read(found.key).names()
        removed(reading.store, forgotten)
        reading.objects.remove(unnamed)
        return len(forgotten) + len(unnamed)

    def _segment_names(self, listed: Listed) -> set[str]:
        manifest = self._reading.segments.read(listed.key)
        names: set[str] = set()
        for segment in manifest.segments if manifest else ():
            names.add(segment.index)
            with suppress(CacheDamaged):
                names |= {part.name for part in self._reading.parts_of(segment)}
        return names

    def _is_old(self, listed: Listed) -> bool:
        return _seconds_since(listed.written) > self._sizes.grace_seconds


def _seconds_since(time: datetime) -> float:
    return (datetime.now(UTC) - time).total_seconds()


def _retracted(rows: pa.Table) -> set[str]:
    """The uploads of which some of the rows are void."""
    return set(pc.unique(rows["upload_id"].filter(pc.fill_null(rows["void"], False))).to_pylist())
