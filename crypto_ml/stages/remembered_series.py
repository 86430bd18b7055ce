"""What was read lately of the series of one version of the history: a request asks for one of them, and then again.

Nothing here decides anything: what is remembered is what `Series` and the history said of that version, which never
changes. Belongs here: how it is kept in bounded memory, and put together again.
"""

from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from threading import Lock
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from crypto_ml.forecasting.current import Order
from crypto_ml.forecasting.running import ROWS_KEPT, STATE, SeriesBook
from crypto_ml.stages.cleaned_features import Slugs
from crypto_ml.stages.series_by_name import Series
from crypto_ml.storage.series.books import joined

MOST_BYTES: Final = 64 << 20
MOST_SERIES: Final = 500
"""Series that are remembered together; of more, the book itself is asked, which is as fast."""

MOST_BLOCKS: Final = 64
"""Blocks are put together into one where there are more: each has some seventy columns."""

BYTES_OF_A_BLOCK: Final = 50_000
BYTES_OF_A_NAME: Final = 200
"""What a block, and a symbol in it, takes beside its numbers."""

MOST_SLUGS: Final = 200_000


class RememberedSeries:
    """Series, and who holds their symbols, as of `version`; every other version is asked of `series` and `history`.

    Keep one for as long as that version is asked for. Safe to share between threads.
    """

    def __init__(self, series: Series, history: Slugs, version: int | None, most_bytes: int = MOST_BYTES) -> None:
        self._series = series
        self._history = history
        self._version = version
        self._most_bytes = most_bytes
        self._lock = Lock()
        self._blocks: OrderedDict[int, _Block] = OrderedDict()
        self._made = 0
        self._slugs: dict[str, str | None] = {}

    def at_hand(self, symbols: Collection[str], version: int) -> tuple[SeriesBook, Mapping[str, date]]:
        """See `Series`."""
        wanted = sorted(set(symbols))
        if version != self._version or len(wanted) > MOST_SERIES:
            return self._series.at_hand(wanted, version)
        with self._lock:
            held, missing = self._holding(wanted)
        if missing:
            book, changed = self._series.at_hand(missing, version)
            block = _Block.of(missing, book, changed)
            held.append((block, missing))
            with self._lock:
                self._keep(block)
        left_out = {name: block.changed[name] for block, names in held for name in names if name in block.changed}
        return joined([block.some(symbols) for block, symbols in held]), dict(sorted(left_out.items()))

    def book(self, symbols: Collection[str] | None, version: int) -> SeriesBook:
        """See `Series`."""
        return self._series.book(symbols, version)

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
        """See `Series`."""
        return self._series.rows(
            columns, symbols=symbols, since=since, before=before, version=version, outranked=outranked
        )

    def slugs(
        self, symbols: Collection[str] | None = None, version: int | None = None, order: Order = "delivered"
    ) -> dict[str, str]:
        """See `MarketHistory.slugs`."""
        if version != self._version or symbols is None or order != "delivered":
            return self._history.slugs(symbols, version, order)
        with self._lock:
            known = {symbol: self._slugs[symbol] for symbol in symbols if symbol in self._slugs}
        if missing := [symbol for symbol in symbols if symbol not in known]:
            found = self._history.slugs(missing, version)
            known |= {symbol: found.get(symbol) for symbol in missing}
            with self._lock:
                if len(self._slugs) + len(missing) > MOST_SLUGS:
                    self._slugs.clear()
                self._slugs.update({symbol: known[symbol] for symbol in missing[:MOST_SLUGS]})
        return {symbol: slug for symbol, slug in known.items() if slug is not None}

    def _holding(self, symbols: Sequence[str]) -> tuple[list[tuple["_Block", list[str]]], list[str]]:
        """The blocks that know some of the symbols, with these, each in one of them, and those that none knows."""
        held, left = [], dict.fromkeys(symbols)
        for number in list(reversed(self._blocks)):
            block = self._blocks[number]
            if found := [symbol for symbol in left if symbol in block.known]:
                held.append((block, found))
                self._blocks.move_to_end(number)
                for symbol in found:
                    del left[symbol]
            if not left:
                break
        return held, list(left)

    def _keep(self, block: "_Block") -> None:
        self._add(block)
        while len(self._blocks) > 1 and sum(one.bytes for one in self._blocks.values()) > self._most_bytes:
            self._blocks.popitem(last=False)
        if len(self._blocks) > MOST_BLOCKS:
            together = _Block.together(list(self._blocks.values()))
            self._blocks.clear()
            self._add(together)

    def _add(self, block: "_Block") -> None:
        if block.bytes <= self._most_bytes:
            self._made += 1
            self._blocks[self._made] = block


@dataclass(frozen=True, eq=False)
class _Block:
    """What was said of some symbols. known: symbol → the number of its state in the book; None where it has none there.
    begins: where each state's rows begin, and where the last one's end. changed: those that the book leaves out, as
    `Series` says."""

    book: SeriesBook
    known: Mapping[str, int | None]
    begins: Sequence[int]
    changed: Mapping[str, date]

    @classmethod
    def of(cls, symbols: Sequence[str], book: SeriesBook, changed: Mapping[str, date]) -> "_Block":
        names = book.states["symbol"].combine_chunks()
        series = pc.index_in(book.rows["symbol"], value_set=names).to_numpy()
        begins = np.searchsorted(series, np.arange(len(names) + 1)).tolist()
        known = dict.fromkeys(symbols) | {name: number for number, name in enumerate(names.to_pylist())}
        return cls(book, known, begins, dict(changed))

    @classmethod
    def together(cls, blocks: Sequence["_Block"]) -> "_Block":
        """Blocks as one; of what several of them know, what one of them does."""
        seen, changed, books = set[str](), dict[str, date](), []
        for block in blocks:
            own = sorted(symbol for symbol in block.known if symbol not in seen)
            books.append(block.some(own))
            changed.update({name: block.changed[name] for name in own if name in block.changed})
            seen.update(own)
        return cls.of(sorted(seen), joined(books), changed)

    @property
    def bytes(self) -> int:
        """About how much memory it takes."""
        numbers = int(self.book.states.nbytes + self.book.rows.nbytes)
        return numbers + BYTES_OF_A_BLOCK + BYTES_OF_A_NAME * len(self.known)

    def some(self, symbols: Sequence[str]) -> SeriesBook:
        """The book of those of some symbols (sorted) that have a state."""
        numbers = [number for symbol in symbols if (number := self.known.get(symbol)) is not None]
        if len(numbers) == len(self.begins) - 1:
            return self.book
        if not numbers:
            return SeriesBook(STATE.empty_table(), ROWS_KEPT.empty_table())
        if len(numbers) == 1:
            (one,) = numbers
            begin, end = self.begins[one], self.begins[one + 1]
            return SeriesBook(self.book.states.slice(one, 1), self.book.rows.slice(begin, end - begin))
        rows = np.concatenate([np.arange(self.begins[one], self.begins[one + 1]) for one in numbers])
        return SeriesBook(self.book.states.take(pa.array(numbers)), self.book.rows.take(pa.array(rows)))
