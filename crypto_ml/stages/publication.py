"""How an answer gets out: receipt first, then the predictions, then the refused rows, and the report last.

So whoever sees a report finds what it names. Each object appears as a whole, and one of an older delivery never takes
the place of one of a newer delivery: in whatever order runs come to their ends, what stands is the same.
"""

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pyarrow.compute as pc
import pyarrow.dataset as ds

from crypto_ml.digest import sha256_of_file
from crypto_ml.forecasting.answers import REJECTED_ROWS, append_csv
from crypto_ml.ledger.layout import CSV, JSON, answer_keys, answered_key
from crypto_ml.ledger.receipts import Receipt, read_receipt, with_predictions, with_rejected_rows, write_receipt
from crypto_ml.ledger.reports import Report, report_on, write_report
from crypto_ml.storage.failures import AlreadyExists, Conflict, ObjectChanged
from crypto_ml.storage.objects import ORDER, ObjectStore, rendered


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


def repeat(receipt: Receipt, earlier: Report, directory: Path, store: ObjectStore) -> tuple[Receipt, Report] | None:
    """Skip an upload whose bytes the standing answer is to already; None where it is not, or not any more.

    The predictions that stand are put once more as this delivery's, so that one in between cannot take their place.
    """
    delivery = receipt.inputs.delivery
    answered = earlier.answers(receipt.upload.key, receipt.inputs.upload_sha256 or "")
    if answered is None or (earlier.delivery == delivery and earlier.outcome != "SKIPPED"):
        return None
    key, path = answer_keys(receipt.upload.key).predictions, directory / f"{answered}.csv"
    standing = store.head(key)
    vouched = read_receipt(answered, store).published.get("predictions")
    try:
        if standing is None or vouched is None or standing.metadata.get(ORDER, "") > delivery:
            return None
        if store.download(standing, path) != vouched.sha256:
            return None
        order = {ORDER: delivery}
        store.upload_file(path, key, create_only=False, if_match=standing.etag, content_type=CSV, metadata=order)
    except (ObjectChanged, Conflict):
        return None
    finally:
        path.unlink(missing_ok=True)
    reason = f"the same bytes under the same key were answered before, by answer {answered}"
    skipped = replace(receipt, outcome="SKIPPED", reason=reason, earlier_answer=answered)
    report = report_on(write_receipt(skipped, store), earlier)
    write_report(report, store)
    return skipped, report


def close(delivery: str, receipts: Sequence[Receipt], store: ObjectStore) -> None:
    """Write down what became of each upload of a delivery. The first outcomes stand, but for those that gave up."""
    key = answered_key(delivery)
    outcomes = {
        receipt.upload.key: {"outcome": receipt.outcome, "answer_id": receipt.answer_id} for receipt in receipts
    }
    try:
        store.create_json(key, outcomes)
    except AlreadyExists:  # answered before; this time with another model, or by a run that was retried
        found, content = store.fetch(key)
        if any(one["answer_id"] is None for one in json.loads(content).values()):
            with suppress(Conflict):
                store.replace(key, rendered(outcomes), if_match=found.etag, content_type=JSON)


def refused_rows_file(number: int, refused: Path, directory: Path) -> Path:
    """The refused rows of one file as they are published; with none, a header that replaces an earlier answer's."""
    path = directory / f"{number}_rejected_rows.csv"
    append_csv(path, REJECTED_ROWS, pd.DataFrame(columns=REJECTED_ROWS.names))
    for batch in ds.dataset(refused).to_batches(filter=pc.field("file") == number):
        append_csv(path, REJECTED_ROWS, batch.to_pandas())
    return path
