"""Dagster's records on SQLite, written at once: without waiting for the disk, and without making everything anew.

A run leaves some fifty records, each a transaction on a connection of its own. As Dagster opens them, each waits for
the disk when it is committed, and again when its connection is closed: the last one that is closed puts the
write-ahead log into the database. Here one more connection stays open to each of the databases in use, so that none is
the last, and commits are `synchronous=NORMAL`, which is what SQLite recommends for a write-ahead log
(sqlite.org/pragma.html): the databases stay whole whatever happens, and nothing is lost when a process is killed; what
a power cut can take are the last records of what Dagster says of runs. What became of an upload stands in S3.

What SQLAlchemy needs for a database, the compiled statements above all, Dagster makes for each connection and lets go
with it, a hundred and fifty times in a run; here it is kept for the next.

Dagster's page of a run follows it by the time at which its database was changed, which a write-ahead log leaves as it
is: it is set after each change.
"""

import os
import sqlite3
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from threading import Lock
from typing import Any, Final

from sqlalchemy import event
from sqlalchemy.engine import Engine
from sqlalchemy.pool import Pool

from crypto_ml.defs.warm.dagster_launching import SQLITE_STORAGES

MOST_HELD: Final = 16
"""Databases that are kept open: three of the instance, and one of each run."""

OF_NO_RUN: Final = ".db"
"""The database of records that are of no run. `dagster run wipe` deletes those of runs, and this one alone is made anew
under its name, which must not be done beside an open connection."""

PATH: Final = "crypto_ml/path"


def write_at_once() -> None:
    """Let all of Dagster's records that this process writes to SQLite be written so, from now on."""
    if event.contains(Engine, "connect", _opened):
        return
    event.listen(Engine, "connect", _opened)
    event.listen(Pool, "close", _closing)
    for storage in SQLITE_STORAGES:
        storage.create_engine = _Engines(storage.create_engine)  # type: ignore[attr-defined]


def _opened(connection: Any, record: Any) -> None:
    if not isinstance(connection, sqlite3.Connection):
        return
    path = str(connection.execute("PRAGMA database_list").fetchone()[2])
    if path:
        connection.execute("PRAGMA synchronous = NORMAL")
        _HELD.hold(path)
        record.info[PATH] = path


def _closing(connection: Any, record: Any) -> None:
    path = record.info.get(PATH)
    if path and connection.total_changes:
        try:
            os.utime(path)
        except OSError:  # deleted since, or not ours
            return


class _Engines:
    """The engines of the databases used last. Dagster's pool nothing: who asks one for a connection has a new one."""

    def __init__(self, create: Callable[..., Engine]) -> None:
        self._create = create
        self._lock = Lock()
        self._kept: OrderedDict[str, Engine] = OrderedDict()

    def __call__(self, url: str, **how: Any) -> Engine:
        key = f"{url} {how}"
        with self._lock:
            if key not in self._kept:
                self._kept[key] = self._create(url, **how)
            self._kept.move_to_end(key)
            while len(self._kept) > MOST_HELD:
                self._kept.popitem(last=False)
            return self._kept[key]


class _Held:
    """One connection to each of the databases used last. It reads nothing, and keeps nobody from anything."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._connections: OrderedDict[str, sqlite3.Connection] = OrderedDict()

    def hold(self, path: str) -> None:
        if Path(path).name == OF_NO_RUN:
            return
        with self._lock:
            if path not in self._connections:
                connection = sqlite3.connect(f"{Path(path).as_uri()}?mode=ro", uri=True, check_same_thread=False)
                try:
                    connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
                    with_log = connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
                except sqlite3.Error:  # whoever asked for it will say what is wrong with it
                    with_log = False
                if not with_log:  # where it is being made, it has none yet
                    connection.close()
                    return
                self._connections[path] = connection
            self._connections.move_to_end(path)
            while len(self._connections) > MOST_HELD:
                self._connections.popitem(last=False)[1].close()


_HELD: Final = _Held()
