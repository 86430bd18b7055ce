"""An entry of the champion pointer of 0.1, which says nothing of its format. Frozen."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

FORMAT: Final = 1


@dataclass(frozen=True)
class PointerEntry:
    """at: ISO 8601, UTC. gates: name, passed, explanation and numbers of each; only a promotion names them."""

    version: str
    sha256: str
    by: str
    why: str
    at: str
    action: str
    gates: Sequence[Mapping[str, Any]] = ()
    override: str | None = None


def repeated(number: int, document: Mapping[str, Any]) -> dict[str, Any]:
    """An entry as the receipts of 0.1 repeat it: with its number, and with what it left out."""
    return {"pointer": number, "gates": [], "override": None, **document}
