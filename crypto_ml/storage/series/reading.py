"""How series are read from the cache beside the market history, and from what the commits since it added.

What belongs here: which kept objects serve at a version, and how they and the later rows come to the answer. What keeps
them up to date is `refresh`; what they are says `cache`.
"""

import json
from bisect import bisect_left
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from crypto_ml.digest import sha256_of
from crypto_ml.forecasting.running import FOLDED_1, KEPT, ROWS_KEPT, STATE, SeriesBook, fold
from crypto_ml.storage.failures import ObjectMissing
from crypto_ml.storage.history import SCHEMA, MarketHistory
from crypto_ml.storage.objects import ObjectStore
from crypto_ml.storage.series.added_rows import Added, AddedFile, added_by, batches_of
from crypto_ml.storage.series.books import EMPTY, advanced, current_of, first_days, joined, only
from crypto_ml.storage.series.kept_objects import KeptInMemory, KeptObjects, at_once
from crypto_ml.storage.series.manifests import (
    Book,
    BookPart,
    KnownManifests,
    Manifests,
    Segment,
    Segments,
    read_book,
    read_hint,
    read_segments,
)
from crypto_ml.storage.series.sorted_parts import Part, by_series, decoded, holding, in_whole_series, merged, of_series
from crypto_ml.storage.tables.growing import TableRefused

COMMIT: Final = "commit"
STORED: Final = SCHEMA.append(pa.field(COMMIT, pa.int64(), nullable=False))
"""Columns of segments: those of the history, and the version that brought the row."""

DEFINITION: Final = f"{FOLDED_1}-{sha256_of(f'{STATE} {ROWS_KEPT} {KEPT}'.encode())[:8]}"
"""Books of another definition, with other columns, or with fewer rows behind their states, are other books; those of
two releases stand side by side."""


APART: Final = "outranked-apart"
"""Segments of releases that kept all rows together are other segments."""


@dataclass(frozen=True)
class Sizes:
    """How much of what. The defaults are for histories of up to some tens of millions of rows and 100,000 series."""

    part_rows: int = 16_384
    part_series: int = 1_000
    chunk_rows: int = 500_000
    """Rows that are sorted in memory at once."""
    tail_rows: int = 1_000_000
    """Rows since a book, or since the segments, that are held in memory; where there are more, all is read anew."""
    swept_rows: int = 131_072
    """Rows of whole series that are folded at once; a query over few rows takes as long as one over these."""
    few_series: int = 1_000
    """So many series have few rows among those since."""
    due_commits: int = 32
    due_rows: int = 100_000
    """A refresh of 10,000 series takes half a second; so many small commits, or a few large ones, are read as fast."""
    bytes_at_once: int = 64 * 1024 * 1024
    """Bytes of parts that one read holds in memory; more wait on disk."""
    newest_books: int = 4
    every: int = 64
    """Of older books the last one of so many versions stays."""
    grace_seconds: float = 900.0
    """How long a manifest stays at least, for those who are reading by it."""
    orphan_seconds: float = 24 * 3_600.0
    """How long an object stays that no manifest names, as one may be about to."""
    memory_bytes: int = 128 * 1024 * 1024


NOTHING: Final = Segments(-1, "")
"""What stands before anything was kept."""


