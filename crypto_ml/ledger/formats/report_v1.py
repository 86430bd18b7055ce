"""The report of 0.1, which no receipt vouched for: where it was put, and what it said. Frozen."""

from collections.abc import Mapping
from typing import Any


def report_key(upload: str) -> str:
    """Where 0.1 put the report on an upload; two whose names differ in their ending alone shared it."""
    path = upload.removeprefix("uploads/")
    ending = next((ending for ending in (".csv.gz", ".csv") if path.lower().endswith(ending)), "")
    return f"predictions/{path[: len(path) - len(ending)]}_report.json"


def report(receipt: Mapping[str, Any], answer_id: str, key: str) -> dict[str, Any]:
    """The report that repeated a receipt which was not that of a repeated upload. key: the receipt's own."""
    published: Mapping[str, Mapping[str, str]] = receipt["published"]
    keys = {what: published[what]["key"] if what in published else None for what in ("predictions", "rejected_rows")}
    return {
        "outcome": receipt["outcome"],
        "reason": receipt["reason"],
        "answer_id": answer_id,
        "upload": {**receipt["upload"], "sha256": receipt["inputs"]["upload_sha256"]},
        "rows": receipt["rows"],
        **keys,
        "model_version": receipt["inputs"]["model_version"],
        "receipt": key,
        "ignored_columns": receipt["ignored_columns"],
        "date_order": receipt["date_order"],
        "notes": receipt["notes"],
        "delivery": receipt["inputs"]["delivery"],
        "run_id": receipt["run_id"],
        "timings": receipt["timings"],
    }
