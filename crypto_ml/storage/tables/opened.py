"""A Delta Lake table kept open in a process, so that another look at it costs what is new.

Belongs here: which handles and states of a table a process keeps, and how it sees that others appended, or that the
table was removed or made anew. A look is one listing of the log from the version that is known on; where that version's
commit is still what it was, only later commits are read. Handles are used by one thread at a time; states are never
changed, and shared.
"""

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, reduce
from itertools import repeat
from operator import and_
from threading import Lock
from typing import Any, Final
from weakref import WeakKeyDictionary

import pyarrow as pa
import pyarrow.dataset as ds
from deltalake import DeltaTable
from deltalake.exceptions import TableNotFoundError
from deltalake.fs import DeltaStorageHandler
from pyarrow.fs import PyFileSystem

from crypto_ml.storage.objects import ObjectStore

MOST_IDLE: Final = 4
"""Handles that wait for their next use: as many as threads that append at once in most processes."""
MOST_STATES: Final = 4
"""States of a table that are kept, newest use last: the newest one, and those that answers under way read."""
PATIENCE: Final = {"max_retries": "4", "retry_timeout": "30s", "connect_timeout": "5s", "timeout": "60s"}
COMMIT: Final = ".json"


class UnknownVersionError(LookupError):
    """A version that a table does not have. newest: the last one it has, −1 where there is no table."""

    def __init__(self, newest: int) -> None:
        super().__init__(newest)
        self.newest = newest


@dataclass(frozen=True)
class TableState:
    """A table at one version. stored: its columns."""

    version: int
    table_id: str
    stored: pa.Schema
    uri: str
    schema: pa.Schema = field(repr=False)
    options: Mapping[str, str] = field(repr=False)
    added: Any = field(repr=False)

    @cached_property
    def files(self) -> pa.Table:
        """One row for each data file: `path`, `size_bytes`, `num_records`, and `min.…`, `max.…`, `null_count.…` of its
        columns."""
        return pa.table(self.added)

    @cached_property
    def dataset(self) -> ds.FileSystemDataset:
        """Its rows, of the columns known here. Each file is known by its bounds in the columns that never lack a value,
        so that others than those a filter needs are not opened."""
        files = self.files
        sizes = dict(zip(files["path"].to_pylist(), files["size_bytes"].to_pylist(), strict=True))
        system = PyFileSystem(DeltaStorageHandler(self.uri, dict(self.options), sizes))
        form = ds.ParquetFileFormat(default_fragment_scan_options=ds.ParquetFragmentScanOptions(pre_buffer=True))
        fragments = [
            form.make_fragment(path, filesystem=system, partition_expression=bounds)
            for path, bounds in zip(sizes, self._bounds(), strict=True)
        ]
        return ds.FileSystemDataset(fragments, self.schema, form, system)

    def _bounds(self) -> Iterator[ds.Expression | None]:
        names = [
            one.name
            for one in self.schema
            if not one.nullable
            and (pa.types.is_string(one.type) or pa.types.is_date32(one.type))
            and {f"min.{one.name}", f"max.{one.name}"} <= set(self.files.column_names)
        ]
        columns = [self.files[f"{end}.{name}"].to_pylist() for name in names for end in ("min", "max")]
        for ends in zip(*columns, strict=True) if columns else repeat((), self.files.num_rows):
            terms = []
            for name, least, greatest in zip(names, ends[::2], ends[1::2], strict=True):
                if least is not None and greatest is not None:
                    terms += [ds.field(name) >= least, ds.field(name) <= greatest]
            yield reduce(and_, terms) if terms else None


@dataclass
class _Handle:
    """seen: a version, and the ETag that its commit had when it was listed."""

    table: DeltaTable
    seen: tuple[int, str] | None = None