class SeriesReading:
    """What reads series for `SeriesCache`; its methods raise CacheDamaged where something is to be done without."""

    def __init__(self, store: ObjectStore, history: MarketHistory, key: str, sizes: Sizes) -> None:
        self.store = store
        self.history = history
        self.sizes = sizes
        self.prefix = f"{key}/"
        self.objects = KeptObjects(store, f"{key}/objects/")
        self.books = KnownManifests(Manifests(store, f"{key}/books/{DEFINITION}/", read_book), self._is_of_history)
        self.segments = KnownManifests(Manifests(store, f"{key}/segments/{APART}/", read_segments), self._is_of_history)
        self._memory = KeptInMemory(sizes.memory_bytes)

    def book(self, symbols: Sequence[str] | None, version: int) -> SeriesBook:
        found = self._base(symbols, version)
        if found is None:
            return self.anew(symbols, version)
        book, later, retracted = found
        return advanced(book, later, retracted, lambda some: self.anew(some, version))

    def at_hand(self, symbols: Sequence[str], version: int) -> tuple[SeriesBook, Mapping[str, date]]:
        """See `SeriesCache.at_hand`."""
        found = self._base(symbols, version)
        if found is None and self.history.count(version) > self.sizes.tail_rows:
            return EMPTY, self._left_out(symbols, version)
        if found is None:
            return self.anew(symbols, version), {}
        book, later, retracted = found
        changed: list[str] = []

        def left(some: Sequence[str]) -> SeriesBook:
            changed.extend(some)
            return EMPTY

        return advanced(book, later, retracted, left), first_days(book, later, changed)

    def _left_out(self, symbols: Sequence[str], version: int) -> Mapping[str, date]:
        """Which of these series there are, each with the history's first day, without reading what their days were."""
        days, known = self.history.days(version), self.history.known.of(symbols, version)
        there = known["symbol"].filter(pc.is_valid(known["last_day"])).to_pylist()
        return dict.fromkeys(there, days[0]) if days else {}

    def _base(self, symbols: Sequence[str] | None, version: int) -> tuple[SeriesBook, pa.Table, Collection[str]] | None:
        """The newest book that serves, the rows (STORED) that came since, and the uploads of which rows were void
        then; None where series are folded from all their rows as fast."""
        base = self.books.at(version, self.sizes.due_commits, self.hint)
        if base is None:
            return None
        since = self.since(base, version)
        if self._too_many(since, symbols):
            return None
        with self.books.using(base):
            parts = holding(base.parts, symbols)
            book = joined([only(piece, symbols) for piece in at_once(self.book_part, parts)])
        return book, self.rows_of(since, symbols), base.retracted

    def book_part(self, part: BookPart) -> SeriesBook:
        kept: SeriesBook | None = self._memory.get(part.name)
        if kept is None:
            body = memoryview(self.objects.read(part.name))
            kept = SeriesBook(decoded(body[: part.states_size], STATE), decoded(body[part.states_size :], ROWS_KEPT))
            self.remember(part, kept)
        return kept

    def remember(self, part: BookPart, book: SeriesBook) -> None:
        """Keep in memory what a part of a book holds."""
        self._memory.keep(part.name, book, book.states.nbytes + book.rows.nbytes)

    def anew(self, symbols: Sequence[str] | None, version: int) -> SeriesBook:
        """Series folded from all their rows."""
        return joined([fold(None, rows) for rows in self._current(symbols, version)])

    def _current(self, symbols: Sequence[str] | None, version: int) -> Iterator[pa.Table]:
        """The current rows of series, sorted, in pieces of whole series."""
        swept = self.swept(symbols, version)
        if swept is None:
            sorted_rows = self.history.current_batches(ROWS_KEPT.names, symbols=symbols, version=version)
            yield from in_whole_series(
                (pa.Table.from_batches([batch]).cast(ROWS_KEPT) for batch in sorted_rows), self.sizes.swept_rows
            )
            return
        for rows in swept:
            yield current_of(rows)

    def swept(self, symbols: Sequence[str] | None, version: int) -> Iterator[pa.Table] | None:
        """All rows of series (STORED) that may count, in pieces of whole series, sorted by series; None where no
        segments serve."""
        base = self.segments.at(version, self.sizes.due_commits, self.hint, later=True)
        since = self.since(base, version)
        if base is None or self._too_many(since, symbols):
            return None
        with self.segments.using(base):
            segments = [self.parts_of(segment) for segment in _counting(base, since, version)]
        later = by_series(self.rows_of(since, symbols))

        def swept() -> Iterator[pa.Table]:
            with self.segments.using(base):
                streams = [self.part_tables(holding(parts, symbols), symbols, version) for parts in segments]
                yield from in_whole_series(merged([*streams, iter([later])]), self.sizes.swept_rows)

        return swept()

    def part_tables(self, parts: Iterable[Part], symbols: Sequence[str] | None, version: int) -> Iterator[pa.Table]:
        for part in parts:
            yield _until(decoded(self.objects.read(part.name), STORED, symbols), version)

    def fetched(self, symbols: Sequence[str] | None, version: int, *, outranked: bool) -> Iterator[pa.Table] | None:
        """All rows of series that may count, or with `outranked` all, in no order; None where no segments serve. What
        is kept is verified before the first."""
        base = self.segments.at(version, self.sizes.due_commits, self.hint, later=True)
        if base is None:
            return None
        since = self.since(base, version)
        segments = base.all_segments if outranked else _counting(base, since, version)
        with self.segments.using(base):
            parts = [part for segment in segments for part in holding(self.parts_of(segment), symbols)]
            if sum(part.size for part in parts) > self.sizes.bytes_at_once:
                return self._by_way_of_disk(parts, since, symbols, version)
            bodies = at_once(self._remembered_body, parts)

        def tables() -> Iterator[pa.Table]:
            for body in bodies:
                yield _until(decoded(body, STORED, symbols), version)
            for file in (file for added in since for file in added.files):
                for batch in batches_of(file, self.store):
                    yield of_series(pa.Table.from_batches([batch]), symbols)

        return tables()

    def _by_way_of_disk(
        self, parts: Sequence[Part], since: Sequence[Added], symbols: Sequence[str] | None, version: int
    ) -> Iterator[pa.Table]:
        folder = TemporaryDirectory(prefix="crypto_ml_")
        paths = [Path(folder.name) / str(number) for number in range(len(parts))]

        def fetch(number: int) -> None:
            paths[number].write_bytes(self.objects.read(parts[number].name))

        try:
            at_once(fetch, range(len(parts)))
        except BaseException:
            folder.cleanup()
            raise

        def tables() -> Iterator[pa.Table]:
            with folder:
                for path in paths:
                    yield _until(decoded(path.read_bytes(), STORED, symbols), version)
            for file in (file for added in since for file in added.files):
                for batch in batches_of(file, self.store):
                    yield of_series(pa.Table.from_batches([batch]), symbols)

        return tables()

    def _remembered_body(self, part: Part) -> bytes:
        body: bytes | None = self._memory.get(part.name)
        if body is None:
            body = self.objects.read(part.name)
            self._memory.keep(part.name, body, len(body))
        return body

    def parts_of(self, segment: Segment) -> Sequence[Part]:
        parts: Sequence[Part] | None = self._memory.get(segment.index)
        if parts is None:
            body = self.objects.read(segment.index)
            parts = [Part(**part) for part in json.loads(body)]
            self._memory.keep(segment.index, parts, 4 * len(body))
        return parts

    def since(self, base: Book | Segments | None, version: int) -> list[Added]:
        """What the commits behind a manifest up to a version added; nothing where there is no manifest."""
        if base is None:
            return []
        return at_once(self.added, range(base.version + 1, version + 1))

    def added(self, version: int) -> Added:
        added: Added | None = self._memory.get(("commit", version))
        if added is None:
            try:
                added = added_by(version, self.store, self.history.key)
            except ObjectMissing as e:
                raise TableRefused(f"{self.history.uri} has no version {version}: name one that it has.") from e
            self._memory.keep(("commit", version), added, 1_000 + 500 * len(added.files))
        return added

    def _is_of_history(self, manifest: Book | Segments) -> bool:
        with suppress(TableRefused):
            return manifest.version < 0 or self.added(manifest.version).sha256 == manifest.commit
        return False

    def _too_many(self, commits: Sequence[Added], symbols: Sequence[str] | None) -> bool:
        return not self.are_few(symbols) and sum(added.rows for added in commits) > self.sizes.tail_rows

    def are_few(self, symbols: Sequence[str] | None) -> bool:
        """Whether these are few enough series that what is read of them is small."""
        return symbols is not None and len(symbols) <= self.sizes.few_series

    def rows_of(self, commits: Sequence[Added], symbols: Sequence[str] | None) -> pa.Table:
        """The rows (STORED) that some commits added of some series."""
        files = [(added.version, file) for added in commits for file in added.files if _may_hold(file, symbols)]
        tables = at_once(lambda one: self.rows_of_file(*one, symbols), files)
        return pa.concat_tables([STORED.empty_table(), *tables]).combine_chunks()

    def rows_of_file(self, version: int, file: AddedFile, symbols: Sequence[str] | None) -> pa.Table:
        """The rows (STORED) of a file that some series have in it; small files are remembered."""
        kept: pa.Table | None = self._memory.get(file.key)
        if kept is None and file.rows <= self.sizes.due_rows:
            kept = pa.Table.from_batches(batches_of(file, self.store), SCHEMA)
            self._memory.keep(file.key, kept, kept.nbytes)
        if kept is not None:
            return brought_by(version, of_series(kept, symbols))
        batches = (of_series(pa.Table.from_batches([batch]), symbols) for batch in batches_of(file, self.store))
        return brought_by(version, pa.concat_tables([SCHEMA.empty_table(), *batches]))

    def due(self, version: int) -> bool:
        """See `SeriesCache.due`."""
        behind = self.sizes.due_commits - 1
        book = self.books.at(version, behind, self.hint)
        return any(
            self.much_since(base or NOTHING, version)
            for base in (book, self.segments.at(version, behind, self.hint, later=True))
        )

    def much_since(self, base: Book | Segments, version: int) -> bool:
        """Whether enough has come behind a manifest for another."""
        if version - base.version >= self.sizes.due_commits:
            return True
        return sum(added.rows for added in self.since(base, version)) >= self.sizes.due_rows

    def discard(self, why: str) -> None:
        """Use nothing of what is kept, which is made anew by the next refresh."""
        self.books.discard(why)
        self.segments.discard(why)

    def hint(self) -> Sequence[str]:
        """The keys of the manifests that were written last, as far as it is said."""
        return list(read_hint(self.store, self.prefix).values())


def _counting(base: Segments, since: Sequence[Added], version: int) -> Sequence[Segment]:
    """The segments that may have rows that count at a version, which these commits lead to."""
    again = version < base.version or any(added.voids for added in since)
    return base.all_segments if again else base.segments


def brought_by(version: int, rows: pa.Table) -> pa.Table:
    """Rows of the history with the version that brought them (STORED)."""
    return rows.append_column(STORED.field(COMMIT), pa.repeat(pa.scalar(version, pa.int64()), rows.num_rows))


def _until(rows: pa.Table, version: int) -> pa.Table:
    return rows.filter(pc.less_equal(rows[COMMIT], version))


def _may_hold(file: AddedFile, symbols: Sequence[str] | None) -> bool:
    if symbols is None or file.symbols is None:
        return True
    at = bisect_left(symbols, file.symbols[0])
    return at < len(symbols) and symbols[at] <= file.symbols[1]
