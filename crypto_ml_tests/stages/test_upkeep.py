"""Upkeep puts files together and records it, whoever died before; replay sees a byte that changed in what it wrote."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, date, datetime, timedelta
from typing import Any

import dagster as dg
import numpy as np
import pyarrow as pa
import pytest

from crypto_ml.audit.differences import Differs
from crypto_ml.audit.standing import appends_stand
from crypto_ml.commands import doctor
from crypto_ml.defs.resources import Platform
from crypto_ml.defs.schedules import upkeep_when_due
from crypto_ml.deployment import Deployment
from crypto_ml.ledger.layout import append_key, compaction_key
from crypto_ml.settings import Settings
from crypto_ml.stages import upkeep
from crypto_ml.stages.upkeep import is_due, keep_series, keep_tables
from crypto_ml.storage import history
from crypto_ml.storage.failures import AlreadyExists
from crypto_ml.storage.history import SCHEMA, MarketHistory
from crypto_ml.storage.objects import ObjectStore, connect
from crypto_ml.storage.tables import commits, compaction
from crypto_ml.storage.tables.commits import Commit
from crypto_ml.storage.tables.compaction import compact
from crypto_ml_tests.in_process_dagster import InProcessDagster

KNOWN = datetime(2018, 3, 27, tzinfo=UTC)


@pytest.fixture(autouse=True)
def few_suffice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three files are put together, and a page tells of two versions."""
    monkeypatch.setattr(compaction, "TINY_TOGETHER", 3)
    monkeypatch.setattr(commits, "PAGE", 2)


def append(of: MarketHistory, number: int) -> int:
    """A delivery of one row, and the record of it."""
    row = {
        "symbol": "BTC",
        "date": date(2018, 3, 26) + timedelta(days=number),
        **dict.fromkeys(("open", "high", "low", "close"), 1.0 + number),
        "slug": "bitcoin",
        "known_at": KNOWN + timedelta(hours=number),
        "upload_id": f"{number}.0",
        "line": 1,
        "cleaning": 1,
    }
    rows = pa.Table.from_pylist([row], schema=SCHEMA)
    version = of.append(rows, append_id=f"id{number}", known_at=KNOWN + timedelta(hours=number))
    with suppress(AlreadyExists):
        of.store.create_json(append_key(f"id{number}"), asdict(of.commit_evidence(version)))
    return version


