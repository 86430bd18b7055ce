"""The accepted rows of a delivery, and the rows of history before them, scored into one file of predictions each."""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from crypto_ml.forecasting.answers import append_table, prediction_ids
from crypto_ml.forecasting.bundle import ModelBundle
from crypto_ml.forecasting.current import Order
from crypto_ml.forecasting.fingerprint import ACCEPTED, RowsHash, hash_by_file, runs
from crypto_ml.forecasting.folded import FoldedSeries
from crypto_ml.forecasting.looked_at import LookedAt
from crypto_ml.forecasting.progress import Progress
from crypto_ml.forecasting.running import FOLDED_1
from crypto_ml.forecasting.scaled_by import BY_OWN_ROWS, OWN_SCALED_NAMED, is_other_coin
from crypto_ml.forecasting.schema import Earlier
from crypto_ml.forecasting.scoring import SEED, predictions_of, score_tables, witness_of
from crypto_ml.forecasting.series import LookAlikes
from crypto_ml.forecasting.sorting import RowSorter
from crypto_ml.forecasting.spacing import Spacing
from crypto_ml.forecasting.unit_changes import UnitChanges
from crypto_ml.ledger.formats.receipt_v2 import Fingerprints
from crypto_ml.ledger.registry import Champion
from crypto_ml.settings import Settings
from crypto_ml.stages.cleaned_features import Cleaned, download_named
from crypto_ml.stages.earlier_rows import read_earlier
from crypto_ml.stages.progress import logged
from crypto_ml.stages.series_by_name import FromHistory, Series
from crypto_ml.stages.spent import EARLIER_ROWS, FEATURES, part
from crypto_ml.storage.history import MarketHistory
from crypto_ml.storage.objects import ObjectStore
from crypto_ml.storage.prediction_log import LOGGED_BESIDE

PREVIEW_ROWS: Final = 5
FEW_ROWS: Final = 10_000
"""So few are read sooner than other threads are asked to."""

PREDICTED_PARQUET: Final = "predicted.parquet"
log: Final = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sources:
    """What a delivery is answered with, read once for the whole of it."""

    store: ObjectStore
    history: MarketHistory
    history_version: int | None
    bundle: ModelBundle
    champion: Champion
    settings: Settings
    run_id: str
    current: Order = "delivered"
    earlier: Earlier = FOLDED_1
    series: Series | None = None

    @property
    def read_from(self) -> Series:
        """Where series are read by their names; the history itself where nothing faster is at hand."""
        return self.series or FromHistory(self.history)


PREDICTED_ROWS: Final = pa.schema(
    [
        ("file", pa.int32()),
        ("line", pa.int64()),
        ("symbol", pa.string()),
        ("date", pa.date32()),
        ("pred_open", pa.float64()),
    ]
)
"""What of a prediction goes into the log, before its answer is known by name; of models with a serving rule also what
is said beside it (`LOGGED_BESIDE`)."""


@dataclass
class Scored:
    """The predictions of one file on local disk, and what they are made of. own_scaled: the first OWN_SCALED_NAMED of
    the series that were scaled by their own rows. folded_series: of how many of them the first rows came as a state.
    look_alikes: what to tell of series that others look like. unit_changes: and of rows that seem in another unit.
    spacing: and of rows that are further apart than days."""

    path: Path
    fingerprints: Fingerprints = field(default_factory=Fingerprints)
    predicted: int = 0
    seed: int = 0
    own_scaled: list[str] = field(default_factory=list)
    own_scaled_series: int = 0
    folded_series: int = 0
    preview: list[pa.Table] = field(default_factory=list)
    look_alikes: Sequence[str] = ()
    unit_changes: Sequence[str] = ()
    spacing: Sequence[str] = ()


