"""A cache beside the market history, by which the earlier rows of any series are found whatever its length.

Two things are kept under a prefix of their own, and nothing else in the product rests on them: **deleting all of it is
safe at any time**, and costs time, never a bit of an answer.

- *Segments*: every row of the history with the version that brought it, sorted by series, in tiers of which the larger
  are rewritten the more seldom, so that a series stands in few objects and a row is rewritten a logarithmic number of
  times. Rows that others outrank come to stand apart, so that days that are delivered again and again are read once.
- *Books*: the folded form (`forecasting.running`) of all series at some versions.

What is asked for at a version comes of the newest of these that serves, and of what the commits since added. Objects
are named by their content and verified when they are read; a manifest of which one is gone or damaged is removed, and
the one before it serves, or the history itself. Any number of processes may bring the cache up to date at the same
time, or die while doing it: what they write are other objects, and the manifests that name them come last.
"""

import logging
from collections.abc import Callable, Collection, Iterator, Mapping
from datetime import date
from typing import Final, TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from crypto_ml.forecasting.running import SeriesBook
from crypto_ml.storage.failures import StoreRefused
from crypto_ml.storage.history import SCHEMA, MarketHistory
from crypto_ml.storage.objects import ObjectStore
from crypto_ml.storage.outofcore import BATCH_ROWS
from crypto_ml.storage.series.kept_objects import CacheDamaged
from crypto_ml.storage.series.reading import SeriesReading, Sizes
from crypto_ml.storage.series.refresh import Refreshed, SeriesRefresh
from crypto_ml.storage.tables.commits import CACHE

log = logging.getLogger(__name__)

KEY: Final = f"{CACHE}series"

MOST_ATTEMPTS: Final = 5
"""Refreshes that are begun again, since something of the cache was damaged; the third one has nothing to go on from."""

Result = TypeVar("Result")


class SeriesCache:
    """The earlier rows of series, as of a version of the history. Keep one for as long as the process lives: it holds
    what was read last, and is safe to share between threads.

    key: the prefix of everything it writes.
    """

    def __init__(
        self, store: ObjectStore, history: MarketHistory, *, key: str = KEY, sizes: Sizes | None = None
    ) -> None:
        self.history = history
        self._reading = SeriesReading(store, history, key, sizes or Sizes())

    def book(self, symbols: Collection[str] | None, version: int) -> SeriesBook:
        """Series (None: all) in their folded form at a version: `fold(None, …)` of their current rows, bit for bit.

        Series without a current row are not in it. Memory is bounded by the book and by what came since the last one.
        Raises: TableRefused for an unknown version, StoreUnavailable, StoreRefused.
        """
        wanted = None if symbols is None else sorted(set(symbols))
        return self._undamaged(lambda: self._reading.book(wanted, version))

    def at_hand(self, symbols: Collection[str], version: int) -> tuple[SeriesBook, Mapping[str, date]]:
        """`book`, without those series for which all their rows would have to be read, because their past has changed
        since the last refresh, or a long history was never refreshed; and of each of these a day before which it has no
        row. Failures as for `book`."""
        return self._undamaged(lambda: self._reading.at_hand(sorted(set(symbols)), version))

    def rows(
        self,
        columns: Collection[str] | None = None,
        *,
        symbols: Collection[str] | None,
        since: date | None = None,
        before: date | None = None,
        version: int,
        outranked: bool = True,
    ) -> pa.RecordBatchReader:
        """The same rows as `history.scan(columns, …)`, in another order. Failures as there.

        outranked: whether those have to be among them that others outrank in the order `delivered`.
        The last days of many series are read from the history, where they stand together.
        """
        names = SCHEMA.names if columns is None else list(columns)
        wanted = None if symbols is None else sorted(set(symbols))
        elsewhere = set(names) - set(SCHEMA.names) or (since is not None and not self._reading.are_few(wanted))
        found = (
            None if elsewhere else self._undamaged(lambda: self._reading.fetched(wanted, version, outranked=outranked))
        )
        if found is None:
            return self.history.scan(names, symbols=symbols, since=since, before=before, version=version)
        schema = pa.schema([SCHEMA.field(name) for name in names])

        def batches() -> Iterator[pa.RecordBatch]:
            for table in found:
                for batch in _between(table, since, before).select(names).cast(schema).to_batches(BATCH_ROWS):
                    if batch.num_rows:
                        yield batch

        return pa.RecordBatchReader.from_batches(schema, batches())

    def due(self, version: int) -> bool:
        """Whether so much has come since the last refresh that another is worth its while. Failures as for `book`."""
        return self._undamaged(lambda: self._reading.due(version))

    def refresh(self, version: int, *, most_rows: int | None = None) -> Refreshed:
        """Bring the cache up to a version of the history, and remove what of it nobody can need.

        most_rows: leave what takes reading or rewriting more rows than that to a later refresh without a limit (the
        first one of a long history, the rare merge of large segments). Failures as for `book`; StoreRefused also where
        what was written is damaged each time.
        """
        for attempt in range(MOST_ATTEMPTS):
            try:
                return SeriesRefresh(self._reading).refreshed(version, most_rows)
            except CacheDamaged as damaged:
                log.info("Refreshing without a damaged part of the cache: %s", damaged)
                why = str(damaged)
            if attempt:  # what was made before names it too, is not read, and would be gone on from each time
                self._reading.discard(why)
        raise StoreRefused(
            f"the cache of series cannot be kept: look at the store, as in each of {attempt + 1} attempts {why}"
        )

    def _undamaged(self, act: Callable[[], Result]) -> Result:
        """What `act` returns when nothing that it uses is damaged; each time something is, that is done without."""
        while True:
            try:
                return act()
            except CacheDamaged as damaged:
                log.info("Reading without a damaged part of the cache: %s", damaged)


def _between(rows: pa.Table, since: date | None, before: date | None) -> pa.Table:
    if since is not None:
        rows = rows.filter(pc.greater_equal(rows["date"], pa.scalar(since, pa.date32())))
    if before is not None:
        rows = rows.filter(pc.less(rows["date"], pa.scalar(before, pa.date32())))
    return rows
