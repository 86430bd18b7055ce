"""market_history: a delivery's accepted rows, appended to what is known of the market."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import date, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from crypto_ml.ledger.formats.reading import read_record
from crypto_ml.ledger.layout import append_key
from crypto_ml.ledger.retractions import read_retraction, retracted_ids
from crypto_ml.stages.cleaned_features import Cleaned, download_named
from crypto_ml.stages.raw_uploads import Received
from crypto_ml.stages.retraction import carry_out
from crypto_ml.storage.failures import AlreadyExists
from crypto_ml.storage.history import SCHEMA, MarketHistory
from crypto_ml.storage.objects import ObjectStore
from crypto_ml.storage.outofcore import queried
from crypto_ml.storage.tables.growing import CommitEvidence

MOST_SERIES_SHOWN: Final = 10
BROUGHT: Final = pa.schema(
    [
        ("symbol", pa.string()),
        ("rows", pa.int64()),
        ("first_day", pa.date32()),
        ("last_day", pa.date32()),
        ("last_close", pa.float64()),
    ]
)
BROUGHT_SQL: Final = """
    SELECT symbol, count(*) AS rows, min(date) AS first_day, max(date) AS last_day, arg_max(close, date) AS last_close
    FROM known GROUP BY symbol ORDER BY symbol
"""


@dataclass(frozen=True)
class Remembered:
    """The table version in which a delivery's rows stand (None: nothing was ever appended), and the table's rows.

    days: the first and the last day in the table, None where it has no row. symbols: how many series the delivery had
    rows of. brought: the first of these series (`symbol`, `rows`, `first_day`, `last_day`, `last_close`).
    """

    version: int | None
    appended: int
    total: int
    days: tuple[date, date] | None = None
    symbols: int = 0
    brought: Sequence[Mapping[str, Any]] = ()


def remember(received: Received, cleaned: Cleaned, history: MarketHistory, store: ObjectStore) -> Remembered:
    """Append the accepted rows of a delivery; rows appended before, by whatever run, are not appended again.

    What the append wrote is recorded by its hashes, so that a later reader can tell whether it is still the same.
    """
    if not cleaned.accepted_rows:
        return Remembered(history.version(), 0, history.count(), history.days())
    known_at = datetime.fromisoformat(received.at)
    with TemporaryDirectory(prefix="crypto_ml-history-") as name:
        path = Path(name) / "accepted.parquet"
        download_named(cleaned.accepted_key, path, store)
        with pq.ParquetFile(path) as accepted:
            rows = pa.RecordBatchReader.from_batches(SCHEMA, _known_rows(accepted, received, cleaned.cleaning))
            version = history.append(rows, append_id=append_id(cleaned), known_at=known_at)
        brought = _brought(path)
    with suppress(AlreadyExists):
        store.create_json(append_key(append_id(cleaned)), asdict(history.commit_evidence(version)))
    for upload in retracted_ids(store, cleaned.delivery):  # a delivery that is cleaned again brings no valid rows back
        carry_out(read_retraction(upload, store), history, store)
    shown = brought.slice(0, MOST_SERIES_SHOWN).to_pylist()
    return Remembered(version, cleaned.accepted_rows, history.count(), history.days(), brought.num_rows, shown)


def append_id(cleaned: Cleaned) -> str:
    """The name under which a delivery's rows are appended, once."""
    return f"{cleaned.delivery}-{cleaned.accepted_sha256[:16]}"


def read_append(cleaned: Cleaned, store: ObjectStore) -> CommitEvidence:
    """What was recorded of a delivery's append. Raises ObjectMissing."""
    key = append_key(append_id(cleaned))
    return read_record(CommitEvidence, store.read_json(key), store.uri(key))


def _brought(accepted: Path) -> pa.Table:
    """The series that a delivery has rows of, sorted by name; memory is bounded by the series."""
    with pq.ParquetFile(accepted) as rows:
        schema = pa.schema([rows.schema_arrow.field(name) for name in ("symbol", "date", "close")])
        known = pa.RecordBatchReader.from_batches(schema, rows.iter_batches(columns=schema.names))
        return pa.Table.from_batches(queried(BROUGHT_SQL, known, BROUGHT), BROUGHT)


def _known_rows(accepted: pq.ParquetFile, received: Received, cleaning: int) -> Iterator[pa.RecordBatch]:
    known_at = pa.scalar(datetime.fromisoformat(received.at), SCHEMA.field("known_at").type)
    for batch in accepted.iter_batches():
        names = pc.binary_join_element_wise(received.delivery, pc.cast(batch["file"], pa.string()), ".")
        rows = pa.table({name: batch[name] for name in SCHEMA.names if name in batch.schema.names})
        rows = rows.append_column("known_at", pa.repeat(known_at, batch.num_rows)).append_column("upload_id", names)
        rows = rows.append_column("cleaning", pa.repeat(pa.scalar(cleaning, pa.int32()), batch.num_rows))
        rows = rows.append_column("void", pa.nulls(batch.num_rows, pa.bool_()))
        yield from rows.select(SCHEMA.names).cast(SCHEMA).combine_chunks().to_batches()
