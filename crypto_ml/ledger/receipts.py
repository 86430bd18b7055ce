"""The record of an answer: what went in, what was applied to it, what came out.

One record, written once under `receipts/answers/`, is what Dagster shows, what the report beside the predictions
repeats and what commands read. Deleting runs or Dagster's database loses none of it. The receipts of a delivery of
several uploads stand together in one object. What a receipt says is in `formats.receipt_v2`; `docs/receipt.schema.json`
is its JSON Schema, which `receipt_schema` makes.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from crypto_ml.digest import sha256_of
from crypto_ml.ledger.formats import receipt_v1, receipt_v2, receipts_v1
from crypto_ml.ledger.formats.reading import RecordDamaged, adapter, read_record, too_new
from crypto_ml.ledger.formats.receipt_v2 import Receipt
from crypto_ml.ledger.layout import ANSWERS, JSON, receipt_key, receipts_prefix
from crypto_ml.ledger.log import AppendOnlyLog
from crypto_ml.storage.failures import AlreadyExists, ObjectMissing
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


class DeliveryReceipts:
    """The receipts that stand for a delivery of several uploads, and the one place that adds to them.

    What was written together is one numbered object, and whoever writes a number first has it; so of two runs at once
    the later one sees what the earlier one wrote, and no answer has two receipts. Those of releases that gave each
    receipt an object of its own are among them.
    """

    def __init__(self, delivery: str, store: ObjectStore) -> None:
        self._delivery = delivery
        self._store = store
        self._log = AppendOnlyLog(store, receipts_prefix(delivery))
        self._last = 0
        self._alone: set[str] = set()
        self._documents: dict[str, tuple[str, Any]] = {}
        self.catch_up()

    @property
    def next_key(self) -> str:
        """Where the receipts that are added next will stand."""
        return self._log.key(self._last + 1)

    def __contains__(self, answer_id: str) -> bool:
        return answer_id in self._alone or answer_id in self._documents

    def __iter__(self) -> Iterator[str]:
        yield from sorted({*self._alone, *self._documents})

    def catch_up(self) -> None:
        """Read what was added since the last look. Raises ReceiptDamaged, RecordTooNew."""
        together = receipts_prefix(self._delivery)
        start = self._log.key(self._last) if self._last else None
        for found in self._store.list(together.removesuffix("/"), start_after=start):
            name = found.key.removeprefix(ANSWERS)
            if found.key.startswith(together):
                self._note(found.key)
                self._last += 1
            elif name.startswith(f"{self._delivery}-"):
                self._alone.add(name.removesuffix(".json"))

    def read(self, answer_id: str) -> Receipt:
        """A receipt that stands. Raises ReceiptDamaged, RecordTooNew."""
        if answer_id not in self._documents:
            return read_receipt(answer_id, self._store)
        key, recorded = self._documents[answer_id]
        return _receipt(recorded, answer_id, self._store.uri(key))

    def add(self, receipts: Sequence[Receipt]) -> bool:
        """Write receipts that do not stand yet, which say that they stand under `next_key`; False where somebody else
        wrote there first, and nothing of this was written."""
        documents = {receipt.answer_id: document(receipt) for receipt in receipts}
        key = self.next_key
        try:
            self._store.create(key, receipts_v1.rendered(self._delivery, documents), content_type=JSON)
        except AlreadyExists:
            return False
        self._last += 1
        self._documents |= {name: (key, said) for name, said in documents.items()}
        return True

    def _note(self, key: str) -> None:
        for answer_id, recorded in _read_together(key, self._delivery, self._store).items():
            self._documents.setdefault(answer_id, (key, recorded))


def read_receipt(answer_id: str, store: ObjectStore) -> Receipt:
    """The receipt of an answer, of whichever release. Raises ObjectMissing, ReceiptDamaged, RecordTooNew."""
    key = receipt_key(answer_id)
    try:
        return _receipt(store.read_json(key), answer_id, store.uri(key))
    except ObjectMissing:
        delivery = answer_id.partition("-")[0]
        for found in store.list(receipts_prefix(delivery)):
            recorded = _read_together(found.key, delivery, store).get(answer_id)
            if recorded is not None:
                return _receipt(recorded, answer_id, store.uri(found.key))
        raise


def _read_together(key: str, delivery: str, store: ObjectStore) -> Mapping[str, Any]:
    """The documents of receipts that stand in one object, by the ids of their answers."""
    return _documents(store.read(key), delivery, store.uri(key))


def _documents(stored: bytes, delivery: str, where: str) -> Mapping[str, Any]:
    try:
        whole = receipts_v1.is_whole(stored, delivery)
        found = json.loads(stored)
    except ValueError:
        whole = False
    if not whole:
        raise ReceiptDamaged(f"{where} is not as it was written; restore it")
    if found["format"] != receipts_v1.FORMAT:
        raise too_new("object of receipts", where, found["format"], receipts_v1.FORMAT)
    documents: Mapping[str, Any] = found["receipts"]
    return documents


def _receipt(recorded: Any, answer_id: str, where: str) -> Receipt:
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


def receipts_in(key: str, content: bytes, where: str) -> list[Receipt]:
    """The receipts in a stored object, one or those of a delivery. Raises ReceiptDamaged, RecordTooNew."""
    name = key.removeprefix(ANSWERS).removesuffix(".json")
    delivery, together, _ = name.partition("/")
    if together:
        return [_receipt(one, answer, where) for answer, one in _documents(content, delivery, where).items()]
    try:
        recorded = json.loads(content)
    except ValueError:
        recorded = None
    return [_receipt(recorded, name, where)]


def receipts_of(delivery: str, store: ObjectStore) -> Iterator[Receipt]:
    """Every receipt of a delivery: one for each of its uploads, and more where it was answered anew."""
    standing = DeliveryReceipts(delivery, store)
    yield from (standing.read(answer_id) for answer_id in standing)


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
