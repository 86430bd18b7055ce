"""The first difference between what was recorded and what comes out again."""

from collections.abc import Callable
from typing import TypeVar

from crypto_ml.errors import CryptoMLError, Unavailable
from crypto_ml.storage.failures import ObjectMissing

T = TypeVar("T")


class Differs(Exception):  # noqa: N818 - a verdict on its way, not an error
    """The first stage that does not give again what the receipt says, and why."""

    def __init__(self, stage: str, why: str) -> None:
        super().__init__(why)
        self.stage = stage
        self.why = why


def at_stage(stage: str, work: Callable[[], T]) -> T:
    """Run one stage's work; whatever goes wrong is that stage's difference, but for a store that does not answer."""
    try:
        return work()
    except (Differs, Unavailable):
        raise
    except ObjectMissing as missing:
        raise Differs(stage, f"evidence is gone: {missing}") from missing
    except CryptoMLError as error:
        raise Differs(stage, str(error)) from error
    except Exception as error:
        raise Differs(stage, f"it cannot be read any more ({type(error).__name__}: {error})") from error
