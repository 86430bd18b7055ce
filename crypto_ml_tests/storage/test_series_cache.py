"""The cache beside the market history: whatever became of it, series come out as the history has them, to the bit."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest
from deltalake import DeltaTable
from hypothesis import given, settings
from hypothesis import strategies as st

from crypto_ml.forecasting.running import ROWS_KEPT, SeriesBook, fold
from crypto_ml.storage.delta import GrowingTable, TableRefused
from crypto_ml.storage.history import SCHEMA, MarketHistory
from crypto_ml.storage.objects import ObjectStore
from crypto_ml.storage.series_cache import SeriesCache
from crypto_ml.storage.series_reading import Sizes

DAY = date(2018, 1, 1)
KNOWN = datetime(2026, 1, 1, tzinfo=UTC)
SYMBOLS = ("A", "A:b", "B", "é😀", "Z")

TINY = Sizes(
    part_rows=20,
    part_series=2,
    chunk_rows=60,
    tail_rows=150,
    due_commits=2,
    due_rows=1_000,
    bytes_at_once=4_000,
    newest_books=1,
    every=4,
    grace_seconds=-60.0,
)
"""So small that few rows make several parts, segments and books, and everything that may be removed is."""

TABLES = iter(range(1_000_000))


def rows(upload: str, symbols: Sequence[str], days: range, *, void: bool | None = None, cleaning: int = 1) -> pa.Table:
    """A row for each symbol and day; what an upload says of them does not change."""
    random = np.random.default_rng([int(part) for part in upload.split(".")])
    known = []
    for line, (symbol, day) in enumerate((symbol, day) for symbol in symbols for day in days):
        price = float(random.lognormal(3.0, 2.0))
        known.append(
            {
                "symbol": symbol,
                "date": DAY + timedelta(days=day),
                **dict.fromkeys(("open", "high", "low", "close"), price),
                "market": None if line % 7 == 0 else price * 1e6,
                "slug": f"{symbol}-{day // 20}" if line % 3 == 0 else None,
                "known_at": KNOWN,
                "upload_id": upload,
                "line": line,
                "cleaning": cleaning,
                "void": void,
            }
        )
    return pa.Table.from_pylist(known, schema=SCHEMA)


def in_order(table: pa.Table) -> pa.Table:
    """The same rows in an order of their own, as one chunk."""
    return table.sort_by([(name, "ascending") for name in table.schema.names]).combine_chunks()


def same(one: SeriesBook, other: SeriesBook) -> bool:
    return one.states.equals(other.states) and one.rows.equals(other.rows)


class Market:
    """A history, a cache of it, and what a process that lived all the time remembers of the cache."""

    def __init__(self, store: ObjectStore, sizes: Sizes = TINY) -> None:
        number = next(TABLES)
        self.store = store
        self.key = f"cache-{number}"
        self.history = MarketHistory(store, key=f"history-{number}")
        self.sizes = sizes
        self.cache = self.another()
        self.uploads: list[tuple[str, Sequence[str], range]] = []

    def another(self) -> SeriesCache:
        """The cache as another process sees it."""
        return SeriesCache(self.store, MarketHistory(self.store, self.history.key), key=self.key, sizes=self.sizes)

    def append(self, symbols: Sequence[str], days: range) -> int:
        upload = f"{len(self.uploads) + 1}.0"
        self.uploads.append((upload, symbols, days))
        return self.history.append(rows(upload, symbols, days), append_id=upload, known_at=KNOWN)

    def retract(self, number: int) -> None:
        upload, symbols, days = self.uploads[number]
        void = rows(upload, symbols, days, void=True)
        self.history.append(void, append_id=f"void {upload}", known_at=KNOWN, retracts=upload)

    def clean_again(self, number: int) -> None:
        upload, symbols, days = self.uploads[number]
        again = rows(upload, symbols, days, cleaning=2)
        self.history.append(again, append_id=f"again {upload}", known_at=KNOWN)

    def compact(self) -> None:
        DeltaTable(self.history.uri, storage_options=self.store.delta_options()).optimize.compact()

    def objects(self) -> list[str]:
        return [found.key for found in self.store.list(f"{self.key}/")]

    def remove(self, keys: Sequence[str]) -> None:
        for key in keys:
            self.store.client.delete_object(Bucket=self.store.bucket, Key=self.store.physical(key))

    def check(self, cache: SeriesCache, version: int, symbols: Sequence[str] | None) -> None:
        """Book and rows at a version are what the history itself gives."""
        current = self.history.current_rows(ROWS_KEPT.names, symbols=symbols, version=version)
        assert same(cache.book(symbols, version), fold(None, current.cast(ROWS_KEPT)))
        limits = {"since": DAY + timedelta(days=7), "before": DAY + timedelta(days=41)}
        for chosen in ({}, limits):
            found = cache.rows(symbols=symbols, version=version, **chosen).read_all()
            asked = self.history.scan(symbols=symbols, version=version, **chosen).read_all()
            assert in_order(found).equals(in_order(asked))


some_symbols = st.lists(st.sampled_from(SYMBOLS), min_size=1, max_size=4, unique=True)
days = st.builds(lambda begin, count: range(begin, begin + count), st.integers(0, 60), st.integers(1, 45))
number = st.integers(0, 7)
acts = st.one_of(
    st.tuples(st.just("append"), some_symbols, days),
    st.tuples(st.just("append"), st.just(SYMBOLS), days),
    st.tuples(st.sampled_from(["retract", "clean again", "damage", "lose", "check"]), number, number),
    st.tuples(st.sampled_from(["refresh", "refresh a little", "forget", "delete", "compact"]), number, number),
    st.tuples(st.just("refresh"), number, number),
)


@settings(max_examples=12)
@given(st.lists(acts, min_size=4, max_size=14), some_symbols)
def test_series_come_out_of_the_cache_as_the_history_has_them_whatever_became_of_either(
    store: ObjectStore, happened: list[tuple[str, Sequence[str] | int, range | int]], asked: list[str]
) -> None:
    market = Market(store)
    market.append(SYMBOLS, range(50))
    for act, what, more in happened:
        version = market.history.version() or 0
        if act == "append":
            market.append(what, more)  # type: ignore[arg-type]
        elif act == "retract":
            market.retract(what % len(market.uploads))  # type: ignore[operator]
        elif act == "clean again":
            market.clean_again(what % len(market.uploads))  # type: ignore[operator]
        elif act == "compact":
            market.compact()
        elif act == "refresh":
            assert market.cache.refresh(version).book == version
            assert not market.cache.due(version)
        elif act == "refresh a little":
            market.another().refresh(version, most_rows=100)
        elif act == "forget":
            market.cache = market.another()
        elif act == "delete":
            market.remove(market.objects())
        elif act == "check":
            market.check(market.cache, what % (version + 1), asked)  # type: ignore[operator]
        elif kept := market.objects():
            key = kept[(what * 8 + more) % len(kept)]  # type: ignore[operator]
            if act == "lose":
                market.remove([key])
            else:
                market.store.replace(key, market.store.read(key)[:-1] + b"?")
    version = market.history.version() or 0
    for cache in (market.cache, market.another()):
        market.check(cache, version, None)
        market.check(cache, version // 2, asked)
    market.another().refresh(version)
    market.check(market.another(), version, asked)
