"""An entry of the champion pointer, which says its format, and by which decision it came about."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

FORMAT: Final = 2


@dataclass(frozen=True)
class PointerEntry:
    """at: ISO 8601, UTC. gates: name, passed, explanation and numbers of each. decision: its id, where it has one.
    acted_as: whose credentials or user decided, `kind` and `name` (see `storage.caller`); not recorded before 0.7.
    """

    version: str
    sha256: str
    by: str
    why: str
    at: str
    action: str
    gates: Sequence[Mapping[str, Any]]
    override: str | None
    decision: str | None
    acted_as: Mapping[str, str] | None = None


def written(entry: PointerEntry) -> dict[str, Any]:
    """The document that holds an entry; without `acted_as` it is what releases before 0.7 wrote."""
    said = asdict(entry)
    if entry.acted_as is None:
        del said["acted_as"]
    return {"format": FORMAT, **said}
