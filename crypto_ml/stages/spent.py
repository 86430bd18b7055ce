"""Where the time of an answer goes, part by part, for whoever looks at its run.

Belongs here: how parts are counted. What is counted enters no receipt and decides nothing; where nobody has asked for
it, nothing is counted.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from copy import copy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from crypto_ml.forecasting.bundle import ModelBundle

READING: Final = "reading"
CLEANING: Final = "cleaning"
REMEMBERING: Final = "remembering"
EARLIER_ROWS: Final = "earlier rows"
FEATURES: Final = "features"
NETWORK: Final = "network"
PUBLISHING: Final = "publishing"
PARTS: Final = (READING, CLEANING, REMEMBERING, EARLIER_ROWS, FEATURES, NETWORK, PUBLISHING)
"""In the order of the road. remembering: the append to the history."""


@dataclass
class Spent:
    """Seconds of each part. Where one part is within another, its time is its own alone. began: seconds since 1970."""

    clock: Callable[[], float] = time.perf_counter
    seconds: dict[str, float] = field(default_factory=dict)
    began: float = field(default_factory=time.time)
    _within: list[str] = field(default_factory=list)
    _since: float = 0.0

    @contextmanager
    def counted(self, name: str) -> Iterator[None]:
        """Count what is done here as this part, and let the parts within count theirs."""
        listening = _listening.set(self)
        try:
            with self.part(name):
                yield
        finally:
            _listening.reset(listening)

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Count what is done here as this part."""
        self._turn()
        self._within.append(name)
        try:
            yield
        finally:
            self._turn()
            self._within.pop()

    def _turn(self) -> None:
        now = self.clock()
        if self._within:
            self.seconds[self._within[-1]] = self.seconds.get(self._within[-1], 0.0) + now - self._since
        self._since = now


_listening: ContextVar[Spent | None] = ContextVar("spent", default=None)


@contextmanager
def part(name: str) -> Iterator[None]:
    """Count what is done here as this part, where somebody asked for it; also a decorator."""
    spent = _listening.get()
    if spent is None:
        yield
        return
    with spent.part(name):
        yield


def with_counted_network(bundle: "ModelBundle") -> "ModelBundle":
    """The same bundle, whose network's time counts as NETWORK."""
    if _listening.get() is None:
        return bundle
    twin = copy(bundle)
    twin.__dict__["network"] = _CountedNetwork(bundle)  # where a cached property keeps what it has made
    return twin


@dataclass(frozen=True)
class _CountedNetwork:
    bundle: "ModelBundle"

    def predict(self, *given: Any, **named: Any) -> Any:
        network = self.bundle.network  # loaded when it is asked, which of a model that serves the last close it is not
        with part(NETWORK):
            return network.predict(*given, **named)
