"""Every accepted observation ever received, append-only, in a Delta Lake table.

What is appended: the rows of `schema.OBSERVATION`, each with `known_at` (when it became known), `upload_id` (which
upload it came from) and `line` (its row there). Nothing is changed or removed: a corrected observation is one more row
for its (symbol, date), and the row with the latest `known_at` is the current one.

What a version means: the table's state after that many commits. It holds exactly the appends up to then, for ever: log
and files of old versions are never cleaned up, so a version number is the name of "the state of the data" in receipts
and training manifests.
"""

import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import reduce
from operator import and_
from typing import Final
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.dataset as ds
from deltalake import CommitProperties, DeltaTable, Transaction, WriterProperties, write_deltalake
from deltalake.exceptions import (
    CommitFailedError,
    DeltaError,
    DeltaProtocolError,
    SchemaMismatchError,
    TableNotFoundError,
)

from crypto_ml.digest import sha256_of
from crypto_ml.errors import Refused
from crypto_ml.forecasting.schema import OBSERVATION
from crypto_ml.storage.failures import StoreRefused, StoreUnavailable
from crypto_ml.storage.objects import ObjectStore
from crypto_ml.storage.outofcore import BATCH_ROWS, queried

ARROW_TYPES: Final = {"str": pa.string(), "datetime64[s]": pa.date32(), "float64": pa.float64()}
"""Arrow's type for each dtype of `schema.OBSERVATION`."""

MISSING_ALLOWED: Final = frozenset({"market", "volume", "slug"})

SCHEMA: Final = pa.schema(
    [
        *(pa.field(name, ARROW_TYPES[dtype], name in MISSING_ALLOWED) for name, dtype in OBSERVATION.items()),
        pa.field("known_at", pa.timestamp("us", "UTC"), nullable=False),
        pa.field("upload_id", pa.string(), nullable=False),
        pa.field("line", pa.int64(), nullable=False),
    ]
)
"""Columns of the table: an observation, and where and when it became known."""

TABLE_PROPERTIES: Final = {
    "delta.appendOnly": "true",
    "delta.enableExpiredLogCleanup": "false",  # the default forgets versions after 30 days
    "delta.checkpointInterval": "50",
}

LATEST_KNOWN_SQL: Final = """
    SELECT {columns} FROM known
    QUALIFY row_number() OVER (PARTITION BY symbol, date ORDER BY known_at DESC, upload_id DESC, line DESC) = 1
    ORDER BY symbol, date
"""
"""The current row of each (symbol, date) among the rows `known`."""


class HistoryRefused(Refused):
    """The rows, or the version asked for, do not fit this history."""


@dataclass(frozen=True)
class CommitEvidence:
    """One version of the table: key → sha256 of every object that it added."""

    version: int
    objects: Mapping[str, str]


