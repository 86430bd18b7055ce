"""What is known of each series, folded forward, is what all rows say: also after retractions and with lost caches."""

from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import uuid4

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from crypto_ml.forecasting.current import rank, valid_rows
from crypto_ml.storage.history import LAST_DAYS, SCHEMA, MarketHistory
from crypto_ml.storage.objects import ObjectStore, connect

DAY = date(2018, 3, 26)
KNOWN = datetime(2018, 3, 27, tzinfo=UTC)

ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "symbol": st.sampled_from(["A", "B", "C"]),
            "date": st.integers(0, 3).map(lambda days: DAY + timedelta(days)),
            "slug": st.none() | st.sampled_from(["one", "two"]),
            "upload_id": st.sampled_from(["9.0", "10.0", "10.1", "11.0"]),
            "line": st.integers(0, 2),
            "cleaning": st.none() | st.just(2),
            "void": st.none() | st.none() | st.none() | st.just(True),
        }
    ),
    max_size=4,
)


def told(rows: list[dict[str, Any]]) -> tuple[dict[str, str], list[dict[str, Any]]]:
    """The slugs and the last days that some rows make."""
    valid = valid_rows(rows)
    named = sorted((row for row in valid if row["slug"]), key=lambda row: rank(row, "delivered"), reverse=True)
    slugs = {row["symbol"]: row["slug"] for row in named}
    days = []
    for symbol in sorted({row["symbol"] for row in rows}):
        counted = [row["date"] for row in valid if row["symbol"] == symbol]
        every = [row["date"] for row in rows if row["symbol"] == symbol]
        days.append({"symbol": symbol, "date": max(counted or every), "retracted": not counted})
    return slugs, days


def table_of(rows: list[dict[str, Any]]) -> pa.Table:
    prices = dict.fromkeys(("open", "high", "low", "close"), 1.0)
    return pa.Table.from_pylist([row | prices | {"known_at": KNOWN} for row in rows], schema=SCHEMA)


def unique(rows: list[dict[str, Any]], before: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows that differ in what they are ordered by from each other and from those before: as deliveries are."""
    seen = {rank(row, "delivered") for row in before}
    found = []
    for row in rows:
        if rank(row, "delivered") not in seen or row["void"]:
            seen.add(rank(row, "delivered"))
            found.append(row)
    return found


@settings(max_examples=max(6, settings().max_examples // 4))
@given(st.lists(st.tuples(ROWS, st.sampled_from(["go on", "keep", "new process", "damaged"])), max_size=4))
def test_slugs_and_last_days_are_those_of_all_rows(
    store: ObjectStore, appends: list[tuple[list[dict[str, Any]], str]]
) -> None:
    history = MarketHistory(connect(store.bucket, f"{store.prefix}{uuid4().hex}"))
    rows: list[dict[str, Any]] = []
    at: dict[int, tuple[dict[str, str], list[dict[str, Any]]]] = {}
    kept = -1
    for number, (some, then) in enumerate(appends):
        fresh = unique(some, rows)
        version = history.append(table_of(fresh), append_id=str(number), known_at=KNOWN)
        rows += fresh
        at[version] = told(rows)
        if then == "keep":
            assert history.known.keep(behind=1) == (version > kept)
            kept = version
        elif then != "go on":
            history = MarketHistory(connect(store.bucket, history.store.prefix))
        if then == "damaged":
            kept = -1
            for found in history.store.list("cache/known_series/"):
                history.store.replace(found.key, history.store.read(found.key)[:-1])
        assert history.slugs() == at[version][0]
        assert history.last_days().to_pylist() == at[version][1]
    for version, (slugs, days) in at.items():
        assert history.slugs(["A", "C", "Z"], version) == {name: slug for name, slug in slugs.items() if name in "AC"}
        assert history.last_days(version).cast(LAST_DAYS).to_pylist() == days


def test_a_state_that_was_kept_is_gone_on_from_and_no_file_before_it_is_read(store: ObjectStore) -> None:
    history = MarketHistory(store)
    row = {"symbol": "A", "date": DAY, "slug": "one", "upload_id": "1.0", "line": 0, "cleaning": 1, "void": None}
    for number in range(3):
        added = row | {"symbol": f"S{number}", "upload_id": f"{number}.0"}
        history.append(table_of([added]), append_id=str(number), known_at=KNOWN)
    assert history.known.keep(behind=1)
    assert not history.known.keep(behind=1)
    for key in history.commit_evidence(1).objects:
        if not key.endswith(".json"):
            store.client.delete_object(Bucket=store.bucket, Key=store.physical(key))
    later = MarketHistory(connect(store.bucket, store.prefix))
    later.append(table_of([row | {"upload_id": "9.0", "slug": "two"}]), append_id="later", known_at=KNOWN)
    assert later.slugs() == {"A": "two", "S0": "one", "S1": "one", "S2": "one"}
    assert later.last_days().num_rows == 4