@part(FEATURES)
def score_delivery(
    cleaned: Cleaned,
    names: Mapping[int, str],
    sources: Sources,
    directory: Path,
    only: int | None = None,
    *,
    looked_at: LookedAt | None = None,
    uploads: set[str] | None = None,
    accepted: Sequence[pa.Table] | None = None,
) -> dict[int, Scored]:
    """Write the predictions of each file of the delivery (or of one) into a local directory, each row named.

    Beside them stands PREDICTED_PARQUET, the rows that were predicted, of all of these files; `looked_at` sees them.
    uploads: gets the names of those that rows read from the history came from. accepted: the rows, where they are at
    hand.
    """
    scored: dict[int, Scored] = {}
    if not cleaned.accepted_rows:
        return scored
    stored = directory / "accepted.parquet"
    if not accepted and not stored.exists():
        download_named(cleaned.accepted_key, stored, sources.store)
    hashes: dict[int, RowsHash] = {}
    bundle, level = sources.bundle, sources.settings.level
    witness, columns = witness_of(bundle), predictions_of(bundle).names
    logged_rows = PREDICTED_ROWS if bundle.rule is None else pa.schema([*PREDICTED_ROWS, *LOGGED_BESIDE])
    predicted = pq.ParquetWriter(directory / PREDICTED_PARQUET, logged_rows, compression="lz4")
    with predicted, RowSorter(directory / "scoring") as sorter:
        for rows in _of_file(accepted, only) if accepted else accepted_rows(stored, only):
            sorter.add(rows.append_column("context", pa.repeat(False, rows.num_rows)))
            hash_by_file(hashes, rows, ACCEPTED)
        folded = FoldedSeries(directory / "folded")
        alike = add_earlier_rows(sorter, folded, sources, uploads)
        tell, answered = logged(log, f"delivery {cleaned.delivery}"), 0
        changes, spacing = UnitChanges(), Spacing()
        chunks = spacing.seen(changes.seen(sorter.chunk_tables()))
        for chunk in score_tables(chunks, bundle, sources.settings.recovery, witness, folded, level=level):
            _write(chunk, names, scored, directory, columns)
            answered += chunk.num_rows
            tell(Progress("scoring", answered, cleaned.accepted_rows if only is None else None, "rows"))
            made = chunk.filter(pc.not_equal(chunk["status"], SEED))
            if looked_at and made.num_rows:
                looked_at.add(made)
            if bundle.rule is not None:
                made = made.append_column("interval_level", levels_of(made, level))
            predicted.write_table(made.select(logged_rows.names).combine_chunks())
    for number, file in scored.items():
        file.look_alikes = list(alike.notes(number))
        file.unit_changes = changes.notes(number)
        file.spacing = spacing.notes(number)
        file.folded_series = witness.folded_series(number)
        file.fingerprints = Fingerprints(
            accepted_rows=hashes[number].hexdigest(),
            earlier_rows=witness.earlier_rows(number, sources.earlier) if witness.saw_earlier_rows(number) else None,
            feature_block=witness.feature_block[number].hexdigest(),
        )
    return scored


def levels_of(made: pa.Table, level: float) -> pa.Array:
    """The level of the interval of each row, null where it has none."""
    return pc.if_else(pc.is_valid(made["pred_low"]), level, pa.scalar(None, pa.float64()))


def accepted_rows(accepted: Path, only: int | None = None) -> Iterator[pa.Table]:
    """The accepted rows of a delivery's files, or of one of them, in order."""
    with pq.ParquetFile(accepted) as rows:
        batches = rows.iter_batches(use_threads=rows.metadata.num_rows > FEW_ROWS)
        yield from _of_file((pa.Table.from_batches([batch]) for batch in batches), only)


def _of_file(rows: Iterable[pa.Table], only: int | None) -> Iterator[pa.Table]:
    for table in rows:
        yield table if only is None else table.filter(pc.equal(table["file"], only))


@part(EARLIER_ROWS)
def add_earlier_rows(
    sorter: RowSorter, folded: FoldedSeries, sources: Sources, uploads: set[str] | None = None
) -> LookAlikes:
    """Add to accepted rows what the history had before them. Returns the series that look like others.

    uploads: gets the names of those that these rows came from.
    """
    bundle = sources.bundle
    slugs = bundle.slugs
    other = {name for coins in sorter.coins() for name, slug in coins if is_other_coin(slugs.get(name), slug)}
    coins = bundle.scaled_coins
    if other and coins is not None:
        coins = {symbol: slug for symbol, slug in coins.items() if symbol not in other}
    alike = LookAlikes(bundle.coins)
    for spans in sorter.span_tables():
        others = alike.ask(spans)
        for earlier in read_earlier(
            sources.read_from,
            sources.history,
            spans,
            coins,
            sources.history_version,
            order=sources.current,
            earlier=sources.earlier,
            look_back=bundle.look_back,
            also=others,
            seen=alike.see,
        ):
            sorter.add(earlier.rows)
            folded.add(earlier.states)
            if uploads is not None:
                uploads.update(earlier.uploads.unique().to_pylist())
        alike.answer()
    for file, symbols in sorter.alike():
        alike.add(file, symbols)
    return alike


def _write(
    chunk: pa.Table, names: Mapping[int, str], scored: dict[int, Scored], directory: Path, columns: Sequence[str]
) -> None:
    """Append scored rows to the predictions of their files, which have these columns."""
    answers = pa.array([names.get(file) for file in chunk["file"].to_pylist()], pa.string())
    named = chunk.append_column("prediction_id", prediction_ids(answers, chunk["line"])).select(columns)
    seeds = pc.equal(chunk["status"], SEED).to_numpy()
    by_own = pc.equal(chunk["scaled_by"], BY_OWN_ROWS).to_numpy()
    for number, rows in runs(chunk["file"].to_numpy()):
        count = rows.stop - rows.start
        file, table = scored.setdefault(number, Scored(directory / f"{number}.csv")), named.slice(rows.start, count)
        append_table(file.path, table)
        of_seeds = seeds[rows]
        file.seed += int(of_seeds.sum())
        file.predicted += int((~of_seeds).sum())
        if by_own[rows].any():
            own = table["symbol"].filter(pa.array(by_own[rows])).unique().to_pylist()
            file.own_scaled += own[: max(0, OWN_SCALED_NAMED - len(file.own_scaled))]
            file.own_scaled_series += len(own)
        if not file.preview and len(scored) <= PREVIEW_ROWS:
            file.preview.append(table.filter(pa.array(~of_seeds)).slice(0, PREVIEW_ROWS))
