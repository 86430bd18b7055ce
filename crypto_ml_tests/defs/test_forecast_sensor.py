"""The sensor asks for a forecast when rows for the newest day have come, once for them, and at most once a minute."""

from datetime import UTC, date, datetime, timedelta
from typing import Any

import dagster as dg
import pytest
from dagster._core.test_utils import create_run_for_test
from hypothesis import given
from hypothesis import strategies as st

from crypto_ml.defs import forecast_sensor as sensing
from crypto_ml.defs.forecast_sensor import STATE_TAG, Progress, Runs, decide, forecast_sensor, look
from crypto_ml.defs.resources import Platform
from crypto_ml.ledger.forecasts import standing
from crypto_ml.ledger.layout import LATEST_FORECAST
from crypto_ml.sample import sample_upload
from crypto_ml.storage.tables.commits import Commit
from crypto_ml_tests.in_process_dagster import InProcessDagster
from crypto_ml_tests.storage.asked import operations_of

LINES = sample_upload().decode().splitlines()
DAYS = sorted({line.split(",")[3] for line in LINES[1:]})
NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is waited for."""
    monkeypatch.setattr(sensing, "BETWEEN_RUNS", timedelta(0))


def drop(dagster: InProcessDagster, name: str, days: list[str]) -> None:
    """The sample's rows of some days, dropped and answered."""
    rows = [line for line in LINES[1:] if line.split(",")[3] in days]
    dagster.store.replace(f"uploads/{name}.csv", "\n".join([LINES[0], *rows]).encode())
    dagster.answer_new()


def tick(dagster: InProcessDagster, cursor: str | None = None, instance: dg.DagsterInstance | None = None) -> Any:
    """One tick of the sensor."""
    resources = {"platform": Platform.of(dagster.settings)}
    context = dg.build_sensor_context(instance or dagster.instance, cursor=cursor, resources=resources)
    return forecast_sensor(context)


def asked(result: Any) -> list[str]:
    """The keys of the runs that a tick asks for."""
    return [str(request.run_key) for request in result.run_requests or []]


def told(result: Any) -> str:
    """Why a tick asks for nothing."""
    reason = result if isinstance(result, dg.SkipReason) else result.skip_reason
    return str(reason.skip_message)


def test_rows_for_the_newest_day_or_a_newer_one_ask_for_a_forecast_and_older_ones_do_not(
    dagster: InProcessDagster,
) -> None:
    assert told(tick(dagster)) == "no rows yet"
    drop(dagster, "history", DAYS[:-2])
    first = tick(dagster)
    assert asked(first) == ["1.1"]
    dagster.run("daily_forecast")
    after = tick(dagster, first.cursor)
    assert asked(after) == []
    assert "no rows for the newest day since forecast" in told(after)
    drop(dagster, "older", DAYS[5:8])
    assert asked(tick(dagster, after.cursor)) == []
    drop(dagster, "newest", DAYS[-3:-2])
    assert asked(tick(dagster, after.cursor)) == ["3.1"]
    dagster.run("daily_forecast")
    drop(dagster, "newer", DAYS[-2:-1])
    assert asked(tick(dagster)) == ["4.1"]
    assert tick(dagster).run_requests[0].tags == {STATE_TAG: "4"}


def test_nothing_is_asked_for_while_a_forecast_is_made(dagster: InProcessDagster) -> None:
    drop(dagster, "history", DAYS)
    for status in (dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING):
        run = create_run_for_test(dagster.instance, "daily_forecast", status=status)
        assert asked(tick(dagster)) == []
        assert told(tick(dagster)) == "a forecast is being made"
        dagster.instance.delete_run(run.run_id)
    assert asked(tick(dagster)) == ["1.1"]


def test_a_run_that_failed_is_followed_by_another_for_the_same_rows(dagster: InProcessDagster) -> None:
    drop(dagster, "history", DAYS)
    create_run_for_test(dagster.instance, "daily_forecast", status=dg.DagsterRunStatus.FAILURE, tags={STATE_TAG: "1"})
    assert asked(tick(dagster)) == ["1.2"]


def test_a_lost_cursor_or_database_changes_nothing(dagster: InProcessDagster) -> None:
    drop(dagster, "history", DAYS[:-1])
    dagster.run("daily_forecast")
    with dg.DagsterInstance.ephemeral() as fresh:
        for cursor in (
            None,
            "no cursor of ours",
            '{"forecast": "another", "read_to": 99, "due": 98}',
            '{"read_to": 1}',
        ):
            assert asked(tick(dagster, cursor, fresh)) == []
        drop(dagster, "newest", DAYS[-1:])
        assert asked(tick(dagster, None, fresh)) == ["2.1"]


def test_a_forecast_of_the_first_release_is_forecast_anew(dagster: InProcessDagster) -> None:
    drop(dagster, "history", DAYS)
    dagster.store.replace(LATEST_FORECAST, b"symbol,as_of,target_date,pred_open,model_version\n")
    assert asked(tick(dagster)) == ["1.1"]
    dagster.run("daily_forecast")
    assert asked(tick(dagster)) == []


