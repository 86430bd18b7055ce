"""What the log of a table says of its versions, one small object each: enough to see what came with them.

Versions list in order, so that a look costs what is new. How a commit is written is Delta Lake's protocol.

Who looks back a long way reads pages: what the commits of PAGE versions say, in one object below `cache/`, written once
they are complete. A page is a cache: one that is not there, or not what was written, costs reading its commits.
"""

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date, datetime
from itertools import islice
from typing import Any, Final

from crypto_ml.digest import sha256_of
from crypto_ml.storage.failures import AlreadyExists, ObjectMissing, StoreRefused
from crypto_ml.storage.objects import ObjectStore, rendered

AT_ONCE: Final = 8
COMMIT: Final = ".json"
PAGE: Final = 128
"""Versions that a page tells of: 20,000 versions are 156 pages, and at most 127 commits are read one by one."""
CACHE: Final = "cache/"
"""Below it stands what may be removed at any time, and costs only time."""

RETRACTS: Final = "retracts"
"""What a commit says of itself that makes the rows of an upload void: which upload that is."""
COMPACTS: Final = "compacts"
"""What a commit says of itself that puts the rows of several data files into fewer: see `compaction`."""


@dataclass(frozen=True)
class Commit:
    """One version of the table, and the last day among the rows that it added.

    last_day: None where it added none; `date.max` where the log does not say. retracts: the upload whose rows it makes
    void. append_id: the append that it is. known_at: when its rows became known. files: the data files that it added.
    compacts: whether it brings no rows, and only puts some into other files.
    """

    version: int
    last_day: date | None
    retracts: str | None = None
    append_id: str | None = field(default=None, compare=False)
    known_at: datetime | None = field(default=None, compare=False)
    files: tuple[str, ...] = field(default=(), compare=False)
    compacts: bool = field(default=False, compare=False)


def commits_after(version: int, most: int, store: ObjectStore, table: str = "market_history") -> list[Commit]:
    """The versions after one (−1: all), oldest first and at most so many. Raises StoreUnavailable, StoreRefused."""
    log = log_of(table)
    begin = commit_key(table, version) if version >= 0 else None
    keys = list(islice(_commit_keys(log, begin, store), most))
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(lambda key: _commit(key, log, store), keys))


def commits_back_from(version: int, table_id: str, store: ObjectStore, table: str) -> Iterator[Commit]:
    """The versions from one on back to the first. table_id: tells a table from one that is made anew under its key.

    Few are read at first, and more with each that nobody was content with. Raises StoreUnavailable, StoreRefused.
    """
    asked = 1
    while version >= 0:
        first = version // PAGE * PAGE
        if version == first + PAGE - 1 and (page := _page(first, table_id, store, table)) is not None:
            found = page
        else:
            found = _read(range(max(first, version - asked + 1), version + 1), store, table)
            asked *= 4
        yield from reversed(found)
        version -= len(found)


def keep_pages(newest: int, table_id: str, store: ObjectStore, table: str) -> int:
    """Write the pages that are complete at a version and not there yet; returns how many those are."""
    folder = f"{CACHE}versions/{table}/{table_id}/"
    there = {found.key for found in store.list(folder)}
    written = 0
    for first in range(0, (newest + 1) // PAGE * PAGE, PAGE):
        key = _page_key(first, table_id, table)
        if key not in there:
            said = [_said(commit) for commit in _read(range(first, first + PAGE), store, table)]
            with suppress(AlreadyExists):
                store.create_json(key, {"commits": said, "sha256": sha256_of(rendered(said))})
            written += 1
    return written


def log_of(table: str) -> str:
    """Below where the log of a table stands."""
    return f"{table}/_delta_log/"


def commit_key(table: str, version: int) -> str:
    """Where the commit of a version stands."""
    return f"{log_of(table)}{version:020d}{COMMIT}"


def actions_of(content: bytes) -> list[dict[str, Any]]:
    """What a commit does. Raises ValueError where it is none."""
    return [json.loads(line) for line in content.splitlines() if line.strip()]


def _read(versions: Sequence[int], store: ObjectStore, table: str) -> list[Commit]:
    log = log_of(table)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(lambda version: _commit(commit_key(table, version), log, store), versions))


def _commit_keys(log: str, after: str | None, store: ObjectStore) -> Iterator[str]:
    """Checkpoints and temporary files stand beside the commits, whose names are numbers."""
    for found in store.list(log, start_after=after):
        if found.key.removeprefix(log).removesuffix(COMMIT).isdecimal() and found.key.endswith(COMMIT):
            yield found.key


def _commit(key: str, log: str, store: ObjectStore) -> Commit:
    try:
        actions = actions_of(store.read(key))
        added = [action["add"] for action in actions if "add" in action]
        new = [one for one in added if one.get("dataChange", True)]
        infos: list[dict[str, Any]] = [action["commitInfo"] for action in actions if "commitInfo" in action]
        said = infos[0] if infos else {}
        return Commit(
            int(key.removeprefix(log).removesuffix(COMMIT)),
            max(map(_last_day, new), default=None),
            said.get(RETRACTS),
            said.get("append_id"),
            _time(said.get("known_at")),
            tuple(one["path"] for one in added),
            bool(added) and not new,
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StoreRefused(f"{store.uri(key)} is not a commit of Delta Lake: {error}") from error


def _last_day(added: dict[str, Any]) -> date:
    statistics = json.loads(added.get("stats") or "{}")
    found = statistics.get("maxValues", {}).get("date")
    return date.fromisoformat(found) if found else date.max


def _page_key(first: int, table_id: str, table: str) -> str:
    return f"{CACHE}versions/{table}/{table_id}/{first:020d}.json"


def _page(first: int, table_id: str, store: ObjectStore, table: str) -> list[Commit] | None:
    """What a page tells, None where there is none that can be believed."""
    try:
        document = store.read_json(_page_key(first, table_id, table))
        if sha256_of(rendered(document["commits"])) != document["sha256"]:
            return None
        return [_from_page(said) for said in document["commits"]]
    except (ObjectMissing, StoreRefused, ValueError, KeyError, TypeError):
        return None


def _said(commit: Commit) -> dict[str, Any]:
    day, time = commit.last_day, commit.known_at
    return {
        "version": commit.version,
        "last_day": None if day is None else day.isoformat(),
        "retracts": commit.retracts,
        "append_id": commit.append_id,
        "known_at": None if time is None else time.isoformat(),
        "files": commit.files,
        "compacts": commit.compacts,
    }


def _from_page(said: dict[str, Any]) -> Commit:
    return Commit(
        said["version"],
        None if said["last_day"] is None else date.fromisoformat(said["last_day"]),
        said["retracts"],
        said["append_id"],
        _time(said["known_at"]),
        tuple(said["files"]),
        said["compacts"],
    )


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
