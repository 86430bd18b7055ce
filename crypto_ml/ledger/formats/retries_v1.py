"""A request to answer again what was given up: the numbers of deliveries, and when it was made."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any


def document(deliveries: Sequence[int], asked_at: datetime) -> dict[str, Any]:
    """The request as it is stored."""
    return {"deliveries": list(deliveries), "asked_at": asked_at.isoformat()}


def deliveries(stored: Mapping[str, Any]) -> list[int]:
    """The numbers of the deliveries that a stored request names."""
    return [int(number) for number in stored["deliveries"]]
