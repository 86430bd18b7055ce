"""What a failure of ours means to Dagster: try again, or stop and say why; and to whoever looks at the run later."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import dagster as dg

from crypto_ml.errors import Blocked, Refused, what_was_unavailable
from crypto_ml.visible import visible

TRIES: Final = 3
SECONDS_BETWEEN: Final = 5

KIND: Final = "crypto_ml/kind"
"""Metadata of a failed step: REFUSED or UNAVAILABLE; a step that failed without it met what nobody expected."""

REFUSED: Final = "refused"
UNAVAILABLE: Final = "unavailable"


@contextmanager
def explained() -> Iterator[None]:
    """Refused ends the step with its sentence and is not retried; what was unavailable is tried a few times.

    Blocked counts as unavailable, but somebody has to do something first, so the step ends at once.
    """
    try:
        yield
    except Exception as error:
        if missing := what_was_unavailable(error):
            failure = dg.Failure(visible(missing), metadata={KIND: UNAVAILABLE}, allow_retries=False)
            failure.__cause__ = error
            if isinstance(error, Blocked):
                raise failure from error
            raise dg.RetryRequested(TRIES, SECONDS_BETWEEN) from failure
        if isinstance(error, Refused):
            raise dg.Failure(visible(str(error)), metadata={KIND: REFUSED}, allow_retries=False) from error
        raise
