"""The record of an answer: what went in, what was applied to it, what came out.

One record, written once under `receipts/answers/`, is what Dagster shows, what the report beside the predictions
repeats and what commands read. Deleting runs or Dagster's database loses none of it. `docs/receipt.schema.json` is its
JSON Schema; `receipt_schema` makes it.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from typing import Any, Final, Literal

from pydantic import TypeAdapter, ValidationError

from crypto_ml.digest import sha256_of
from crypto_ml.errors import Refused
from crypto_ml.ledger.deliveries import Upload
from crypto_ml.ledger.layout import answer_keys, receipt_key
from crypto_ml.storage.failures import AlreadyExists
from crypto_ml.storage.objects import ObjectStore

FORMAT: Final = 1
EVIDENCE: Final = ("delivery", "received", "cleaned", "accepted", "refused", "champion", "bundle")
"""delivery: its entry in the log. received: which bytes were. cleaned, accepted, refused: what became of the rows.
champion: the entry of the pointer. bundle: the model's manifest, which vouches for its files."""

SEAL: Final = "seal"


Outcome = Literal["PREDICTED", "REJECTED", "SKIPPED"]


class ReceiptDamaged(Refused):
    """A receipt that is not as it was written."""


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
        """The name of the answer that these inputs lead to; those of a delivery list together."""
        return f"{self.delivery}-{sha256_of(json.dumps(asdict(self), sort_keys=True).encode())[:16]}"


@dataclass(frozen=True)
class Timings:
    """When an upload was written, noticed, received and answered; ISO 8601, UTC."""

    uploaded_at: str
    noticed_at: str
    received_at: str
    answered_at: str


@dataclass(frozen=True)
class Fingerprints:
    """sha256 of what predictions are made from (see `forecasting.fingerprint`); None where there were none.

    accepted_rows: the upload's accepted rows. earlier_rows: what was read from the history beside them. feature_block:
    the features of both, before scaling.
    """

    accepted_rows: str | None = None
    earlier_rows: str | None = None
    feature_block: str | None = None


@dataclass(frozen=True)
class HistoryVersions:
    """Versions of market_history: the one earlier rows were read from, and the one this delivery's rows stand in."""

    read: int | None
    written: int | None


@dataclass(frozen=True)
class UsedModel:
    """The bundle that was applied, and the sha256 of what it is made of; a bundle from elsewhere has no manifest."""

    version: str
    sha256: str
    network: str
    scaler: str
    training_manifest: str | None


@dataclass(frozen=True)
class Software:
    """What computed the answer. code: stage → state of its sources. lock_sha256, image: None where not known."""

    package: str
    code: Mapping[str, str]
    lock_sha256: str | None
    image: str | None
    python: str
    machine: str
    libraries: Mapping[str, str]


@dataclass(frozen=True)
class Vouched:
    """A stored object, and the sha256 of its bytes."""

    key: str
    sha256: str


@dataclass(frozen=True)
class Receipt:
    """One answer. champion: the entry of the pointer that named the model. settings: those in force.

    evidence: the stored objects the answer rests on, by their part in it (see EVIDENCE). published: `predictions` and
    `rejected_rows`, where there are any. earlier_answer: the answer that the same bytes under the same key had before,
    where that is why they were skipped.
    """

    outcome: Outcome
    reason: str | None
    upload: Upload
    inputs: Inputs
    rows: RowCounts
    fingerprints: Fingerprints
    history: HistoryVersions
    model: UsedModel
    champion: Mapping[str, Any]
    settings: Mapping[str, str | int | None]
    software: Software
    evidence: Mapping[str, Vouched]
    run_id: str
    timings: Timings
    published: Mapping[str, Vouched] = field(default_factory=dict)
    ignored_columns: Sequence[str] = ()
    date_order: str | None = None
    notes: Sequence[str] = ()
    earlier_answer: str | None = None
    format: Literal[1] = FORMAT

    @property
    def answer_id(self) -> str:
        return self.inputs.answer_id

    def document(self) -> dict[str, Any]:
        """The receipt as it is written; the seal is the sha256 of everything else in it."""
        said = {"answer_id": self.answer_id, **asdict(self)}
        return {**said, SEAL: _seal(said)}


def write_receipt(receipt: Receipt, store: ObjectStore) -> Receipt:
    """Write a receipt; where the same answer was given before, its first receipt stands and comes back."""
    try:
        store.create_json(receipt_key(receipt.answer_id), receipt.document())
    except AlreadyExists:
        return read_receipt(receipt.answer_id, store)
    return receipt


def read_receipt(answer_id: str, store: ObjectStore) -> Receipt:
    """The receipt of an answer. Raises ObjectMissing, ReceiptDamaged."""
    key = receipt_key(answer_id)
    found = store.read_json(key)
    damaged = ReceiptDamaged(f"{store.uri(key)} is not as it was written; restore it")
    if not isinstance(found, dict) or found.get("answer_id") != answer_id or found.pop(SEAL, None) != _seal(found):
        raise damaged
    del found["answer_id"]
    try:
        receipt = _receipts().validate_python(found)
    except ValidationError as error:
        raise damaged from error
    if receipt.answer_id != answer_id:
        raise damaged
    return receipt


def receipts_of(delivery: str, store: ObjectStore) -> Iterator[Receipt]:
    """Every receipt of a delivery: one for each of its uploads, and more where it was answered anew."""
    for found in store.list(receipt_key(f"{delivery}-").removesuffix(".json")):
        yield read_receipt(found.key.rpartition("/")[2].removesuffix(".json"), store)


def receipt_schema() -> dict[str, Any]:
    """The JSON Schema of a receipt as it is written."""
    schema = _receipts().json_schema()
    own = {"answer_id": {"type": "string", "pattern": r"^\d+-[0-9a-f]{16}$"}, SEAL: {"type": "string"}}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Receipt of a crypto_ml answer",
        **{name: value for name, value in schema.items() if name != "title"},
        "properties": {**own, **schema["properties"]},
        "required": [*own, *schema["required"]],
        "additionalProperties": False,
    }


def with_predictions(receipt: Receipt, sha256: str) -> Receipt:
    """The receipt of an answer whose prediction file has this sha256."""
    return _with_published(receipt, "predictions", answer_keys(receipt.upload.key).predictions, sha256)


def with_rejected_rows(receipt: Receipt, sha256: str) -> Receipt:
    """The receipt of an answer whose file of refused rows has this sha256."""
    return _with_published(receipt, "rejected_rows", answer_keys(receipt.upload.key).rejected_rows, sha256)


def _with_published(receipt: Receipt, what: str, key: str, sha256: str) -> Receipt:
    return replace(receipt, published={**receipt.published, what: Vouched(key, sha256)})


@cache
def _receipts() -> TypeAdapter[Receipt]:
    return TypeAdapter(Receipt)


def _seal(said: Mapping[str, Any]) -> str:
    return sha256_of(json.dumps(said, sort_keys=True).encode())
