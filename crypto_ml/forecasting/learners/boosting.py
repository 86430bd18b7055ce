"""Gradient boosting on histograms, fitted on absolute error: scikit-learn's, exported as the trees that it is.

Trees are added until the plan's number is reached; kept are those up to the least loss on the validation rows.
"""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from crypto_ml.errors import Refused
from crypto_ml.forecasting.inference import Network
from crypto_ml.forecasting.learners.learner import Between, Fitted, Sample, Source, absolute_error, chosen
from crypto_ml.forecasting.learners.tree_graph import LEAF, Tree, exact, rounded_down, tree_graph
from crypto_ml.forecasting.plan import Plan
from crypto_ml.forecasting.progress import Progress, Tell, tell_nobody

DEFAULTS: Final[Mapping[str, float]] = {
    "trees": 60, "learning_rate": 0.05, "leaves": 15, "rows_in_leaf": 100, "l2": 0.0,
}  # fmt: skip
SPACE: Final[Mapping[str, Between]] = {
    "trees": Between(20, 200, whole=True),
    "learning_rate": Between(0.01, 0.3, log=True),
    "leaves": Between(4, 31, log=True, whole=True),
    "rows_in_leaf": Between(20, 500, log=True, whole=True),
    "l2": Between(0.0, 10.0),
}
MOST_ROWS: Final = 400_000


def fit(train: Source, valid: Sample, plan: Plan, tell: Tell = tell_nobody) -> Fitted:
    """See `learner.Learner`."""
    from sklearn.ensemble import HistGradientBoostingRegressor
    from threadpoolctl import threadpool_limits

    parameters = chosen(plan, DEFAULTS)
    sample = train.sample(min(plan.most_windows, MOST_ROWS), plan.seed)
    inputs, validation = (one.windows.reshape(len(one.windows), -1).astype(np.float64) for one in (sample, valid))
    trees = int(parameters["trees"])
    tell(Progress("training", 0, trees, "trees", f"{len(inputs):,} rows"))
    model = HistGradientBoostingRegressor(
        loss="absolute_error", learning_rate=parameters["learning_rate"], max_iter=trees,
        max_leaf_nodes=int(parameters["leaves"]), min_samples_leaf=int(parameters["rows_in_leaf"]),
        l2_regularization=parameters["l2"], early_stopping=False, random_state=plan.seed % 2**32,
    )  # fmt: skip
    # its threads wait for each other by turning in circles: with others at work on the machine, 20 times as long
    with threadpool_limits(1, user_api="openmp"):
        model.fit(inputs, sample.target.astype(np.float64))
    tell(Progress("training", trees, trees, "trees", f"{len(inputs):,} rows"))
    losses = {
        name: [absolute_error(output, one) for output in model.staged_predict(given)]
        for name, given, one in (("loss", inputs, sample), ("val_loss", validation, valid))
    }
    best = int(np.argmin(losses["val_loss"])) + 1
    ensemble = exact(_trees(model, best), float(np.ravel(model._baseline_prediction)[0]))
    network = tree_graph(ensemble, sample.windows.shape[-1])
    expected = next(output for number, output in enumerate(model.staged_predict(validation), 1) if number == best)
    output = Network.from_bytes(network, features=sample.windows.shape[-1]).predict(valid.windows)
    return Fitted(
        network=network,
        weights_sha256=ensemble.sha256,
        difference=float(np.abs(output - expected).max()),
        tolerance=ensemble.tolerance,
        history=losses,
        best=best,
        parameters=parameters,
        architecture=f"{best} boosted trees of at most {int(parameters['leaves'])} leaves",
    )


def _trees(model: Any, count: int) -> list[Tree]:
    """The first trees of a fitted model, from the nodes that scikit-learn keeps; it has no public way to them, and
    whether they mean what is taken here is measured after every fit (`difference`)."""
    found = []
    for (predictor,) in model._predictors[:count]:
        nodes = predictor.nodes
        if nodes["is_categorical"].any():
            raise Refused("A tree asks for a category, which no number of a window is; train with another release.")
        leaves = nodes["is_leaf"].astype(bool)
        found.append(
            Tree(
                np.where(leaves, LEAF, nodes["feature_idx"]).astype(np.int64),
                np.where(leaves, 0.0, rounded_down(np.where(leaves, 0.0, nodes["num_threshold"]))).astype(np.float32),
                nodes["left"].astype(np.int64),
                nodes["right"].astype(np.int64),
                np.where(leaves, nodes["value"], 0.0),
                nodes["count"].astype(np.float64),
            )
        )
    return found
