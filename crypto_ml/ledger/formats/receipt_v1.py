"""The receipt of 0.1, in the terms of the next format. Frozen.

0.1 chose current rows by the time at which they became known, had neither libraries nor processor in the identity of an
answer, and gave each answer one receipt. Its report was not vouched for; `report` says what it was.
"""

from collections.abc import Mapping
from typing import Any, Final

FORMAT: Final = 1


def in_terms_of_v2(said: Mapping[str, Any]) -> dict[str, Any]:
    """A receipt as it was written (without id and seal), with what 0.1 left unsaid."""
    software = said["software"]
    unsaid = {
        "current": "known",
        "libraries": software["libraries"],
        "processor": software["machine"],
        "attempt": 1,
    }
    return {**said, "inputs": {**said["inputs"], **unsaid}, "software": {**software, "processor": software["machine"]}}


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
