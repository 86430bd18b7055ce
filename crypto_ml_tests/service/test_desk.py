"""Who waits for whom: what goes together, what goes apart, and what nobody has to wait for."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager
from threading import Event
from typing import Any

import pytest

from crypto_ml.errors import Refused
from crypto_ml.service.desk import LARGE, MOST_ROWS_TOGETHER, MOST_TOGETHER, Closed, Desk
from crypto_ml.stages.requests import Asked
from crypto_ml.storage.failures import StoreUnavailable

GATE = Asked(b"gate", "csv", "gate")


def asked(name: str) -> Asked:
    return Asked(name.encode(), "csv", name)


class Deliveries:
    """What was answered together, by a road that answers with the names of what was asked; it waits at a gate."""

    def __init__(self, refuse: Callable[[Sequence[str]], Exception | None] = lambda _: None) -> None:
        self.open, self.at_gate = Event(), Event()
        self.answered: list[list[str]] = []
        self._refuse = refuse

    def __call__(self, together: Sequence[Asked], delivery: str | None, record: bool) -> Any:
        names = [one.name for one in together]
        if names == ["gate"]:
            self.at_gate.set()
            assert self.open.wait(30)
            return names
        if error := self._refuse(names):
            raise error
        self.answered.append([*names, *([delivery] if delivery else []), *([] if record else ["unrecorded"])])
        return names


@contextmanager
def waiting(road: Deliveries) -> Iterator[Desk]:
    """A desk of which the thread for small requests waits, until the block ends."""
    desk = Desk(road)
    try:
        desk.ask(GATE, rows=1)
        assert road.at_gate.wait(30)
        yield desk
    finally:
        road.open.set()
        desk.close()


def test_everything_that_waits_is_answered_together_but_for_what_names_its_delivery_or_is_not_recorded() -> None:
    road = Deliveries()
    with waiting(road) as desk:
        for name in ("a", "b"):
            desk.ask(asked(name), rows=1)
        desk.ask(asked("named"), rows=1, delivery="1")
        desk.ask(asked("c"), rows=1)
        for name in ("x", "y"):
            desk.ask(asked(name), rows=1, record=False)
        assert desk.depth == 6
    assert road.answered == [["a", "b", "c"], ["named", "1"], ["x", "y", "unrecorded"]]


def test_no_delivery_has_more_requests_or_rows_than_it_may() -> None:
    road = Deliveries()
    with waiting(road) as desk:
        for number in range(MOST_TOGETHER + 1):
            desk.ask(asked(str(number)), rows=1)
        for number in range(20):
            desk.ask(asked(f"wide{number}"), rows=LARGE - 1)
    assert len(road.answered[0]) == MOST_TOGETHER
    wide = [[name for name in together if name.startswith("wide")] for together in road.answered]
    assert sum(map(len, wide)) == 20
    assert all((len(together) - 1) * (LARGE - 1) < MOST_ROWS_TOGETHER for together in wide)


def test_a_large_request_is_answered_while_small_ones_wait_and_they_while_it_is() -> None:
    road = Deliveries()
    with waiting(road) as desk:
        assert desk.ask(asked("large"), rows=LARGE).result(30) is not None


def test_one_that_fails_alone_spoils_no_other() -> None:
    road = Deliveries(lambda names: Refused("no") if "bad" in names else None)
    with waiting(road) as desk:
        good, bad, other = (desk.ask(asked(name), rows=1) for name in ("good", "bad", "other"))
    assert good.done() and other.done()
    assert road.answered == [["good"], ["other"]]
    with pytest.raises(Refused):
        bad.result()


def test_where_the_store_does_not_answer_nobody_is_tried_alone() -> None:
    tries: list[Sequence[str]] = []

    def unavailable(names: Sequence[str]) -> Exception:
        tries.append(names)
        return StoreUnavailable("away")

    with waiting(Deliveries(unavailable)) as desk:
        both = [desk.ask(asked(name), rows=1) for name in ("a", "b")]
    assert tries == [["a", "b"]]
    for one in both:
        with pytest.raises(StoreUnavailable):
            one.result()


def test_who_stops_waiting_is_not_answered_and_who_waits_at_the_end_is() -> None:
    road = Deliveries()
    with waiting(road) as desk:
        gone, stays = (desk.ask(asked(name), rows=1) for name in ("gone", "stays"))
        assert gone.cancel()
    assert stays.done()
    assert road.answered == [["stays"]]
    with pytest.raises(CancelledError):
        gone.result()
    with pytest.raises(Closed):
        desk.ask(asked("late"), rows=1)
