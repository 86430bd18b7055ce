"""Every accepted observation ever received, append-only, in a Delta Lake table.

What is appended: the rows of `schema.OBSERVATION`, each with `known_at` (when it became known), `upload_id` (which
upload it came from: `<delivery>.<file>`), `line` (its row there) and `cleaning` (which cleaning of its delivery took it
in, 1 for the first; null in rows that 0.1 wrote). `void` is null; where an upload was retracted, its rows are appended
once more with it true, and from then on count no more than those do (`known_at` is when that became known). Nothing is
changed or removed: a corrected observation is one more
row for its (symbol, date). Which of them is the current one says `forecasting.current`.

What a version means: the table's state after that many commits. It holds exactly the appends up to then, for ever: log
and files of old versions are never cleaned up, so a version number is the name of "the state of the data" in receipts
and training manifests.
"""

from collections import Counter
from collections.abc import Collection, Iterator
from datetime import UTC, date, datetime
from functools import reduce
from operator import and_
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from crypto_ml.forecasting.current import ORDERING, VALID, Order, current_sql, order_sql
from crypto_ml.forecasting.schema import OBSERVATION
from crypto_ml.storage.known_series import READ, KnownSeries
from crypto_ml.storage.objects import ObjectStore
from crypto_ml.storage.outofcore import BATCH_ROWS, queried
from crypto_ml.storage.tables.commits import RETRACTS
from crypto_ml.storage.tables.compaction import Arranged
from crypto_ml.storage.tables.growing import CommitEvidence, GrowingTable, TableRefused

ARROW_TYPES: Final = {"str": pa.string(), "datetime64[s]": pa.date32(), "float64": pa.float64()}
"""Arrow's type for each dtype of `schema.OBSERVATION`."""

MISSING_ALLOWED: Final = frozenset({"market", "volume", "slug"})

SCHEMA: Final = pa.schema(
    [
        *(pa.field(name, ARROW_TYPES[dtype], name in MISSING_ALLOWED) for name, dtype in OBSERVATION.items()),
        pa.field("known_at", pa.timestamp("us", "UTC"), nullable=False),
        pa.field("upload_id", pa.string(), nullable=False),
        pa.field("line", pa.int64(), nullable=False),
        pa.field("cleaning", pa.int32()),
        pa.field("void", pa.bool_()),
    ]
)
"""Columns of the table: an observation, and where and when it became known."""

ARRANGED: Final = Arranged(("symbol", "date", "upload_id", "line", "cleaning", "void", "known_at"))
"""How the rows stand in files that were put together: those of a series beside each other."""

LAST_DAYS: Final = pa.schema([("symbol", pa.string()), ("date", pa.date32()), ("retracted", pa.bool_())])


