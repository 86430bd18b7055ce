"""How many requests for predictions are let in at once, of everybody and of one caller."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from crypto_ml.service.metrics import Metrics
from crypto_ml.service.problems import BUSY, SOON, TOO_MANY, Problem


class Admission:
    """Counts who is in; used from one event loop, so it needs no lock."""

    def __init__(self, most: int, most_of_a_caller: int, metrics: Metrics) -> None:
        self._most = most
        self._most_of_a_caller = most_of_a_caller
        self._metrics = metrics
        self._in: Counter[str] = Counter()

    @contextmanager
    def of(self, caller: str) -> Iterator[None]:
        """Be let in for as long as this lasts. Raises Problem."""
        if self._in.total() >= self._most:
            raise Problem(BUSY, f"{self._most} requests are being answered: ask again in a moment", SOON)
        if self._in[caller] >= self._most_of_a_caller:
            raise Problem(
                TOO_MANY,
                f"{caller} has {self._most_of_a_caller} requests here that are not answered yet: wait for one of them",
                SOON,
            )
        self._in[caller] += 1
        self._metrics.at_once.inc()
        try:
            yield
        finally:
            self._metrics.at_once.dec()
            self._in[caller] -= 1
            if not self._in[caller]:
                del self._in[caller]
