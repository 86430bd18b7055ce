"""The market history: nothing lost, nothing doubled, and a version stays what it was."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from threading import Barrier
from typing import NamedTuple

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crypto_ml.digest import sha256_of
from crypto_ml.errors import Unavailable
from crypto_ml.forecasting.current import Order, rank, valid_rows
from crypto_ml.forecasting.schema import OBSERVATION
from crypto_ml.storage.embedded import EmbeddedS3, ensure_bucket
from crypto_ml.storage.failures import StoreRefused
from crypto_ml.storage.history import SCHEMA, MarketHistory
from crypto_ml.storage.objects import ObjectStore, connect
from crypto_ml.storage.tables.growing import GrowingTable, TableRefused

DAY = date(2018, 3, 26)
KNOWN = datetime(2018, 3, 27, tzinfo=UTC)


class Known(NamedTuple):
    """One appended row, as far as these tests look at it."""

    symbol: str = "BTC"
    day: int = 0
    open: float = 1.0
    hour: int = 0
    upload: str = "1.0"
    line: int = 0
    slug: str | None = None
    void: bool | None = None


def rows(*known: Known) -> pa.Table:
    """Rows of the table's schema."""
    return pa.Table.from_pylist(
        [
            {
                "symbol": k.symbol,
                "date": DAY + timedelta(days=k.day),
                **dict.fromkeys(("open", "high", "low", "close"), k.open),
                "slug": k.slug,
                "known_at": KNOWN + timedelta(hours=k.hour),
                "upload_id": k.upload,
                "line": k.line,
                "void": k.void,
            }
            for k in known
        ],
        schema=SCHEMA,
    )


def many(count: int, upload: str = "1.0") -> pa.Table:
    """`count` rows of one series on successive days."""
    return rows(*(Known(day=number, upload=upload, line=number) for number in range(count)))


@pytest.fixture
def history(store: ObjectStore) -> MarketHistory:
    """No table yet."""
    return MarketHistory(store)


def test_the_table_holds_an_observation_and_where_it_came_from() -> None:
    assert SCHEMA.names == [*OBSERVATION, "known_at", "upload_id", "line", "cleaning", "void"]


def test_an_absent_table_has_no_version_and_reads_as_no_rows(history: MarketHistory) -> None:
    assert history.version() is None
    assert history.count() == 0
    assert history.days() is None
    assert history.slugs() == {}
    assert history.scan().read_all().equals(SCHEMA.empty_table())
    assert history.scan(["open", "symbol"]).schema.names == ["open", "symbol"]
    assert history.current_rows().equals(SCHEMA.empty_table())


def test_what_was_appended_is_read_back_exactly(history: MarketHistory) -> None:
    written = rows(Known(slug="bitcoin"), Known("ünï/😀", 1, 1e308, line=1), Known(day=-20_000, open=5e-324, line=2))
    version = history.append(written, append_id="one", known_at=KNOWN)
    assert history.version() == version
    assert history.count() == 3
    assert history.scan().read_all().equals(written)


def test_columns_are_taken_by_name_and_cast(history: MarketHistory) -> None:
    written = many(3)
    shuffled = pa.table(
        {
            "ignored": [1, 2, 3],
            **{name: written[name] for name in reversed(SCHEMA.names)},
            "date": written["date"].cast(pa.timestamp("s")),
            "symbol": written["symbol"].cast(pa.large_string()),
        }
    )
    history.append(shuffled, append_id="one", known_at=KNOWN)
    assert history.scan().read_all().equals(written)


def test_an_append_with_an_id_that_was_used_adds_nothing_and_names_the_first_version(history: MarketHistory) -> None:
    first = history.append(many(5), append_id="one", known_at=KNOWN)
    later = history.append(many(7, "2.0"), append_id="two", known_at=KNOWN)
    assert later > first
    assert history.append(many(5), append_id="one", known_at=KNOWN) == first
    assert history.count() == 12
    assert history.version() == later
    assert not history.is_newest(first)
    assert history.is_newest(later)


def appended_together(history: MarketHistory, ids: list[str]) -> list[int]:
    start = Barrier(len(ids))

    def append(number: int) -> int:
        start.wait()
        return MarketHistory(history.store).append(many(10, f"{number}.0"), append_id=ids[number], known_at=KNOWN)

    with ThreadPoolExecutor(len(ids)) as pool:
        return list(pool.map(append, range(len(ids))))


