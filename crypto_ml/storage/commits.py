"""What the log of the market history says of its versions, one small object each: enough to see what came with them.

Versions list in order, so that a look costs what is new. How a commit is written is Delta Lake's protocol.
"""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date
from itertools import islice
from typing import Any, Final

from crypto_ml.storage.failures import StoreRefused
from crypto_ml.storage.objects import ObjectStore

AT_ONCE: Final = 8
COMMIT: Final = ".json"

RETRACTS: Final = "retracts"
"""What a commit says of itself that makes the rows of an upload void: which upload that is."""


@dataclass(frozen=True)
class Commit:
    """One version of the table, and the last day among the rows that it added.

    last_day: None where it added none; `date.max` where the log does not say. retracts: the upload whose rows it makes
    void.
    """

    version: int
    last_day: date | None
    retracts: str | None = None


def commits_after(version: int, most: int, store: ObjectStore, table: str = "market_history") -> list[Commit]:
    """The versions after one (−1: all), oldest first and at most so many. Raises StoreUnavailable, StoreRefused."""
    log = f"{table}/_delta_log/"
    begin = f"{log}{version:020d}{COMMIT}" if version >= 0 else None
    keys = list(islice(_commit_keys(log, begin, store), most))
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(lambda key: _commit(key, log, store), keys))


def _commit_keys(log: str, after: str | None, store: ObjectStore) -> Iterator[str]:
    """Checkpoints and temporary files stand beside the commits, whose names are numbers."""
    for found in store.list(log, start_after=after):
        if found.key.removeprefix(log).removesuffix(COMMIT).isdecimal() and found.key.endswith(COMMIT):
            yield found.key


def _commit(key: str, log: str, store: ObjectStore) -> Commit:
    try:
        actions = [json.loads(line) for line in store.read(key).splitlines() if line.strip()]
        added = [action["add"] for action in actions if "add" in action]
        days = [_last_day(one) for one in added if one.get("dataChange", True)]
        retracts = [action["commitInfo"].get(RETRACTS) for action in actions if "commitInfo" in action]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StoreRefused(f"{store.uri(key)} is not a commit of Delta Lake: {error}") from error
    return Commit(int(key.removeprefix(log).removesuffix(COMMIT)), max(days, default=None), next(iter(retracts), None))


def _last_day(added: dict[str, Any]) -> date:
    statistics = json.loads(added.get("stats") or "{}")
    found = statistics.get("maxValues", {}).get("date")
    return date.fromisoformat(found) if found else date.max
