"""The receipt since 0.2: what went into an answer, what was applied to it, what came out.

An answer is named by its inputs, that is by everything that can decide its bytes: bytes and rows received, the state of
the history and the rule for its current rows, model and approval, code, settings, libraries and processor. Where the
same inputs should ever give other bytes, those are another attempt, with a name and a receipt of its own.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final, Literal

from crypto_ml.digest import sha256_of
from crypto_ml.forecasting.current import Order
from crypto_ml.forecasting.schema import Earlier
from crypto_ml.ledger.deliveries import Upload
from crypto_ml.ledger.formats.reading import adapter
from crypto_ml.ledger.layout import receipt_key

FORMAT: Final = 2
EVIDENCE: Final = ("delivery", "received", "cleaned", "accepted", "refused", "champion", "bundle")
"""delivery: its entry in the log. received: which bytes were. cleaned, accepted, refused: what became of the rows.
champion: the entry of the pointer. bundle: the model's manifest, which vouches for its files."""

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
    """Everything that decides the bytes of an answer; equal inputs are the same answer.

    upload_sha256, accepted_sha256: the bytes received and the rows accepted of the delivery. history_version, current:
    the state of market_history that earlier rows were read from, and the order in which its rows outrank each other.
    bundle_sha256, champion_pointer: the model, and the entry of the pointer that named it. code, recovery: the state of
    the code and the setting. libraries: the versions of those that can move a number. processor: the kind, and what of
    its instruction sets is used. attempt: 1, and more where the same inputs once gave other bytes.
    earlier: how what came of the history was put together and hashed (see `forecasting.schema.Earlier`).
    interval_level: the setting; nothing where the model has no intervals.
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
    current: Order
    libraries: Mapping[str, str]
    processor: str
    attempt: int = 1
    earlier: Earlier = ""
    interval_level: str = ""

    @cached_property
    def answer_id(self) -> str:
        """The name of the answer that these inputs lead to; those of a delivery list together."""
        return name_of(adapter(Inputs).dump_python(self))


def name_of(inputs: Mapping[str, Any]) -> str:
    """The name of an answer, from its inputs as they are recorded, in whatever format."""
    return f"{inputs.get('delivery')}-{sha256_of(json.dumps(inputs, sort_keys=True).encode())[:16]}"


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
    """What computed the answer. code: stage → state of its sources. lock_sha256, image: None where not known.

    machine: system and architecture. processor: the architecture, and what of its instruction sets is used.
    """

    package: str
    code: Mapping[str, str]
    lock_sha256: str | None
    image: str | None
    python: str
    machine: str
    processor: str
    libraries: Mapping[str, str]


@dataclass(frozen=True)
class Vouched:
    """A stored object, and the sha256 of its bytes."""

    key: str
    sha256: str


@dataclass(frozen=True)
class Receipt:
    """One answer. champion: the entry of the pointer that named the model. settings: those in force.

    evidence: the stored objects the answer rests on, by their part in it (see EVIDENCE). published: `predictions`,
    `rejected_rows` and `report`, where there are any. earlier_answer: the answer that the same bytes under the same key
    had before, where that is why they were skipped. read_as: how the file was read, in words and for programs; None
    where it was not. stands_in: the object with the receipts of several answers that this one stands in; None where it
    has one of its own. recorded: the document that this was read from, in its own format.
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
    read_as: Mapping[str, Any] | None = None
    notes: Sequence[str] = ()
    earlier_answer: str | None = None
    stands_in: str | None = None
    format: int = FORMAT
    recorded: Mapping[str, Any] | None = field(default=None, init=False, repr=False, compare=False)

    @property
    def answer_id(self) -> str:
        return str(self.recorded["answer_id"]) if self.recorded else self.inputs.answer_id

    @property
    def key(self) -> str:
        """Where it stands."""
        return self.stands_in or receipt_key(self.answer_id)

    def said(self) -> dict[str, Any]:
        """What the receipt says, as it is written."""
        said: dict[str, Any] = adapter(Receipt).dump_python(self, exclude={"recorded"})
        return said