@pytest.mark.parametrize("exists", [True, False], ids=["existing table", "absent table"])
def test_eight_appends_at_once_lose_nothing(history: MarketHistory, exists: bool) -> None:
    if exists:
        history.append(many(0), append_id="empty", known_at=KNOWN)
    versions = appended_together(history, [f"id{number}" for number in range(8)])
    assert len(set(versions)) == 8
    assert history.count() == 80
    assert set(history.scan(["upload_id"]).read_all()["upload_id"].to_pylist()) == {
        f"{number}.0" for number in range(8)
    }


@pytest.mark.parametrize("exists", [True, False], ids=["existing table", "absent table"])
def test_the_same_append_eight_times_at_once_lands_once(history: MarketHistory, exists: bool) -> None:
    if exists:
        history.append(many(0), append_id="empty", known_at=KNOWN)
    versions = appended_together(history, ["same"] * 8)
    assert len(set(versions)) == 1
    assert history.count() == 10


def test_an_append_of_no_rows_is_remembered_too(history: MarketHistory) -> None:
    no_batches = pa.RecordBatchReader.from_batches(SCHEMA, iter([]))
    version = history.append(no_batches, append_id="nothing", known_at=KNOWN)
    assert history.append(many(3), append_id="nothing", known_at=KNOWN) == version
    assert history.count() == 0


def test_an_append_that_breaks_off_leaves_nothing_and_says_why(history: MarketHistory) -> None:
    class UploadGoneError(Exception):
        pass

    def breaking() -> Iterator[pa.RecordBatch]:
        yield from many(10).to_batches()
        raise UploadGoneError

    with pytest.raises(UploadGoneError):
        history.append(pa.RecordBatchReader.from_batches(SCHEMA, breaking()), append_id="one", known_at=KNOWN)
    assert history.count() == 0
    history.append(many(10), append_id="one", known_at=KNOWN)
    assert history.count() == 10


def test_rows_that_do_not_fit_are_refused_and_not_appended(history: MarketHistory) -> None:
    with pytest.raises(TableRefused, match="known_at, line"):
        history.append(many(1).drop_columns(["line", "known_at"]), append_id="one", known_at=KNOWN)
    nameless = many(1).set_column(0, "symbol", pa.nulls(1, pa.string()))
    with pytest.raises(TableRefused, match="symbol"):
        history.append(nameless, append_id="one", known_at=KNOWN)
    assert history.count() == 0


def test_a_scan_at_a_version_does_not_see_later_rows(history: MarketHistory) -> None:
    first = history.append(many(5), append_id="one", known_at=KNOWN)
    history.append(many(7, "2.0"), append_id="two", known_at=KNOWN)
    assert history.count(first) == 5
    assert history.scan(version=first).read_all().equals(many(5))
    assert history.current_rows(version=first)["upload_id"].to_pylist() == ["1.0"] * 5
    assert history.days(first) == (DAY, DAY + timedelta(days=4))
    assert history.days() == (DAY, DAY + timedelta(days=6))


def test_a_version_is_readable_behind_many_checkpoints(history: MarketHistory) -> None:
    first = history.append(many(5), append_id="first", known_at=KNOWN)
    for number in range(55):
        history.append(rows(Known(line=number)), append_id=str(number), known_at=KNOWN)
    assert history.scan(version=first).read_all().equals(many(5))
    assert history.append(many(5), append_id="first", known_at=KNOWN) == first
    assert history.count() == 60


def test_a_version_that_is_not_there_is_refused(history: MarketHistory) -> None:
    with pytest.raises(TableRefused, match="no version 0"):
        history.scan(version=0)
    newest = history.append(many(1), append_id="one", known_at=KNOWN)
    with pytest.raises(TableRefused, match=f"newest is {newest}"):
        history.count(newest + 1)


def test_a_scan_returns_the_rows_and_columns_asked_for(history: MarketHistory) -> None:
    history.append(
        rows(*(Known(symbol, day) for symbol in ("A", "B", "C'; --") for day in range(3))),
        append_id="one",
        known_at=KNOWN,
    )
    found = history.scan(["date", "symbol"], symbols=["C'; --", "A", "Z"], before=DAY + timedelta(days=2)).read_all()
    assert found.schema.names == ["date", "symbol"]
    assert sorted(found["symbol"].to_pylist()) == ["A", "A", "C'; --", "C'; --"]
    assert max(found["date"].to_pylist()) == DAY + timedelta(days=1)
    since = history.current_rows(["symbol", "date"], symbols=["A"], since=DAY + timedelta(days=1))
    assert since["date"].to_pylist() == [DAY + timedelta(days=1), DAY + timedelta(days=2)]
    assert history.scan(symbols=[]).read_all().num_rows == 0
    with pytest.raises(TableRefused, match="no columns price"):
        history.scan(["price"])


