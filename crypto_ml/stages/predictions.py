"""predictions: the answers to a delivery, scored, recorded and published beside the uploads."""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from crypto_ml.digest import sha256_of
from crypto_ml.forecasting.answers import PREDICTIONS, append_table, with_prediction_ids
from crypto_ml.forecasting.bundle import MANIFEST, NETWORK, SCALER, TRAINING_MANIFEST, ModelBundle
from crypto_ml.forecasting.fingerprint import ACCEPTED, RowsHash, Witness, runs
from crypto_ml.forecasting.scoring import BY_OWN_ROWS, SEED, score
from crypto_ml.forecasting.sorting import RowSorter, as_frame
from crypto_ml.ledger.code import code_version
from crypto_ml.ledger.deliveries import delivery_key
from crypto_ml.ledger.layout import answer_keys, answered_key, bundle_prefix, received_key
from crypto_ml.ledger.receipts import (
    Fingerprints,
    HistoryVersions,
    Inputs,
    Outcome,
    Receipt,
    Report,
    RowCounts,
    Timings,
    UsedModel,
    Vouched,
    read_reports,
)
from crypto_ml.ledger.registry import Champion, Registry
from crypto_ml.ledger.software import software
from crypto_ml.settings import Settings
from crypto_ml.stages.cleaned_features import Cleaned, CleanedFile, download_named
from crypto_ml.stages.earlier_rows import earlier_rows
from crypto_ml.stages.market_history import append_id, read_append
from crypto_ml.stages.publication import publish, refused_rows_file, skip
from crypto_ml.stages.raw_uploads import Received, ReceivedFile
from crypto_ml.storage.failures import AlreadyExists, ObjectMissing
from crypto_ml.storage.history import MarketHistory
from crypto_ml.storage.objects import ObjectStore

AT_ONCE: Final = 8
PREVIEW_ROWS: Final = 5
MOST_SYMBOLS_NAMED: Final = 20


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


@dataclass
class Scored:
    """The predictions of one file on local disk, and what they are made of."""

    path: Path
    fingerprints: Fingerprints = field(default_factory=Fingerprints)
    predicted: int = 0
    seed: int = 0
    own_scaled: list[str] = field(default_factory=list)
    preview: list[pd.DataFrame] = field(default_factory=list)


@dataclass(frozen=True)
class Answers:
    """The receipts and reports of a delivery, one of each for each upload, and the first predicted rows to look at."""

    receipts: Sequence[Receipt]
    reports: Sequence[Report]
    preview: pd.DataFrame

    @property
    def published(self) -> list[str]:
        """The keys of everything that was published."""
        return [entry.key for receipt in self.receipts for entry in receipt.published.values()]

    @property
    def data_version(self) -> str:
        """The published bytes, as one word."""
        hashes = [entry.sha256 for receipt in self.receipts for entry in receipt.published.values()]
        return sha256_of("".join(hashes).encode())


def answer(received: Received, cleaned: Cleaned, sources: Sources) -> Answers:
    """Score every accepted row of the delivery and publish an answer to each of its uploads."""
    with TemporaryDirectory(prefix="crypto_ml-answer-") as name:
        directory = Path(name)
        scored = score_delivery(cleaned, answer_ids(received, cleaned, sources), sources, directory)
        refused = directory / "refused.parquet"
        if cleaned.files:
            download_named(cleaned.refused_key, refused, sources.store)
        evidence, written = _evidence(received, cleaned, sources), _written(cleaned, sources.store)

        # a.csv and a.csv.gz have one answer between them: the later one's
        owners = {answer_keys(file.upload.key): file.upload.key for file in received.files}

        reports = read_reports([file.upload.key for file in received.files], sources.store)

        def answer_file(number: int) -> tuple[Receipt, Report]:
            file = scored.get(number)
            receipt = _receipt(received, cleaned, number, file, sources, evidence=evidence, written=written)
            earlier = reports.get(receipt.upload.key)
            if reason := _outranked(receipt, owners[answer_keys(receipt.upload.key)], earlier):
                return skip(receipt, reason, sources.store)
            if earlier and earlier.corrected_by(receipt):
                note = f"replaces answer {earlier.document['answer_id']}; `crypto-ml corrections` lists what used it"
                receipt = replace(receipt, notes=[*receipt.notes, note])
            rejected = None
            if receipt.rows.refused or (receipt.outcome == "PREDICTED" and earlier and earlier.rejected_rows):
                rejected = refused_rows_file(number, refused, directory)
            return publish(receipt, earlier, file.path if file else None, rejected, sources.store)

        with ThreadPoolExecutor(AT_ONCE) as pool:
            published = list(pool.map(answer_file, range(len(received.files))))
        outcomes = {r.upload.key: {"outcome": r.outcome, "answer_id": r.answer_id} for r, _ in published}
        with suppress(AlreadyExists):  # answered before; this time with another model, or by a run that was retried
            sources.store.create_json(answered_key(received.delivery), outcomes)
        previews = [frame for file in list(scored.values())[:PREVIEW_ROWS] for frame in file.preview]
    return Answers(
        [receipt for receipt, _ in published],
        [report for _, report in published],
        pd.concat(previews) if previews else pd.DataFrame(columns=PREDICTIONS.names),
    )


