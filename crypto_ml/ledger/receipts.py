"""The record of an answer: what went in, what was applied to it, what came out.

One record, written once under `receipts/answers/`, is what Dagster shows, what the report beside the predictions
repeats and what commands read. Deleting runs or Dagster's database loses none of it.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from crypto_ml.digest import sha256_of
from crypto_ml.ledger.deliveries import Upload
from crypto_ml.ledger.layout import JSON, answer_keys, receipt_key
from crypto_ml.storage.failures import AlreadyExists, ObjectMissing
from crypto_ml.storage.objects import ObjectStore

Outcome = Literal["PREDICTED", "REJECTED", "SKIPPED"]


@dataclass(frozen=True)
class RowCounts:
    """Rows of one upload: received = accepted + refused + repeated, accepted = predicted + seed."""

    received: int = 0
    accepted: int = 0
    refused: int = 0
    repeated: int = 0
    predicted: int = 0
    seed: int = 0


@dataclass(frozen=True)
class Inputs:
    """Everything that decides the numbers of an answer; equal inputs are the same answer.

    upload_sha256, accepted_sha256: the bytes received and the rows accepted of the delivery. history_version: the state
    of market_history that earlier rows were read from. bundle_sha256, champion_pointer: the model, and the entry of the
    pointer that named it. code, recovery: the state of the code and the setting.
    """

    upload_key: str
    upload_sha256: str | None
    delivery: str
    accepted_sha256: str
    history_version: int | None
    model_version: str
    bundle_sha256: str
    champion_pointer: int
    code: str
    recovery: str

    @property
    def answer_id(self) -> str:
        """The name of the answer that these inputs lead to."""
        return sha256_of(json.dumps(asdict(self), sort_keys=True).encode())[:16]


@dataclass(frozen=True)
class Timings:
    """When an upload was written, noticed, received and answered; ISO 8601, UTC."""

    uploaded_at: str
    noticed_at: str
    received_at: str
    answered_at: str


@dataclass(frozen=True)
class Receipt:
    """One answer. published: what it is → key and sha256 of what was written (`predictions`, `rejected_rows`).

    earlier_answer: the answer that the same bytes under the same key had before, where that is why they were skipped.
    """

    outcome: Outcome
    reason: str | None
    upload: Upload
    inputs: Inputs
    rows: RowCounts
    champion: Mapping[str, Any]
    package_version: str
    run_id: str
    timings: Timings
    published: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    ignored_columns: Sequence[str] = ()
    date_order: str | None = None
    notes: Sequence[str] = ()
    earlier_answer: str | None = None

    @property
    def answer_id(self) -> str:
        return self.inputs.answer_id

    def document(self) -> dict[str, Any]:
        """The receipt as it is written."""
        return {"answer_id": self.answer_id, **asdict(self)}


@dataclass(frozen=True)
class Report:
    """What stands beside the predictions for the person who dropped the file."""

    document: Mapping[str, Any]

    @property
    def outcome(self) -> str:
        return str(self.document["outcome"])

    @property
    def delivery(self) -> str:
        return str(self.document["delivery"])

    @property
    def upload_key(self) -> str:
        return str(self.document["upload"]["key"])

    @property
    def rejected_rows(self) -> str | None:
        found: str | None = self.document["rejected_rows"]
        return found

    def answers(self, key: str, sha256: str) -> str | None:
        """The answer these bytes under this key already have; a rejection is considered anew each time."""
        same = self.document["upload"]["key"] == key and self.document["upload"]["sha256"] == sha256
        return str(self.document["answer_id"]) if same and self.document["predictions"] else None


def read_report(key: str, store: ObjectStore) -> Report | None:
    """The report for the upload under `key`, None where there is none yet."""
    try:
        return Report(store.read_json(answer_keys(key).report))
    except ObjectMissing:
        return None


def report_on(receipt: Receipt, earlier: Report | None) -> Report:
    """The report that repeats a receipt; where the upload was skipped, what its earlier answer published stands."""
    document = {
        "outcome": receipt.outcome,
        "reason": receipt.reason,
        "answer_id": receipt.answer_id,
        "upload": {**asdict(receipt.upload), "sha256": receipt.inputs.upload_sha256},
        "rows": asdict(receipt.rows),
        "predictions": receipt.published.get("predictions", {}).get("key"),
        "rejected_rows": receipt.published.get("rejected_rows", {}).get("key"),
        "model_version": receipt.inputs.model_version,
        "receipt": receipt_key(receipt.answer_id),
        "ignored_columns": list(receipt.ignored_columns),
        "date_order": receipt.date_order,
        "notes": list(receipt.notes),
        "delivery": receipt.inputs.delivery,
        "run_id": receipt.run_id,
        "timings": asdict(receipt.timings),
    }
    if receipt.earlier_answer and earlier:
        kept = ("answer_id", "rows", "predictions", "rejected_rows", "model_version", "receipt")
        document |= {name: earlier.document[name] for name in kept}
    return Report(document)


def write_receipt(receipt: Receipt, store: ObjectStore) -> Receipt:
    """Write a receipt; where the same answer was given before, its first receipt stands and comes back."""
    try:
        store.create_json(receipt_key(receipt.answer_id), receipt.document())
    except AlreadyExists:
        return read_receipt(receipt.answer_id, store)
    return receipt


def read_receipt(answer_id: str, store: ObjectStore) -> Receipt:
    """The receipt of an answer. Raises ObjectMissing."""
    found: dict[str, Any] = store.read_json(receipt_key(answer_id))
    del found["answer_id"]
    typed: dict[str, Any] = {
        "upload": Upload(**found.pop("upload")),
        "inputs": Inputs(**found.pop("inputs")),
        "rows": RowCounts(**found.pop("rows")),
        "timings": Timings(**found.pop("timings")),
    }
    return Receipt(**typed, **found)


def write_report(report: Report, store: ObjectStore) -> None:
    """Put a report beside the predictions, replacing the one before."""
    body = json.dumps(dict(report.document), indent=2, ensure_ascii=False).encode() + b"\n"
    store.replace(answer_keys(report.upload_key).report, body, content_type=JSON)


def with_predictions(receipt: Receipt, sha256: str) -> Receipt:
    """The receipt of an answer whose prediction file has this sha256."""
    return _with_published(receipt, "predictions", answer_keys(receipt.upload.key).predictions, sha256)


def with_rejected_rows(receipt: Receipt, sha256: str) -> Receipt:
    """The receipt of an answer whose file of refused rows has this sha256."""
    return _with_published(receipt, "rejected_rows", answer_keys(receipt.upload.key).rejected_rows, sha256)


def _with_published(receipt: Receipt, what: str, key: str, sha256: str) -> Receipt:
    return replace(receipt, published={**receipt.published, what: {"key": key, "sha256": sha256}})
