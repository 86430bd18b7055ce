"""The rows of many small data files of a table put into few larger ones, sorted: none is added, lost or changed.

A table that gets a file with each append is read more slowly with each. Compaction writes the rows of some files once
more and commits, in Delta Lake's own terms (`dataChange: false`), that these take their place from that version on. No
file is removed from the store: every version before reads what it always read, and what vouches for an append stays
true. Files are put together by size, eight of one size into one of the next, so that a row is rewritten a few times at
most however many come after it.

It stands beside writers and gives way to them: an append that comes first is one version earlier, and appends behind it
do not mind. Before it commits it reads what it wrote back and holds it against what it read (`row_sums`), and what it
read against what its append recorded. The commit says all of that, and `evidence_of` makes a record of it.
"""

import json
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from crypto_ml.digest import sha256_of_file
from crypto_ml.errors import Refused
from crypto_ml.storage.failures import AlreadyExists
from crypto_ml.storage.objects import ObjectStore
from crypto_ml.storage.outofcore import BATCH_ROWS, queried
from crypto_ml.storage.tables.commits import COMPACTS, Commit, actions_of, commit_key
from crypto_ml.storage.tables.growing import GrowingTable
from crypto_ml.storage.tables.opened import TableState
from crypto_ml.storage.tables.row_sums import RowSum

KIB: Final = 1024
SIZES: Final = tuple(32 * KIB * 8**level for level in range(5))
"""Sizes that files grow through, in bytes, up to 128 MiB; what is larger is left as it is."""
TOGETHER: Final = 8
TINY_TOGETHER: Final = 32
"""As many files below the least size wait for each other: there a file is all overhead, and a version costs as much."""
MOST_FILES: Final = 1_000
MOST_BYTES: Final = 2 * SIZES[-1]
MOST_ATTEMPTS: Final = 50
LONGEST_BOUND: Final = 256
"""Longer texts are no bounds of a file: its rows are then looked at."""
AT_ONCE: Final = 8
COMPACTED: Final = "compacted-"
FORMAT: Final = 1


class FileChanged(Refused):
    """A data file is not what its append recorded: its rows are not written anywhere else."""


@dataclass(frozen=True)
class Arranged:
    """How a table's rows are laid out when they are compacted. sorted_by: columns that put any two rows in an order.
    apart: a column whose values never share a file, None where there is none."""

    sorted_by: Sequence[str]
    apart: str | None = None


@dataclass(frozen=True)
class CompactionEvidence:
    """One version that only put rows into other files.

    objects: key → sha256 of every object that it added. removed: key → sha256 of every file whose place they took, as
    it was when it was read. rows, rows_sum: how many these are, and their sum (see `row_sums`), the same of both.
    """

    version: int
    objects: Mapping[str, str]
    removed: Mapping[str, str]
    rows: int
    rows_sum: str
    table: str
    format: int = FORMAT


def is_compacted(path: str) -> bool:
    """Whether a data file of a table was written by a compaction, by its name."""
    return path.rpartition("/")[2].startswith(COMPACTED)


def groups_of(files: pa.Table, apart: str | None = None) -> list[list[str]]:
    """Which files are put together now: paths, oldest first. files: as in `TableState.files`."""
    waiting: dict[tuple[Any, int], list[tuple[str, int]]] = {}
    ends = [f"min.{apart}", f"max.{apart}"] if apart and f"min.{apart}" in files.column_names else []
    columns = ["path", "size_bytes", "modification_time", *ends]
    for one in sorted(files.select(columns).to_pylist(), key=lambda one: (one["modification_time"], one["path"])):
        level = next((level for level, size in enumerate(SIZES) if one["size_bytes"] < size), None)
        values = {one[name] for name in ends}
        if level is not None and len(values) < 2:
            waiting.setdefault((values.pop() if values else None, level), []).append((one["path"], one["size_bytes"]))
    found = []
    for (_, level), ones in sorted(waiting.items(), key=lambda item: (item[0][1], str(item[0][0]))):
        least = TOGETHER if level else TINY_TOGETHER
        while len(ones) >= least:
            group: list[str] = []
            size = 0
            while ones and len(group) < MOST_FILES and (len(group) < 2 or size + ones[0][1] <= MOST_BYTES):
                path, its = ones.pop(0)
                group.append(path)
                size += its
            found.append(group)
    return found


def small_files(files: pa.Table) -> int:
    """How many files may still be put together with others."""
    return int(pc.sum(pc.less(files["size_bytes"], SIZES[-1])).as_py() or 0)


