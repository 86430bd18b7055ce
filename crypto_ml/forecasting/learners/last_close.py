"""The last close itself: a network that says 0. What serves where no learner was shown to be better, with intervals."""

from collections.abc import Mapping
from typing import Final

import numpy as np

from crypto_ml.forecasting.learners.learner import Between, Fitted, Sample, Source, absolute_error, chosen
from crypto_ml.forecasting.learners.linear_graph import linear_graph, linear_sha256
from crypto_ml.forecasting.plan import Plan
from crypto_ml.forecasting.progress import Tell, tell_nobody

DEFAULTS: Final[Mapping[str, float]] = {}
SPACE: Final[Mapping[str, Between]] = {}


def fit(train: Source, valid: Sample, plan: Plan, tell: Tell = tell_nobody) -> Fitted:  # noqa: ARG001 - nothing to learn
    """See `learner.Learner`."""
    nothing = np.zeros(valid.windows.shape[1:])
    loss = [absolute_error(np.zeros(len(valid.target)), valid)]
    return Fitted(
        network=linear_graph(nothing, 0.0),
        weights_sha256=linear_sha256(nothing, 0.0),
        difference=0.0,
        tolerance=0.0,
        history={"loss": loss, "val_loss": loss},
        best=1,
        parameters=chosen(plan, DEFAULTS),
        architecture="none: it says that the next open is the last close",
    )
