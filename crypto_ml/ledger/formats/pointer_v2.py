"""An entry of the champion pointer, which says its format, and by which decision it came about."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

FORMAT: Final = 2


@dataclass(frozen=True)
class PointerEntry:
    """at: ISO 8601, UTC. gates: name, passed, explanation and numbers of each. decision: its id, where it has one."""

    version: str
    sha256: str
    by: str
    why: str
    at: str
    action: str
    gates: Sequence[Mapping[str, Any]]
    override: str | None
    decision: str | None


def written(entry: PointerEntry) -> dict[str, Any]:
    """The document that holds an entry."""
    return {"format": FORMAT, **asdict(entry)}