class MarketHistory:
    """The table under `key` of a store. Methods open it anew, so several processes see each other's appends."""

    def __init__(self, store: ObjectStore, key: str = "market_history") -> None:
        self.store = store
        self.key = key
        self.uri = store.delta_uri(key)

    def version(self) -> int | None:
        """The current version; None where nothing was ever appended."""
        table = self._open()
        return None if table is None else table.version()

    def count(self, version: int | None = None) -> int:
        """Rows at `version` (None: now), corrections included; read from the log, not from the data."""
        with self._explained("count"):
            table = self._open(version)
            return 0 if table is None else table.count()

    def append(self, rows: pa.RecordBatchReader | pa.Table, *, append_id: str, known_at: datetime) -> int:
        """Append rows with the columns of `SCHEMA` (any order; others are dropped); returns the version they are in.

        known_at: when the rows became known, which is what `version_known_by` looks at.
        All or nothing, once per `append_id`: a second append with the same id, also at the same moment, adds nothing
        and returns the version of the first (the current version where that was over 50 versions ago). Memory is
        bounded by a batch. Raises: HistoryRefused, StoreUnavailable, StoreRefused, and what the reader raises.
        """
        missing = [name for name in SCHEMA.names if name not in rows.schema.names]
        if missing:
            raise HistoryRefused(f"Rows for the market history lack the columns {', '.join(missing)}: add them.")
        with self._explained("append to"):
            table = self._open() or self._create()
            if table.transaction_version(append_id) is not None:
                return _version_of(table, append_id)
            failures: list[BaseException] = []
            try:
                write_deltalake(
                    table,
                    pa.RecordBatchReader.from_batches(SCHEMA, _fitting(rows, failures)),
                    mode="append",
                    commit_properties=CommitProperties(
                        app_transactions=[Transaction(append_id, 1)],
                        custom_metadata={"append_id": append_id, "known_at": known_at.astimezone(UTC).isoformat()},
                        max_commit_retries=100,
                    ),
                    writer_properties=WriterProperties(compression="ZSTD", max_row_group_size=2 * BATCH_ROWS),
                )
            except CommitFailedError as e:
                table.update_incremental()
                if table.transaction_version(append_id) is None:
                    raise StoreUnavailable(f"Too many writers met at {self.uri}: append again.") from e
                return _version_of(table, append_id)
            except Exception:
                if failures:  # what went wrong in the reader, rather than how Delta Lake saw it
                    raise failures[0] from None
                raise
            return table.version()

    def version_known_by(self, time: datetime) -> int | None:
        """The newest version with rows that were known at `time` (aware); None where nothing was.

        What becomes known later never changes it. Read from the log alone.
        """
        with self._explained("look at"):
            table = self._open()
            asked = 1
            while table is not None:
                commits = table.history(limit=asked)
                for commit in commits:
                    known_at = commit.get("known_at")
                    if known_at and datetime.fromisoformat(known_at) <= time:
                        return int(commit["version"])
                if len(commits) < asked:
                    break
                asked *= 4
            return None

    def commit_evidence(self, version: int) -> CommitEvidence:
        """What makes up a version, read back from the store: the commit and each data file it added.

        The first append vouches for the table's creation too. Raises: ObjectMissing where a data file is gone;
        StoreUnavailable, StoreRefused.
        """
        log = f"{self.key}/_delta_log/"
        versions = (0, 1) if version == 1 else (version,)
        # a version's own name is that of its commit and, now and then, of a checkpoint
        names = [found.key for each in versions for found in self.store.list(f"{log}{each:020}.")]
        commit_key = f"{log}{version:020}.json"
        try:
            actions = [json.loads(line) for line in self.store.read(commit_key).splitlines() if line.strip()]
            names += [f"{self.key}/{unquote(action['add']['path'])}" for action in actions if "add" in action]
        except (ValueError, KeyError, TypeError) as e:
            raise HistoryRefused(f"{self.store.uri(commit_key)} is not a commit of Delta Lake: {e}") from e
        return CommitEvidence(version, {key: sha256_of(self.store.read(key)) for key in names})

    def scan(
        self,
        columns: Collection[str] | None = None,
        *,
        symbols: Collection[str] | None = None,
        before: date | None = None,
        version: int | None = None,
        known_by: datetime | None = None,
    ) -> pa.RecordBatchReader:
        """Stream every row ever appended, corrections included, in no particular order.

        Only `columns`, of `symbols`, of days earlier than `before`, known at `known_by` (aware) or earlier, as of
        `version` (None: now). Only the files and columns that this needs are read. No table: no rows.
        Raises: HistoryRefused, StoreUnavailable, StoreRefused, also between two batches.
        """
        names = SCHEMA.names if columns is None else list(columns)
        unknown = [name for name in names if name not in SCHEMA.names]
        if unknown:
            raise HistoryRefused(
                f"The market history has no columns {', '.join(unknown)}: choose from {', '.join(SCHEMA.names)}."
            )
        schema = pa.schema([SCHEMA.field(name) for name in names])
        conditions = []
        if symbols is not None:
            conditions.append(ds.field("symbol").isin(pa.array(sorted(symbols), pa.string())))
        if before is not None:
            conditions.append(ds.field("date") < pa.scalar(before, pa.date32()))
        if known_by is not None:
            conditions.append(ds.field("known_at") <= pa.scalar(known_by, SCHEMA.field("known_at").type))
        with self._explained("read"):
            table = self._open(version)
            dataset = None if table is None else table.to_pyarrow_dataset(schema=SCHEMA)

        def batches() -> Iterator[pa.RecordBatch]:
            if dataset is None:
                return
            with self._explained("read"):
                yield from dataset.scanner(
                    columns=names,
                    filter=reduce(and_, conditions) if conditions else None,
                    batch_size=BATCH_ROWS,
                    batch_readahead=2,
                    fragment_readahead=2,
                ).to_batches()

        return pa.RecordBatchReader.from_batches(schema, batches())

    def current_rows(
        self,
        columns: Collection[str] | None = None,
        *,
        symbols: Collection[str] | None = None,
        before: date | None = None,
        version: int | None = None,
        known_by: datetime | None = None,
    ) -> pa.Table:
        """One row per (symbol, date), sorted by both: the one with the latest `known_at`.

        Ties go to the greatest `upload_id`, then `line`. With `known_by`, history as it was known then. Arguments and
        failures as for `scan`.
        """
        return self.current_batches(
            columns, symbols=symbols, before=before, version=version, known_by=known_by
        ).read_all()

    def current_batches(
        self,
        columns: Collection[str] | None = None,
        *,
        symbols: Collection[str] | None = None,
        before: date | None = None,
        version: int | None = None,
        known_by: datetime | None = None,
    ) -> pa.RecordBatchReader:
        """`current_rows` as a stream; what does not fit into 512 MB is sorted on disk."""
        names = SCHEMA.names if columns is None else list(columns)
        needed = [*names, *(n for n in ("symbol", "date", "known_at", "upload_id", "line") if n not in names)]
        known = self.scan(needed, symbols=symbols, before=before, version=version, known_by=known_by)
        schema = pa.schema([SCHEMA.field(name) for name in names])
        query = LATEST_KNOWN_SQL.format(columns=", ".join(f'"{name}"' for name in names))
        return pa.RecordBatchReader.from_batches(schema, queried(query, known, schema))

    def slugs(self, symbols: Collection[str] | None = None, version: int | None = None) -> dict[str, str]:
        """The slug of each series (of `symbols`) that was ever given one; of several, the one known first."""
        columns = ["symbol", "slug", "known_at", "upload_id", "line"]
        known = self.scan(columns, symbols=symbols, version=version)
        query = """
            SELECT symbol, arg_min(slug, row(known_at, upload_id, line)) AS slug
            FROM known WHERE slug IS NOT NULL GROUP BY symbol ORDER BY symbol
        """
        schema = pa.schema([SCHEMA.field("symbol"), SCHEMA.field("slug")])
        found = pa.RecordBatchReader.from_batches(schema, queried(query, known, schema)).read_all()
        return dict(zip(found["symbol"].to_pylist(), found["slug"].to_pylist(), strict=True))

    def _options(self) -> dict[str, str]:
        patience = {"max_retries": "4", "retry_timeout": "30s", "connect_timeout": "5s", "timeout": "60s"}
        return self.store.delta_options() | patience

    def _open(self, version: int | None = None) -> DeltaTable | None:
        with self._explained("open"):
            table: DeltaTable | None
            try:
                table = DeltaTable(self.uri, storage_options=self._options())
            except TableNotFoundError:
                absent = not any(self.store.list(f"{self.key}/_delta_log/"))  # raises where the bucket is missing
                # a log that is there was begun a moment ago by another writer
                table = None if absent else DeltaTable(self.uri, storage_options=self._options())
            newest = -1 if table is None else table.version()
            if version is not None and not 0 <= version <= newest:
                raise HistoryRefused(f"{self.uri} has no version {version}: the newest is {newest}.")
            if table is not None and version not in (None, newest):
                table.load_as_version(version)
            return table

    def _create(self) -> DeltaTable:
        try:
            return DeltaTable.create(
                self.uri,
                SCHEMA,
                configuration=TABLE_PROPERTIES,
                storage_options=self._options(),
                # delta-rs would try again as version 1, and a second protocol there makes concurrent appends fail
                commit_properties=CommitProperties(max_commit_retries=0),
            )
        except DeltaError:
            # somebody else was first; anything else shows when it is opened
            table = self._open()
            if table is None:
                raise
            return table

    @contextmanager
    def _explained(self, doing: str) -> Iterator[None]:
        try:
            yield
        except (SchemaMismatchError, DeltaProtocolError) as e:
            raise HistoryRefused(f"{self.uri} is not a market history of this version of crypto_ml: {e}") from e
        except (OSError, DeltaError) as e:
            next(self.store.list(f"{self.key}/_delta_log/"), None)  # the same store, asked by who can name its failure
            if any(word in str(e) for word in ("AccessDenied", "Forbidden", "PermissionDenied")):
                raise StoreRefused(
                    f"The store does not allow these credentials to {doing} {self.uri}: grant it."
                ) from e
            raise StoreUnavailable(f"Could not {doing} {self.uri} for now ({type(e).__name__}): try again.") from e


def _fitting(rows: pa.RecordBatchReader | pa.Table, failures: list[BaseException]) -> Iterator[pa.RecordBatch]:
    """`rows` in the columns and types of `SCHEMA`; a failure is kept, because Arrow's stream loses its type."""
    try:
        batches: Iterable[pa.RecordBatch] = rows.to_batches(BATCH_ROWS) if isinstance(rows, pa.Table) else rows
        for batch in batches:
            try:
                yield batch.select(SCHEMA.names).cast(SCHEMA)
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError, ValueError) as e:
                raise HistoryRefused(f"Rows for the market history do not fit its columns: {e}") from e
    except BaseException as e:
        failures.append(e)
        raise


def _version_of(table: DeltaTable, append_id: str) -> int:
    for commit in table.history(limit=50):
        if commit.get("append_id") == append_id:
            return int(commit["version"])
    return table.version()
