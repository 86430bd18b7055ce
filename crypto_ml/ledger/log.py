"""A log in S3 that only grows: numbered JSON documents, each written by exactly one of any number of writers.

The deliveries, the champion pointer and the training sets of a week are each such a log: what is current is the last
entry, and the entries before it are the history nobody can rewrite.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

from crypto_ml.forecasting.ahead import ahead
from crypto_ml.storage.failures import AlreadyExists
from crypto_ml.storage.objects import ObjectStore

DIGITS: Final = 8
READ_AT_ONCE: Final = 16


@dataclass(frozen=True)
class Entry:
    """One document of a log and its number; the first number is 1."""

    number: int
    document: dict[str, Any]


class AppendOnlyLog:
    """Entries under `prefix`, named by their number. Raises what ObjectStore raises."""

    def __init__(self, store: ObjectStore, prefix: str) -> None:
        self._store = store
        self._prefix = prefix

    def key(self, number: int) -> str:
        """The key of an entry."""
        return f"{self._prefix}{number:0{DIGITS}d}.json"

    def last_number(self, at_least: int = 0) -> int:
        """The number of the last entry, 0 where there is none; `at_least`, known from before, shortens the listing."""
        last = at_least
        for found in self._store.list(self._prefix, start_after=self.key(at_least) if at_least else None):
            last = int(found.key.removeprefix(self._prefix).removesuffix(".json"))
        return last

    def is_last(self, number: int) -> bool:
        """Whether no entry follows this one; numbers have no gaps, so that one object says it."""
        return self._store.head(self.key(number + 1)) is None

    def read(self, number: int) -> Entry:
        """One entry. Raises ObjectMissing."""
        document: dict[str, Any] = self._store.read_json(self.key(number))
        return Entry(number, document)

    def last(self) -> Entry | None:
        """The last entry, or None."""
        number = self.last_number()
        return self.read(number) if number else None

    def entries(self, after: int = 0, at_once: int = READ_AT_ONCE) -> Iterator[Entry]:
        """The entries after a number, in order; at most `at_once` are read ahead and held."""
        numbers = range(after + 1, self.last_number(after) + 1)
        if len(numbers) <= 1:
            yield from map(self.read, numbers)
            return
        with ThreadPoolExecutor(at_once) as pool:
            yield from ahead(self.read, numbers, pool, at_once)

    def append(self, document: dict[str, Any], *, after: int) -> Entry | None:
        """Add an entry behind number `after`; None where somebody else did so first, and nothing was written."""
        try:
            self._store.create_json(self.key(after + 1), document)
        except AlreadyExists:
            return None
        return Entry(after + 1, document)