def compact(
    table: GrowingTable, arranged: Arranged, vouched: Callable[[Commit], Mapping[str, str]]
) -> Iterator[CompactionEvidence]:
    """Put files together until there is nothing to put together; one entry for each version that did so.

    vouched: key → sha256 of what a version added, as it was recorded; empty where nothing was. Memory is bounded by
    what a sort may hold. Ends early where another compaction, or a change of the columns, came first.
    Raises: FileChanged, StoreUnavailable, StoreRefused.
    """
    while (state := table.at()) and (groups := groups_of(state.files, arranged.apart)):
        version = _compacted(table, state, groups[0], arranged, vouched)
        if version is None:
            return
        yield evidence_of(table, version)


def evidence_of(table: GrowingTable, version: int) -> CompactionEvidence:
    """What is recorded of a compaction, made from what its commit says and from its objects, read back.

    Raises: FileChanged where they do not agree; ObjectMissing, StoreUnavailable, StoreRefused.
    """
    said = json.loads(_said(table, version)[COMPACTS])
    objects = table.commit_evidence(version).objects
    for path, sha256 in said["added"].items():
        if objects.get(f"{table.key}/{path}") != sha256:
            raise FileChanged(_changed(table.store, f"{table.key}/{path}"))
    removed = {f"{table.key}/{path}": sha256 for path, sha256 in said["removed"].items()}
    return CompactionEvidence(version, objects, removed, said["rows"], said["rows_sum"], table.key)


def without_evidence(table: GrowingTable, recorded: Collection[int]) -> list[int]:
    """Compactions that nothing vouches for yet: their run ended before it could. recorded: versions that have it."""
    found = []
    for commit in table.commits_back():
        if commit.compacts and commit.version in recorded:
            break
        if commit.compacts and COMPACTS in _said(table, commit.version):
            found.append(commit.version)
    return found


def _said(table: GrowingTable, version: int) -> dict[str, Any]:
    infos = (action.get("commitInfo") for action in actions_of(table.store.read(commit_key(table.key, version))))
    return next((dict(info) for info in infos if info), {})


def _compacted(
    table: GrowingTable,
    state: TableState,
    group: Sequence[str],
    arranged: Arranged,
    vouched: Callable[[Commit], Mapping[str, str]],
) -> int | None:
    """Put the rows of some files into one; the version that says so, None where somebody else was first."""
    with TemporaryDirectory(prefix="crypto_ml-compaction-") as name:
        directory = Path(name)
        removed = _download(table, group, directory, vouched)
        schema = state.stored
        dataset = ds.dataset([str(path) for path in sorted(directory.glob("*.parquet"))], schema=schema)
        before, bounds = RowSum(), _Bounds(schema)
        rows = pa.RecordBatchReader.from_batches(schema, _counted(dataset, before))
        order = ", ".join(f'"{column}"' for column in arranged.sorted_by)
        out = directory / "out"
        with pq.ParquetWriter(out, schema, compression="zstd") as writer:
            query = f"SELECT * FROM known ORDER BY {order}"  # noqa: S608 - names of ours
            for batch in queried(query, rows, schema):
                bounds.add(batch)
                writer.write_batch(batch, row_group_size=2 * BATCH_ROWS)
        after = RowSum()
        with pq.ParquetFile(out) as written:
            for batch in written.iter_batches(BATCH_ROWS):
                after.add(batch)
        if (after.rows, after.hexdigest()) != (before.rows, before.hexdigest()):
            raise AssertionError(f"{table.key}: {before.rows} rows were to be compacted, and came out otherwise")
        sha256, size = sha256_of_file(out), out.stat().st_size
        path = f"{COMPACTED}{sha256}.parquet"
        with suppress(AlreadyExists):  # left by a compaction that somebody else was faster than; the same bytes
            table.store.upload_file(out, f"{table.key}/{path}", create_only=True)
    sizes = dict(zip(state.files["path"].to_pylist(), state.files["size_bytes"].to_pylist(), strict=True))
    now = int(datetime.now(UTC).timestamp() * 1000)
    said = {"added": {path: sha256}, "removed": removed, "rows": before.rows, "rows_sum": before.hexdigest()}
    actions: list[dict[str, Any]] = [
        {
            "commitInfo": {
                "timestamp": now,
                "operation": "OPTIMIZE",
                "operationParameters": {},
                "engineInfo": "crypto_ml",
                COMPACTS: json.dumps(said, sort_keys=True),
            }
        },
        *(
            {
                "remove": {
                    "path": gone,
                    "deletionTimestamp": now,
                    "dataChange": False,
                    "extendedFileMetadata": True,
                    "partitionValues": {},
                    "size": sizes[gone],
                }
            }
            for gone in group
        ),
        {
            "add": {
                "path": path,
                "partitionValues": {},
                "size": size,
                "modificationTime": now,
                "dataChange": False,
                "stats": json.dumps(bounds.stats(before.rows)),
            }
        },
    ]
    body = "".join(json.dumps(action) + "\n" for action in actions).encode()
    return _commit(table, state.version, body)


