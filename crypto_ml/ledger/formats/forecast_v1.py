"""The receipt of a forecast, since 0.2: what was read, what was applied to it, what came out.

A forecast is named by its inputs, that is by everything that can decide its bytes. Where the same inputs should ever
give other bytes, those are another attempt, with a name and a receipt of its own.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from crypto_ml.digest import sha256_of
from crypto_ml.forecasting.current import Order
from crypto_ml.forecasting.schema import Earlier

KIND: Final = "forecast"
FORMAT: Final = 1

EVIDENCE: Final = ("champion", "bundle")
"""champion: the entry of the pointer. bundle: the model's manifest, which vouches for its files."""

PUBLISHED: Final = ("left_out", "forecast", "latest_left_out", "latest")
"""The objects of a forecast in the order in which they are published: those of its day, and the latest ones."""


@dataclass(frozen=True)
class Inputs:
    """Everything that decides the bytes of a forecast; equal inputs are the same forecast.

    target_date: the day whose open is predicted. history_version, current: the state of market_history that was read,
    and the order in which its rows outrank each other. bundle_sha256, environment, champion_pointer: the model, and the
    entry of which environment's pointer named it.
    code: the state of the stage's code. libraries: the versions of those that can move a number. processor: the kind,
    and what of its instruction sets is used.
    attempt: 1, and more where the same state of the history and of the pointer was forecast otherwise before.
    earlier: how what came of the history was put together and hashed (see `forecasting.schema.Earlier`).
    interval_level: the setting; nothing where the model has no intervals.
    """

    target_date: str
    history_version: int
    current: Order
    model_version: str
    bundle_sha256: str
    environment: str
    champion_pointer: int
    code: str
    libraries: Mapping[str, str]
    processor: str
    attempt: int = 1
    earlier: Earlier = ""
    interval_level: str = ""

    @property
    def forecast_id(self) -> str:
        """The name of the forecast that these inputs lead to; those for one day list together."""
        return name_of(asdict(self))


def name_of(inputs: Mapping[str, Any]) -> str:
    """The name of a forecast, from its inputs as they are recorded."""
    return f"{inputs.get('target_date')}-{sha256_of(json.dumps(inputs, sort_keys=True).encode())[:16]}"


@dataclass(frozen=True)
class SymbolCounts:
    """Symbols of the history: forecast, and left out for want of a row for the newest day or of earlier rows."""

    forecast: int
    without_newest_day: int
    too_few_rows: int


@dataclass(frozen=True)
class Fingerprints:
    """sha256 of what a forecast is made from (see `forecasting.fingerprint`); None where there was nothing to make it.

    earlier_rows: what was read from the history. feature_block: its features, before scaling.
    """

    earlier_rows: str | None = None
    feature_block: str | None = None


@dataclass(frozen=True)
class Timings:
    """When the forecast was begun and when it was made; ISO 8601, UTC, in this order whatever clocks did meanwhile."""

    began_at: str
    made_at: str


@dataclass(frozen=True)
class Vouched:
    """A stored object, and the sha256 of its bytes."""

    key: str
    sha256: str


@dataclass(frozen=True)
class ForecastReceipt:
    """One forecast. newest_day: the last day of the history. champion: the entry of the pointer as it is stored, and
    its number. settings: those in force. software: what computed it. evidence: the stored objects it rests on, by their
    part in it (see EVIDENCE); the records of appends vouch for the history. published: see PUBLISHED; where a newer
    forecast was there already, that one stayed. recorded: the document that this was read from.
    """

    inputs: Inputs
    newest_day: str
    symbols: SymbolCounts
    fingerprints: Fingerprints
    champion: Mapping[str, Any]
    settings: Mapping[str, str | int | None]
    software: Mapping[str, Any]
    evidence: Mapping[str, Vouched]
    published: Mapping[str, Vouched]
    run_id: str
    timings: Timings
    kind: str = KIND
    format: int = FORMAT
    recorded: Mapping[str, Any] | None = field(default=None, init=False, repr=False, compare=False)

    @property
    def forecast_id(self) -> str:
        return str(self.recorded["forecast_id"]) if self.recorded else self.inputs.forecast_id

    def said(self) -> dict[str, Any]:
        """What the receipt says, as it is written."""
        return {name: value for name, value in asdict(self).items() if name != "recorded"}
