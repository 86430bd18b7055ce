"""The result of a shard as it is stored: its tables one after the other, and behind them the sha256 of all of it.

Arrow's streaming format, which executes nothing when it is read. A result is written once; of two that compute the
same shard at the same time, the first one's stands.
"""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

import pyarrow as pa

from crypto_ml.digest import sha256_of_file
from crypto_ml.errors import Blocked
from crypto_ml.storage.failures import AlreadyExists
from crypto_ml.storage.objects import ObjectStore

DIGEST: Final = 32
_COMPRESSED: Final = pa.ipc.IpcWriteOptions(compression="lz4")


class ShardDamaged(Blocked):
    """A stored result that is not as it was written."""


def write_tables(tables: Iterable[pa.Table], path: Path) -> None:
    """Write tables of any schemas to a local file, in order, each as it comes."""
    with pa.OSFile(str(path), "wb") as out:
        for table in tables:
            with pa.ipc.new_stream(out, table.schema, options=_COMPRESSED) as stream:
                stream.write_table(table)
    digest = bytes.fromhex(sha256_of_file(path))
    with path.open("ab") as file:
        file.write(digest)


def read_tables(path: Path, where: str) -> Iterator[pa.Table]:
    """The tables of a result, one at a time. where: what it is called in a failure. Raises ShardDamaged."""
    size = path.stat().st_size - DIGEST
    with path.open("r+b") as file:
        file.seek(max(size, 0))
        digest = file.read()
        file.truncate(max(size, 0))
    if size < 0 or bytes.fromhex(sha256_of_file(path)) != digest:
        raise ShardDamaged(f"{where} is not as it was written: delete it, and the next run computes it again")
    with pa.OSFile(str(path), "rb") as source:
        while source.tell() < size:
            with pa.ipc.open_stream(source) as stream:
                yield stream.read_all()


def keep(path: Path, key: str, store: ObjectStore) -> int:
    """Store a result under its key, where none stands yet. Returns its bytes."""
    with suppress(AlreadyExists):
        store.upload_file(path, key, create_only=True)
    return path.stat().st_size
