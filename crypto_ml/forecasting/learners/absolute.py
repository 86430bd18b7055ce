"""Least absolute deviations: a linear function of the 25 numbers of a window, fitted on absolute error.

scikit-learn's median regression, which is a linear programme: exact, and the same numbers for the same rows. What it
takes grows faster than the rows (10,000 of them: 3 s by the interior point method, 11 s by the simplex), so it is given
a seeded sample of them.
"""

from collections.abc import Mapping
from typing import Final

import numpy as np

from crypto_ml.forecasting.inference import Network
from crypto_ml.forecasting.learners.learner import Between, Fitted, Sample, Source, absolute_error, chosen
from crypto_ml.forecasting.learners.linear_graph import TOLERANCE, linear_graph, linear_output, linear_sha256
from crypto_ml.forecasting.plan import Plan
from crypto_ml.forecasting.progress import Progress, Tell, tell_nobody

DEFAULTS: Final[Mapping[str, float]] = {"penalty": 0.0}
"""penalty: what the sum of the coefficients' sizes costs (scikit-learn's alpha)."""

SPACE: Final[Mapping[str, Between]] = {"penalty": Between(0.0, 0.02)}

MOST_ROWS: Final = 20_000


def fit(train: Source, valid: Sample, plan: Plan, tell: Tell = tell_nobody) -> Fitted:
    """See `learner.Learner`."""
    from sklearn.linear_model import QuantileRegressor

    parameters = chosen(plan, DEFAULTS)
    sample = train.sample(min(plan.most_windows, MOST_ROWS), plan.seed)
    tell(Progress("training", 0, 1, "linear programme", f"{len(sample.target):,} rows"))
    inputs = sample.windows.reshape(len(sample.windows), -1).astype(np.float64)
    fitted = QuantileRegressor(quantile=0.5, alpha=parameters["penalty"], solver="highs-ipm").fit(
        inputs, sample.target.astype(np.float64)
    )
    tell(Progress("training", 1, 1, "linear programme", f"{len(sample.target):,} rows"))
    _, window, features = sample.windows.shape
    coefficients = np.asarray(fitted.coef_, np.float64).reshape(window, features)
    intercept = float(fitted.intercept_)
    network = linear_graph(coefficients, intercept)
    output = Network.from_bytes(network, features=coefficients.shape[1]).predict(valid.windows)
    losses = {
        name: [absolute_error(linear_output(coefficients, intercept, one.windows), one)]
        for name, one in (("loss", sample), ("val_loss", valid))
    }
    return Fitted(
        network=network,
        weights_sha256=linear_sha256(coefficients, intercept),
        difference=float(np.abs(output - linear_output(coefficients, intercept, valid.windows)).max()),
        tolerance=TOLERANCE,
        history=losses,
        best=1,
        parameters=parameters,
        architecture="linear in the 25 numbers of a window (least absolute deviations)",
    )
