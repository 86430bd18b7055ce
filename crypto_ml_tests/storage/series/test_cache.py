"""The cache beside the market history: whatever became of it, series come out as the history has them, to the bit."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from threading import Event
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from deltalake import DeltaTable
from hypothesis import example, given, settings
from hypothesis import strategies as st

from crypto_ml.forecasting.running import ROWS_KEPT, fold
from crypto_ml.storage.failures import StoreRefused
from crypto_ml.storage.history import SCHEMA, MarketHistory
from crypto_ml.storage.objects import ObjectStore
from crypto_ml.storage.series.books import current_of
from crypto_ml.storage.series.cache import SeriesCache
from crypto_ml.storage.series.reading import DEFINITION, Sizes
from crypto_ml.storage.series.sorted_parts import of_series
from crypto_ml.storage.tables.growing import GrowingTable, TableRefused
from crypto_ml_tests.storage.asked import operations_of

DAY = date(2018, 1, 1)
KNOWN = datetime(2026, 1, 1, tzinfo=UTC)
SYMBOLS = ("A", "A:b", "B", "é😀", "Z")

TINY = Sizes(
    part_rows=20,
    part_series=2,
    chunk_rows=60,
    tail_rows=240,
    swept_rows=20,
    few_series=1,
    due_commits=2,
    due_rows=1_000,
    bytes_at_once=4_000,
    newest_books=1,
    every=4,
    grace_seconds=-60.0,
    orphan_seconds=-60.0,
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


class DyingStore(ObjectStore):
    """A store whose process dies after some writes."""

    writes = 0

    def replace(self, *given: Any, **named: Any) -> str:
        self.writes -= 1
        if self.writes < 0:
            raise KeyboardInterrupt
        return super().replace(*given, **named)


class ForgetfulStore(ObjectStore):
    """A store that damages what is written into it."""

    def replace(self, key: str, body: bytes, **named: Any) -> str:
        return super().replace(key, body[:-1] + b"?" if "/objects/" in key else body, **named)


class PausedStore(ObjectStore):
    """A store whose process stands still before some write, until it may go on."""

    writes = 0

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.stands, self.may_go_on = Event(), Event()

    def replace(self, *given: Any, **named: Any) -> str:
        self.writes -= 1
        if self.writes < 0:
            self.stands.set()
            self.may_go_on.wait()
        return super().replace(*given, **named)


class Paused:
    """A refresh of another process, which stands still before some write or has ended."""

    def __init__(self, market: "Market", writes: int) -> None:
        self.store = PausedStore(market.store.client, market.store.bucket, market.store.prefix)
        self.store.writes = writes
        self.refreshed = market.others.submit(market.another(self.store).refresh, market.version)
        self.refreshed.add_done_callback(lambda _: self.store.stands.set())
        self.store.stands.wait()


class Market:
    """A history, and a cache of it as a process knows it that lives all the time."""

    def __init__(self, store: ObjectStore, sizes: Sizes = TINY) -> None:
        number = next(TABLES)
        self.store = store
        self.key = f"cache-{number}"
        self.history = MarketHistory(store, key=f"history-{number}")
        self.sizes = sizes
        self.cache = self.another()
        self.uploads: list[tuple[str, Sequence[str], range]] = []
        self.others = ThreadPoolExecutor(20)
        self.paused: list[Paused] = []
        self._known: dict[int, tuple[pa.Table, pa.Table]] = {}

    @property
    def version(self) -> int:
        version = self.history.version()
        assert version is not None
        return version

    def another(self, store: ObjectStore | None = None) -> SeriesCache:
        """The cache as another process sees it."""
        return SeriesCache(store or self.store, self.history, key=self.key, sizes=self.sizes)

    def append(self, symbols: Sequence[str], days: range) -> int:
        upload = f"{len(self.uploads) + 1}.0"
        self.uploads.append((upload, symbols, days))
        return self.history.append(rows(upload, symbols, days), append_id=upload, known_at=KNOWN)

    def retract(self, number: int) -> None:
        upload, symbols, days = self.uploads[number % len(self.uploads)]
        void = rows(upload, symbols, days, void=True)
        self.history.append(void, append_id=f"void {upload}", known_at=KNOWN, retracts=upload)

    def clean_again(self, number: int) -> None:
        upload, symbols, days = self.uploads[number % len(self.uploads)]
        again = rows(upload, symbols, days, cleaning=2)
        self.history.append(again, append_id=f"again {upload}", known_at=KNOWN)

    def append_alike(self, number: int) -> None:
        """The same rows once more, as a process appends them that does not see that another has done so."""
        upload, symbols, days = self.uploads[number % len(self.uploads)]
        self.history.append(rows(upload, symbols, days), append_id=f"alike {self.version}", known_at=KNOWN)

    def append_again(self, number: int) -> int:
        _, symbols, days = self.uploads[number % len(self.uploads)]
        return self.append(symbols, days)

    def compact(self) -> None:
        DeltaTable(self.history.uri, storage_options=self.store.delta_options()).optimize.compact()

    def refresh(self) -> None:
        version = self.version
        assert self.cache.refresh(version).book == version
        assert not self.cache.due(version)

    def die(self, writes: int) -> None:
        """A refresh is killed after so many writes."""
        dying = DyingStore(self.store.client, self.store.bucket, self.store.prefix)
        dying.writes = writes
        with suppress(KeyboardInterrupt):
            self.another(dying).refresh(self.version)

    def pause(self, writes: int) -> None:
        """A refresh of another process stands still before one of its writes."""
        self.paused.append(Paused(self, writes))

    def go_on(self) -> None:
        """All that stand still go on, and end."""
        stood, self.paused = self.paused, []
        for one in stood:
            one.store.may_go_on.set()
        for one in stood:
            one.refreshed.result()

    def objects(self, kind: str = "") -> list[str]:
        return [found.key for found in self.store.list(f"{self.key}/{kind}")]

    def remove(self, keys: Sequence[str]) -> None:
        for key in keys:
            self.store.client.delete_object(Bucket=self.store.bucket, Key=self.store.physical(key))

    def damage(self, number: int) -> None:
        for key in self.objects()[number:][:1]:
            self.store.replace(key, self.store.read(key)[:-1] + b"?")

    def check(self, cache: SeriesCache, version: int, symbols: Sequence[str] | None) -> None:
        """Book and rows at a version are what the history itself gives."""
        if version not in self._known:
            current = self.history.current_rows(ROWS_KEPT.names, version=version).cast(ROWS_KEPT)
            self._known[version] = in_order(self.history.scan(version=version).read_all()), current
        given, current = (of_series(table, symbols) for table in self._known[version])
        book, folded = cache.book(symbols, version), fold(None, current)
        assert book.states.equals(folded.states)
        assert book.rows.equals(folded.rows)
        at_hand, changed = cache.at_hand(symbols or SYMBOLS, version)
        left = fold(None, of_series(current, sorted(set(symbols or SYMBOLS) - set(changed))))
        assert at_hand.states.equals(left.states)
        assert at_hand.rows.equals(left.rows)
        for symbol, first_day in changed.items():
            counting = of_series(current, [symbol])["date"]
            assert not len(counting) or first_day <= pc.min(counting).as_py()
            days_of_history = self.history.days(version)
            assert days_of_history
            assert first_day in {*of_series(given, [symbol])["date"].to_pylist(), days_of_history[0]}
        assert in_order(cache.rows(symbols=symbols, version=version).read_all()).equals(given)
        counting = cache.rows(symbols=symbols, version=version, outranked=False).read_all()
        assert current_of(counting).equals(current)
        assert set(counting["upload_id"].to_pylist()) <= set(given["upload_id"].to_pylist())
        since, before = DAY + timedelta(days=7), DAY + timedelta(days=41)
        some = cache.rows(["date", "open"], symbols=symbols, since=since, before=before, version=version).read_all()
        within = [day for day in given["date"].to_pylist() if since <= day < before]
        assert sorted(some["date"].to_pylist()) == sorted(within)


some_symbols = st.lists(st.sampled_from(SYMBOLS), min_size=1, max_size=4, unique=True)
days = st.builds(lambda begin, count: range(begin, begin + count), st.integers(0, 60), st.integers(1, 61))
number = st.integers(0, 40)
appends = st.tuples(st.just("append"), some_symbols | st.just(SYMBOLS), days)
others = st.tuples(
    st.sampled_from(
        [
            "append again",
            "append alike",
            "retract",
            "clean again",
            "compact",
            "lose",
            "damage",
            "delete all",
            "forget",
            "die",
            "pause",
            "check",
        ]
    ),
    number,
)
refreshes = st.sampled_from([("refresh",), ("refresh a little",), ("go on",)])


@settings(max_examples=max(3, settings().max_examples // 10))
@example([("append", ["A"], range(45, 60)), ("retract", 1), ("refresh",), ("clean again", 1)], ["A"], 0)
@example(
    [("refresh",), ("append again", 0), ("refresh",), ("retract", 1), ("check", 0), ("refresh",), ("clean again", 1)],
    ["A"],
    0,
)
@given(st.lists(appends | others | refreshes, min_size=6, max_size=14), some_symbols, number)
def test_series_come_out_of_the_cache_as_the_history_has_them_whatever_became_of_either(
    store: ObjectStore, happened: list[tuple[Any, ...]], asked: list[str], then: int
) -> None:
    market = Market(store)
    acts: dict[str, Callable[..., Any]] = {
        "append": market.append,
        "append again": market.append_again,
        "append alike": market.append_alike,
        "retract": market.retract,
        "clean again": market.clean_again,
        "compact": lambda _: market.compact(),
        "refresh": market.refresh,
        "refresh a little": lambda: market.another().refresh(market.version, most_rows=100),
        "die": market.die,
        "pause": market.pause,
        "go on": market.go_on,
        "delete all": lambda _: market.remove(market.objects()),
        "lose": lambda which: market.remove(market.objects()[which:][:1]),
        "damage": market.damage,
        "forget": lambda _: setattr(market, "cache", market.another()),
        "check": lambda which: market.check(market.cache, which % market.version + 1, asked),
    }
    market.append(SYMBOLS, range(50))
    try:
        for act, *what in happened:
            acts[act](*what)
        market.check(market.cache, market.version, None)
    finally:
        market.go_on()
    market.check(market.another(), then % market.version + 1, asked)
    market.refresh()
    market.check(market.another(), market.version, asked)


def test_a_damaged_part_of_segments_that_are_gone_on_from_is_made_anew_and_found_once(store: ObjectStore) -> None:
    market = Market(store)
    market.append(SYMBOLS, range(50))
    assert market.another().refresh(market.version, most_rows=100).book is None
    parts = [key for key in market.objects("objects/") if store.read(key)[:4] == b"PAR1"]
    for key in (parts[0], parts[-1]):
        store.replace(key, store.read(key)[:-1] + b"?")
    market.append(SYMBOLS, range(50, 52))
    market.refresh()
    market.check(market.another(), market.version, None)


def test_a_store_that_never_gives_back_what_was_written_ends_a_refresh(store: ObjectStore) -> None:
    market = Market(store)
    market.append(SYMBOLS, range(50))
    market.cache = market.another(ForgetfulStore(store.client, store.bucket, store.prefix))
    with pytest.raises(StoreRefused, match="cannot be kept: look at the store"):
        market.refresh()
    market.check(market.cache, market.version, None)


def requests_of(market: Market, symbols: Sequence[str]) -> int:
    """How many requests the book of some series takes a process that has read nothing yet."""
    version = market.version
    with operations_of(market.store) as asked:
        market.another().book(symbols, version)
    return len(asked)


def test_a_series_costs_as_many_requests_however_many_deliveries_there_were_and_old_books_are_thinned(
    store: ObjectStore,
) -> None:
    market = Market(store)
    counted: list[int] = []
    for number in range(18):
        market.append(SYMBOLS, range(number, number + 1))
        if market.cache.due(market.version):
            market.cache.refresh(market.version)
        if number in {5, 17}:
            market.refresh()
            counted.append(requests_of(market, ["B"]))
    assert counted == [4, 4]  # what was written last, the manifest, the commit it is of, the part with the series
    assert len(market.objects("segments/")) <= 2
    assert len(market.objects(f"books/{DEFINITION}/")) <= market.version // TINY.every + TINY.newest_books + 1


def test_days_that_are_delivered_again_and_again_are_read_once_until_something_is_retracted(store: ObjectStore) -> None:
    market = Market(store)
    for _ in range(9):
        market.append(SYMBOLS, range(30))
        market.refresh()
    once, every = len(SYMBOLS) * 30, len(SYMBOLS) * 30 * 9
    done = market.cache.refresh(market.version)
    assert (done.current, done.outranked) == (once, every - once)
    assert market.another().rows(symbols=["A"], version=market.version, outranked=False).read_all().num_rows == 30
    market.check(market.another(), market.version, None)
    market.check(market.another(), market.version - 5, ["A", "Z"])

    market.append(["B"], range(10))
    market.refresh()
    market.retract(9)
    market.check(market.another(), market.version, None)
    done = market.cache.refresh(market.version)
    market.check(market.another(), market.version, None)
    assert (
        done.current == once + 3 * 10
    )  # what is void, what makes it so, and the last rows of its days outranked before
    assert done.current + done.outranked == every + 2 * 10
    for _ in range(3):
        market.append(SYMBOLS, range(30))
        market.refresh()
    done = market.cache.refresh(market.version)
    assert (done.current, done.outranked) == (once + 2 * 10, every + 2 * once)
    market.check(market.another(), market.version, None)


def test_processes_that_refresh_and_read_at_the_same_time_do_not_disturb_each_other(store: ObjectStore) -> None:
    market = Market(store)
    versions = [market.append(SYMBOLS, range(day, day + 6)) for day in range(0, 48, 6)]
    for version in versions:
        market.history.current_rows(version=version)

    def refresh(_: int) -> None:
        cache = market.another()
        for version in versions:
            cache.refresh(version)

    def read(version: int) -> None:
        market.check(market.another(), version, ["A", "B"])

    with ThreadPoolExecutor(6) as pool:
        refreshing = [pool.submit(refresh, number) for number in range(2)]
        reading = [pool.submit(read, version) for version in versions]
        for one in [*refreshing, *reading]:
            one.result()
    market.check(market.another(), versions[-1], None)


def test_a_cache_of_another_history_is_not_believed(store: ObjectStore) -> None:
    market, other = Market(store), Market(store)
    other.key = market.key
    for each, first in ((market, 0), (other, 3)):
        for day in range(3):
            each.append(SYMBOLS, range(first + day, first + day + 20))
    market.another().refresh(market.version)
    for _ in range(2):
        other.check(other.another(), other.version, ["A", "Z"])
        other.another().refresh(other.version)
    market.check(market.another(), market.version, None)


def test_a_version_that_is_not_there_is_refused_and_so_is_a_column(store: ObjectStore) -> None:
    market = Market(store)
    version = market.append(SYMBOLS, range(3))
    for _ in range(2):
        with pytest.raises(TableRefused, match="version"):
            market.cache.book(["A"], version + 1)
        with pytest.raises(TableRefused, match="version"):
            market.cache.rows(symbols=["A"], version=version + 1).read_all()
        with pytest.raises(TableRefused, match="no columns price"):
            market.cache.rows(["price"], symbols=["A"], version=version)
        market.refresh()


def test_a_table_of_the_first_release_is_read_and_so_is_what_was_appended_since(store: ObjectStore) -> None:
    market = Market(store)
    old = pa.schema([field for field in SCHEMA if field.name not in {"cleaning", "void"}])
    GrowingTable(store, market.history.key, old).append(rows("1.0", SYMBOLS, range(56)), append_id="old", known_at="")
    market.uploads.append(("1.0", SYMBOLS, range(56)))
    market.refresh()
    market.retract(0)
    market.append(["A", "B"], range(5, 30))
    market.check(market.cache, market.version, None)
    market.check(market.another(), 1, None)
