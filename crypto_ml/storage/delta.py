"""Delta Lake tables in the store that only grow, each append exactly once; a version is the name of a state.

Belongs here: opening, making, widening and appending to such a table, and what its failures mean. What its columns
mean is the business of whoever keeps it (`history`, `prediction_log`).

A table may have been made by an earlier release, which knew fewer columns, or be used by a later one, which knows more:
missing columns read as null, and are added before the first append that has them; columns that are not known here are
left null in what is appended.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import CommitProperties, DeltaTable, Field, Schema, Transaction, WriterProperties, write_deltalake
from deltalake.exceptions import (
    CommitFailedError,
    DeltaError,
    DeltaProtocolError,
    SchemaMismatchError,
    TableNotFoundError,
)

from crypto_ml.digest import sha256_of
from crypto_ml.errors import Refused
from crypto_ml.storage.failures import StoreNotUsable, StoreUnavailable
from crypto_ml.storage.objects import ObjectStore
from crypto_ml.storage.outofcore import BATCH_ROWS

TABLE_PROPERTIES: Final = {
    "delta.appendOnly": "true",
    "delta.enableExpiredLogCleanup": "false",  # the default forgets versions after 30 days
    "delta.checkpointInterval": "50",
}
COMMITS_LOOKED_AT: Final = 50
MOST_WIDENINGS: Final = 5


class TableRefused(Refused):
    """The rows, or the version asked for, do not fit this table."""


@dataclass(frozen=True)
class CommitEvidence:
    """One version of the table: key → sha256 of every object that it added."""

    version: int
    objects: Mapping[str, str]


class GrowingTable:
    """The table under `key` of a store. Methods open it anew, so several processes see each other's appends.

    schema: the columns known here; those that are not nullable are in every release's table.
    """

    def __init__(self, store: ObjectStore, key: str, schema: pa.Schema) -> None:
        self.store = store
        self.key = key
        self.schema = schema
        self.uri = store.delta_uri(key)

    def version(self) -> int | None:
        """The current version; None where nothing was ever appended."""
        table = self.open()
        return None if table is None else table.version()

    def count(self, version: int | None = None) -> int:
        """Rows at `version` (None: now); read from the log, not from the data."""
        with self.explained("count"):
            table = self.open(version)
            return 0 if table is None else table.count()

    def bounds(self, column: str, version: int | None = None) -> tuple[Any, Any] | None:
        """The least and the greatest value of a column at `version` (None: now), as the log has them of each file.

        None where there is no row, or where a file was written without them.
        """
        with self.explained("look at"):
            table = self.open(version)
            if table is None:
                return None
            files = pa.table(table.get_add_actions(flatten=True))
            ends = f"min.{column}", f"max.{column}"
            if not files.num_rows or any(name not in files.column_names or files[name].null_count for name in ends):
                return None
            return pc.min(files[ends[0]]).as_py(), pc.max(files[ends[1]]).as_py()

    def append(self, rows: pa.RecordBatchReader | pa.Table, *, append_id: str, **said: str) -> int:
        """Append rows with the columns of the schema (any order; others are dropped); returns the version they are in.

        said: what the commit says beside the id. All or nothing, once per `append_id`: a second append with the same
        id, also at the same moment, adds nothing and returns the version of the first. Memory is bounded by a batch.
        Raises: TableRefused, StoreUnavailable, StoreRefused, and what the reader raises.
        """
        missing = [name for name in self.schema.names if name not in rows.schema.names]
        if missing:
            raise TableRefused(f"Rows for {self.key} lack the columns {', '.join(missing)}: add them.")
        with self.explained("append to"):
            table = self._widened(self.open() or self._create())
            if table.transaction_version(append_id) is not None:
                return _version_of(table, append_id)
            failures: list[BaseException] = []
            stored = pa.schema(table.schema().to_arrow())
            try:
                write_deltalake(
                    table,
                    pa.RecordBatchReader.from_batches(stored, self._fitting(rows, stored, failures)),
                    mode="append",
                    commit_properties=CommitProperties(
                        app_transactions=[Transaction(append_id, 1)],
                        custom_metadata={"append_id": append_id, **said},
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

    def appended(self, append_id: str) -> int | None:
        """The version that an append is in; None where it was not made."""
        with self.explained("look at"):
            table = self.open()
            if table is None or table.transaction_version(append_id) is None:
                return None
            return _version_of(table, append_id)

    def commit_evidence(self, version: int) -> CommitEvidence:
        """What makes up a version, read back from the store: the commit and each data file it added.

        It vouches for the commits without rows right before it too, by which the table was made or widened. Raises:
        ObjectMissing where a data file is gone; StoreUnavailable, StoreRefused.
        """
        log = f"{self.key}/_delta_log/"
        commit_key = f"{log}{version:020}.json"
        names: list[str] = []
        try:
            names += [f"{self.key}/{unquote(action['add']['path'])}" for action in self._actions(version, "add")]
            first = version
            while first > 0 and not any(self._actions(first - 1, "add")):
                first -= 1
        except (ValueError, KeyError, TypeError) as e:
            raise TableRefused(f"{self.store.uri(commit_key)} is not a commit of Delta Lake: {e}") from e
        # a version's own name is that of its commit and, now and then, of a checkpoint
        for each in range(first, version + 1):
            names += [found.key for found in self.store.list(f"{log}{each:020}.")]
        return CommitEvidence(version, {key: sha256_of(self.store.read(key)) for key in names})

    def open(self, version: int | None = None) -> DeltaTable | None:
        """The table as of `version` (None: now); None where there is none. Raises TableRefused for an unknown one."""
        with self.explained("open"):
            table: DeltaTable | None
            try:
                table = DeltaTable(self.uri, storage_options=self._options())
            except TableNotFoundError:
                absent = not any(self.store.list(f"{self.key}/_delta_log/"))  # raises where the bucket is missing
                # a log that is there was begun a moment ago by another writer
                table = None if absent else DeltaTable(self.uri, storage_options=self._options())
            newest = -1 if table is None else table.version()
            if version is not None and not 0 <= version <= newest:
                raise TableRefused(f"{self.uri} has no version {version}: the newest is {newest}.")
            if table is not None and version not in (None, newest):
                table.load_as_version(version)
            return table

    @contextmanager
    def explained(self, doing: str) -> Iterator[None]:
        """Turn a failure of Delta Lake into a named one. Raises: TableRefused, StoreUnavailable, StoreRefused."""
        try:
            yield
        except (SchemaMismatchError, DeltaProtocolError) as e:
            raise TableRefused(f"{self.uri} is not a {self.key} that this version of crypto_ml can use: {e}") from e
        except (OSError, DeltaError) as e:
            next(self.store.list(f"{self.key}/_delta_log/"), None)  # the same store, asked by who can name its failure
            if any(word in str(e) for word in ("AccessDenied", "Forbidden", "PermissionDenied")):
                raise StoreNotUsable(
                    f"The store does not allow these credentials to {doing} {self.uri}: grant it."
                ) from e
            raise StoreUnavailable(f"Could not {doing} {self.uri} for now ({type(e).__name__}): try again.") from e

    def _actions(self, version: int, kind: str) -> list[dict[str, dict[str, str]]]:
        content = self.store.read(f"{self.key}/_delta_log/{version:020}.json")
        actions = [json.loads(line) for line in content.splitlines() if line.strip()]
        return [action for action in actions if kind in action]

    def _options(self) -> dict[str, str]:
        patience = {"max_retries": "4", "retry_timeout": "30s", "connect_timeout": "5s", "timeout": "60s"}
        return self.store.delta_options() | patience

    def _create(self) -> DeltaTable:
        try:
            return DeltaTable.create(
                self.uri,
                self.schema,
                configuration=TABLE_PROPERTIES,
                storage_options=self._options(),
                # delta-rs would try again as version 1, and a second protocol there makes concurrent appends fail
                commit_properties=CommitProperties(max_commit_retries=0),
            )
        except DeltaError:
            # somebody else was first; anything else shows when it is opened
            table = self.open()
            if table is None:
                raise
            return table

    def _widened(self, table: DeltaTable) -> DeltaTable:
        """The table with every column known here; of several writers who add one at the same time, one succeeds."""
        for _ in range(MOST_WIDENINGS):
            stored = {field.name for field in table.schema().fields}
            lacking = [field for field in self.schema if field.name not in stored]
            if not lacking:
                return table
            if any(not field.nullable for field in lacking):
                names = ", ".join(field.name for field in lacking)
                raise TableRefused(f"{self.uri} is not a {self.key} of crypto_ml: it lacks the columns {names}.")
            wanted: list[Field] = Schema.from_arrow(pa.schema(lacking)).fields
            try:
                table.alter.add_columns(wanted)
            except DeltaError:
                table = self.open() or table
        raise StoreUnavailable(f"Too many writers met at {self.uri}: append again.")

    def _fitting(
        self, rows: pa.RecordBatchReader | pa.Table, stored: pa.Schema, failures: list[BaseException]
    ) -> Iterator[pa.RecordBatch]:
        """`rows` in the columns and types of the table; a failure is kept, because Arrow's stream loses its type."""
        try:
            batches: Iterable[pa.RecordBatch] = rows.to_batches(BATCH_ROWS) if isinstance(rows, pa.Table) else rows
            for batch in batches:
                try:
                    known = batch.select(self.schema.names).cast(self.schema)
                except (pa.ArrowInvalid, pa.ArrowNotImplementedError, ValueError) as e:
                    raise TableRefused(f"Rows for {self.key} do not fit its columns: {e}") from e
                columns = [
                    known[field.name].cast(field.type)
                    if field.name in known.schema.names
                    else pa.nulls(known.num_rows, field.type)
                    for field in stored
                ]
                yield pa.RecordBatch.from_arrays(columns, schema=stored)
        except BaseException as e:
            failures.append(e)
            raise


def _version_of(table: DeltaTable, append_id: str) -> int:
    """The version of an append that was made, looked for from the newest on."""
    asked = COMMITS_LOOKED_AT
    while True:
        commits = table.history(limit=asked)
        for commit in commits:
            if commit.get("append_id") == append_id:
                return int(commit["version"])
        if len(commits) < asked:
            return table.version()
        asked *= 4
