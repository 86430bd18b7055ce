"""Which learner a name means; what it takes is imported when it fits."""

from collections.abc import Mapping
from typing import Any, Final

from crypto_ml.forecasting.learners import absolute, boosting, gru, last_close
from crypto_ml.forecasting.learners.learner import Learner
from crypto_ml.forecasting.plan import LearnerName

_LEARNERS: Final[Mapping[LearnerName, Any]] = {
    "gru": gru,
    "boosting": boosting,
    "absolute": absolute,
    "last_close": last_close,
}


def learner_of(name: LearnerName) -> Learner:
    """The learner of a name."""
    learner: Learner = _LEARNERS[name]
    return learner
