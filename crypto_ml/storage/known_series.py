"""What is known of each series of the market history in one row: its slug and its last days, folded forward.

Each answer asks who holds its symbols, each forecast for the last day of every series: neither is to read the whole
history for it. A state of all series at one version goes on to a later one by what the commits since added. A series
that a retraction concerned since is read anew, from all its rows.

States are kept in the process, and one below `cache/` (`keep`): a cache, told from damage by its sha256, and without
which the history itself is read.
"""

import io
import json
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from threading import Lock
from typing import Final
from weakref import WeakKeyDictionary

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from crypto_ml.digest import sha256_of
from crypto_ml.forecasting.current import ORDERING, VALID, order_sql
from crypto_ml.storage.failures import ObjectMissing
from crypto_ml.storage.objects import ObjectStore
from crypto_ml.storage.outofcore import BATCH_ROWS, queried
from crypto_ml.storage.tables.commits import CACHE, commits_after
from crypto_ml.storage.tables.growing import GrowingTable
from crypto_ml.storage.tables.opened import TableState

MOST_STATES: Final = 4
MOST_ANEW: Final = 1_000
"""Series that are looked for by name; of more, the whole history is read."""
WORTH_KEEPING: Final = 16
"""Versions behind which a state that is kept is replaced."""

READ: Final = ("symbol", "date", "slug", *ORDERING)
KNOWN: Final = pa.schema(
    [
        ("symbol", pa.string()),
        ("last_row", pa.date32()),  # of any row, void ones included
        ("last_day", pa.date32()),  # of a row that counts; null where there is none
        ("slug", pa.string()),  # the first in the order of delivery among the rows that count
        ("upload_id", pa.string()),  # where that slug stood
        ("line", pa.int64()),
        ("cleaning", pa.int32()),
    ]
)

_NAMED: Final = f"""
    arg_min(struct_pack(slug := slug, upload_id := upload_id, line := line, cleaning := cleaning),
            {order_sql("delivered")}) FILTER (WHERE slug IS NOT NULL)
"""
_KNOWN_SQL: Final = f"""
    WITH {VALID}, every AS (
        SELECT symbol, max(date) AS last_row FROM received GROUP BY symbol
    ), counted AS (
        SELECT symbol, max(date) AS last_day, {_NAMED} AS named FROM valid GROUP BY symbol
    )
    SELECT symbol, last_row, last_day, named.slug, named.upload_id, named.line, named.cleaning
    FROM every LEFT JOIN counted USING (symbol) ORDER BY symbol
"""  # noqa: S608 - terms of ours
_FOLDED_SQL: Final = f"""
    WITH folded AS (
        SELECT symbol, max(last_row) AS last_row, max(last_day) AS last_day, {_NAMED} AS named
        FROM known GROUP BY symbol
    )
    SELECT symbol, last_row, last_day, named.slug, named.upload_id, named.line, named.cleaning
    FROM folded ORDER BY symbol
"""  # noqa: S608 - terms of ours

Scan = Callable[[Collection[str] | None, int], pa.RecordBatchReader]
"""The columns of READ, of series (None: all), as of a version."""


@dataclass(frozen=True)
class Known:
    """All series at a version, in the columns of KNOWN, sorted by symbol. retracted: uploads with void rows."""

    version: int
    series: pa.Table
    retracted: frozenset[str]


class KnownSeries:
    """What is known of the series of a history. scan: reads its rows."""

    def __init__(self, table: GrowingTable, scan: Scan) -> None:
        self._table = table
        self._scan = scan

    def of(self, symbols: Collection[str] | None, version: int | None = None) -> pa.Table:
        """Series (None: all) at a version (None: now), in the columns of KNOWN, sorted by symbol.

        Failures as for `MarketHistory.scan`.
        """
        state = self._table.at(version)
        if state is None:
            return KNOWN.empty_table()
        base = self._newest_before(state)
        if base is None and symbols is not None and len(symbols) <= MOST_ANEW:
            return self._anew(symbols, state.version)[0]
        known = self._brought_to(state, base)
        _memory(self._table.store, state.table_id).keep(known)
        return known.series if symbols is None else _of(known.series, symbols)

    def keep(self, *, behind: int = WORTH_KEEPING, most_rows: int | None = None) -> bool:
        """Keep the state of now for other processes, where the one that is kept is so many versions behind it. Of a
        history of more than `most_rows` rows none is made that has none to go on from."""
        state = self._table.at()
        if state is None:
            return False
        kept = self._kept(state)
        if kept is not None and state.version - kept.version < behind:
            return False
        if kept is None and most_rows is not None and self._table.count(state.version) > most_rows:
            return False
        known = self._brought_to(state, self._newest_before(state))
        _memory(self._table.store, state.table_id).keep(known)
        self._table.store.put_newest(self._key(state), _written(known), f"{known.version:020d}")
        return True

    def _newest_before(self, state: TableState) -> Known | None:
        base = _memory(self._table.store, state.table_id).newest_before(state.version)
        return base or self._kept(state)

    def _brought_to(self, state: TableState, base: Known | None) -> Known:
        if base is not None and base.version == state.version:
            return base
        if base is None:
            series, retracted = self._anew(None, state.version)
            return Known(state.version, series, retracted)
        commits = commits_after(base.version, state.version - base.version, self._table.store, self._table.key)
        files = [path for commit in commits if not commit.compacts for path in commit.files]
        watched = _Watched(base.retracted)
        added = _table(_KNOWN_SQL, watched.seen(_rows_of(files, state)))
        both = pa.concat_tables([base.series, added])
        series = _table(_FOLDED_SQL, both.to_reader()) if added.num_rows else base.series
        if watched.concerned:
            many = len(watched.concerned) > MOST_ANEW
            anew, _ = self._anew(None if many else watched.concerned, state.version)
            others = series.filter(
                pc.invert(pc.is_in(series["symbol"], pa.array(sorted(watched.concerned), pa.string())))
            )
            series = pa.concat_tables([others, _of(anew, watched.concerned)]).sort_by("symbol").combine_chunks()
        return Known(state.version, series, base.retracted | watched.retracted)

    def _anew(self, symbols: Collection[str] | None, version: int) -> tuple[pa.Table, frozenset[str]]:
        watched = _Watched(frozenset())
        return _table(_KNOWN_SQL, watched.seen(self._scan(symbols, version))), frozenset(watched.retracted)

    def _key(self, state: TableState) -> str:
        return f"{CACHE}known_series/{self._table.key}/{state.table_id}"

    def _kept(self, state: TableState) -> Known | None:
        """The state that another process kept, where it is of this version or before; it is remembered."""
        try:
            known = _read(self._table.store.read(self._key(state)))
        except ObjectMissing:
            return None
        if known is None or known.version > state.version:
            return None
        _memory(self._table.store, state.table_id).keep(known)
        return known