def test_the_slug_delivered_first_is_the_series_own(history: MarketHistory) -> None:
    late, early, last = "9.0", "2.10", "10.0"
    history.append(rows(Known("BTM", slug="bytom", upload=late), Known("XRP", line=1)), append_id="one", known_at=KNOWN)
    first = (Known("BTM", slug="bitmark", upload=early), Known("BTM", upload="2.9"), Known("ETH", upload="2.0"))
    history.append(rows(*first), append_id="two", known_at=KNOWN)
    history.append(rows(Known("ETH", slug="ethereum", upload=last)), append_id="three", known_at=KNOWN)
    assert history.slugs() == {"BTM": "bitmark", "ETH": "ethereum"}
    void = (Known("BTM", slug="bitmark", upload=early, void=True), Known("ETH", upload=last, void=True))
    history.append(rows(*void), append_id="void", known_at=KNOWN)
    assert history.slugs() == {"BTM": "bytom"}


def test_the_last_day_of_a_series_is_that_of_a_row_that_counts_where_there_is_one(history: MarketHistory) -> None:
    given = (Known("A"), Known("A", 1, upload="2.0"), Known("B", 3, upload="2.0"), Known("C", 2))
    void = [k._replace(void=True) for k in given if k.upload == "2.0"]
    history.append(rows(*given), append_id="one", known_at=KNOWN)
    history.append(rows(*void), append_id="void", known_at=KNOWN)
    assert history.last_days(1)["retracted"].to_pylist() == [False] * 3
    assert history.last_days().to_pylist() == [
        {"symbol": "A", "date": DAY, "retracted": False},
        {"symbol": "B", "date": DAY + timedelta(days=3), "retracted": True},
        {"symbol": "C", "date": DAY + timedelta(days=2), "retracted": False},
    ]


def test_history_is_read_as_it_was_known_at_a_time(history: MarketHistory) -> None:
    history.append(rows(Known(open=1.0, hour=1), Known(day=1, open=7.0, hour=5)), append_id="one", known_at=KNOWN)
    history.append(rows(Known(open=2.0, hour=3, upload="2.0")), append_id="two", known_at=KNOWN)
    assert history.current_rows(["open"])["open"].to_pylist() == [2.0, 7.0]
    assert history.current_rows(["open"], known_by=KNOWN + timedelta(hours=2))["open"].to_pylist() == [1.0]


known_rows = st.builds(
    Known,
    symbol=st.sampled_from(["A", "B", "A:b"]),
    day=st.integers(0, 2),
    open=st.floats(0.01, 1e6),
    hour=st.integers(0, 3),
    upload=st.sampled_from(["1.0", "2.0", "10.0", "2.9", "2.11"]),
    void=st.none(),
)


@settings(max_examples=10)
@given(
    appends=st.lists(st.lists(known_rows, max_size=12), max_size=4),
    hour=st.integers(-1, 3),
    order=st.sampled_from(["delivered", "known"]),
    retracted=st.dictionaries(st.sampled_from(["1.0", "2.9", "10.0"]), st.integers(0, 3)),
)
def test_current_rows_are_the_last_of_each_series_and_day_in_the_order_and_of_no_upload_that_was_retracted(
    store: ObjectStore, appends: list[list[Known]], hour: int, order: Order, retracted: dict[str, int]
) -> None:
    history = MarketHistory(store, key=f"history-{next(TABLES)}")
    numbered = [[k._replace(line=100 * a + n) for n, k in enumerate(append)] for a, append in enumerate(appends)]
    for number, append in enumerate(numbered):
        history.append(rows(*append), append_id=str(number), known_at=KNOWN)
    given = [k for append in numbered for k in append]
    void = [k._replace(void=True, hour=retracted[k.upload]) for k in given if k.upload in retracted]
    history.append(rows(*void), append_id="void", known_at=KNOWN)

    def in_order(k: Known) -> tuple[object, ...]:
        if order == "known":
            return k.hour, k.upload, k.line
        return [int(part) for part in k.upload.split(".")], k.line

    def last(everything: list[Known]) -> pa.Table:
        model = {(k.symbol, k.day): k for k in sorted(everything, key=in_order)}
        return rows(*(model[key] for key in sorted(model)))

    everything = [k for k in given if k.upload not in retracted]
    assert history.current_rows(order=order).equals(last(everything))
    known = valid_rows(rows(*void, *given).to_pylist())
    ranked = {(row["symbol"], row["date"]): row for row in sorted(known, key=lambda row: rank(row, order))}
    assert [ranked[key] for key in sorted(ranked)] == last(everything).to_pylist()
    assert history.current_rows(known_by=KNOWN + timedelta(hours=hour), order=order).equals(
        last([k for k in given if k.hour <= hour and retracted.get(k.upload, hour + 1) > hour])
    )
    assert history.current_rows(symbols=["A"], before=DAY + timedelta(days=1), order=order).equals(
        last([k for k in everything if k.symbol == "A" and k.day < 1])
    )


