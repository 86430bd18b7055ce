"""What is done next about a delivery: tabulated, and what must hold whatever its runs were."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crypto_ml.defs.next_step import (
    GRACE,
    LONGEST_PAUSE,
    LOST,
    MOST_RUNS,
    SETTLED,
    SHORTEST_PAUSE,
    Ask,
    Close,
    How,
    Run,
    Wait,
    next_step,
    pause,
)

NOW = datetime(2026, 1, 2, tzinfo=UTC)
NOTICED = NOW - timedelta(days=1)
LONG = timedelta(hours=1)
ENDED: Sequence[How] = ("succeeded", "cancelled", "refused", "failed", "unavailable")


def run(how: How, ended: timedelta = LONG, will_retry: bool | None = False, name: str = "r") -> Run:
    """A run that ended so long before NOW."""
    return Run(
        name, how, NOW - ended - timedelta(seconds=1), None if how == "going" else NOW - ended, "why", will_retry
    )


@pytest.mark.parametrize(
    ("runs", "step"),
    [
        ([], Ask()),
        ([run("going")], Wait()),
        ([run("failed"), run("going")], Wait()),
        ([run("going"), run("cancelled")], Wait()),
        ([run("failed")], Ask("r")),
        ([run("failed"), run("failed", name="s")], Ask("s")),
        ([run("failed")] * MOST_RUNS, Close(run("failed"), MOST_RUNS)),
        ([run("unavailable")] * 100, Ask("r")),
        ([run("unavailable")] * 100 + [run("failed")] * 2, Ask("r")),
        ([run("failed"), run("failed")] + [run("unavailable")] * 9 + [run("failed")], Close(run("failed"), 3)),
        ([run("refused")], Close(run("refused"), 1)),
        ([run("failed"), run("refused")], Close(run("refused"), 2)),
        ([run("cancelled")], Close(run("cancelled"), 1)),
        ([run("cancelled"), run("unavailable")], Ask("r")),
        ([run("succeeded")], Ask("r")),
        ([run("succeeded")] * MOST_RUNS, Close(run("succeeded"), MOST_RUNS)),
        ([run("failed", will_retry=True)], Ask("r")),
        ([run("failed", LOST / 2, will_retry=True)], Wait(NOW + LOST / 2)),
        ([run("failed", SETTLED / 2, will_retry=None)], Wait(NOW + SETTLED / 2)),
        ([run("cancelled", SETTLED / 2, will_retry=None)], Wait(NOW + SETTLED / 2)),
        ([run("unavailable", timedelta(0))], Wait(NOW + SHORTEST_PAUSE)),
        ([run("unavailable", timedelta(0))] * 3, Wait(NOW + 4 * SHORTEST_PAUSE)),
        ([run("unavailable", timedelta(0))] * 30, Wait(NOW + LONGEST_PAUSE)),
        ([run("unavailable")] * 3 + [run("failed", timedelta(0))], Wait(NOW + SHORTEST_PAUSE)),
    ],
)
def test_the_table(runs: Sequence[Run], step: Wait | Ask | Close) -> None:
    assert next_step(runs, NOTICED, NOW) == step


def test_whoever_has_just_asked_is_given_time_to_be_heard() -> None:
    assert next_step([], NOW, NOW) == Wait(NOW + GRACE)
    assert next_step([run("unavailable")], NOW, NOW) == Wait(NOW + GRACE)
    assert next_step([run("unavailable")], NOW - GRACE, NOW) == Ask("r")


runs = st.builds(
    run,
    st.sampled_from(ENDED),
    st.timedeltas(timedelta(0), timedelta(days=1)),
    st.sampled_from([True, False, None]),
)
some_runs = st.lists(runs, max_size=12)


@given(st.lists(runs.filter(lambda one: one.how == "unavailable"), max_size=50), st.timedeltas(timedelta(0), LONG))
def test_what_is_unavailable_is_never_given_up_however_often_and_long(found: list[Run], later: timedelta) -> None:
    assert not isinstance(next_step(found, NOTICED, NOW + later), Close)


@given(some_runs)
def test_a_delivery_that_one_works_on_is_neither_asked_for_nor_closed(found: list[Run]) -> None:
    assert next_step([*found, run("going")], NOTICED, NOW) == Wait()


@given(some_runs)
def test_what_is_waited_for_has_an_end_at_which_something_is_done(found: list[Run]) -> None:
    step, now = next_step(found, NOTICED, NOW), NOW
    for _ in range(4):
        if not isinstance(step, Wait):
            break
        assert step.until is not None
        assert step.until > now
        now = step.until
        step = next_step(found, NOTICED, now)
    assert not isinstance(step, Wait)
    assert next_step(found, NOTICED, now + LONG) == step


@given(some_runs)
def test_it_is_given_up_only_for_what_counts(found: list[Run]) -> None:
    step = next_step(found, NOTICED, NOW + LONG)
    if isinstance(step, Close):
        counted = sum(one.how in ("failed", "succeeded") for one in found)
        assert step.last.how in ("cancelled", "refused") or counted >= MOST_RUNS


@given(st.integers(1, 200))
def test_a_pause_never_shrinks_and_is_at_most_five_minutes(number: int) -> None:
    found = [run("unavailable")] * number
    assert SHORTEST_PAUSE <= pause(found) <= pause([*found, run("unavailable")]) <= LONGEST_PAUSE


@given(st.lists(st.sampled_from(ENDED), min_size=40, max_size=40))
def test_asking_comes_to_an_end_unless_something_stays_unavailable(ends: list[How]) -> None:
    """Each time a run is asked for it ends as drawn, as in a life of the delivery."""
    found: list[Run] = []
    now = NOW
    for how in ends:
        step = next_step(found, NOTICED, now)
        while isinstance(step, Wait) and step.until:
            now = step.until
            step = next_step(found, NOTICED, now)
        if isinstance(step, Close):
            break
        assert isinstance(step, Ask)
        found.append(Run(str(len(found)), how, now, now + timedelta(seconds=9), "why", False))
        now += timedelta(seconds=9)
    assert sum(one.how != "unavailable" for one in found) <= MOST_RUNS
