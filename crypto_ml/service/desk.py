"""Where requests wait, and who answers them: everything that waits at a moment is one delivery.

Two threads answer. One takes small requests, all that wait, so that many cost little more than one; the other takes
large ones, one after the other, so that nobody waits for somebody else's ten thousand rows. A request that names its
delivery is alone in it. Nothing here knows HTTP.
"""

import logging
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from threading import Condition, Thread
from typing import Final

from crypto_ml.errors import Unavailable
from crypto_ml.stages.requests import Asked, Reply

MOST_TOGETHER: Final = 100
"""Requests of one delivery."""

LARGE: Final = 500
"""Rows from which on a request is large: some tens of milliseconds for whoever would wait behind it."""

MOST_ROWS_TOGETHER: Final = 5_000

log: Final = logging.getLogger(__name__)

Answer = Callable[[Sequence[Asked], str | None, bool], Sequence[Reply]]
"""Answers requests together: bodies, the name of their delivery where it has one, whether it is recorded."""


class Closed(Unavailable):
    """A desk that takes no more requests."""


@dataclass(eq=False)
class _Waiting:
    asked: Asked
    rows: int
    delivery: str | None
    record: bool
    reply: "Future[Reply]" = field(default_factory=Future)

    def goes_with(self, other: "_Waiting") -> bool:
        return self.delivery is None and other.delivery is None and self.record == other.record


class Desk:
    """Two queues and their threads, running from the start until `close`."""

    def __init__(self, answer: Answer) -> None:
        self._lanes = [_Lane(answer, name) for name in ("small requests", "large requests")]

    def ask(self, asked: Asked, *, rows: int, delivery: str | None = None, record: bool = True) -> "Future[Reply]":
        """Have a request answered. rows: about how many it has. Whoever cancels the future while it waits is not
        answered, and nothing is recorded. Raises Closed."""
        waiting = _Waiting(asked, rows, delivery, record)
        self._lanes[rows >= LARGE].put(waiting)
        return waiting.reply

    @property
    def depth(self) -> int:
        """How many requests wait."""
        return sum(lane.depth for lane in self._lanes)

    def close(self) -> None:
        """Answer everything that waits, and end."""
        for lane in self._lanes:
            lane.close()
        for lane in self._lanes:
            lane.thread.join()


class _Lane:
    def __init__(self, answer: Answer, name: str) -> None:
        self._answer = answer
        self._queue: deque[_Waiting] = deque()
        self._came = Condition()
        self._closed = False
        self.thread = Thread(target=self._work, name=name, daemon=True)
        self.thread.start()

    @property
    def depth(self) -> int:
        return len(self._queue)

    def put(self, waiting: _Waiting) -> None:
        with self._came:
            if self._closed:
                raise Closed("the service is about to end: ask again, another worker will answer")
            self._queue.append(waiting)
            self._came.notify()

    def close(self) -> None:
        with self._came:
            self._closed = True
            self._came.notify()

    def _work(self) -> None:
        while together := self._next():
            wanted = [one for one in together if one.reply.set_running_or_notify_cancel()]
            if wanted:
                self._answer_together(wanted)

    def _next(self) -> list[_Waiting]:
        """What waits and goes together, the first of all among it; nothing once the desk is closed and all is done."""
        with self._came:
            while not self._queue:
                if self._closed:
                    return []
                self._came.wait()
            together, others, rows = [self._queue.popleft()], [], 0
            rows = together[0].rows
            while self._queue and len(together) < MOST_TOGETHER and rows < MOST_ROWS_TOGETHER:
                one = self._queue.popleft()
                if one.goes_with(together[0]):
                    together.append(one)
                    rows += one.rows
                else:
                    others.append(one)
            self._queue.extendleft(reversed(others))
            return together

    def _answer_together(self, together: Sequence[_Waiting]) -> None:
        """Answer some requests at once; where that fails, each by itself, so that none spoils another's answer."""
        first = together[0]
        try:
            replies = self._answer([one.asked for one in together], first.delivery, first.record)
        except Unavailable as error:  # it would be the same for each
            for one in together:
                one.reply.set_exception(error)
        except Exception as error:  # noqa: BLE001 - whoever asked is told
            if len(together) == 1:
                first.reply.set_exception(error)
                return
            log.warning(
                "%d requests could not be answered together, and are answered one by one: %s", len(together), error
            )
            for one in together:
                self._answer_together([one])
        else:
            for one, reply in zip(together, replies, strict=True):
                one.reply.set_result(reply)
