"""What a witness keeps of a chain of evidence, since 0.7: one of its links, by number and hash. One line of JSON."""

import json
from dataclasses import asdict, dataclass
from typing import Final

FORMAT: Final = 1


@dataclass(frozen=True)
class WitnessedHead:
    """The last link of a chain at some moment. deployment: `s3://bucket/prefix/`; at: when the link was made."""

    deployment: str
    number: int
    sha256: str
    at: str
    format: int = FORMAT

    def line(self) -> bytes:
        """As it is written, with the end of its line."""
        return json.dumps(asdict(self), sort_keys=True, ensure_ascii=False).encode() + b"\n"
