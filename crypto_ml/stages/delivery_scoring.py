"""The accepted rows of a delivery, and the rows of history before them, scored into one file of predictions each."""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from crypto_ml.engine.mapping import Engine
from crypto_ml.forecasting.ahead import ahead
from crypto_ml.forecasting.answers import append_table, prediction_ids
from crypto_ml.forecasting.bundle import ModelBundle
from crypto_ml.forecasting.current import Order
from crypto_ml.forecasting.fingerprint import ACCEPTED, RowsHash, Witness, hash_by_file, runs
from crypto_ml.forecasting.folded import FoldedSeries
from crypto_ml.forecasting.looked_at import LookedAt
from crypto_ml.forecasting.progress import Progress
from crypto_ml.forecasting.running import FOLDED_1
from crypto_ml.forecasting.scaled_by import BY_OWN_ROWS, OWN_SCALED_NAMED
from crypto_ml.forecasting.schema import Earlier
from crypto_ml.forecasting.scoring import SEED, predictions_of, witness_of
from crypto_ml.forecasting.series import LookAlikes
from crypto_ml.forecasting.sorting import RowSorter
from crypto_ml.forecasting.spacing import Spacing
from crypto_ml.forecasting.unit_changes import UnitChanges
from crypto_ml.ledger.formats.receipt_v2 import Fingerprints
from crypto_ml.ledger.registry import Champion
from crypto_ml.settings import Settings
from crypto_ml.stages.cleaned_features import Cleaned, download_named
from crypto_ml.stages.progress import logged
from crypto_ml.stages.scored_parts import Together, cut, of_a_part, scored_parts, work_of
from crypto_ml.stages.scored_rows import Scoring
from crypto_ml.stages.series_by_name import FromHistory, Series
from crypto_ml.stages.spent import EARLIER_ROWS, FEATURES, part
from crypto_ml.storage.at_once import InTurn
from crypto_ml.storage.history import MarketHistory
from crypto_ml.storage.objects import ObjectStore
from crypto_ml.storage.prediction_log import LOGGED_BESIDE

PREVIEW_ROWS: Final = 5
FEW_ROWS: Final = 10_000
"""So few are read sooner than other threads are asked to."""

ONE_WRITTEN: Final = 1
"""Chunk at a time, while the next one is made: making the lines of a file takes a quarter of all that scoring takes."""

PREDICTED_PARQUET: Final = "predicted.parquet"
log: Final = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sources:
    """What a delivery is answered with, read once for the whole of it. engine: by whom it is scored in parts; None: in
    one piece, which gives the same bytes."""

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
    engine: Engine | None = None

    @property
    def scoring(self) -> Scoring:
        """What of it decides a prediction. Series are read from the history itself where nothing faster is at hand."""
        return Scoring(
            self.bundle,
            self.history,
            self.history_version,
            self.series or FromHistory(self.history),
            self.settings.recovery,
            self.settings.level,
            self.current,
            self.earlier,
        )


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
    bundle, level = sources.bundle, sources.settings.level
    columns = predictions_of(bundle).names
    made_from = _MadeFrom(witness_of(bundle))
    whole = only is None and not accepted
    chunks = _in_parts(cleaned, sources, stored, made_from) if whole else None
    if chunks is None:
        rows_of_files = _of_file(accepted, only) if accepted else accepted_rows(stored, only)
        chunks = _in_one_piece(rows_of_files, sources, directory, made_from, uploads)
    logged_rows = PREDICTED_ROWS if bundle.rule is None else pa.schema([*PREDICTED_ROWS, *LOGGED_BESIDE])
    tell, answered = logged(log, f"delivery {cleaned.delivery}"), 0
    with pq.ParquetWriter(
        directory / PREDICTED_PARQUET, logged_rows, compression="lz4", use_dictionary=["symbol"]
    ) as predicted:

        def write(chunk: pa.Table) -> int:
            _write(chunk, names, scored, directory, columns=columns)
            made = chunk.filter(pc.not_equal(chunk["status"], SEED))
            if looked_at and made.num_rows:
                looked_at.add(made)
            if bundle.rule is not None:
                made = made.append_column("interval_level", levels_of(made, level))
            predicted.write_table(made.select(logged_rows.names).combine_chunks())
            return int(chunk.num_rows)

        with ThreadPoolExecutor(1) if cleaned.accepted_rows > FEW_ROWS else InTurn() as beside:
            for rows in ahead(write, chunks, beside, ONE_WRITTEN + 1):
                answered += rows
                tell(Progress("scoring", answered, cleaned.accepted_rows if only is None else None, "rows"))
    witness = made_from.witness
    for number, file in scored.items():
        file.look_alikes = list(made_from.alike.notes(number))
        file.unit_changes = made_from.changes.notes(number)
        file.spacing = made_from.spacing.notes(number)
        file.folded_series = witness.folded_series(number)
        file.fingerprints = Fingerprints(
            accepted_rows=made_from.accepted[number].hexdigest(),
            earlier_rows=witness.earlier_rows(number, sources.earlier) if witness.saw_earlier_rows(number) else None,
            feature_block=witness.feature_block[number].hexdigest(),
        )
    return scored