def answer_ids(received: Received, cleaned: Cleaned, sources: Sources) -> dict[int, str]:
    """The name of the answer to each file of the delivery, by its number."""
    return {number: _inputs(received, cleaned, number, sources).answer_id for number in range(len(received.files))}


def score_delivery(
    cleaned: Cleaned, names: Mapping[int, str], sources: Sources, directory: Path, only: int | None = None
) -> dict[int, Scored]:
    """Write the predictions of each file of the delivery (or of one) into a local directory, each row named."""
    scored: dict[int, Scored] = {}
    if not cleaned.accepted_rows:
        return scored
    accepted = directory / "accepted.parquet"
    if not accepted.exists():
        download_named(cleaned.accepted_key, accepted, sources.store)
    hashes: dict[int, RowsHash] = {}
    witness = Witness()
    with RowSorter(directory / "scoring") as sorter:
        for batch in accepted_rows(accepted, only):
            sorter.add(pa.Table.from_batches([batch]).append_column("context", pa.repeat(False, batch.num_rows)))
            frame = as_frame(pa.Table.from_batches([batch]))
            for number, rows in runs(frame["file"].to_numpy()):
                hashes.setdefault(number, RowsHash(ACCEPTED)).add(frame[rows])
        add_earlier_rows(sorter, sources)
        for chunk in score(sorter.chunks(), sources.bundle, sources.settings.recovery, witness):
            _write(chunk, names, scored, directory)
    for number, file in scored.items():
        file.fingerprints = Fingerprints(
            accepted_rows=hashes[number].hexdigest(),
            earlier_rows=witness.earlier_rows[number].hexdigest() if witness.earlier_rows[number].rows else None,
            feature_block=witness.feature_block[number].hexdigest(),
        )
    return scored


def accepted_rows(accepted: Path, only: int | None = None) -> Iterator[pa.RecordBatch]:
    """The accepted rows of a delivery's files, or of one of them, in order."""
    with pq.ParquetFile(accepted) as rows:
        for batch in rows.iter_batches():
            yield batch if only is None else batch.filter(pc.equal(batch["file"], only))


def add_earlier_rows(sorter: RowSorter, sources: Sources) -> None:
    """Add to accepted rows what the history had before them."""
    bundle = sources.bundle
    other = {symbol for symbol, slug in sorter.coins() if bundle.is_other_coin(symbol, slug)}
    coins = {symbol: slug for symbol, slug in bundle.coins.items() if symbol not in other}
    for earlier in earlier_rows(sources.history, sorter.spans(), coins, sources.history_version):
        sorter.add(earlier)


def _evidence(received: Received, cleaned: Cleaned, sources: Sources) -> dict[str, Vouched]:
    """The stored objects that every answer of the delivery rests on (see `receipts.EVIDENCE`), as they are stored."""
    registry = Registry(sources.store, sources.settings.environment)
    keys = {
        "delivery": delivery_key(received.delivery),
        "received": received_key(received.delivery),
        "cleaned": cleaned.record_key,
        "refused": cleaned.refused_key,
        "champion": registry.pointer_key(sources.champion.pointer),
        "bundle": bundle_prefix(sources.bundle.version) + MANIFEST,
    }
    with ThreadPoolExecutor(AT_ONCE) as pool:
        hashes = pool.map(lambda key: sha256_of(sources.store.read(key)), keys.values())
    found = {part: Vouched(key, sha256) for (part, key), sha256 in zip(keys.items(), hashes, strict=True)}
    return {**found, "accepted": Vouched(cleaned.accepted_key, cleaned.accepted_sha256)}


def _written(cleaned: Cleaned, store: ObjectStore) -> int | None:
    """The version of the history that the delivery's rows stand in; None where it brought none."""
    if not cleaned.accepted_rows:
        return None
    try:
        return read_append(cleaned, store).version
    except ObjectMissing as missing:
        raise ObjectMissing(
            f"the rows of delivery {cleaned.delivery} are not in the market history yet (append "
            f"{append_id(cleaned)}); materialise market_history for it first"
        ) from missing