def test_of_two_cleanings_of_a_line_the_later_counts(history: MarketHistory) -> None:
    column = SCHEMA.get_field_index("cleaning")
    for number, price in ((2, 7.0), (1, 5.0)):
        again = rows(Known(open=price)).set_column(column, "cleaning", pa.array([number], pa.int32()))
        history.append(again, append_id=str(number), known_at=KNOWN)
    assert history.current_rows(["open"])["open"].to_pylist() == [7.0]


def test_a_table_of_an_earlier_release_is_widened_and_one_of_a_later_release_is_appended_to(store: ObjectStore) -> None:
    old = pa.schema([field for field in SCHEMA if field.name != "cleaning"])
    later = SCHEMA.append(pa.field("retracted", pa.bool_()))
    key = "market_history"
    row = rows(Known())
    GrowingTable(store, key, old).append(row, append_id="old", known_at=KNOWN.isoformat())
    history = MarketHistory(store)
    assert history.scan().read_all().equals(row)
    history.append(rows(Known(day=1)), append_id="today", known_at=KNOWN)
    widened = rows(Known(day=2)).append_column("retracted", pa.array([True]))
    GrowingTable(store, key, later).append(widened, append_id="later", known_at=KNOWN.isoformat())
    last = history.append(rows(Known(day=3)), append_id="today again", known_at=KNOWN)
    GrowingTable(store, key, old).append(rows(Known(day=4)), append_id="old again", known_at=KNOWN.isoformat())
    assert history.current_rows(["open"]).num_rows == 5
    assert history.current_rows(["open"], version=last).num_rows == 4
    versions = [version for version in range(1, 8) if history.commit_evidence(version).objects]
    vouched = {key for version in versions for key in history.commit_evidence(version).objects}
    assert {found.key for found in store.list(f"{key}/_delta_log/0") if found.key.endswith(".json")} <= vouched


TABLES = iter(range(1_000_000))


def test_a_missing_bucket_is_refused_and_not_an_absent_table(s3_environment: dict[str, str]) -> None:
    nowhere = MarketHistory(connect("crypto-ml-no-such-bucket"))
    with pytest.raises(StoreRefused, match="no bucket"):
        nowhere.version()
    with pytest.raises(StoreRefused, match="no bucket"):
        nowhere.append(many(1), append_id="one", known_at=KNOWN)


def test_a_killed_server_is_unavailable_and_not_an_absent_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with EmbeddedS3(tmp_path) as server:
        for name, value in (server.environment | {"AWS_MAX_ATTEMPTS": "1"}).items():
            monkeypatch.setenv(name, value)
        store = connect("crypto-ml")
        ensure_bucket(store.client, store.bucket)
        history = MarketHistory(store)
        history.append(many(10), append_id="one", known_at=KNOWN)
        begun = history.scan()
        server.kill()
        with pytest.raises(Unavailable):
            history.version()
        with pytest.raises(Unavailable):
            begun.read_all()


def test_the_version_known_by_a_time_is_the_newest_with_rows_known_then(history: MarketHistory) -> None:
    assert history.version_known_by(KNOWN) is None
    hours = [3, 1, 5, 2, 9, 4]
    for number, hour in enumerate(hours):
        history.append(rows(Known(hour=hour)), append_id=str(number), known_at=KNOWN + timedelta(hours=hour))
    for hour in range(11):
        newest = max((number + 1 for number, other in enumerate(hours) if other <= hour), default=None)
        assert history.version_known_by(KNOWN + timedelta(hours=hour)) == newest


def test_what_an_append_wrote_is_named_with_its_hashes(history: MarketHistory) -> None:
    first = history.append(many(5), append_id="one", known_at=KNOWN)
    second = history.append(many(7, "2.0"), append_id="two", known_at=KNOWN)
    evidence = [history.commit_evidence(version) for version in (first, second)]
    named = {key for one in evidence for key in one.objects}
    hint = f"{history.key}/_delta_log/_last_checkpoint"
    assert named == {found.key for found in history.store.list(f"{history.key}/")} - {hint}
    for one in evidence:
        for key, sha256 in one.objects.items():
            assert sha256_of(history.store.read(key)) == sha256