@dataclass
class _MadeFrom:
    """What predictions are made from and what there is to tell of it; whole once all of them have come."""

    witness: Witness
    accepted: dict[int, RowsHash] = field(default_factory=dict)
    changes: UnitChanges = field(default_factory=UnitChanges)
    spacing: Spacing = field(default_factory=Spacing)
    alike: LookAlikes = field(default_factory=lambda: LookAlikes(()))


def _in_one_piece(
    rows_of_files: Iterable[pa.Table],
    sources: Sources,
    directory: Path,
    made_from: _MadeFrom,
    uploads: set[str] | None,
) -> Iterator[pa.Table]:
    """The predictions of accepted rows, in chunks."""
    with RowSorter(directory / "scoring") as sorter:
        for rows in rows_of_files:
            sorter.add(rows.append_column("context", pa.repeat(False, rows.num_rows)))
            hash_by_file(made_from.accepted, rows, ACCEPTED)
        folded = FoldedSeries(directory / "folded")
        made_from.alike = add_earlier_rows(sorter, folded, sources, uploads)
        chunks = made_from.spacing.seen(made_from.changes.seen(sorter.chunk_tables()))
        yield from sources.scoring.scored(chunks, folded, made_from.witness)


def _in_parts(cleaned: Cleaned, sources: Sources, stored: Path, made_from: _MadeFrom) -> Iterator[pa.Table] | None:
    """The same from parts that the engine computes; None where there is no engine, or the delivery cannot be cut."""
    engine = sources.engine
    if engine is None:
        return None
    parts = cut(stored, sources.scoring)
    if parts.whole:
        log.info("delivery %s is scored in one piece: %s", cleaned.delivery, parts.whole)
        return None
    sources.history.known.keep()  # which series there are, so that not every worker has to find out
    work = work_of(parts, sources.scoring, cleaned.accepted_key, told=f"scoring delivery {cleaned.delivery}")

    def put_together() -> Iterator[pa.Table]:
        together, tell = Together(parts.series, sources.bundle), logged(log, f"delivery {cleaned.delivery}")
        for groups, tables in scored_parts(engine, work, parts, stored, tell=tell):
            rows_of_part = []
            for rows in groups:
                hash_by_file(made_from.accepted, rows, ACCEPTED)
                rows_of_part.append(rows)
            yield from together.take(of_a_part(rows_of_part), tables, made_from.witness)
        made_from.changes, made_from.spacing = together.changes, together.spacing
        made_from.alike = together.alike(stored.parent / "alike")

    return put_together()


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
    """See `scored_rows.Scoring.add_earlier_rows`."""
    return sources.scoring.add_earlier_rows(sorter, folded, uploads)


def named_rows(chunk: pa.Table, names: Mapping[int, str], columns: Sequence[str]) -> pa.Table:
    """Scored rows in the columns of a file of predictions, each with its name."""
    files, of_row = np.unique(chunk["file"].to_numpy(), return_inverse=True)
    answers = pa.array([names.get(int(file)) for file in files], pa.string()).take(pa.array(of_row))
    return chunk.append_column("prediction_id", prediction_ids(answers, chunk["line"])).select(columns)


def _write(
    chunk: pa.Table,
    names: Mapping[int, str],
    scored: dict[int, Scored],
    directory: Path,
    *,
    columns: Sequence[str],
) -> None:
    """Append scored rows to the predictions of their files, which have these columns."""
    files = chunk["file"].to_numpy()
    named = named_rows(chunk, names, columns)
    seeds = pc.equal(chunk["status"], SEED).to_numpy()
    by_own = pc.equal(chunk["scaled_by"], BY_OWN_ROWS).to_numpy()
    for number, rows in runs(files):
        count = rows.stop - rows.start
        file, table = scored.setdefault(number, Scored(directory / f"{number}.csv")), chunk.slice(rows.start, count)
        append_table(file.path, named.slice(rows.start, count))
        of_seeds = seeds[rows]
        file.seed += int(of_seeds.sum())
        file.predicted += int((~of_seeds).sum())
        if by_own[rows].any():
            own = table["symbol"].filter(pa.array(by_own[rows])).unique().to_pylist()
            file.own_scaled += own[: max(0, OWN_SCALED_NAMED - len(file.own_scaled))]
            file.own_scaled_series += len(own)
        if not file.preview and len(scored) <= PREVIEW_ROWS:
            some = table.filter(pa.array(~of_seeds)).slice(0, PREVIEW_ROWS)
            file.preview.append(named_rows(some, names, columns))
