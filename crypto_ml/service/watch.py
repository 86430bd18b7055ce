"""What goes on beside the requests of a worker: looking whether model or history are others by now, and settling.

Both are threads of their own: a log that takes long to be written to keeps no promotion waiting.
"""

import gc
import logging
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from threading import Event, Thread
from typing import Final

from crypto_ml.deployment import Deployment
from crypto_ml.errors import CryptoMLError
from crypto_ml.service.metrics import Metrics
from crypto_ml.service.problems import MENDED, NOT_READY, SOON, Problem
from crypto_ml.stages.requests import Asked, Reply, Serving, answer_requests
from crypto_ml.stages.settled_requests import Settling

LOOK_EVERY: Final = 1.0
"""Seconds between two looks while requests come."""

LOOK_WHEN_IDLE: Final = 5.0
IDLE_AFTER: Final = 60.0
"""Seconds without a request, from which on fewer looks do: each is two requests to the store, day and night."""

SETTLE_EVERY: Final = 10.0
"""Seconds between two rounds of settling. Each is a file of the prediction log until upkeep puts them together, and the
more files it has the longer an append takes: 25 ms of a core for the first, 60 ms after 400."""

LONGEST_FIRST_LOOK: Final = 20.0
SWEEP_EVERY: Final = 300.0
TOO_OLD: Final = 15.0
"""Seconds after which what was looked up is not taken for what is: the worker says that it is not ready."""

FIRST: Final = b'{"symbol":"BTC","date":"2018-03-25","open":1,"high":1,"low":1,"close":1,"market":1}'

log: Final = logging.getLogger(__name__)


class Watch:
    """What a worker serves with, swapped as a whole while it runs, and the settling of what it has answered."""

    def __init__(self, deployment: Deployment, metrics: Metrics) -> None:
        self._deployment = deployment
        self._metrics = metrics
        self._settling = Settling(deployment)
        self._ending = Event()
        self._looked_once = Event()
        self._asked = Event()
        self._last_asked = time.monotonic()
        self._serving: Serving | None = None
        self._failure = "it has only just started"
        self._looked = 0.0
        self._swept = -SWEEP_EVERY
        self._threads = [
            Thread(target=self._repeat, args=(one, rest), name=one.__name__, daemon=True)
            for one, rest in ((self._look, self._rest), (self._settle, lambda: self._ending.wait(SETTLE_EVERY)))
        ]

    def start(self) -> None:
        """Begin, and wait for the first look: a worker that takes connections before it has a model turns away whoever
        another worker would have answered. Where the store does not answer, the wait has an end."""
        for thread in self._threads:
            thread.start()
        self._looked_once.wait(LONGEST_FIRST_LOOK)

    def stop(self) -> None:
        """End, and settle what is left. What cannot be settled now is swept up by another worker."""
        self._ending.set()
        self._asked.set()
        for thread in self._threads:
            thread.join()
        self._settle()
        gc.unfreeze()  # so that libraries find their objects given back at the end, and print no list of them

    @property
    def serving(self) -> Serving:
        """What to answer with. Raises Problem where nothing could be looked up yet."""
        if self._serving is None:
            raise Problem(NOT_READY, f"the service is not ready: {self._failure}", SOON)
        return self._serving

    def answer(self, asked: Sequence[Asked], delivery: str | None, record: bool) -> Sequence[Reply]:
        """Answer requests together with what is served now; what is recorded is settled later. Raises what
        `answer_requests` raises, and Problem."""
        self._metrics.together.observe(len(asked))
        self._last_asked = time.monotonic()
        self._asked.set()
        now = datetime.now(UTC)
        replies = answer_requests(asked, self.serving, self._deployment, now=now, delivery=delivery, record=record)
        self._settling.note(replies)
        return replies

    def require_ready(self) -> None:
        """Raises Problem where this worker should be asked nothing."""
        _ = self.serving
        if self._ending.is_set():
            raise Problem(NOT_READY, "the service is about to end", SOON)
        if (since := time.monotonic() - self._looked) > TOO_OLD:
            raise Problem(
                NOT_READY, f"model and history were last looked up {since:.0f} s ago: {self._failure}", MENDED
            )

    def _look(self) -> None:
        if (parent := multiprocessing.parent_process()) and not parent.is_alive():
            log.error("The process that supervises this worker is gone, and so the worker ends")
            os.kill(os.getpid(), signal.SIGTERM)
        try:
            if self._serving is None or not self._serving.is_current(self._deployment):
                self._swap(Serving.of(self._deployment))
        except CryptoMLError as error:
            self._failed(str(error))
        except Exception as error:
            self._failed(f"{type(error).__name__}: {error}")
            log.exception("Model and history could not be looked up")
        else:
            self._looked, self._failure = time.monotonic(), "the store has not answered since"
            self._metrics.looked_at.set_to_current_time()
        self._looked_once.set()

    def _swap(self, found: Serving) -> None:
        if self._serving is None:
            _warm(found, self._deployment)
            gc.collect()
            gc.freeze()  # what is there by now stays: the collector goes through it in the middle of answers otherwise
        self._metrics.serve(found.bundle.version, found.history_version)
        if self._serving is None or self._serving.bundle.version != found.bundle.version:
            log.info("Answers are made with %s, history version %s", found.bundle.version, found.history_version)
        self._serving = found

    def _failed(self, why: str) -> None:
        if why != self._failure:
            log.warning("Model and history could not be looked up: %s", why)
        self._failure = why
        self._metrics.look_failures.inc()

    def _settle(self) -> None:
        now = datetime.now(UTC)
        try:
            settled = self._settling.settle(now)
            if time.monotonic() - self._swept > SWEEP_EVERY and not self._ending.is_set():
                settled += self._settling.sweep(now)
                self._swept = time.monotonic()
            self._metrics.settled.inc(settled)
            self._metrics.unsettled.set(self._settling.waiting)
        except Exception as error:  # whatever it was, the packs stand, and the next round or worker settles them
            self._metrics.settle_failures.inc()
            log.warning("Answers could not be settled yet: %s", error, exc_info=not isinstance(error, CryptoMLError))

    def _rest(self) -> None:
        """Until the next look. While nobody asks it comes later, and as soon as somebody does; a look that failed is
        tried again as ever."""
        self._asked.clear()
        now = time.monotonic()
        idle = now - self._last_asked > IDLE_AFTER and now - self._looked < LOOK_EVERY
        if idle and not self._ending.is_set():
            self._asked.wait(LOOK_WHEN_IDLE)
        else:
            self._ending.wait(LOOK_EVERY)

    def _repeat(self, work: Callable[[], None], rest: Callable[[], object]) -> None:
        while not self._ending.is_set():
            work()
            rest()


def _warm(serving: Serving, deployment: Deployment) -> None:
    """Answer once for nobody: what is imported and compiled on the way is there for the first caller."""
    try:
        answer_requests([Asked(FIRST, "json", "warm")], serving, deployment, now=datetime.now(UTC), record=False)
    except Exception:
        log.warning("The first answer, which is for nobody, failed", exc_info=True)
