"""Series of the market history read by their names, folded or row by row: what anything faster must equal.

Belongs here: what reads series, and the reading of them from the history itself. Does not belong here: which of their
rows an answer needs (`earlier_rows`), and the caches that read the same sooner (`storage.series`).
"""

from collections.abc import Collection, Mapping
from datetime import date
from typing import Protocol

import pyarrow as pa
import pyarrow.compute as pc

from crypto_ml.forecasting.running import ROWS_KEPT, STATE, SeriesBook, fold
from crypto_ml.storage.history import MarketHistory


class Series(Protocol):
    """Where series are read by their names."""

    def book(self, symbols: Collection[str] | None, version: int) -> SeriesBook:
        """The folded form of the current rows of some series, in the order `delivered`, at a version of the history."""

    def at_hand(self, symbols: Collection[str], version: int) -> tuple[SeriesBook, Mapping[str, date]]:
        """The book of some series without those for which it would take reading all of their rows; and of each that it
        leaves out so a day before which no row of it counts."""

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
        """The rows that `MarketHistory.scan` gives for the same arguments, in no particular order. Without `outranked`
        some may be missing that others outrank in the order `delivered`."""


class FromHistory:
    """Series read from the history itself, from its beginning: what anything faster must equal."""

    def __init__(self, history: MarketHistory) -> None:
        self._history = history

    def at_hand(self, symbols: Collection[str], version: int) -> tuple[SeriesBook, Mapping[str, date]]:
        """See `Series`; every series is at hand."""
        return self.book(symbols, version), {}

    def book(self, symbols: Collection[str] | None, version: int) -> SeriesBook:
        """See `storage.series.cache`; memory is bounded by the book and one batch of rows."""
        batches = self._history.current_batches(ROWS_KEPT.names, symbols=symbols, version=version)
        books = [SeriesBook(STATE.empty_table(), ROWS_KEPT.empty_table())]
        for batch in batches:  # sorted, so that only the last series of a batch goes on in the next
            last = books.pop()
            book = fold(last.states, pa.concat_tables([last.rows, pa.Table.from_batches([batch]).cast(ROWS_KEPT)]))
            books += cut_before(book, book.states["symbol"][-1].as_py()) if batch.num_rows else [book]
        return SeriesBook(
            pa.concat_tables([book.states for book in books]).combine_chunks(),
            pa.concat_tables([book.rows for book in books]).combine_chunks(),
        )

    def rows(
        self,
        columns: Collection[str] | None = None,
        *,
        symbols: Collection[str] | None,
        since: date | None = None,
        before: date | None = None,
        version: int,
        outranked: bool = True,  # noqa: ARG002 - all rows are as good
    ) -> pa.RecordBatchReader:
        """See `Series`."""
        return self._history.scan(columns, symbols=symbols, since=since, before=before, version=version)


def cut_before(book: SeriesBook, symbol: str) -> tuple[SeriesBook, SeriesBook]:
    """A book, and of its last series, whose name this is, a book of its own."""
    own = pc.equal(book.rows["symbol"], symbol)
    last = SeriesBook(book.states.slice(book.states.num_rows - 1), book.rows.filter(own))
    return SeriesBook(book.states.slice(0, book.states.num_rows - 1), book.rows.filter(pc.invert(own))), last
