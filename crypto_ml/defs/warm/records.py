"""Dagster's records on SQLite, written without waiting for the disk at each of them.

A run leaves some fifty records, each a transaction on a connection of its own. As Dagster opens them, each waits for
the disk when it is committed, and again when its connection is closed: the last one that is closed puts the
write-ahead log into the database. Here one more connection stays open to each of the databases in use, so that none is
the last, and commits are `synchronous=NORMAL`, which is what SQLite recommends for a write-ahead log
(sqlite.org/pragma.html): the databases stay whole whatever happens, and nothing is lost when a process is killed; what
a power cut can take are the last records of what Dagster says of runs. What became of an upload stands in S3.

Dagster's page of a run follows it by the time at which its database was changed, which a write-ahead log leaves as it
is: it is set after each change.
"""

import os
import sqlite3
from collections import OrderedDict
from pathlib import Path
from threading import Lock
from typing import Any, Final

from sqlalchemy import event
from sqlalchemy.engine import Engine
from sqlalchemy.pool import Pool

MOST_HELD: Final = 16
"""Databases that are kept open: three of the instance, and one of each run."""

PATH: Final = "crypto_ml/path"


def without_waiting() -> None:
    """Let all of Dagster's records that this process writes to SQLite be written so, from now on."""
    if not event.contains(Engine, "connect", _opened):
        event.listen(Engine, "connect", _opened)
        event.listen(Pool, "close", _closing)


def _opened(connection: Any, record: Any) -> None:
    if not isinstance(connection, sqlite3.Connection):
        return
    path = str(connection.execute("PRAGMA database_list").fetchone()[2])
    # what has no name of its own is made anew under the same one, and is not to be held
    if path and Path(path).stem:
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


class _Held:
    """One connection to each of the databases used last. It reads nothing, and keeps nobody from anything."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._connections: OrderedDict[str, sqlite3.Connection] = OrderedDict()

    def hold(self, path: str) -> None:
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
