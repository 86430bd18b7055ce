"""The record of forecasts: a receipt for each, written once, and which of them stands in `forecasts/`.

What a receipt says is in `formats.forecast_v1`; `docs/forecast_receipt.schema.json` is its JSON Schema. What stands
carries its order, which names it, so that of any number of forecasts that come to their ends in whatever sequence the
newest stays.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any, Final, Self

from crypto_ml.ledger.formats.forecast_v1 import FORMAT, KIND, ForecastReceipt, name_of
from crypto_ml.ledger.formats.reading import RecordDamaged, read_record, too_new
from crypto_ml.ledger.layout import FORECAST_RECEIPTS, forecast_receipt_key
from crypto_ml.ledger.receipts import SEAL, sealed, sealed_schema
from crypto_ml.storage.failures import AlreadyExists
from crypto_ml.storage.objects import ORDER, ObjectStore

ORDER_TEXT: Final = re.compile(r"h(\d{12})\.(\d{8})\.(\d{6})\.(\d{4}-\d\d-\d\d)\.([0-9a-f]{16})")
ORDER_TEXT_0_2: Final = re.compile(r"(\d{4}-\d\d-\d\d)\.(\d{12})\.(\d{8})\.(\d{6})\.([0-9a-f]{16})")
"""0.2 went by the day first, which a retraction may take back. As text, its orders come before ours."""


class ForecastReceiptDamaged(RecordDamaged):
    """The receipt of a forecast that is not as it was written."""


@dataclass(frozen=True)
class ForecastOrder:
    """The place of a forecast among all: the later state of the history, then of the pointer, then attempt.

    The later state has the later day, but where rows of the newest day were retracted. The digest, which is the end of
    its id, decides between forecasts of one state that were made at the same moment.
    """

    history_version: int
    champion_pointer: int
    attempt: int
    target_date: date
    digest: str

    @classmethod
    def of(cls, receipt: ForecastReceipt) -> Self:
        """The place of the forecast that a receipt is for."""
        inputs = receipt.inputs
        return cls(
            inputs.history_version,
            inputs.champion_pointer,
            inputs.attempt,
            date.fromisoformat(inputs.target_date),
            receipt.forecast_id.rpartition("-")[2],
        )

    @classmethod
    def read(cls, text: str) -> Self | None:
        """What `str` wrote, today's or that of 0.2; None where that is something else."""
        if found := ORDER_TEXT.fullmatch(text):
            return cls(int(found[1]), int(found[2]), int(found[3]), date.fromisoformat(found[4]), found[5])
        if found := ORDER_TEXT_0_2.fullmatch(text):
            return cls(int(found[2]), int(found[3]), int(found[4]), date.fromisoformat(found[1]), found[5])
        return None

    def __str__(self) -> str:
        """As text, which compares as the forecasts do."""
        state = f"h{self.history_version:012d}.{self.champion_pointer:08d}.{self.attempt:06d}"
        return f"{state}.{self.target_date}.{self.digest}"

    @property
    def place(self) -> int:
        """As a number, which compares as the forecasts do."""
        state = f"{self.history_version:012d}{self.champion_pointer:08d}{self.attempt:06d}"
        return int(f"{state}{self.target_date:%Y%m%d}{int(self.digest, 16):020d}")

    @property
    def forecast_id(self) -> str:
        return f"{self.target_date}-{self.digest}"

    @property
    def state(self) -> tuple[date, int, int]:
        """The state of the data and of the pointer that was forecast from."""
        return self.target_date, self.history_version, self.champion_pointer


def standing(key: str, store: ObjectStore) -> ForecastOrder | None:
    """Which forecast stands under a key; None where there is none, or one of 0.1, which kept no order."""
    found = store.head(key)
    return ForecastOrder.read(found.metadata.get(ORDER, "")) if found else None


def document(receipt: ForecastReceipt) -> dict[str, Any]:
    """The receipt as it is stored; the seal is the sha256 of everything else in it."""
    if receipt.recorded is not None:
        return dict(receipt.recorded)
    return sealed({"forecast_id": receipt.forecast_id, **receipt.said()})


def write_forecast_receipt(receipt: ForecastReceipt, store: ObjectStore) -> ForecastReceipt:
    """Write a receipt; where one of that name was written before, that one stands and comes back."""
    try:
        store.create_json(forecast_receipt_key(receipt.forecast_id), document(receipt))
    except AlreadyExists:
        return read_forecast_receipt(receipt.forecast_id, store)
    return receipt


def read_forecast_receipt(forecast_id: str, store: ObjectStore) -> ForecastReceipt:
    """The receipt of a forecast. Raises ObjectMissing, ForecastReceiptDamaged, RecordTooNew."""
    key = forecast_receipt_key(forecast_id)
    return forecast_receipt_in(key, store.read(key), store.uri(key))


def forecast_receipt_in(key: str, content: bytes, where: str) -> ForecastReceipt:
    """The receipt that stands under a key, from its bytes. Raises ForecastReceiptDamaged, RecordTooNew."""
    forecast_id = key.removeprefix(FORECAST_RECEIPTS).removesuffix(".json")
    try:
        recorded = json.loads(content)
    except ValueError:
        recorded = None
    damaged = ForecastReceiptDamaged(f"{where} is not as it was written; restore it")
    if not isinstance(recorded, dict) or recorded.get("kind") != KIND:
        raise damaged
    if isinstance(recorded.get("format"), int) and recorded["format"] > FORMAT:
        raise too_new("forecast receipt", where, recorded["format"], FORMAT)
    if not _is_whole(recorded, forecast_id):
        raise damaged
    said = {name: value for name, value in recorded.items() if name not in {SEAL, "forecast_id"}}
    receipt = read_record(ForecastReceipt, said, where)
    object.__setattr__(receipt, "recorded", recorded)
    return receipt


def forecast_receipt_schema() -> dict[str, Any]:
    """The JSON Schema of a forecast's receipt as it is written."""
    name = {"forecast_id": {"type": "string", "pattern": r"^\d{4}-\d\d-\d\d-[0-9a-f]{16}$"}}
    return sealed_schema(ForecastReceipt, "Receipt of a crypto_ml forecast", name)


def _is_whole(recorded: Mapping[str, Any], forecast_id: str) -> bool:
    """Whether seal and name follow from what the document says."""
    inputs = recorded.get("inputs")
    if recorded.get(SEAL) != sealed(recorded)[SEAL] or not isinstance(inputs, dict):
        return False
    return recorded.get("forecast_id") == forecast_id == name_of(inputs)
