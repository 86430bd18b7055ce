"""Delta Lake tables in the store that only grow, each append exactly once; a version is the name of a state.

Belongs here: opening, making, widening and appending to such a table, and what its failures mean. What its columns
mean is the business of whoever keeps it (`history`, `prediction_log`).

A table may have been made by an earlier release, which knew fewer columns, or be used by a later one, which knows more:
missing columns read as null, and are added before the first append that has them; columns that are not known here are
left null in what is appended.
"""

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
)

from crypto_ml.digest import sha256_of
from crypto_ml.errors import Refused
from crypto_ml.storage.failures import StoreNotUsable, StoreUnavailable
from crypto_ml.storage.objects import ObjectStore
from crypto_ml.storage.outofcore import BATCH_ROWS
from crypto_ml.storage.tables.commits import Commit, actions_of, commit_key, commits_back_from, log_of
from crypto_ml.storage.tables.opened import PATIENCE, OpenedTable, TableState, UnknownVersionError, opened

TABLE_PROPERTIES: Final = {
    "delta.appendOnly": "true",
    "delta.enableExpiredLogCleanup": "false",  # the default forgets versions after 30 days
    # opening costs up to so many commits beside the checkpoint; one of 20,000 appends is 0.6 MB and 40 ms of work
    "delta.checkpointInterval": "20",
}
MOST_WIDENINGS: Final = 5


class TableRefused(Refused):
    """The rows, or the version asked for, do not fit this table."""


@dataclass(frozen=True)
class CommitEvidence:
    """One version of the table: key → sha256 of every object that it added."""

    version: int
    objects: Mapping[str, str]


