"""SQL over a stream of Arrow batches, with memory bounded whatever the stream's length."""

import atexit
import os
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import duckdb
import pyarrow as pa

BATCH_ROWS: Final = 65_536
"""Rows in memory at once, times a small number for reading ahead."""

QUERY_MEMORY: Final = "512MB"
"""What a query may hold before it continues on disk."""

MOST_IDLE: Final = 4
"""Databases that are kept for the next queries: to open one takes longer than most queries do."""

_idle: list["_Database"] = []


class _Database:
    """An empty database in memory for one query at a time; it makes its folder on disk when a query needs it."""

    def __init__(self) -> None:
        self.spill = Path(tempfile.gettempdir(), f"crypto_ml_{uuid.uuid4().hex}")
        settings: dict[str, str | bool | int | float | list[str]] = {
            "memory_limit": QUERY_MEMORY,
            "temp_directory": str(self.spill),
            "autoinstall_known_extensions": False,
        }
        self.connection = duckdb.connect(config=settings)
        self.connection.execute("SET enable_progress_bar = false")  # it would go to standard output, among the data

    def close(self) -> None:
        """Its folder goes with it."""
        self.connection.close()


def queried(query: str, known: pa.RecordBatchReader, schema: pa.Schema, **beside: pa.Table) -> Iterator[pa.RecordBatch]:
    """Run `query` over the table `known` and small tables `beside` it; batches come in `schema`. Times must be UTC.

    Raises: what reading `known` raises.
    """
    read = _Read()
    database = _idle.pop() if _idle else _Database()
    tables = {"known": _naive(known, read), **beside}
    try:
        for name, table in tables.items():
            database.connection.register(name, table)
        try:
            for batch in database.connection.sql(query).to_arrow_reader(BATCH_ROWS):
                yield batch.cast(schema)
        except Exception:
            if read.failure:  # what went wrong in the stream, rather than how DuckDB saw it
                raise read.failure from None
            raise
        for name in tables:
            database.connection.unregister(name)
    except BaseException:
        database.close()
        raise
    if read.rows > BATCH_ROWS or len(_idle) >= MOST_IDLE or database.spill.exists():
        database.close()
    else:
        _idle.append(database)


def _close_idle() -> None:
    """Before a fork, which a database's threads do not survive; and before the end, at which DuckDB would complain."""
    while _idle:
        _idle.pop().close()


os.register_at_fork(before=_close_idle)
atexit.register(_close_idle)


class _Read:
    """What became of a stream: how many rows were read, and what went wrong."""

    rows = 0
    failure: Exception | None = None


def _naive(rows: pa.RecordBatchReader, read: _Read) -> pa.RecordBatchReader:
    """The same stream with UTC times that carry no zone: zones would need an extension from the network."""
    schema = pa.schema([f.with_type(pa.timestamp("us")) if pa.types.is_timestamp(f.type) else f for f in rows.schema])

    def batches() -> Iterator[pa.RecordBatch]:
        try:
            for batch in rows:
                read.rows += batch.num_rows
                yield batch.cast(schema)
        except Exception as e:
            read.failure = e
            raise

    return pa.RecordBatchReader.from_batches(schema, batches())
