"""The record of an answer: what went in, what was applied to it, what came out.

One record, written once under `receipts/answers/`, is what Dagster shows, what the report beside the predictions
repeats and what commands read. Deleting runs or Dagster's database loses none of it. What it says is in
`formats.receipt_v2`; `docs/receipt.schema.json` is its JSON Schema, which `receipt_schema` makes.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from crypto_ml.digest import sha256_of
from crypto_ml.ledger.formats import receipt_v1, receipt_v2
from crypto_ml.ledger.formats.reading import RecordDamaged, adapter, read_record, too_new
from crypto_ml.ledger.formats.receipt_v2 import Receipt
from crypto_ml.ledger.layout import receipt_key
from crypto_ml.storage.failures import AlreadyExists
from crypto_ml.storage.objects import ObjectStore

SEAL: Final = "seal"


class ReceiptDamaged(RecordDamaged):
    """A receipt that is not as it was written."""


def document(receipt: Receipt) -> dict[str, Any]:
    """The receipt as it is stored; the seal is the sha256 of everything else in it."""
    if receipt.recorded is not None:
        return dict(receipt.recorded)
    return sealed({"answer_id": receipt.answer_id, **receipt.said()})


def sealed(said: Mapping[str, Any]) -> dict[str, Any]:
    """A document with its seal."""
    unsealed = {name: value for name, value in said.items() if name != SEAL}
    return {**unsealed, SEAL: sha256_of(json.dumps(unsealed, sort_keys=True).encode())}


def write_receipt(receipt: Receipt, store: ObjectStore) -> Receipt:
    """Write a receipt; where the same answer was given before, its first receipt stands and comes back."""
    try:
        store.create_json(receipt_key(receipt.answer_id), document(receipt))
    except AlreadyExists:
        return read_receipt(receipt.answer_id, store)
    return receipt


def read_receipt(answer_id: str, store: ObjectStore) -> Receipt:
    """The receipt of an answer, of whichever release. Raises ObjectMissing, ReceiptDamaged, RecordTooNew."""
    key = receipt_key(answer_id)
    where = store.uri(key)
    recorded = store.read_json(key)
    if not isinstance(recorded, dict) or not _is_whole(recorded, answer_id):
        raise ReceiptDamaged(f"{where} is not as it was written; restore it")
    said = {name: value for name, value in recorded.items() if name not in {SEAL, "answer_id"}}
    if said.get("format") == receipt_v1.FORMAT:
        said = receipt_v1.in_terms_of_v2(said)
    elif said.get("format") != receipt_v2.FORMAT:
        raise too_new("receipt", where, said.get("format"), receipt_v2.FORMAT)
    receipt = read_record(Receipt, said, where)
    object.__setattr__(receipt, "recorded", recorded)
    return receipt


def receipts_of(delivery: str, store: ObjectStore) -> Iterator[Receipt]:
    """Every receipt of a delivery: one for each of its uploads, and more where it was answered anew."""
    for found in store.list(receipt_key(f"{delivery}-").removesuffix(".json")):
        yield read_receipt(found.key.rpartition("/")[2].removesuffix(".json"), store)


def receipt_schema() -> dict[str, Any]:
    """The JSON Schema of a receipt as it is written."""
    name = {"answer_id": {"type": "string", "pattern": r"^\d+-[0-9a-f]{16}$"}}
    return sealed_schema(Receipt, "Receipt of a crypto_ml answer", name)


def sealed_schema(kind: Any, title: str, name: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON Schema of a sealed record of a kind, under whose fields its `name` stands too."""
    schema = adapter(kind).json_schema()
    own = {**name, SEAL: {"type": "string"}}
    properties = {name: value for name, value in schema["properties"].items() if name != "recorded"}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": title,
        **{name: value for name, value in schema.items() if name != "title"},
        "properties": {**own, **properties},
        "required": [*own, *schema["required"]],
        "additionalProperties": False,
    }


def _is_whole(recorded: Mapping[str, Any], answer_id: str) -> bool:
    """Whether seal and name follow from what the document says."""
    inputs = recorded.get("inputs")
    if recorded.get(SEAL) != sealed(recorded)[SEAL] or not isinstance(inputs, dict):
        return False
    return recorded.get("answer_id") == answer_id == receipt_v2.name_of(inputs)
