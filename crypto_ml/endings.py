"""The signals that end a command, and how they are kept from coming in the middle of a step: a process that is being
started just then would be left behind, known to nobody."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from threading import current_thread, main_thread
from typing import Final

ENDINGS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def held_back() -> Iterator[None]:
    """Have an ending that comes meanwhile come when this is through. For steps that take no time worth waiting for.

    (A mask would do the same, and the processes that are started would have it too.)
    """
    if current_thread() is not main_thread():  # Python interrupts no other
        yield
        return
    came: list[int] = []
    before = {ending: signal.signal(ending, lambda number, _frame: came.append(number)) for ending in ENDINGS}
    try:
        yield
    finally:
        for ending, handler in before.items():
            signal.signal(ending, signal.SIG_DFL if handler is None else handler)
        for number in came[:1]:
            signal.raise_signal(number)