class MarketHistory:
    """The table under `key` of a store. A process keeps it open; several see each other's appends."""

    def __init__(self, store: ObjectStore, key: str = "market_history") -> None:
        self.store = store
        self.key = key
        self.table = GrowingTable(store, key, SCHEMA)
        self.uri = self.table.uri
        self.known = KnownSeries(self.table, lambda symbols, at: self.scan(READ, symbols=symbols, version=at))

    def version(self) -> int | None:
        """The current version; None where nothing was ever appended."""
        return self.table.version()

    def is_newest(self, version: int | None) -> bool:
        """Whether nothing was appended since `version` (None: whether there is still nothing)."""
        return self.table.is_newest(version)

    def count(self, version: int | None = None) -> int:
        """Rows at `version` (None: now), corrections included; read from the log, not from the data."""
        return self.table.count(version)

    def days(self, version: int | None = None) -> tuple[date, date] | None:
        """The first and the last day of any row at `version` (None: now), also of one that is void; None without rows.
        Read in the log."""
        found = self.table.bounds("date", version)
        return None if found is None else (found[0], found[1])

    def append(
        self, rows: pa.RecordBatchReader | pa.Table, *, append_id: str, known_at: datetime, retracts: str | None = None
    ) -> int:
        """Append rows with the columns of `SCHEMA`, once per `append_id`; see `GrowingTable.append`.

        known_at: when the rows became known, which is what `version_known_by` looks at. retracts: the upload whose rows
        these make void.
        """
        said = {"known_at": known_at.astimezone(UTC).isoformat(), **({RETRACTS: retracts} if retracts else {})}
        return self.table.append(rows, append_id=append_id, once=True, **said)

    def appended(self, append_id: str) -> int | None:
        """The version that the rows of an append are in; None where they were not appended."""
        return self.table.appended(append_id)

    def commit_evidence(self, version: int) -> CommitEvidence:
        """What makes up a version; see `GrowingTable.commit_evidence`."""
        return self.table.commit_evidence(version)

    def version_known_by(self, time: datetime) -> int | None:
        """The newest version with rows that were known at `time` (aware); None where nothing was.

        What becomes known later never changes it. Read from the log alone.
        """
        return next((one.version for one in self.table.commits_back() if one.known_at and one.known_at <= time), None)

    def scan(
        self,
        columns: Collection[str] | None = None,
        *,
        symbols: Collection[str] | None = None,
        between: tuple[str, str] | None = None,
        since: date | None = None,
        before: date | None = None,
        version: int | None = None,
        known_by: datetime | None = None,
        upload: str | None = None,
    ) -> pa.RecordBatchReader:
        """Stream every row ever appended, corrections and void rows included, in no particular order.

        Only `columns`, of `symbols`, of those from the first to the last of `between`, of days from `since` on and
        earlier than `before`, known at `known_by` (aware) or earlier, of an `upload`, as of `version` (None: now). Only
        the files and columns that this needs are read. No table: no rows.
        Raises: TableRefused, StoreUnavailable, StoreRefused, also between two batches.
        """
        names = SCHEMA.names if columns is None else list(columns)
        unknown = [name for name in names if name not in SCHEMA.names]
        if unknown:
            raise TableRefused(
                f"The market history has no columns {', '.join(unknown)}: choose from {', '.join(SCHEMA.names)}."
            )
        schema = pa.schema([SCHEMA.field(name) for name in names])
        conditions = []
        if symbols is not None:
            wanted = sorted(symbols)
            conditions.append(ds.field("symbol").isin(pa.array(wanted, pa.string())))
            between = between or ((wanted[0], wanted[-1]) if wanted else None)
        if between is not None:  # by which files and their parts are left out, as they are not by a list
            conditions += [ds.field("symbol") >= between[0], ds.field("symbol") <= between[1]]
        if since is not None:
            conditions.append(ds.field("date") >= pa.scalar(since, pa.date32()))
        if before is not None:
            conditions.append(ds.field("date") < pa.scalar(before, pa.date32()))
        if known_by is not None:
            conditions.append(ds.field("known_at") <= pa.scalar(known_by, SCHEMA.field("known_at").type))
        if upload is not None:
            conditions.append(ds.field("upload_id") == upload)
        state = self.table.at(version)

        def batches() -> Iterator[pa.RecordBatch]:
            if state is None:
                return
            with self.table.explained("read"):
                yield from state.dataset.scanner(
                    columns=names,
                    filter=reduce(and_, conditions) if conditions else None,
                    batch_size=BATCH_ROWS,
                    batch_readahead=2,
                    fragment_readahead=2,
                ).to_batches()

        return pa.RecordBatchReader.from_batches(schema, batches())

    def rows_by_day(self) -> dict[date, int]:
        """How many rows each day was ever given, corrections included. Failures as for `scan`."""
        counted: Counter[date] = Counter()
        for batch in self.scan(["date"]):
            for one in pc.value_counts(batch["date"]):
                counted[one["values"].as_py()] += one["counts"].as_py()
        return dict(counted)

    def current_rows(
        self,
        columns: Collection[str] | None = None,
        *,
        symbols: Collection[str] | None = None,
        between: tuple[str, str] | None = None,
        since: date | None = None,
        before: date | None = None,
        version: int | None = None,
        known_by: datetime | None = None,
        order: Order = "delivered",
    ) -> pa.Table:
        """One row per (symbol, date), sorted by both: the current one (see `forecasting.current`).

        With `known_by`, history as it was known then. Arguments and failures as for `scan`.
        """
        return self.current_batches(
            columns,
            symbols=symbols,
            between=between,
            since=since,
            before=before,
            version=version,
            known_by=known_by,
            order=order,
        ).read_all()

    def current_batches(
        self,
        columns: Collection[str] | None = None,
        *,
        symbols: Collection[str] | None = None,
        between: tuple[str, str] | None = None,
        since: date | None = None,
        before: date | None = None,
        version: int | None = None,
        known_by: datetime | None = None,
        order: Order = "delivered",
    ) -> pa.RecordBatchReader:
        """`current_rows` as a stream; what does not fit into 512 MB is sorted on disk."""
        names = SCHEMA.names if columns is None else list(columns)
        needed = [*names, *(name for name in ("symbol", "date", *ORDERING) if name not in names)]
        known = self.scan(
            needed, symbols=symbols, between=between, since=since, before=before, version=version, known_by=known_by
        )
        schema = pa.schema([SCHEMA.field(name) for name in names])
        wanted = ", ".join(f'"{name}"' for name in names)
        query = f"SELECT {wanted} FROM ({current_sql(order)}) ORDER BY symbol, date"  # noqa: S608 - names of ours
        return pa.RecordBatchReader.from_batches(schema, queried(query, known, schema))

    def valid_rows(self, upload: str, version: int | None = None) -> pa.RecordBatchReader:
        """The rows of an upload that were not retracted, with all their columns, in no particular order."""
        rows = self.scan(upload=upload, version=version)
        return pa.RecordBatchReader.from_batches(SCHEMA, queried(f"WITH {VALID} FROM valid", rows, SCHEMA))

    def last_days(self, version: int | None = None) -> pa.Table:
        """Each symbol's last day, in the columns of LAST_DAYS, sorted by symbol.

        Where all rows of a symbol were retracted it is the last of those. Memory is bounded by the symbols.
        """
        known = self.known.of(None, version)
        days = pc.coalesce(known["last_day"], known["last_row"])
        return pa.table([known["symbol"], days, pc.is_null(known["last_day"])], schema=LAST_DAYS)

    def last_known(self, *, before: date, version: int, known_by: datetime) -> datetime | None:
        """When the last of some rows became known (see `scan`), current or not; None where there are none."""
        times = self.scan(["known_at"], before=before, version=version, known_by=known_by)
        newest = [found for batch in times if (found := pc.max(batch["known_at"]).as_py())]
        return max(newest, default=None)

    def slugs(
        self, symbols: Collection[str] | None = None, version: int | None = None, order: Order = "delivered"
    ) -> dict[str, str]:
        """The slug of each series (of `symbols`) that was ever given one; of several, the first in the order."""
        if order == "delivered":
            found = self.known.of(symbols, version)
            found = found.filter(pc.is_valid(found["slug"]))
        else:
            known = self.scan(["symbol", "date", "slug", *ORDERING], symbols=symbols, version=version)
            query = f"""
                WITH {VALID} SELECT symbol, arg_min(slug, {order_sql(order)}) AS slug
                FROM valid WHERE slug IS NOT NULL GROUP BY symbol ORDER BY symbol
            """  # noqa: S608 - terms of ours
            schema = pa.schema([SCHEMA.field("symbol"), SCHEMA.field("slug")])
            found = pa.RecordBatchReader.from_batches(schema, queried(query, known, schema)).read_all()
        return dict(zip(found["symbol"].to_pylist(), found["slug"].to_pylist(), strict=True))
