"""What was answered without Dagster is shown in it, each request once, whatever dies, is late or runs twice."""

import uuid
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crypto_ml.defs import requests_sensor as sensing
from crypto_ml.defs.requests_sensor import event, follow, requests_sensor
from crypto_ml.defs.resources import Platform
from crypto_ml.ledger.layout import SETTLED
from crypto_ml.ledger.requests import first_of, new_delivery, pack_key
from crypto_ml.ledger.settlements import LATE, SettledDelivery, Settlement, record_settlement
from crypto_ml.settings import Settings
from crypto_ml.storage.objects import ObjectStore
from crypto_ml_tests.storage.asked import operations_of

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
KEY = dg.AssetKey("served_predictions")


def settled(delivery: str, answers: int = 1, **other: Any) -> SettledDelivery:
    named = tuple(f"{delivery}-{number:016x}" for number in range(answers))
    return replace(SettledDelivery(delivery, named, 0, 3, 2, 1, "m1"), **other)


def settle(store: ObjectStore, moment: datetime, *deliveries: SettledDelivery) -> Settlement:
    """Write down what was settled, of a delivery of that moment where none is given."""
    made = Settlement.of(deliveries or [settled(new_delivery(moment))], moment)
    record_settlement(made, store)
    return made


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as made:
        yield made


def shown(instance: dg.DagsterInstance) -> list[dict[str, Any]]:
    """The metadata of the events there are, oldest first."""
    found = instance.fetch_materializations(KEY, limit=1_000).records
    events = [one.asset_materialization for one in reversed(found)]
    return [{name: value.value for name, value in one.metadata.items()} for one in events if one]


def told(instance: dg.DagsterInstance) -> list[str]:
    """The names of settlements that events tell of."""
    return [name for one in shown(instance) for name in one["settlements"]]


def tick(store: ObjectStore, instance: dg.DagsterInstance, cursor: str | None, now: datetime) -> str:
    """One tick, as the daemon has it: events first, then the cursor."""
    found = follow(store, cursor, instance, now)
    if found.names:
        instance.report_runless_asset_event(event(found, store))
    return found.up_to


def test_a_tick_tells_of_all_that_is_new_as_one_event_in_which_an_auditor_finds_what_to_ask_for(
    store: ObjectStore, instance: dg.DagsterInstance
) -> None:
    resources = {"platform": Platform.of(Settings(bucket=store.bucket, prefix=store.prefix))}

    def look(cursor: str | None) -> Any:
        return requests_sensor(dg.build_sensor_context(instance, cursor=cursor, resources=resources))

    nothing = look(None)
    assert (nothing.asset_events, nothing.run_requests) == ([], [])
    now = datetime.now(UTC)
    one, other = new_delivery(now - MINUTE), new_delivery(now)
    settle(store, now - MINUTE, settled(one, answers=2, rejected=1))
    settle(store, now, settled(other, model_version="m2"))
    store.replace(f"{SETTLED}{first_of(now)[:-1]}9.json", b"{}")
    result = look(nothing.cursor)
    assert result.run_requests == []
    (made,) = result.asset_events
    assert made.asset_key == KEY
    found = {name: value.value for name, value in made.metadata.items()}
    counts = ("requests", "deliveries", "received_rows", "predicted_rows", "refused_rows", "rejected_requests")
    assert [found[name] for name in counts] == [3, 2, 6, 4, 2, 1]
    assert found["model_versions"] == "m1, m2"
    assert [row.data["answer"] for row in found["answers"].records] == [
        f"{one}-{0:016x}",
        f"{one}-{1:016x}",
        f"{other}-{0:016x}",
    ]
    assert pack_key(one) in found["packs"].replace("\\", "")
    assert len(found["damaged"]) == 1
    assert found["first"] < found["last"]
    instance.report_runless_asset_event(made)
    assert look(result.cursor).asset_events == []
    with operations_of(store) as sent:
        assert follow(store, result.cursor, instance, datetime.now(UTC)).names == []
    assert sent == ["ListObjectsV2"]


