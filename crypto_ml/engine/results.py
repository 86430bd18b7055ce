"""The result of a shard as it is stored: its tables one after the other, and behind them the sha256 of all of it.

Arrow's streaming format, which executes nothing when it is read. A result is written once; of two that compute the
same shard at the same time, the first one's stands.
"""

import hashlib
import io
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from crypto_ml.errors import Blocked
from crypto_ml.storage.failures import AlreadyExists
from crypto_ml.storage.objects import ObjectStore

DIGEST: Final = 32
_COMPRESSED: Final = pa.ipc.IpcWriteOptions(compression="zstd")
"""Of a scored part three quarters of what lz4 leaves, for as much processor time as sending the difference takes."""

MOST_AT_ONCE: Final = 64 << 20
"""Bytes of a result that are sent in one request: half the processor time, here and there, of sending them in parts."""


class ShardDamaged(Blocked):
    """A stored result that is not as it was written; it is to be computed again."""


class _Hashing(io.RawIOBase):
    """A file that is hashed while it is written."""

    def __init__(self, file: io.BufferedWriter) -> None:
        self._file = file
        self.sha256 = hashlib.sha256()

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._file.tell()

    def write(self, content: Any) -> int:
        self.sha256.update(content)
        return self._file.write(content)


def write_tables(tables: Iterable[pa.Table], path: Path) -> None:
    """Write tables of any schemas to a local file, in order, each as it comes."""
    for _ in written_along(tables, path):
        pass


def written_along(tables: Iterable[pa.Table], path: Path) -> Iterator[pa.Table]:
    """Tables of any schemas, each written to a local file before it comes; the file is whole when they have an end."""
    with path.open("wb") as file:
        out = _Hashing(file)
        for table in tables:
            with pa.ipc.new_stream(out, table.schema, options=_COMPRESSED) as stream:
                stream.write_table(table)
            yield table
        file.write(out.sha256.digest())


def read_tables(path: Path, where: str) -> Iterator[pa.Table]:
    """The tables of a result, one at a time. where: what it is called in a failure. Raises ShardDamaged, at once."""
    with pa.memory_map(str(path)) as file:
        content = file.read_buffer()
    size = max(content.size - DIGEST, 0)
    whole = memoryview(content)
    if content.size < DIGEST or hashlib.sha256(whole[:size]).digest() != bytes(whole[size:]):
        raise ShardDamaged(f"{where} is not as it was written")

    def tables() -> Iterator[pa.Table]:
        source = pa.BufferReader(content.slice(0, size))
        while source.tell() < size:
            with pa.ipc.open_stream(source) as stream:
                yield stream.read_all()

    return tables()


def keep(path: Path, key: str, store: ObjectStore) -> int:
    """Store a result under its key, where none stands yet. Returns its bytes."""
    size = path.stat().st_size
    with suppress(AlreadyExists):
        if size <= MOST_AT_ONCE:
            store.create(key, path.read_bytes())
        else:
            store.upload_file(path, key, create_only=True)
    return size


def keep_instead(path: Path, key: str, store: ObjectStore) -> None:
    """Store a result in the place of one that was damaged or is gone."""
    store.upload_file(path, key, create_only=False)
