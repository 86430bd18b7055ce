"""Upkeep of the tables: many small data files put together, so that reading does not grow with the number of appends.

Nothing that was written is removed, every version stays what it was, and no answer waits for it. Of each table in this
order: what a run before this one did not come to record is recorded; files are put together
(`storage.tables.compaction`), and what each such version did is recorded, once; and what its log says of many versions
is put into pages (`storage.tables.commits`), which are a cache. Behind the tables comes the cache of series, which an
answer brings forward by itself only where that is little work.
"""

import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Final

import pyarrow.compute as pc

from crypto_ml.deployment import Deployment
from crypto_ml.ledger.formats.reading import read_record
from crypto_ml.ledger.layout import append_key, compaction_key, compactions_prefix
from crypto_ml.storage import history, prediction_log
from crypto_ml.storage.failures import AlreadyExists, ObjectMissing
from crypto_ml.storage.history import MarketHistory
from crypto_ml.storage.objects import ObjectStore
from crypto_ml.storage.prediction_log import PredictionLog
from crypto_ml.storage.series.refresh import Refreshed
from crypto_ml.storage.tables.commits import Commit, keep_pages
from crypto_ml.storage.tables.compaction import (
    Arranged,
    CompactionEvidence,
    compact,
    evidence_of,
    groups_of,
    small_files,
    without_evidence,
)
from crypto_ml.storage.tables.growing import CommitEvidence, GrowingTable

log = logging.getLogger(__name__)

OVERDUE: Final = 1_000
"""Small files of a table from which on upkeep should have run long ago: answers take seconds longer."""


@dataclass(frozen=True)
class TableShape:
    """A table at a version: its data files, their bytes, and how many of them are small. Zeros where there is none."""

    version: int | None = None
    files: int = 0
    bytes: int = 0
    small: int = 0


@dataclass(frozen=True)
class Kept:
    """What was done for one table.

    compactions: the versions that put files together. healed: how many of earlier runs were recorded now. pages: how
    many were written. seconds: what it took.
    """

    table: str
    before: TableShape
    after: TableShape
    compactions: tuple[CompactionEvidence, ...]
    healed: int
    pages: int
    seconds: float


def keep_tables(store: ObjectStore) -> list[Kept]:
    """Do what is due for each table. Raises FileChanged where a file is not what its append recorded, and what store
    and tables do."""
    kept = [_keep(table, arranged) for table, arranged in _tables(store)]
    MarketHistory(store).known.keep()
    return kept


def keep_series(deployment: Deployment) -> Refreshed | None:
    """Bring the cache of series up to the history as it is now, however much that is; None where little has come since.
    Failures as for `SeriesCache.book`."""
    version = deployment.history.version()
    if version is None or not deployment.series.due(version):
        return None
    return deployment.series.refresh(version)


def is_due(deployment: Deployment) -> bool:
    """Whether there are files to put together, or the cache of series is behind."""
    version = deployment.history.version()
    if version is not None and deployment.series.due(version):
        return True
    return any(
        bool(groups_of(state.files, arranged.apart))
        for table, arranged in _tables(deployment.store)
        if (state := table.at()) is not None
    )


def overdue(store: ObjectStore) -> dict[str, int]:
    """Tables with OVERDUE small files or more, and how many these are."""
    small = {table.key: shape(table).small for table, _ in _tables(store)}
    return {name: count for name, count in small.items() if count >= OVERDUE}


def shape(table: GrowingTable) -> TableShape:
    """A table as it is now."""
    state = table.at()
    if state is None:
        return TableShape()
    size = pc.sum(state.files["size_bytes"]).as_py() or 0
    return TableShape(state.version, state.files.num_rows, size, small_files(state.files))


def _tables(store: ObjectStore) -> Iterator[tuple[GrowingTable, Arranged]]:
    yield MarketHistory(store).table, history.ARRANGED
    yield PredictionLog(store).table, prediction_log.ARRANGED


def _keep(table: GrowingTable, arranged: Arranged) -> Kept:
    began = time.monotonic()
    before = shape(table)
    healed = _heal(table)
    done = []
    for evidence in compact(table, arranged, lambda commit: _vouched(commit, table)):
        _record(evidence, table.store)
        done.append(evidence)
        log.info(
            "%s: %d files put together in version %d, %d rows",
            table.key,
            len(evidence.removed),
            evidence.version,
            evidence.rows,
        )
    state = table.at()
    pages = 0 if state is None else keep_pages(state.version, state.table_id, table.store, table.key)
    return Kept(table.key, before, shape(table), tuple(done), healed, pages, round(time.monotonic() - began, 2))


def _heal(table: GrowingTable) -> int:
    """Record compactions whose run ended before it could; returns how many."""
    prefix = compactions_prefix(table.key)
    keys = [found.key for found in table.store.list(prefix)]
    recorded = {int(key.removeprefix(prefix).removesuffix(".json")) for key in keys}
    left = without_evidence(table, recorded)
    for version in left:
        _record(evidence_of(table, version), table.store)
    return len(left)


def _record(evidence: CompactionEvidence, store: ObjectStore) -> None:
    with suppress(AlreadyExists):
        store.create_json(compaction_key(evidence.table, evidence.version), asdict(evidence))


def _vouched(commit: Commit, table: GrowingTable) -> Mapping[str, str]:
    """What was recorded of the objects that a version added; nothing where nothing was."""
    by_append = commit.append_id is not None
    key = append_key(str(commit.append_id)) if by_append else compaction_key(table.key, commit.version)
    try:
        document = table.store.read_json(key)
    except ObjectMissing:
        return {}
    if by_append:
        return read_record(CommitEvidence, document, table.store.uri(key)).objects
    return read_record(CompactionEvidence, document, table.store.uri(key)).objects