def test_a_store_out_of_reach_is_a_reason_to_skip_never_no_news(
    dagster: InProcessDagster, monkeypatch: pytest.MonkeyPatch
) -> None:
    from crypto_ml.storage.failures import StoreUnavailable

    def away(*_: object) -> None:
        raise StoreUnavailable("the store is away")

    monkeypatch.setattr(sensing, "commits_after", away)
    assert told(tick(dagster)) == "could not look at the market history: the store is away"


def test_a_look_costs_what_is_new(dagster: InProcessDagster) -> None:
    for number in range(4):
        drop(dagster, f"part{number}", DAYS[number * 10 : number * 10 + 10])
    dagster.run("daily_forecast")
    with operations_of(dagster.store) as made:
        look(dagster.store, None)
    assert sorted(made) == ["HeadObject", "ListObjectsV2"]
    drop(dagster, "older", DAYS[:1])
    with operations_of(dagster.store) as made:
        progress = look(dagster.store, None)
    assert sorted(made) == ["GetObject", "HeadObject", "ListObjectsV2"]
    with operations_of(dagster.store) as made:
        assert look(dagster.store, progress.cursor) == progress
    assert sorted(made) == ["HeadObject", "ListObjectsV2"]


def test_the_same_rows_are_forecast_once_whoever_asks(dagster: InProcessDagster) -> None:
    drop(dagster, "history", DAYS)
    dagster.run("daily_forecast")
    before = {found.key: found.etag for found in dagster.store.list()}
    result = dagster.run("daily_forecast")
    (shown,) = result.asset_materializations_for_node("publish_daily_forecast")
    assert "nothing was published anew" in str(shown.metadata["outcome"].value)
    assert {found.key: found.etag for found in dagster.store.list()} == before


def test_the_version_that_is_due_is_the_last_with_rows_for_the_newest_day() -> None:
    commits = [Commit(5, date(2018, 1, 3)), Commit(6, date(2018, 1, 4)), Commit(7, date(2018, 1, 1)), Commit(8, None)]
    found = Progress("a forecast", 4, None).after(commits, date(2018, 1, 3))
    assert found == Progress("a forecast", 8, 6)
    assert found.after([], date(2018, 1, 3)) == found
    assert Progress("a forecast", 4, None).after(commits[2:], date(2018, 1, 3)).due is None
    taken_back = Commit(9, date(2018, 1, 1), retracts="00000001.0")
    assert found.after([taken_back], date(2018, 1, 3)).due == 9


@given(st.lists(st.tuples(st.integers(0, 45), st.booleans(), st.integers(0, 120)), max_size=60))
def test_runs_are_a_minute_apart_and_never_two_at_once(ticks: list[tuple[int, bool, int]]) -> None:
    """Ticks some seconds apart, with or without new rows; a run takes some seconds, and may lead to nothing."""
    minute = timedelta(minutes=1)
    now, due, last, ends = NOW, 1, None, NOW
    of_due: dict[int, int] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sensing, "BETWEEN_RUNS", minute)
        for seconds, rows_came, takes in ticks:
            now += timedelta(seconds=seconds)
            due += rows_came
            wanted = decide(Progress(None, due, due), Runs(now < ends, last, of_due.get(due, 0)), now)
            if isinstance(wanted, dg.RunRequest):
                assert now >= ends
                assert last is None or now - last >= minute * 2 ** of_due.get(due, 0)
                of_due[due] = of_due.get(due, 0) + 1
                assert wanted.run_key == f"{due}.{of_due[due]}"
                last, ends = now, now + timedelta(seconds=takes)
            elif now >= ends:
                assert last is not None
                assert now - last < min(minute * 2 ** of_due.get(due, 0), timedelta(hours=1))


def test_what_does_not_succeed_is_asked_for_ever_more_seldom_but_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sensing, "BETWEEN_RUNS", timedelta(minutes=1))
    due = Progress(None, 1, 1)
    assert isinstance(decide(due, Runs(False, NOW, 500), NOW + timedelta(minutes=59)), str)
    assert isinstance(decide(due, Runs(False, NOW, 500), NOW + timedelta(hours=1)), dg.RunRequest)
    assert isinstance(decide(due, Runs(False, NOW + timedelta(days=1), 0), NOW), dg.RunRequest)


def test_the_order_that_stands_names_its_forecast(dagster: InProcessDagster) -> None:
    drop(dagster, "history", DAYS)
    assert standing(LATEST_FORECAST, dagster.store) is None
    result = dagster.run("daily_forecast")
    (shown,) = result.asset_materializations_for_node("publish_daily_forecast")
    order = standing(LATEST_FORECAST, dagster.store)
    assert order is not None
    assert order.forecast_id == shown.metadata["forecast_id"].value
