"""Bringing the cache beside the market history up to a version of it, and removing what of it nobody can need.

Whatever dies here leaves objects that no manifest names; what was finished of a long build is gone on from.
"""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from crypto_ml.forecasting.running import SeriesBook, fold
from crypto_ml.storage.series.books import advanced, current_of, joined, pieces_of
from crypto_ml.storage.series.kept_objects import CacheDamaged, removed
from crypto_ml.storage.series.manifests import (
    Book,
    BookPart,
    Listed,
    Manifests,
    Segments,
    read_book,
    read_hint,
    write_hint,
)
from crypto_ml.storage.series.reading import SeriesReading
from crypto_ml.storage.series.sorted_parts import by_series, encoded, rows_up_to
from crypto_ml.storage.series.tiers import Done, Tiers

FORGOTTEN_SECONDS: Final = 30 * 24 * 3_600.0
"""After so long books of another definition are those of a release that does not run any more."""


@dataclass(frozen=True)
class Refreshed:
    """What a refresh did.

    version: that the segments stand at now. book: that the newest book is of, None where there is none at that version
    or before. rows: read from the history. rewritten: rows of segments that were merged. segments: how many there are.
    current: rows that may count; outranked: rows that stand apart. written, removed: objects.
    """

    version: int
    book: int | None
    rows: int
    rewritten: int
    segments: int
    current: int
    outranked: int
    written: int
    removed: int


class SeriesRefresh:
    """What refreshes for `SeriesCache`; it raises CacheDamaged where it has to be begun again."""

    def __init__(self, reading: SeriesReading) -> None:
        self._reading = reading
        self._sizes = reading.sizes
        self._tiers = Tiers(reading)

    def refreshed(self, version: int, most_rows: int | None) -> Refreshed:
        done = Done()
        segments = self._tiers.extended(version, most_rows, done)
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
            segments=len(segments.segments) + len(segments.outranked),
            current=segments.rows,
            outranked=sum(segment.rows for segment in segments.outranked),
            written=done.written,
            removed=done.removed,
        )

    def _bring_book(self, version: int, segments: Segments, most_rows: int | None, done: Done) -> None:
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

    def _whole_book(self, version: int, done: Done) -> tuple[list[BookPart], set[str]]:
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

    def _next_book(self, base: Book, later: pa.Table, version: int, done: Done) -> tuple[list[BookPart], set[str]]:
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

    def _book_parts(self, book: SeriesBook, done: Done) -> Iterator[BookPart]:
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
        stay = [self._segment_names(one.key) for one in listed if one not in old]
        removed = 0
        for one in old:
            named = self._segment_names(one.key).difference(*stay)
            self._reading.segments.remove(one.key)
            self._reading.objects.remove(named)
            removed += 1 + len(named)
        return removed

    def _remove_orphans(self) -> int:
        """Remove objects that no manifest names, and manifests of definitions in which nobody writes any more: what
        processes left that died, and earlier releases."""
        reading = self._reading
        prefix = reading.objects.prefix
        unnamed = {
            found.key.removeprefix(prefix)
            for found in reading.store.list(prefix)
            if _seconds_since(found.last_modified) > self._sizes.orphan_seconds
        }
        forgotten = []
        for found in reading.store.list(f"{reading.prefix}segments/") if unnamed else []:
            if found.key.startswith(reading.segments.manifests.prefix):
                unnamed -= self._segment_names(found.key)
            elif _seconds_since(found.last_modified) > FORGOTTEN_SECONDS:
                forgotten.append(found.key)
        for found in reading.store.list(f"{reading.prefix}books/") if unnamed else []:
            of_now = found.key.startswith(reading.books.manifests.prefix)
            if not of_now and _seconds_since(found.last_modified) > FORGOTTEN_SECONDS:
                forgotten.append(found.key)
                continue
            with suppress(CacheDamaged):
                manifests = Manifests(reading.store, found.key.rpartition("/")[0] + "/", read_book)
                unnamed -= manifests.read(found.key).names()
        removed(reading.store, forgotten)
        reading.objects.remove(unnamed)
        return len(forgotten) + len(unnamed)

    def _segment_names(self, key: str) -> set[str]:
        manifest = self._reading.segments.read(key)
        names: set[str] = set()
        for segment in manifest.all_segments if manifest else ():
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
