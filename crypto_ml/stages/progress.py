"""Progress as an operator wants it: a line in the log every few seconds, with the time that is left.

What is over sooner says nothing. Dagster shows these lines with a run (`python_logs` in dagster.yaml).
"""

import logging
import time
from collections.abc import Callable
from typing import Final

from crypto_ml.forecasting.progress import Progress, Tell

SECONDS_BETWEEN_LINES: Final = 4.0


def logged(log: logging.Logger, subject: str, clock: Callable[[], float] = time.monotonic) -> Tell:
    """Who listens to the work on `subject`, and logs how far it is. clock: seconds, from whenever."""
    began: dict[str, float] = {}
    last = clock()

    def tell(progress: Progress) -> None:
        nonlocal last
        now = clock()
        since = began.setdefault(progress.what, now)
        if now - last >= SECONDS_BETWEEN_LINES:
            last = now
            log.info("%s: %s", subject, in_words(progress, now - since))

    return tell


def in_words(progress: Progress, seconds: float) -> str:
    """How far work is that has taken so many seconds, in one line."""
    parts = [f"{progress.what}: {amount(progress)}", *([progress.note] if progress.note else [])]
    if progress.total and 0 < progress.done <= progress.total and seconds > 0:
        parts.append(f"{_duration(seconds * (progress.total / progress.done - 1))} left")
    return ", ".join(parts)


def amount(progress: Progress) -> str:
    """How much of it is done, and of how much where that is known; bytes in MB."""
    counts = [progress.done, *([progress.total] if progress.total else [])]
    if progress.unit == "bytes":
        return f"{' of '.join(f'{count / 1e6:,.1f}' for count in counts)} MB"
    return f"{' of '.join(f'{count:,}' for count in counts)} {progress.unit}"


def _duration(seconds: float) -> str:
    return f"{seconds / 60:.1f} minutes" if seconds >= 60 else f"{seconds:.0f} s"