def test_a_store_out_of_reach_is_a_reason_to_skip_never_no_news(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    resources = {"platform": Platform.of(Settings())}
    result: Any = requests_sensor(dg.build_sensor_context(instance, cursor="0" * 18, resources=resources))
    assert result.skip_message.startswith("could not look at what was settled: ")


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("settle"), st.integers(-14, 14)),  # by a clock that is so many minutes off
        st.tuples(st.just("again"), st.integers(0, 99)),  # somebody was not sure that it was written
        st.tuples(st.sampled_from(["tick", "dies", "lost", "garbage"]), st.integers(0, 20)),
    ),
    min_size=3,
    max_size=25,
)


@given(steps=STEPS)
@settings(max_examples=8)
def test_nothing_settled_is_lost_or_told_twice(store: ObjectStore, steps: list[tuple[str, int]]) -> None:
    """Ticks are minutes apart; some die between event and cursor, some begin with another cursor or none."""
    of_this = store.below(f"{store.prefix}{uuid.uuid4().hex}")
    made: list[SettledDelivery] = []
    with dg.DagsterInstance.ephemeral() as instance, pytest.MonkeyPatch.context() as patch:
        patch.setattr(sensing, "MOST_PER_TICK", 3)
        cursor, now = None, NOW
        for what, number in steps:
            now += timedelta(seconds=7)
            if what == "settle":
                made.append(settled(new_delivery(now + number * MINUTE)))
                settle(of_this, now + number * MINUTE, made[-1])
            elif what == "again" and made:
                settle(of_this, now, made[number % len(made)])
            else:
                now += number * MINUTE / 4
                after = tick(of_this, instance, cursor, now)
                cursor = {"tick": after, "lost": None, "garbage": "no cursor of ours"}.get(what, cursor)
        for _ in range(8):
            now += MINUTE
            cursor = tick(of_this, instance, cursor, now)
            tick(of_this, instance, cursor, now)
        names = told(instance)
        assert len(names) == len(set(names))
        assert sum(one["deliveries"] for one in shown(instance)) <= len(made) + sum(
            what == "again" for what, _ in steps
        )
        answers = [row.data["answer"] for one in shown(instance) for row in one["answers"].records]
        assert set(answers) == {answer for one in made for answer in one.answers}
        if not any(what == "again" for what, _ in steps):
            assert len(answers) == len(set(answers))


def test_what_two_sweeps_wrote_down_is_told_once(store: ObjectStore, instance: dg.DagsterInstance) -> None:
    swept = [settled(new_delivery(NOW - 20 * MINUTE)), settled(new_delivery(NOW - 21 * MINUTE))]
    first = settle(store, NOW, *swept)
    second = settle(store, NOW + MINUTE / 6, *swept[::-1])
    alike = Settlement(f"{second.name[:13]}{first.name[13:]}", [settled(new_delivery(NOW))])
    assert alike.name == second.name
    cursor = tick(store, instance, None, NOW)
    settle(store, NOW + MINUTE, *swept)
    tick(store, instance, cursor, NOW + 2 * MINUTE)
    assert len(told(instance)) == 3
    assert sum(one["deliveries"] for one in shown(instance)) == 2


def test_a_clock_far_ahead_holds_nobody_up_and_is_told_of_in_its_time(
    store: ObjectStore, instance: dg.DagsterInstance
) -> None:
    ahead = settle(store, NOW + timedelta(days=1))
    cursor = tick(store, instance, None, NOW)
    one = settle(store, NOW + MINUTE)
    cursor = tick(store, instance, cursor, NOW + 2 * MINUTE)
    assert told(instance) == [one.name]
    late = settle(store, NOW + 2 * MINUTE - LATE + MINUTE)
    cursor = tick(store, instance, cursor, NOW + 3 * MINUTE)
    tick(store, instance, cursor, NOW + timedelta(days=1))
    assert told(instance) == [one.name, late.name, ahead.name]