def _commit(table: GrowingTable, version: int, body: bytes) -> int | None:
    """Commit behind the newest version; None where a version since then is more than an append."""
    for attempt in range(version + 1, version + 1 + MOST_ATTEMPTS):
        try:
            table.store.create(commit_key(table.key, attempt), body, content_type="application/json")
        except AlreadyExists:
            other = actions_of(table.store.read(commit_key(table.key, attempt)))
            if any(kind in action for action in other for kind in ("remove", "metaData", "protocol")):
                return None
        else:
            table.checkpoint(attempt)
            return attempt
    return None


def _download(
    table: GrowingTable, group: Sequence[str], directory: Path, vouched: Callable[[Commit], Mapping[str, str]]
) -> dict[str, str]:
    """Fetch files into a directory; path → sha256. Raises FileChanged where one is not what was recorded of it."""
    recorded, missing = dict[str, str](), set(group)
    added_by = []
    for commit in table.commits_back():
        if missing.isdisjoint(commit.files):
            continue
        missing -= set(commit.files)
        added_by.append(commit)
        if not missing:
            break
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for found in pool.map(vouched, added_by):
            recorded |= found

        def fetch(numbered: tuple[int, str]) -> str:
            number, path = numbered
            key, local = f"{table.key}/{unquote(path)}", directory / f"{number:06}.parquet"
            table.store.download_whole(key, local)
            sha256 = sha256_of_file(local)
            if recorded.get(key, sha256) != sha256:
                raise FileChanged(_changed(table.store, key))
            return sha256

        return dict(zip(group, pool.map(fetch, enumerate(group)), strict=True))


def _changed(store: ObjectStore, key: str) -> str:
    return f"{store.uri(key)} is not what was written: restore it; nothing is compacted with it before that"


def _counted(dataset: ds.Dataset, rows: RowSum) -> Iterator[pa.RecordBatch]:
    for batch in dataset.scanner(batch_size=BATCH_ROWS, batch_readahead=2, fragment_readahead=2).to_batches():
        rows.add(batch)
        yield batch


class _Bounds:
    """The least and the greatest value of each column of some rows, and how often it has none, as Delta Lake has it."""

    def __init__(self, schema: pa.Schema) -> None:
        self._least: dict[str, Any] = {}
        self._greatest: dict[str, Any] = {}
        self._missing = dict.fromkeys(schema.names, 0)
        self._without = {field.name for field in schema if pa.types.is_boolean(field.type)}

    def add(self, batch: pa.RecordBatch) -> None:
        for name, column in zip(batch.schema.names, batch.columns, strict=True):
            self._missing[name] += column.null_count
            if name in self._without or column.null_count == len(column):
                continue
            ends = pc.min_max(column)
            least, greatest = ends["min"].as_py(), ends["max"].as_py()
            if pa.types.is_floating(column.type) and pc.any(pc.is_nan(column)).as_py():
                self._without.add(name)
            self._least[name] = min(self._least.get(name, least), least)
            self._greatest[name] = max(self._greatest.get(name, greatest), greatest)

    def stats(self, rows: int) -> dict[str, Any]:
        def told(ends: Mapping[str, Any]) -> dict[str, Any]:
            return {name: _as_json(value) for name, value in ends.items() if name in bounded}

        both = {name: (value, self._greatest[name]) for name, value in self._least.items()}
        bounded = {name for name, ends in both.items() if name not in self._without and all(map(_tellable, ends))}
        return {
            "numRecords": rows,
            "minValues": told(self._least),
            "maxValues": told(self._greatest),
            "nullCount": self._missing,
        }


def _tellable(value: Any) -> bool:
    return (
        len(value) <= LONGEST_BOUND if isinstance(value, str) else not (isinstance(value, float) and math.isinf(value))
    )


def _as_json(value: Any) -> Any:
    """Times are told to the millisecond, which is what readers of the greatest take into account."""
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return value.isoformat() if isinstance(value, date) else value