def _write(chunk: pd.DataFrame, names: Mapping[int, str], scored: dict[int, Scored], directory: Path) -> None:
    """Append scored rows to the predictions of their files; the chunk is turned into a table once for all of them."""
    named = with_prediction_ids(chunk, chunk["file"].map(dict(names)))
    table = pa.Table.from_pandas(named[PREDICTIONS.names], schema=PREDICTIONS, preserve_index=False)
    seeds = (chunk["status"] == SEED).to_numpy()
    by_own = (chunk["scaled_by"] == BY_OWN_ROWS).to_numpy()
    symbols = chunk["symbol"].to_numpy()
    for number, rows in runs(chunk["file"].to_numpy()):
        file = scored.setdefault(number, Scored(directory / f"{number}.csv"))
        append_table(file.path, table.slice(rows.start, rows.stop - rows.start))
        file.seed += int(seeds[rows].sum())
        file.predicted += int((~seeds[rows]).sum())
        file.own_scaled += list(dict.fromkeys(symbols[rows][by_own[rows]]))
        if not file.preview and len(scored) <= PREVIEW_ROWS:
            file.preview.append(named[rows].loc[~seeds[rows], PREDICTIONS.names].head(PREVIEW_ROWS))


def _inputs(received: Received, cleaned: Cleaned, number: int, sources: Sources) -> Inputs:
    file = received.files[number]
    return Inputs(
        upload_key=file.upload.key,
        upload_sha256=file.sha256,
        delivery=received.delivery,
        accepted_sha256=cleaned.accepted_sha256,
        history_version=sources.history_version,
        model_version=sources.bundle.version,
        bundle_sha256=sources.bundle.sha256,
        champion_pointer=sources.champion.pointer,
        code=code_version(__name__),
        recovery=sources.settings.recovery,
    )


def _receipt(
    received: Received,
    cleaned: Cleaned,
    number: int,
    scored: Scored | None,
    sources: Sources,
    *,
    evidence: Mapping[str, Vouched],
    written: int | None,
) -> Receipt:
    """The receipt of one upload, before anything is published."""
    file = received.files[number]
    summary = cleaned.files.get(number)
    outcome, reason = _outcome(file, summary)
    return Receipt(
        outcome=outcome,
        reason=reason,
        upload=file.upload,
        inputs=_inputs(received, cleaned, number, sources),
        rows=RowCounts(
            received=summary.received if summary else 0,
            accepted=summary.accepted if summary else 0,
            refused=summary.refused if summary else 0,
            repeated=summary.repeated if summary else 0,
            predicted=scored.predicted if scored else 0,
            seed=scored.seed if scored else 0,
        ),
        fingerprints=scored.fingerprints if scored else Fingerprints(),
        history=HistoryVersions(read=sources.history_version, written=written),
        model=_used(sources.bundle),
        champion=asdict(sources.champion),
        settings=asdict(sources.settings),
        software=software(),
        evidence=evidence,
        run_id=sources.run_id,
        timings=Timings(
            uploaded_at=file.upload.last_modified,
            noticed_at=received.noticed_at,
            received_at=received.at,
            answered_at=datetime.now(UTC).isoformat(),
        ),
        ignored_columns=list(summary.ignored_columns) if summary else [],
        date_order=summary.date_order if summary else None,
        notes=_notes(cleaned, scored) if scored else [],
        earlier_answer=file.earlier_answer,
    )


def _outcome(file: ReceivedFile, summary: CleanedFile | None) -> tuple[Outcome, str | None]:
    if file.outcome:
        return file.outcome, file.reason
    if summary is None or summary.refusal:
        return "REJECTED", summary.refusal if summary else "the upload could not be read"
    return "PREDICTED", None


def _notes(cleaned: Cleaned, scored: Scored) -> list[str]:
    notes = []
    if scored.own_scaled:
        notes.append(
            f"{_named(scored.own_scaled)}: not known to the model's scaler, scaled by the series' own earlier rows"
        )
    if scored.seed:
        rows = "1 row has" if scored.seed == 1 else f"{scored.seed:,} rows have"
        notes.append(f"{rows} too few earlier rows to predict from: pred_open is open there")
    for name, (symbol, slug) in list(cleaned.renamed.items())[:MOST_SYMBOLS_NAMED]:
        notes.append(f"{symbol} is another coin's symbol already, so the series of {slug} is named {name}")
    return notes


def _named(symbols: Sequence[str]) -> str:
    more = len(symbols) - MOST_SYMBOLS_NAMED
    return ", ".join(symbols[:MOST_SYMBOLS_NAMED]) + (f" and {more} more" if more > 0 else "")


def _outranked(receipt: Receipt, owner: str, earlier: Report | None) -> str | None:
    """Why the answer that stands, or is about to, is not replaced by this one.

    A newer upload that was rejected published no predictions, so those of this one have their place.
    """
    if owner != receipt.upload.key:
        return f"{owner} came in the same delivery, and its answer has the same name; rename one of them"
    if earlier is None or earlier.delivery <= receipt.inputs.delivery or not earlier.document["predictions"]:
        return None
    same = earlier.upload_key == receipt.upload.key
    newer = "a newer version of the file" if same else f"a newer upload, {earlier.upload_key},"
    return f"{newer} was answered in delivery {earlier.delivery}; its answer stays"


def _used(bundle: ModelBundle) -> UsedModel:
    files: Mapping[str, str] = bundle.manifest["files"]
    return UsedModel(bundle.version, bundle.sha256, files[NETWORK], files[SCALER], files.get(TRAINING_MANIFEST))
