"""predictions: the answers to a delivery, published beside the uploads.

For each upload: receipt first, then the predictions, then the refused rows, and the report last, so that whoever sees
a report finds what it names. Nothing is ever half-written: each object is put as a whole.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from importlib.metadata import version as package_version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from crypto_ml.digest import sha256_of, sha256_of_file
from crypto_ml.forecasting.answers import PREDICTIONS, REJECTED_ROWS, append_csv, with_prediction_ids
from crypto_ml.forecasting.bundle import ModelBundle
from crypto_ml.forecasting.scoring import BY_OWN_ROWS, SEED, score
from crypto_ml.forecasting.sorting import RowSorter
from crypto_ml.ledger.code import code_version
from crypto_ml.ledger.layout import CSV, answer_keys, answered_key
from crypto_ml.ledger.receipts import (
    Inputs,
    Outcome,
    Receipt,
    Report,
    RowCounts,
    Timings,
    read_report,
    report_on,
    with_predictions,
    with_rejected_rows,
    write_receipt,
    write_report,
)
from crypto_ml.ledger.registry import Champion
from crypto_ml.settings import Settings
from crypto_ml.stages.cleaned_features import Cleaned, CleanedFile, download_named
from crypto_ml.stages.earlier_rows import earlier_rows
from crypto_ml.stages.raw_uploads import Received, ReceivedFile
from crypto_ml.storage.failures import AlreadyExists
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
class _Scored:
    """The predictions of one file on local disk, and what they are made of."""

    path: Path
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
        return [entry["key"] for receipt in self.receipts for entry in receipt.published.values()]

    @property
    def data_version(self) -> str:
        """The published bytes, as one word."""
        hashes = [entry["sha256"] for receipt in self.receipts for entry in receipt.published.values()]
        return sha256_of("".join(hashes).encode())


def answer(received: Received, cleaned: Cleaned, sources: Sources) -> Answers:
    """Score every accepted row of the delivery and publish an answer to each of its uploads."""
    with TemporaryDirectory(prefix="crypto_ml-answer-") as name:
        directory = Path(name)
        inputs = [_inputs(received, cleaned, number, sources) for number in range(len(received.files))]
        scored = _score_all(cleaned, inputs, sources, directory)
        refused = directory / "refused.parquet"
        if cleaned.files:
            download_named(cleaned.refused_key, refused, sources.store)

        # a.csv and a.csv.gz have one answer between them: the later one's
        owners = {answer_keys(file.upload.key): file.upload.key for file in received.files}

        def publish(number: int) -> tuple[Receipt, Report]:
            receipt = _receipt(received, cleaned, number, scored.get(number), sources)
            earlier = read_report(receipt.upload.key, sources.store)
            if reason := _outranked(receipt, owners[answer_keys(receipt.upload.key)], earlier):
                receipt = write_receipt(replace(receipt, outcome="SKIPPED", reason=reason), sources.store)
                return receipt, report_on(receipt, None)
            rejected = directory / f"{number}_rejected_rows.csv"
            if receipt.rows.refused or (receipt.outcome == "PREDICTED" and earlier and earlier.rejected_rows):
                _write_refused(number, rejected, refused)
            return _publish(receipt, earlier, scored.get(number), rejected, sources.store)

        with ThreadPoolExecutor(AT_ONCE) as pool:
            published = list(pool.map(publish, range(len(received.files))))
        outcomes = {receipt.upload.key: receipt.outcome for receipt, _ in published}
        with suppress(AlreadyExists):  # answered before; this time with another model, or by a run that was retried
            sources.store.create_json(answered_key(received.delivery), outcomes)
        previews = [frame for file in list(scored.values())[:PREVIEW_ROWS] for frame in file.preview]
    return Answers(
        [receipt for receipt, _ in published],
        [report for _, report in published],
        pd.concat(previews) if previews else pd.DataFrame(columns=PREDICTIONS.names),
    )


def _score_all(cleaned: Cleaned, inputs: Sequence[Inputs], sources: Sources, directory: Path) -> dict[int, _Scored]:
    scored: dict[int, _Scored] = {}
    if not cleaned.accepted_rows:
        return scored
    accepted = directory / "accepted.parquet"
    download_named(cleaned.accepted_key, accepted, sources.store)
    with RowSorter(directory / "sort") as sorter:
        with pq.ParquetFile(accepted) as rows:
            for batch in rows.iter_batches():
                sorter.add(pa.Table.from_batches([batch]).append_column("context", pa.repeat(False, batch.num_rows)))
        bundle = sources.bundle
        other = {symbol for symbol, slug in sorter.coins() if bundle.is_other_coin(symbol, slug)}
        coins = {symbol: slug for symbol, slug in bundle.coins.items() if symbol not in other}
        for earlier in earlier_rows(sources.history, sorter.spans(), coins, sources.history_version):
            sorter.add(earlier)
        chunks = score(sorter.chunks(), sources.bundle, sources.settings.recovery)
        for number, part in _by_file(chunks):
            file = scored.setdefault(number, _Scored(directory / f"{number}.csv"))
            _write(file, with_prediction_ids(part, inputs[number].answer_id))
    return scored


def _by_file(chunks: Iterator[pd.DataFrame]) -> Iterator[tuple[int, pd.DataFrame]]:
    for chunk in chunks:
        for number, part in chunk.groupby("file", sort=True):
            yield int(str(number)), part


def _write(file: _Scored, part: pd.DataFrame) -> None:
    append_csv(file.path, PREDICTIONS, part)
    seeds = part["status"] == SEED
    file.predicted += int((~seeds).sum())
    file.seed += int(seeds.sum())
    file.own_scaled += list(part.loc[part["scaled_by"] == BY_OWN_ROWS, "symbol"].unique())
    if not file.preview:
        file.preview.append(part.loc[~seeds, PREDICTIONS.names].head(PREVIEW_ROWS))


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


def _receipt(received: Received, cleaned: Cleaned, number: int, scored: _Scored | None, sources: Sources) -> Receipt:
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
        champion=asdict(sources.champion),
        package_version=package_version("crypto-ml"),
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


def _notes(cleaned: Cleaned, scored: _Scored) -> list[str]:
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
    """Why the answer that stands, or is about to, is not replaced by this one."""
    if owner != receipt.upload.key:
        return f"{owner} came in the same delivery, and its answer has the same name; rename one of them"
    if earlier is None or earlier.delivery <= receipt.inputs.delivery:
        return None
    same = earlier.upload_key == receipt.upload.key
    newer = "a newer version of the file" if same else f"a newer upload, {earlier.upload_key},"
    return f"{newer} was answered in delivery {earlier.delivery}; its answer stays"


def _publish(
    receipt: Receipt, earlier: Report | None, scored: _Scored | None, rejected: Path, store: ObjectStore
) -> tuple[Receipt, Report]:
    keys = answer_keys(receipt.upload.key)
    if rejected.exists():
        receipt = with_rejected_rows(receipt, sha256_of_file(rejected))
    if scored and receipt.outcome == "PREDICTED":
        receipt = with_predictions(receipt, sha256_of_file(scored.path))
    receipt = write_receipt(receipt, store)
    if scored and "predictions" in receipt.published:
        store.upload_file(scored.path, keys.predictions, create_only=False, content_type=CSV)
    if rejected.exists():
        store.upload_file(rejected, keys.rejected_rows, create_only=False, content_type=CSV)
    report = report_on(receipt, earlier)
    write_report(report, store)
    return receipt, report


def _write_refused(number: int, path: Path, refused: Path) -> None:
    """The refused rows of one file; with none, a file that says so replaces the one of an earlier answer."""
    append_csv(path, REJECTED_ROWS, pd.DataFrame(columns=REJECTED_ROWS.names))
    for batch in ds.dataset(refused).to_batches(filter=pc.field("file") == number):
        append_csv(path, REJECTED_ROWS, batch.to_pandas())
