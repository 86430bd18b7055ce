"""What a training run may vary: recorded with every model, so that it can be trained again."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from crypto_ml.forecasting.schema import Target
from crypto_ml.forecasting.verdicts import LEVEL

LearnerName = Literal["gru", "boosting", "absolute", "last_close"]
"""What learns the relative gap; each is a module of `learners`."""


@dataclass(frozen=True)
class Plan:
    """What a training run may vary.

    most_windows: so many windows an epoch takes at most. drawn: where there are more, whether a seeded sample is drawn
    once, which every epoch takes (as up to 0.3), or each epoch takes others, until all were taken. learner, level and
    parameters count for the target `relative_gap` alone: who learns it, how often a verdict may be luck, and what is
    otherwise than the learner's own DEFAULTS.
    """

    target: Target = "gap"
    seed: int = 20180325
    epochs: int = 10
    batch_size: int = 512
    learning_rate: float = 1e-3
    most_windows: int = 1_000_000
    drawn: Literal["once", "each epoch"] = "once"
    learner: LearnerName = "gru"
    level: float = LEVEL
    parameters: Mapping[str, float] = field(default_factory=dict)
