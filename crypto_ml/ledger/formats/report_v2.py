"""The report since 0.2: what stands beside the predictions for the person who dropped the file.

The receipt of an answer vouches for its report, so what a report says of a receipt is frozen: more is another format.
"""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Final

from crypto_ml.ledger.deliveries import Delivery, Upload
from crypto_ml.ledger.formats.reading import adapter
from crypto_ml.ledger.formats.receipt_v2 import Receipt, RowCounts, Timings

FORMAT: Final = 2


def document(receipt: Receipt, earlier: Mapping[str, Any] | None) -> dict[str, Any]:
    """What the report on an answer says. earlier: the report whose predictions stand, where the upload repeats it."""
    upload: dict[str, Any] = adapter(Upload).dump_python(receipt.upload)
    said = {
        "format": FORMAT,
        "outcome": receipt.outcome,
        "reason": receipt.reason,
        "answer_id": receipt.answer_id,
        "upload": {**upload, "sha256": receipt.inputs.upload_sha256},
        "rows": adapter(RowCounts).dump_python(receipt.rows),
        "predictions": _key(receipt, "predictions"),
        "rejected_rows": _key(receipt, "rejected_rows"),
        "model_version": receipt.inputs.model_version,
        "receipt": receipt.key,
        "ignored_columns": list(receipt.ignored_columns),
        "date_order": receipt.date_order,
        "read_as": receipt.read_as,
        "notes": list(receipt.notes),
        "delivery": receipt.inputs.delivery,
        "run_id": receipt.run_id,
        "timings": adapter(Timings).dump_python(receipt.timings),
    }
    if receipt.earlier_answer and earlier:
        kept = ("answer_id", "rows", "predictions", "rejected_rows", "model_version", "receipt")
        said |= {name: earlier[name] for name in kept}
    return said


def given_up(delivery: Delivery, upload: Upload, reason: str, run_id: str) -> dict[str, Any]:
    """What the report on an upload says whose runs came to no answer."""
    return {
        "format": FORMAT,
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
        "read_as": None,
        "notes": [],
        "delivery": delivery.id,
        "run_id": run_id,
        "timings": {"uploaded_at": upload.last_modified, "noticed_at": delivery.noticed_at},
    }


def _key(receipt: Receipt, what: str) -> str | None:
    found = receipt.published.get(what)
    return found.key if found else None
