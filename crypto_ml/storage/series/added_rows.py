"""What each commit of the market history added: its data files, as its log names them, and the rows in them.

A commit that only rewrites files (`dataChange` is false: compaction) adds nothing. The files of old versions are never
removed, so what a commit added can be read for ever.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.parquet as pq

from crypto_ml.digest import sha256_of
from crypto_ml.storage.failures import StoreRefused
from crypto_ml.storage.history import SCHEMA
from crypto_ml.storage.objects import ObjectStore
from crypto_ml.storage.outofcore import BATCH_ROWS

MOST_BYTES_IN_MEMORY: Final = 16 * 1024 * 1024
"""A larger file is read from a temporary copy on disk, a batch at a time."""

LONGEST_BOUND: Final = 32
"""Bytes of a name from which on the log's least and greatest values may be cut off, and are not gone by."""


@dataclass(frozen=True)
class AddedFile:
    """A data file. rows: as the log says, else a guess. symbols: the first and the last, None where it does not say.
    voids: whether some of the rows may be void."""

    key: str
    size: int
    rows: int
    symbols: tuple[str, str] | None
    voids: bool


@dataclass(frozen=True)
class Added:
    """One version of the table: the sha256 of its commit, by which tables are told apart, and the files it added."""

    version: int
    sha256: str
    files: tuple[AddedFile, ...]

    @property
    def rows(self) -> int:
        """Rows it added."""
        return sum(file.rows for file in self.files)

    @property
    def voids(self) -> bool:
        """Whether some of them may be void."""
        return any(file.voids for file in self.files)


def added_by(version: int, store: ObjectStore, table: str) -> Added:
    """What the commit of a version added. Raises ObjectMissing where there is none; StoreRefused, StoreUnavailable."""
    key = f"{table}/_delta_log/{version:020d}.json"
    content = store.read(key)
    try:
        actions = [json.loads(line) for line in content.splitlines() if line.strip()]
        added = [action["add"] for action in actions if "add" in action]
        files = tuple(_file(one, table) for one in added if one.get("dataChange", True))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StoreRefused(f"{store.uri(key)} is not a commit of Delta Lake: {error}") from error
    return Added(version, sha256_of(content), files)


def _file(added: dict[str, Any], table: str) -> AddedFile:
    statistics = json.loads(added.get("stats") or "{}")
    least, greatest = (statistics.get(which, {}).get("symbol") for which in ("minValues", "maxValues"))
    whole = all(isinstance(bound, str) and len(bound.encode()) < LONGEST_BOUND for bound in (least, greatest))
    size = int(added["size"])
    nulls = statistics.get("nullCount")
    return AddedFile(
        key=f"{table}/{unquote(added['path'])}",
        size=size,
        rows=int(statistics.get("numRecords", size // 16)),
        symbols=(least, greatest) if whole else None,
        voids=nulls is None or ("void" in nulls and nulls["void"] != statistics.get("numRecords")),
    )


def batches_of(file: AddedFile, store: ObjectStore) -> Iterator[pa.RecordBatch]:
    """The rows of a data file in the history's columns; those that its release did not know are null."""
    if file.size <= MOST_BYTES_IN_MEMORY:
        yield from _batches(pa.BufferReader(store.read(file.key)))
        return
    with TemporaryDirectory(prefix="crypto_ml_") as folder:
        path = Path(folder) / "rows.parquet"
        store.download_whole(file.key, path)
        yield from _batches(path)


def _batches(source: pa.BufferReader | Path) -> Iterator[pa.RecordBatch]:
    with pq.ParquetFile(source) as stored:
        known = [name for name in stored.schema_arrow.names if name in SCHEMA.names]
        for batch in stored.iter_batches(BATCH_ROWS, columns=known, use_threads=False):
            columns = [
                batch[field.name].cast(field.type) if field.name in known else pa.nulls(batch.num_rows, field.type)
                for field in SCHEMA
            ]
            yield pa.RecordBatch.from_arrays(columns, schema=SCHEMA)
