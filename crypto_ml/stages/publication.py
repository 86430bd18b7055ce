"""How an answer gets out: receipt first, then the predictions, then the refused rows, and the report last.

So whoever sees a report finds what it names. Each object appears as a whole, and one of an older delivery never takes
the place of one of a newer delivery: in whatever order runs come to their ends, what stands is the same.
"""

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pyarrow.compute as pc
import pyarrow.dataset as ds

from crypto_ml.digest import sha256_of_file
from crypto_ml.forecasting.answers import REJECTED_ROWS, append_csv
from crypto_ml.ledger.layout import CSV, answer_keys
from crypto_ml.ledger.receipts import Receipt, with_predictions, with_rejected_rows, write_receipt
from crypto_ml.ledger.reports import Report, report_on, write_report
from crypto_ml.storage.objects import ObjectStore


def publish(
    receipt: Receipt, earlier: Report | None, predictions: Path | None, rejected: Path | None, store: ObjectStore
) -> tuple[Receipt, Report]:
    """Write the receipt and what it vouches for; `earlier` is the report that stood before.

    Where the predictions of a newer delivery are there, they stay and this answer comes back SKIPPED.
    """
    receipt = write_receipt(vouching(receipt, predictions, rejected), store)
    keys, order = answer_keys(receipt.upload.key), receipt.inputs.delivery
    answer = predictions if "predictions" in receipt.published else None
    if answer and not store.put_newest(keys.predictions, answer, order, content_type=CSV):
        reason = "a newer delivery published its answer at the same moment; that one stays"
        skipped = replace(receipt, outcome="SKIPPED", reason=reason)
        return skipped, report_on(skipped, None)
    if rejected:
        store.put_newest(keys.rejected_rows, rejected, order, content_type=CSV)
    report = report_on(receipt, earlier)
    write_report(report, store)
    return receipt, report


def vouching(receipt: Receipt, predictions: Path | None, rejected: Path | None) -> Receipt:
    """The receipt with the sha256 of the local files that are about to be published."""
    if rejected:
        receipt = with_rejected_rows(receipt, sha256_of_file(rejected))
    if predictions and receipt.outcome == "PREDICTED":
        receipt = with_predictions(receipt, sha256_of_file(predictions))
    return receipt


def skip(receipt: Receipt, reason: str, store: ObjectStore) -> tuple[Receipt, Report]:
    """Record that the upload's own answer is not needed any more, and publish nothing."""
    receipt = write_receipt(replace(receipt, outcome="SKIPPED", reason=reason), store)
    return receipt, report_on(receipt, None)


def refused_rows_file(number: int, refused: Path, directory: Path) -> Path:
    """The refused rows of one file as they are published; with none, a header that replaces an earlier answer's."""
    path = directory / f"{number}_rejected_rows.csv"
    append_csv(path, REJECTED_ROWS, pd.DataFrame(columns=REJECTED_ROWS.names))
    for batch in ds.dataset(refused).to_batches(filter=pc.field("file") == number):
        append_csv(path, REJECTED_ROWS, batch.to_pandas())
    return path