class OpenedTable:
    """The handles and states of one table that a process keeps. Safe to share between threads.

    The store is given with each call, and its credentials are asked for each time: with others, everything is opened
    anew. Failures are those of Delta Lake and of the store, as they come.
    """

    def __init__(self, key: str, schema: pa.Schema) -> None:
        self.key = key
        self.log = f"{key}/_delta_log/"
        self.schema = schema
        self._lock = Lock()
        self._idle: list[_Handle] = []
        self._states: OrderedDict[int, TableState] = OrderedDict()
        self._options: Mapping[str, str] = {}

    @contextmanager
    def handle(self, store: ObjectStore) -> Iterator[DeltaTable | None]:
        """The table at its newest version, for one thread's use; None where there is none."""
        options = self._current_options(store)
        found = self._fresh(store, options)
        yield None if found is None else found.table
        if found is not None:  # after a failure it is not used again
            self._keep(found, options)

    def newest(self, store: ObjectStore) -> int | None:
        """The newest version; None where there is no table."""
        with self.handle(store) as table:
            return None if table is None else table.version()

    def state(self, store: ObjectStore, version: int | None = None) -> TableState | None:
        """The table at `version` (None: now); None where there is none. Raises UnknownVersionError.

        A version that was read lately is not asked for again.
        """
        options = self._current_options(store)
        if version is not None and (kept := self._kept(version)):
            return kept
        with self.handle(store) as table:
            newest = -1 if table is None else table.version()
            if version is not None and not 0 <= version <= newest:
                raise UnknownVersionError(newest)
            if table is None:
                return None
            wanted = newest if version is None else version
            if kept := self._kept(wanted):
                return kept
            at = table if wanted == newest else self._open(store, options, wanted)
            state = TableState(
                wanted,
                str(at.metadata().id),
                pa.schema(at.schema().to_arrow()),
                store.uri(self.key),
                self.schema,
                options,
                at.get_add_actions(flatten=True),
            )
        with self._lock:
            if self._options == options:
                self._states[wanted] = state
                while len(self._states) > MOST_STATES:
                    self._states.popitem(last=False)
        return state

    def _kept(self, version: int) -> TableState | None:
        with self._lock:
            if version not in self._states:
                return None
            self._states.move_to_end(version)
            return self._states[version]

    def _current_options(self, store: ObjectStore) -> Mapping[str, str]:
        """How the store is reached now; what was opened with other credentials is forgotten."""
        options = store.delta_options() | PATIENCE
        with self._lock:
            if options != self._options:
                self._options = options
                self._forget()
        return options

    def _forget(self) -> None:
        self._idle.clear()
        self._states.clear()

    def _keep(self, handle: _Handle, options: Mapping[str, str]) -> None:
        with self._lock:
            if options == self._options and len(self._idle) < MOST_IDLE:
                self._idle.append(handle)

    def _fresh(self, store: ObjectStore, options: Mapping[str, str]) -> _Handle | None:
        """A handle at the newest version, which nobody else uses meanwhile."""
        with self._lock:
            handle = self._idle.pop() if self._idle else None
        if handle is not None and self._seen_again(handle, store):
            return handle
        if handle is not None:
            with self._lock:
                self._forget()
        try:
            return _Handle(self._open(store, options))
        except TableNotFoundError:
            if not any(store.list(self.log)):  # raises where the bucket is missing
                return None
            # a log that is there was begun a moment ago by another writer
            return _Handle(self._open(store, options))

    def _seen_again(self, handle: _Handle, store: ObjectStore) -> bool:
        """Bring a handle up to the newest version; False where its own version is not what it was."""
        known = handle.table.version()
        listed = store.list(self.log, start_after=f"{self.log}{known:020}.")
        commits = {
            int(found.key.removeprefix(self.log).removesuffix(COMMIT)): found.etag
            for found in listed
            if found.key.endswith(COMMIT) and found.key.removeprefix(self.log).removesuffix(COMMIT).isdecimal()
        }
        if known not in commits or (handle.seen and handle.seen[0] == known and handle.seen[1] != commits[known]):
            return False
        if max(commits) > known:
            handle.table.update_incremental()
        newest = handle.table.version()
        handle.seen = (newest, commits[newest]) if newest in commits else None
        return True

    def _open(self, store: ObjectStore, options: Mapping[str, str], version: int | None = None) -> DeltaTable:
        return DeltaTable(store.uri(self.key), version=version, storage_options=dict(options))


_OPENED: Final["WeakKeyDictionary[ObjectStore, dict[tuple[str, pa.Schema], OpenedTable]]"] = WeakKeyDictionary()
_OPENING: Final = Lock()


def opened(store: ObjectStore, key: str, schema: pa.Schema) -> OpenedTable:
    """The table under `key` as this process keeps it open, for as long as the store is in use."""
    with _OPENING:
        tables = _OPENED.setdefault(store, {})
        return tables.setdefault((key, schema), OpenedTable(key, schema))
