"""The end of a delivery whose runs died: every upload still unanswered is rejected, and told so.

A report says it to whoever dropped the file, and the delivery's list of outcomes, written once, closes it.
"""

from contextlib import suppress
from dataclasses import asdict
from typing import Any

from crypto_ml.digest import sha256_of
from crypto_ml.ledger.deliveries import Delivery, Upload
from crypto_ml.ledger.formats.receipt_v2 import Receipt, RowCounts
from crypto_ml.ledger.layout import answered_key
from crypto_ml.ledger.receipts import receipts_of
from crypto_ml.ledger.reports import Report, read_report, report_on, write_report
from crypto_ml.storage.failures import AlreadyExists, ObjectMissing
from crypto_ml.storage.objects import ObjectStore


def give_up(delivery: Delivery, reason: str, run_id: str, store: ObjectStore) -> dict[str, dict[str, Any]]:
    """Close a delivery: upload key → its outcome. An upload that the dead runs did answer keeps its answer."""
    outcomes = {upload.key: _outcome(delivery, upload, reason, run_id, store) for upload in delivery.uploads}
    with suppress(AlreadyExists):  # a run came to life again and was faster
        store.create_json(answered_key(delivery.id), outcomes)
    return outcomes


def _outcome(delivery: Delivery, upload: Upload, reason: str, run_id: str, store: ObjectStore) -> dict[str, Any]:
    report = read_report(upload.key, store)
    if report and report.delivery == delivery.id:
        return {"outcome": report.outcome, "answer_id": report.document["answer_id"]}
    if report and report.delivery > delivery.id:
        newer = f"a newer version of the file was answered in delivery {report.delivery}"
        return {"outcome": "SKIPPED", "answer_id": None, "reason": newer}
    for receipt in receipts_of(delivery.id, store):
        if receipt.upload == upload and _stands(receipt, store):
            write_report(report_on(receipt, None), store)
            return {"outcome": receipt.outcome, "answer_id": receipt.answer_id}
    write_report(_report(delivery, upload, reason, run_id), store)
    return {"outcome": "REJECTED", "answer_id": None, "reason": reason}


def _stands(receipt: Receipt, store: ObjectStore) -> bool:
    """Whether a run that died had published the predictions of this receipt, and only the report was missing."""
    published = receipt.published.get("predictions")
    try:
        return published is not None and sha256_of(store.read(published.key)) == published.sha256
    except ObjectMissing:
        return False


def _report(delivery: Delivery, upload: Upload, reason: str, run_id: str) -> Report:
    """A report with the keys of `receipts.report_on`, of an upload that has no answer."""
    return Report(
        {
            "outcome": "REJECTED",
            "reason": reason,
            "answer_id": None,
            "upload": {**asdict(upload), "sha256": None},
            "rows": asdict(RowCounts()),
            "predictions": None,
            "rejected_rows": None,
            "model_version": None,
            "receipt": None,
            "ignored_columns": [],
            "date_order": None,
            "notes": [],
            "delivery": delivery.id,
            "run_id": run_id,
            "timings": {"uploaded_at": upload.last_modified, "noticed_at": delivery.noticed_at},
        }
    )
