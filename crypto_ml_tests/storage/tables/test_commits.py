"""The log alone tells which days came with which version, and reading on costs what is new."""

import json
from datetime import UTC, date, datetime

import pyarrow as pa
import pytest
from deltalake import DeltaTable

from crypto_ml.storage.failures import StoreRefused
from crypto_ml.storage.history import SCHEMA, MarketHistory
from crypto_ml.storage.objects import ObjectStore
from crypto_ml.storage.tables.commits import Commit, commits_after
from crypto_ml_tests.forecasting.markets import market
from crypto_ml_tests.storage.asked import operations_of

KNOWN_AT = datetime(2018, 2, 1, tzinfo=UTC)


def append(history: MarketHistory, days: list[int], append_id: str) -> None:
    """Rows of some days of January 2018 into the history."""
    rows = market({"BTC": 31})
    rows = rows[rows["date"].dt.day.isin(days)].assign(slug=None, known_at=KNOWN_AT, upload_id="00000001.0")
    table = pa.Table.from_pandas(rows[[name for name in SCHEMA.names if name in rows]], preserve_index=False)
    for field in SCHEMA:
        if field.name not in table.column_names:
            table = table.append_column(field, pa.nulls(table.num_rows, field.type))
    history.append(table.select(SCHEMA.names).cast(SCHEMA), append_id=append_id, known_at=KNOWN_AT)


@pytest.fixture
def history(store: ObjectStore) -> MarketHistory:
    """Three appends: some days, a correction of older ones, a new day."""
    made = MarketHistory(store)
    for number, days in enumerate([[1, 2, 3], [1, 2], [2, 4]]):
        append(made, days, f"append{number}")
    return made


def test_each_version_tells_its_last_day(history: MarketHistory) -> None:
    expected = [Commit(0, None), *(Commit(n, date(2018, 1, day)) for n, day in ((1, 3), (2, 2), (3, 4)))]
    assert commits_after(-1, 10, history.store) == expected
    assert commits_after(1, 10, history.store) == expected[2:]
    assert commits_after(-1, 2, history.store) == expected[:2]
    assert commits_after(3, 10, history.store) == []


def test_no_table_has_no_versions(store: ObjectStore) -> None:
    assert commits_after(-1, 10, store) == []


def test_rewriting_the_files_brings_no_days(history: MarketHistory) -> None:
    DeltaTable(history.uri, storage_options=history.store.delta_options()).optimize.compact()
    assert history.version() == 4
    assert commits_after(3, 10, history.store) == [Commit(4, None)]


def test_a_checkpoint_is_no_version(history: MarketHistory) -> None:
    DeltaTable(history.uri, storage_options=history.store.delta_options()).create_checkpoint()
    assert [commit.version for commit in commits_after(-1, 10, history.store)] == [0, 1, 2, 3]


def test_a_version_that_does_not_tell_its_days_may_have_brought_any(history: MarketHistory) -> None:
    key = "market_history/_delta_log/00000000000000000003.json"
    actions = [json.loads(line) for line in history.store.read(key).splitlines()]
    for action in actions:
        action.get("add", {}).pop("stats", None)
    history.store.replace(key, "\n".join(map(json.dumps, actions)).encode())
    assert commits_after(2, 10, history.store) == [Commit(3, date.max)]
    history.store.replace(key, b"{")
    with pytest.raises(StoreRefused, match="is not a commit of Delta Lake"):
        commits_after(2, 10, history.store)


def test_reading_on_costs_one_listing_and_the_new_versions(history: MarketHistory) -> None:
    with operations_of(history.store) as asked:
        commits_after(3, 10, history.store)
    assert asked == ["ListObjectsV2"]
    append(history, [5], "one more")
    with operations_of(history.store) as asked:
        commits_after(3, 10, history.store)
    assert sorted(asked) == ["GetObject", "ListObjectsV2"]