class _Watched:
    """Rows as they pass by. concerned: series with rows that are void, or of an upload that was retracted before.
    retracted: uploads with void rows among them."""

    def __init__(self, before: frozenset[str]) -> None:
        self._before = pa.array(sorted(before), pa.string())
        self.concerned: set[str] = set()
        self.retracted: set[str] = set()

    def seen(self, rows: pa.RecordBatchReader) -> pa.RecordBatchReader:
        def batches() -> Iterator[pa.RecordBatch]:
            for batch in rows:
                void = batch["void"].fill_null(False)
                self.retracted.update(batch["upload_id"].filter(void).unique().to_pylist())
                concerned = pc.or_(void, pc.is_in(batch["upload_id"], self._before))
                self.concerned.update(batch["symbol"].filter(concerned).unique().to_pylist())
                yield batch

        return pa.RecordBatchReader.from_batches(rows.schema, batches())


class _Memory:
    """The states that a process keeps of one table, newest use last."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._states: OrderedDict[int, Known] = OrderedDict()

    def keep(self, known: Known) -> None:
        with self._lock:
            self._states[known.version] = known
            self._states.move_to_end(known.version)
            while len(self._states) > MOST_STATES:
                self._states.popitem(last=False)

    def newest_before(self, version: int) -> Known | None:
        with self._lock:
            found = max((one for one in self._states if one <= version), default=None)
            return None if found is None else self._states[found]


_MEMORIES: Final["WeakKeyDictionary[ObjectStore, dict[str, _Memory]]"] = WeakKeyDictionary()
_REMEMBERING: Final = Lock()


def _memory(store: ObjectStore, table_id: str) -> _Memory:
    with _REMEMBERING:
        return _MEMORIES.setdefault(store, {}).setdefault(table_id, _Memory())


def _rows_of(files: Collection[str], state: TableState) -> pa.RecordBatchReader:
    """The columns of READ of data files, also of such as are in no state of the table any more."""
    schema = pa.schema([state.dataset.schema.field(name) for name in READ])
    form, system = state.dataset.format, state.dataset.filesystem
    fragments = [form.make_fragment(path, filesystem=system) for path in files]
    return ds.FileSystemDataset(fragments, schema, form, system).scanner(batch_size=BATCH_ROWS).to_reader()


def _table(query: str, rows: pa.RecordBatchReader) -> pa.Table:
    return pa.Table.from_batches(queried(query, rows, KNOWN), KNOWN)


def _of(series: pa.Table, symbols: Collection[str]) -> pa.Table:
    return series.filter(pc.is_in(series["symbol"], pa.array(sorted(symbols), pa.string())))


def _written(known: Known) -> bytes:
    said = {"version": str(known.version), "retracted": json.dumps(sorted(known.retracted))}
    out = io.BytesIO()
    pq.write_table(known.series.replace_schema_metadata(said), out, compression="zstd")
    body = out.getvalue()
    return sha256_of(body).encode() + b"\n" + body


def _read(content: bytes) -> Known | None:
    """A state as it was kept; None where it is not what was written."""
    sha256, _, body = content.partition(b"\n")
    if sha256 != sha256_of(body).encode():
        return None
    table = pq.read_table(pa.BufferReader(body))
    said = table.schema.metadata or {}
    if table.schema.names != KNOWN.names or b"version" not in said:
        return None
    return Known(int(said[b"version"]), table.cast(KNOWN), frozenset(json.loads(said[b"retracted"])))
