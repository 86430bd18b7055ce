"""How far long work has come, told while it goes on.

Belongs here: what is told. Does not belong here: a clock, a terminal, a log. The domain tells often; who listens
decides how often that is worth a word.
"""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """what: the work, as a word. done, total: of its units (bytes, rows, batches); total None where nobody knows it.
    note: what else is worth knowing by now."""

    what: str
    done: int
    total: int | None
    unit: str
    note: str = ""


Tell = Callable[[Progress], None]


def tell_nobody(_progress: Progress) -> None:
    """For who does not listen."""
