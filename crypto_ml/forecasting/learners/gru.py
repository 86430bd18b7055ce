"""The recurrent network of `network`, on stationary windows, fitted on absolute error."""

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from crypto_ml.forecasting.learners.learner import Between, Fitted, Sample, Source, chosen
from crypto_ml.forecasting.plan import Plan
from crypto_ml.forecasting.progress import Tell, tell_nobody

DEFAULTS: Final[Mapping[str, float]] = {"units": 50, "dropout": 0.1, "learning_rate": 1e-3}
SPACE: Final[Mapping[str, Between]] = {
    "units": Between(8, 64, log=True, whole=True),
    "dropout": Between(0.0, 0.3),
    "learning_rate": Between(1e-4, 1e-2, log=True),
}


def fit(train: Source, valid: Sample, plan: Plan, tell: Tell = tell_nobody) -> Fitted:
    """See `learner.Learner`. The plan's epochs, batch size and way of drawing count too. Raises Refused."""
    from crypto_ml.forecasting import network

    parameters = chosen(plan, {**DEFAULTS, "learning_rate": plan.learning_rate})
    windows: Any
    targets: Any
    if plan.drawn == "each epoch" and len(train) > plan.most_windows:
        windows, targets = train.drawn(plan.most_windows, plan.seed), None
    else:
        sample = train.sample(plan.most_windows, plan.seed)
        windows, targets = sample.windows, sample.target
    fitted = network.fit(
        windows, targets, valid.windows, valid.target, seed=plan.seed, target="relative_gap", epochs=plan.epochs,
        batch_size=plan.batch_size, learning_rate=parameters["learning_rate"], units=int(parameters["units"]),
        dropout=parameters["dropout"], tell=tell,
    )  # fmt: skip
    with TemporaryDirectory(prefix="crypto_ml-train-") as name:
        onnx, keras = Path(name) / "network.onnx", Path(name) / "network.keras"
        network.export_onnx(fitted.model, onnx)
        network.save_keras(fitted.model, keras)
        difference = network.agreement(fitted.model, onnx, valid.windows)
        exported, trainable = onnx.read_bytes(), keras.read_bytes()
    return Fitted(
        network=exported,
        weights_sha256=network.weights_sha256(fitted.model),
        difference=difference,
        tolerance=network.ONNX_TOLERANCE,
        history=fitted.history,
        best=fitted.best_epoch,
        parameters=parameters,
        architecture=f"bidirectional GRU of {int(parameters['units'])} units, batch normalisation, two dense layers",
        documents={"network.keras": trainable},
    )
