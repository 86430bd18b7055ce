"""What to do next about a delivery without an outcome: wait, ask for a run, or close it. Pure; no Dagster, no clock.

Only failures of the delivery itself count towards giving up: a run that was refused ends it, MOST_RUNS that died or
failed in a way nobody expected do. What was unavailable is waited for, however long, with longer and longer pauses.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import takewhile
from typing import Final, Literal

MOST_RUNS: Final = 3
"""Runs of a delivery that may die or fail before it is given up."""

GRACE: Final = timedelta(seconds=60)
"""A delivery without a run is asked for again after this time: whoever noticed it may be about to ask."""

SETTLED: Final = timedelta(seconds=10)
"""How long Dagster may take to say whether it launches a failed run again, or to say how a run ended after all."""

LOST: Final = timedelta(minutes=10)
"""A run that Dagster said it would launch again, and has not for so long, it never will."""

SHORTEST_PAUSE: Final = timedelta(seconds=5)
LONGEST_PAUSE: Final = timedelta(minutes=5)

How = Literal["going", "succeeded", "cancelled", "refused", "failed", "unavailable"]
"""going: queued or at work. succeeded: ended well, and the delivery has no outcome all the same (a part of the job was
run, say). refused: it would be again. failed: its process died, ran out of time, or met what nobody expected.
unavailable: something that every file needs was not there."""

COUNTED: Final = frozenset({"failed", "succeeded"})


@dataclass(frozen=True)
class Run:
    """One run of a delivery, as Dagster recorded it. will_retry: whether Dagster launches it again; None: not said."""

    id: str
    how: How
    launched: datetime
    ended: datetime | None = None
    cause: str = ""
    will_retry: bool | None = None


@dataclass(frozen=True)
class Wait:
    """Nothing is to be done before `until` (None: before something happens)."""

    until: datetime | None = None


@dataclass(frozen=True)
class Ask:
    """A run is to be asked for, behind the run `after` (None: the first)."""

    after: str | None = None


@dataclass(frozen=True)
class Close:
    """The delivery is given up, for its `last` run and `failed` in all."""

    last: Run
    failed: int


def next_step(runs: Sequence[Run], since: datetime, now: datetime) -> Wait | Ask | Close:
    """What to do about a delivery with these runs, in the order they were launched.

    since: when somebody was last about to ask for a run: who noticed the delivery, or who asked for it again.
    """
    if any(run.how == "going" for run in runs):
        return Wait()
    last = runs[-1] if runs else None
    someone_may_ask_until = since + GRACE if last is None or last.launched < since else since
    if now < someone_may_ask_until:
        return Wait(someone_may_ask_until)
    return _behind(last, runs, now) if last else Ask()


def _behind(last: Run, runs: Sequence[Run], now: datetime) -> Wait | Ask | Close:
    dagster_may_until = {True: LOST, None: SETTLED, False: timedelta(0)}[last.will_retry] + ended_at(last)
    if now < dagster_may_until:
        return Wait(dagster_may_until)
    failed = sum(run.how in COUNTED for run in runs)
    if last.how in ("cancelled", "refused") or (last.how in COUNTED and failed >= MOST_RUNS):
        return Close(last, failed + (last.how not in COUNTED))
    due = ended_at(last) + pause(runs)
    return Ask(last.id) if now >= due else Wait(due)


def ended_at(run: Run) -> datetime:
    """When a run that is over ended; where Dagster does not say, when it was launched."""
    return run.ended or run.launched


def pause(runs: Sequence[Run]) -> timedelta:
    """How long to wait after the last run: twice as long after each that found the same thing unavailable."""
    in_a_row = len(waited_for(runs))
    doublings = min(max(in_a_row - 1, 0), 10)
    return min(SHORTEST_PAUSE * (1 << doublings), LONGEST_PAUSE)


def waited_for(runs: Sequence[Run]) -> Sequence[Run]:
    """The last runs that found something unavailable, one after another; none where the last one did not."""
    return list(takewhile(lambda run: run.how == "unavailable", reversed(runs)))[::-1]
