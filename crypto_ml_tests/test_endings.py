"""An ending that comes in the middle of a step comes after it, and nothing of it is lost."""

import os
import signal
from collections.abc import Iterator
from threading import Thread

import pytest

from crypto_ml.endings import ENDINGS, held_back


@pytest.fixture
def ended() -> Iterator[list[int]]:
    """The endings that came, each of which interrupts whatever is done."""
    came: list[int] = []

    def end(number: int, _frame: object) -> None:
        came.append(number)
        raise KeyboardInterrupt

    before = {number: signal.signal(number, end) for number in ENDINGS}
    yield came
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", ENDINGS)
def test_what_comes_in_the_middle_of_a_step_interrupts_after_it(ended: list[int], number: signal.Signals) -> None:
    done = []
    with pytest.raises(KeyboardInterrupt), held_back():
        os.kill(os.getpid(), number)
        done.append(list(ended))
    assert done == [[]]
    assert ended == [number]
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), number)


def test_a_step_that_nobody_interrupts_is_as_ever_and_its_failure_too(ended: list[int]) -> None:
    with held_back():
        pass
    with pytest.raises(ZeroDivisionError), held_back():
        raise ZeroDivisionError
    assert ended == []


def test_where_the_step_fails_and_an_ending_came_it_ends(ended: list[int]) -> None:
    with pytest.raises(KeyboardInterrupt), held_back():
        os.kill(os.getpid(), signal.SIGTERM)
        raise ZeroDivisionError
    assert ended == [signal.SIGTERM]


def test_another_thread_is_interrupted_by_none_and_changes_nothing(ended: list[int]) -> None:
    before = [signal.getsignal(number) for number in ENDINGS]
    seen: list[object] = []

    def step() -> None:
        with held_back():
            seen.extend(signal.getsignal(number) for number in ENDINGS)

    thread = Thread(target=step)
    thread.start()
    thread.join()
    assert seen == before
    assert ended == []