def flip(key: str, store: ObjectStore) -> bytes:
    """Change one bit in the middle of an object; returns what it was."""
    content = store.read(key)
    at = len(content) // 2
    store.replace(key, content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
    return content


def kept_by(of: MarketHistory) -> Mapping[str, str]:
    """Each object that a compaction of the history added, and the file's key beside the commit's."""
    found = of.store.read_json(compaction_key("market_history", of.version() or 0))
    objects: Mapping[str, str] = found["objects"]
    return objects


def test_what_was_put_together_is_recorded_vouched_for_and_read_back_through_pages(store: ObjectStore) -> None:
    of = MarketHistory(store)
    assert not is_due(Deployment(Settings(), store=store))
    assert [one.after.files for one in keep_tables(store)] == [0, 0]
    for number in range(1, 4):
        append(of, number)
    assert is_due(Deployment(Settings(), store=store))
    done, log = keep_tables(store)
    assert (done.before.files, done.after.files, done.before.version, done.after.version) == (3, 1, 3, 4)
    assert (len(done.compactions), done.healed, done.pages) == (1, 0, 2)
    assert log.compactions == ()
    assert not is_due(Deployment(Settings(), store=store))
    assert [(one.compactions, one.pages) for one in keep_tables(store)] == [((), 0), ((), 0)]
    assert appends_stand(4, store) == {1, 2, 3, 4}
    later = MarketHistory(connect(store.bucket, store.prefix))
    for damaged in (False, True):
        if damaged:
            for found in list(store.list("cache/versions/")):
                flip(found.key, store)
        assert [later.version_known_by(KNOWN + timedelta(hours=hour)) for hour in (0, 1, 2, 9)] == [None, 1, 2, 3]
        assert later.appended("id2") == 2
        assert append(later, 3) == 3


def test_a_changed_byte_in_what_was_put_together_is_seen_and_so_is_a_record_that_is_gone(store: ObjectStore) -> None:
    of = MarketHistory(store)
    for number in range(1, 4):
        append(of, number)
    keep_tables(store)
    for key in kept_by(of):
        content = flip(key, store)
        with pytest.raises(Differs, match="is not what it was"):
            appends_stand(4, store)
        appends_stand(3, store)  # what was read before rests on none of it
        store.replace(key, content)
    appended = store.read_json(append_key("id2"))
    other = {key: "0" * 64 if key.endswith("parquet") else sha256 for key, sha256 in appended["objects"].items()}
    store.client.delete_object(Bucket=store.bucket, Key=store.physical(append_key("id2")))
    store.create_json(append_key("id2"), appended | {"objects": other})
    with pytest.raises(Differs, match="put together another"):
        appends_stand(4, store)
    store.client.delete_object(Bucket=store.bucket, Key=store.physical(compaction_key("market_history", 4)))
    store.client.delete_object(Bucket=store.bucket, Key=store.physical(append_key("id2")))
    with pytest.raises(Differs, match=r"nothing vouches for .*compacted-"):
        appends_stand(4, store)


def test_a_compaction_whose_run_died_before_its_record_is_recorded_by_the_next_one(store: ObjectStore) -> None:
    of = MarketHistory(store)
    for number in range(1, 4):
        append(of, number)

    def nothing(_: Commit) -> Mapping[str, str]:
        return {}

    assert [one.version for one in compact(of.table, history.ARRANGED, nothing)] == [4]
    assert store.head(compaction_key("market_history", 4)) is None
    assert [one.healed for one in keep_tables(store)] == [1, 0]
    assert appends_stand(4, store) == {1, 2, 3, 4}
    assert [one.healed for one in keep_tables(store)] == [0, 0]


def test_upkeep_brings_the_cache_of_series_forward_however_much_has_come(store: ObjectStore) -> None:
    deployment = Deployment(Settings(), store=store)
    assert keep_series(deployment) is None
    days, symbols = 1_000, 100
    rows = pa.table(
        {
            "symbol": np.repeat([f"S{number:03}" for number in range(symbols)], days),
            "date": np.tile(np.datetime64("2018-01-01") + np.arange(days), symbols),
            **{name: np.ones(days * symbols) for name in ("open", "high", "low", "close", "market", "volume")},
            "slug": pa.nulls(days * symbols, pa.string()),
            "known_at": pa.repeat(pa.scalar(KNOWN), days * symbols),
            "upload_id": pa.repeat("1.0", days * symbols),
            "line": np.arange(days * symbols),
            "cleaning": pa.repeat(pa.scalar(1, pa.int32()), days * symbols),
            "void": pa.nulls(days * symbols, pa.bool_()),
        }
    )
    version = deployment.history.append(rows, append_id="id1", known_at=KNOWN)
    assert is_due(deployment)
    refreshed = keep_series(deployment)
    assert refreshed is not None
    assert (refreshed.version, refreshed.book, refreshed.rows) == (version, version, days * symbols)
    assert not is_due(deployment)


def test_the_asset_tells_what_it_did_the_schedule_asks_when_it_is_due_and_doctor_when_it_is_overdue(
    dagster: InProcessDagster, monkeypatch: pytest.MonkeyPatch
) -> None:
    def tick() -> dg.RunRequest | dg.SkipReason:
        asked: Any = upkeep_when_due(platform=Platform.of(dagster.settings))
        found: dg.RunRequest | dg.SkipReason = asked
        return found

    def told() -> doctor.Finding:
        return doctor._tables(Deployment.reading(Settings(bucket=dagster.store.bucket, prefix=dagster.store.prefix)))

    monkeypatch.setattr(upkeep, "OVERDUE", 3)
    assert isinstance(tick(), dg.SkipReason)
    for number in range(1, 4):
        append(dagster.deployment.history, number)
    assert (told().state, "market_history has 3 small files" in told().detail) == ("warn", True)
    assert isinstance(tick(), dg.RunRequest)
    result = dagster.run("upkeep")
    (materialized,) = result.asset_materializations_for_node("table_upkeep")
    assert materialized.metadata["market_history_files"].value == 1
    row = materialized.metadata["tables"].records[0].data  # type: ignore[attr-defined]
    assert (row["files_before"], row["files_after"], row["version_before"], row["version_after"]) == (3, 1, 3, 4)
    assert told().state == "ok"
    assert isinstance(tick(), dg.SkipReason)
