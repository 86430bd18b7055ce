"""What a failure of ours means to Dagster: try again, or stop and say why."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import dagster as dg

from crypto_ml.errors import Refused, Unavailable
from crypto_ml.visible import visible

TRIES: Final = 3
SECONDS_BETWEEN: Final = 5


@contextmanager
def explained() -> Iterator[None]:
    """Refused ends the step with its sentence and is not retried; Unavailable is retried a few times."""
    try:
        yield
    except Refused as refused:
        raise dg.Failure(visible(str(refused)), allow_retries=False) from refused
    except Unavailable as unavailable:
        raise dg.RetryRequested(TRIES, SECONDS_BETWEEN) from unavailable
