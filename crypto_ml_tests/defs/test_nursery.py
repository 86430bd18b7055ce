"""Which processes wait for a run, whatever happens in whatever order: none is forked here, the rest is as ever."""

import os
from collections.abc import Sequence
from multiprocessing import Pipe
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crypto_ml.defs.warm import nursery
from crypto_ml.defs.warm.identity import SUPPORTED
from crypto_ml.defs.warm.loaded_code import stamp
from crypto_ml.defs.warm.nursery import LONGEST_IDLE, PAUSE_AFTER_DEATH, Nursery, _Worker

pytestmark = pytest.mark.skipif(not SUPPORTED, reason="warm processes are forked, which is safe on Linux alone")


class Clock:
    """A clock that goes on when it is told to."""

    now = 1_000.0

    def monotonic(self) -> float:
        return self.now


class Counted(Nursery):
    """A nursery that counts those it would fork. made, dismissed: their numbers."""

    def __init__(self, spares: int, clock: Clock) -> None:
        super().__init__(Pipe()[0], "", "", spares, frozenset())
        self.clock = clock
        self.made: list[int] = []
        self.dismissed: list[int] = []

    def _fork(self) -> _Worker:
        self.made.append(len(self.made))
        worker = self._workers[self.made[-1]] = _Worker(self.made[-1], Pipe()[0], self.clock.now)
        return worker

    def _dismiss(self, worker: _Worker) -> None:
        self.dismissed.append(worker.pid)
        del self._workers[worker.pid]

    def turn(self) -> None:
        """What it does each time it is woken."""
        self._refill()

    def said_ready(self) -> None:
        for worker in self._waiting:
            worker.ready = True

    def begun(self) -> None:
        """A run for whoever would be given it."""
        waiting = self._waiting
        worker = max(waiting, key=lambda one: (one.ready, one.born)) if waiting else self._fork()
        worker.run_id, worker.begun = "a run", True

    def ended(self) -> None:
        for worker in self._running[:1]:
            del self._workers[worker.pid]

    def died(self) -> None:
        """One that was opening ends, as where its store is gone."""
        for worker in [one for one in self._waiting if not one.ready]:
            del self._workers[worker.pid]
            self._not_before = self.clock.now + PAUSE_AFTER_DEATH

    @property
    def state(self) -> Any:
        return [(one.pid, one.ready, one.run_id) for one in self._workers.values()]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock that the nursery goes by."""
    clock = Clock()
    monkeypatch.setattr(nursery, "time", clock)
    return clock


EVENTS = st.lists(st.sampled_from(["ready", "begun", "ended", "died", "a second", "ten minutes"]), max_size=40)


@given(spares=st.integers(1, 3), events=EVENTS)
def test_one_is_made_at_a_time_no_more_than_are_asked_for_and_nothing_is_woken_in_vain(
    spares: int, events: Sequence[str]
) -> None:
    clock = Clock()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nursery, "time", clock)
        kept = Counted(spares, clock)
        kept.turn()
        for event in events:
            match event:
                case "ready":
                    kept.said_ready()
                case "begun":
                    kept.begun()
                case "ended":
                    kept.ended()
                case "died":
                    kept.died()
                case _:
                    clock.now += 1.0 if event == "a second" else LONGEST_IDLE
            kept.turn()
            assert sum(not one.ready for one in kept._waiting) <= 1
            assert len(kept._waiting) <= spares
            while kept._patience() == 0.0:  # it would be woken at once, so there has to be something to do
                before = kept.state
                kept.turn()
                assert kept.state != before
        # left to itself it comes to have as many as are asked for
        while kept._running:
            kept.ended()
        clock.now += PAUSE_AFTER_DEATH
        for _ in range(spares + 1):
            kept.turn()
            kept.said_ready()
        assert len(kept._waiting) == spares


def test_where_one_waits_alone_it_is_replaced_when_it_has_waited_for_too_long(clock: Clock) -> None:
    kept = Counted(1, clock)
    kept.turn()
    kept.said_ready()
    clock.now += LONGEST_IDLE
    assert kept._patience() == 0.0
    kept.turn()
    assert (kept.dismissed, kept.made) == ([0], [0, 1])
    assert kept._patience() is None, "it waits until the other says that it is ready"


def test_beside_as_many_runs_as_would_wait_nobody_takes_their_processors(clock: Clock) -> None:
    kept = Counted(2, clock)
    for _ in range(2):
        kept.turn()
        kept.said_ready()
    kept.begun()
    kept.begun()
    kept.turn()
    assert len(kept.made) == 2
    kept.ended()
    kept.turn()
    assert len(kept.made) == 3


def test_a_run_is_given_to_whoever_opened_last(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = Pipe()
    kept = Nursery(theirs, "", "crypto_ml", 2, stamp("crypto_ml"))
    pids = os.getppid(), os.getpid()
    for born, pid in enumerate(pids):
        kept._workers[pid] = _Worker(pid, Pipe()[0], born=float(born), ready=True)
    ours.send_bytes(b'{"reserve": "a run"}')
    kept._listen()
    assert [worker.run_id for worker in kept._workers.values()] == [None, "a run"]
