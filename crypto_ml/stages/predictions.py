"""predictions: the answers to a delivery, scored, recorded and published beside the uploads."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import pandas as pd

from crypto_ml.digest import sha256_of
from crypto_ml.forecasting.answers import PREDICTIONS
from crypto_ml.ledger.layout import answer_keys
from crypto_ml.ledger.receipts import Receipt
from crypto_ml.ledger.reports import Report, read_reports
from crypto_ml.stages.answer_receipts import answer_ids, evidence_of, receipt_of, version_written
from crypto_ml.stages.cleaned_features import Cleaned, download_named
from crypto_ml.stages.delivery_scoring import PREVIEW_ROWS, Sources, score_delivery
from crypto_ml.stages.publication import close, publish, refused_rows_file, repeat, skip
from crypto_ml.stages.raw_uploads import Received

AT_ONCE: Final = 8


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
        evidence, written = evidence_of(received, cleaned, sources), version_written(cleaned, sources.store)

        # a.csv and a.csv.gz have one answer between them: the later one's
        owners = {answer_keys(file.upload.key): file.upload.key for file in received.files}
        reports = read_reports([file.upload.key for file in received.files], sources.store)

        def answer_file(number: int) -> tuple[Receipt, Report]:
            file = scored.get(number)
            receipt = receipt_of(received, cleaned, number, file, sources, evidence=evidence, written=written)
            earlier = reports.get(receipt.upload.key)
            if reason := _outranked(receipt, owners[answer_keys(receipt.upload.key)], earlier):
                return skip(receipt, reason, sources.store)
            if earlier and (again := repeat(receipt, earlier, directory, sources.store)):
                return again
            if earlier and earlier.corrected_by(receipt):
                note = f"replaces answer {earlier.document['answer_id']}; `crypto-ml corrections` lists what used it"
                receipt = replace(receipt, notes=[*receipt.notes, note])
            rejected = None
            if receipt.rows.refused or (receipt.outcome == "PREDICTED" and earlier and earlier.rejected_rows):
                rejected = refused_rows_file(number, refused, directory)
            return publish(receipt, earlier, file.path if file else None, rejected, sources.store)

        with ThreadPoolExecutor(AT_ONCE) as pool:
            published = list(pool.map(answer_file, range(len(received.files))))
        close(received.delivery, [receipt for receipt, _ in published], sources.store)
        previews = [frame for file in list(scored.values())[:PREVIEW_ROWS] for frame in file.preview]
    return Answers(
        [receipt for receipt, _ in published],
        [report for _, report in published],
        pd.concat(previews) if previews else pd.DataFrame(columns=PREDICTIONS.names),
    )


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
