"""What whoever runs the service has chosen for it, in the words of the service."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from crypto_ml.settings import Settings


@dataclass(frozen=True)
class ServiceConfig:
    """Limits and permissions of one worker.

    most_body_bytes, most_rows: of one request. most_seconds: from the first byte of a request to its answer.
    most_at_once: requests for predictions in a worker, waiting ones included; most_of_a_caller: those of one token.
    unrecorded: whether a caller may ask for an answer of which nothing is kept. tokens, tokens_file: lines that name
    who may ask (see `tokens`), in the environment and in a file.
    """

    most_body_bytes: int = 32 << 20
    most_rows: int = 100_000
    most_seconds: int = 30
    most_at_once: int = 512
    most_of_a_caller: int = 256
    unrecorded: bool = False
    tokens: str = ""
    tokens_file: Path | None = None

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """What the settings say."""
        return cls(
            settings.serve_max_bytes,
            settings.serve_max_rows,
            settings.serve_max_seconds,
            settings.serve_max_requests,
            settings.serve_max_requests_each,
            settings.serve_unrecorded,
            settings.serve_tokens,
            settings.serve_tokens_file,
        )