class GrowingTable:
    """The table under `key` of a store. A process keeps it open; several see each other's appends.

    schema: the columns known here; those that are not nullable are in every release's table.
    """

    def __init__(self, store: ObjectStore, key: str, schema: pa.Schema) -> None:
        self.store = store
        self.key = key
        self.schema = schema
        self.uri = store.delta_uri(key)

    @property
    def _opened(self) -> OpenedTable:
        return opened(self.store, self.key, self.schema)

    def version(self) -> int | None:
        """The current version; None where nothing was ever appended."""
        with self.explained("open"):
            return self._opened.newest(self.store)

    def is_newest(self, version: int | None) -> bool:
        """Whether no commit follows `version` (None: whether there is none); they have no gaps, so that one object says
        it."""
        return self.store.head(commit_key(self.key, 0 if version is None else version + 1)) is None

    def at(self, version: int | None = None) -> TableState | None:
        """The table as of `version` (None: now); None where there is none. Raises TableRefused for an unknown one."""
        with self.explained("open"):
            try:
                return self._opened.state(self.store, version)
            except UnknownVersionError as e:
                raise TableRefused(f"{self.uri} has no version {version}: the newest is {e.newest}.") from e

    def count(self, version: int | None = None) -> int:
        """Rows at `version` (None: now); read from the log, not from the data."""
        state = self.at(version)
        return 0 if state is None else pc.sum(state.files["num_records"]).as_py() or 0

    def bounds(self, column: str, version: int | None = None) -> tuple[Any, Any] | None:
        """The least and the greatest value of a column at `version` (None: now), as the log has them of each file.

        None where there is no row, or where a file was written without them.
        """
        state = self.at(version)
        if state is None:
            return None
        files, ends = state.files, (f"min.{column}", f"max.{column}")
        if not files.num_rows or any(name not in files.column_names or files[name].null_count for name in ends):
            return None
        return pc.min(files[ends[0]]).as_py(), pc.max(files[ends[1]]).as_py()

    def append(self, rows: pa.RecordBatchReader | pa.Table, *, append_id: str, once: bool = True, **said: str) -> int:
        """Append rows with the columns of the schema (any order; others are dropped); returns the version they are in.

        said: what the commit says beside the id. All or nothing, once per `append_id`: a second append with the same
        id, also at the same moment, adds nothing and returns the version of the first. Memory is bounded by a batch.
        once: False where whoever appends sees to that; every checkpoint carries the ids of the others for ever.
        Raises: TableRefused, StoreUnavailable, StoreRefused, and what the reader raises.
        """
        missing = [name for name in self.schema.names if name not in rows.schema.names]
        if missing:
            raise TableRefused(f"Rows for {self.key} lack the columns {', '.join(missing)}: add them.")
        with self.explained("append to"), self._opened.handle(self.store) as found:
            table = self._create() if found is None else found
            self._widen(table)
            if once and table.transaction_version(append_id) is not None:
                return self._version_of(table, append_id)
            failures: list[BaseException] = []
            stored = pa.schema(table.schema().to_arrow())
            try:
                write_deltalake(
                    table,
                    pa.RecordBatchReader.from_batches(stored, self._fitting(rows, stored, failures)),
                    mode="append",
                    commit_properties=CommitProperties(
                        app_transactions=[Transaction(append_id, 1)] if once else None,
                        custom_metadata={"append_id": append_id, **said},
                        max_commit_retries=100,
                    ),
                    writer_properties=WriterProperties(compression="ZSTD", max_row_group_size=2 * BATCH_ROWS),
                )
            except CommitFailedError as e:
                table.update_incremental()
                if table.transaction_version(append_id) is None:
                    raise StoreUnavailable(f"Too many writers met at {self.uri}: append again.") from e
                return self._version_of(table, append_id)
            except Exception:
                if failures:  # what went wrong in the reader, rather than how Delta Lake saw it
                    raise failures[0] from None
                raise
            return table.version()

    def appended(self, append_id: str) -> int | None:
        """The version that an append is in; None where it was not made."""
        with self.explained("look at"), self._opened.handle(self.store) as table:
            if table is None or table.transaction_version(append_id) is None:
                return None
            return self._version_of(table, append_id)

    def commits_back(self) -> Iterator[Commit]:
        """What the log says of each version, from the newest on back. Failures are those of the store."""
        state = self.at()
        if state is not None:
            yield from commits_back_from(state.version, state.table_id, self.store, self.key)

    def commit_evidence(self, version: int) -> CommitEvidence:
        """What makes up a version, read back from the store: the commit and each data file it added.

        It vouches for the commits without rows right before it too, by which the table was made or widened. Raises:
        ObjectMissing where a data file is gone; StoreUnavailable, StoreRefused.
        """
        log = log_of(self.key)
        names: list[str] = []
        try:
            names += [f"{self.key}/{unquote(action['add']['path'])}" for action in self._actions(version, "add")]
            first = version
            while first > 0 and not any(self._actions(first - 1, "add")):
                first -= 1
        except (ValueError, KeyError, TypeError) as e:
            raise TableRefused(
                f"{self.store.uri(commit_key(self.key, version))} is not a commit of Delta Lake: {e}"
            ) from e
        # a version's own name is that of its commit and, now and then, of a checkpoint
        for each in range(first, version + 1):
            names += [found.key for found in self.store.list(f"{log}{each:020}.")]
        return CommitEvidence(version, {key: sha256_of(self.store.read(key)) for key in names})

    def checkpoint(self, version: int) -> None:
        """Write the checkpoint of a version, from which the table is opened from then on."""
        with self.explained("open"):
            DeltaTable(
                self.uri, version=version, storage_options=self.store.delta_options() | PATIENCE
            ).create_checkpoint()

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

    def _actions(self, version: int, kind: str) -> list[dict[str, Any]]:
        return [action for action in actions_of(self.store.read(commit_key(self.key, version))) if kind in action]

    def _version_of(self, table: DeltaTable, append_id: str) -> int:
        """The version of an append that was made, looked for from the newest on."""
        for commit in commits_back_from(table.version(), str(table.metadata().id), self.store, self.key):
            if commit.append_id == append_id:
                return commit.version
        return table.version()

    def _create(self) -> DeltaTable:
        options = self.store.delta_options() | PATIENCE
        try:
            return DeltaTable.create(
                self.uri,
                self.schema,
                configuration=TABLE_PROPERTIES,
                storage_options=options,
                # delta-rs would try again as version 1, and a second protocol there makes concurrent appends fail
                commit_properties=CommitProperties(max_commit_retries=0),
            )
        except DeltaError:
            # somebody else was first; anything else shows when it is opened
            return DeltaTable(self.uri, storage_options=options)

    def _widen(self, table: DeltaTable) -> None:
        """Give the table every column known here; of several writers who add one at the same time, one succeeds."""
        for _ in range(MOST_WIDENINGS):
            stored = {field.name for field in table.schema().fields}
            lacking = [field for field in self.schema if field.name not in stored]
            if not lacking:
                return
            if any(not field.nullable for field in lacking):
                names = ", ".join(field.name for field in lacking)
                raise TableRefused(f"{self.uri} is not a {self.key} of crypto_ml: it lacks the columns {names}.")
            wanted: list[Field] = Schema.from_arrow(pa.schema(lacking)).fields
            try:
                table.alter.add_columns(wanted)
            except DeltaError:
                table.update_incremental()
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
