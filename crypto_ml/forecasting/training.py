"""From market history to a model bundle: split by time, fit the scaler, train, prove the export, evaluate.

Three spans of time, in this order: the scaler and the network are fitted on the first, the number of epochs is chosen
on the second, and on the third, the holdout, nothing is fitted at all. Belongs here: the one way from rows to a bundle,
and the whole of it for the targets `gap` and `change`. That of `relative_gap` is in `relative_training`.
"""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from crypto_ml.errors import Refused
from crypto_ml.extras import can_draw, require_training
from crypto_ml.forecasting.bundle import TRAINING_MANIFEST, make_bundle
from crypto_ml.forecasting.evaluation import beats_baseline_verdict, holdout_size_verdict, onnx_verdict
from crypto_ml.forecasting.examples import examples_of
from crypto_ml.forecasting.holdout import evaluated, holdout_predictions, longest_series
from crypto_ml.forecasting.model_card import model_card
from crypto_ml.forecasting.network import ONNX_TOLERANCE, agreement, export_onnx, fit, save_keras, weights_sha256
from crypto_ml.forecasting.pictures import holdout_by_symbol, loss_curve
from crypto_ml.forecasting.plan import Plan
from crypto_ml.forecasting.pooled_scaler import PooledScaler
from crypto_ml.forecasting.progress import Tell, tell_nobody
from crypto_ml.forecasting.relative_training import train_relative
from crypto_ml.forecasting.scaling import SeriesStatistics
from crypto_ml.forecasting.trained import METRICS, Trained, about, as_document, picture_of, slugs_of
from crypto_ml.forecasting.training_set import Split, TooLittleHistory
from crypto_ml.forecasting.windows import DrawnWindows, WindowArray


def train(
    rows: pd.DataFrame,
    split: Split,
    scaler: SeriesStatistics | PooledScaler,
    plan: Plan,
    *,
    label: str,
    manifest: Mapping[str, Any],
    created_at: str,
    image: str | None = None,
    tell: Tell = tell_nobody,
) -> Trained:
    """Train a model on `rows` (as for `fit_scaler`) and put the bundle together.

    scaler: of the plan's target, from `fit_scaler` or `fit_pooled_scaler`. manifest: what identifies the training set,
    kept in the bundle. label: what the version starts with. created_at: ISO 8601, shown. image: that in which this
    runs, shown. tell: who is told how far the fit is. The same rows, split, scaler and plan give the same weights.
    Where pictures cannot be drawn the bundle has none. Raises TooLittleHistory, NotInstalled.
    """
    require_training("Training")
    parts: dict[str, Any] = {
        "label": label,
        "target": plan.target,
        "scaler": scaler,
        "slugs": slugs_of(rows),
        "about": about(plan, created_at, image),
    }
    kept_manifest = as_document(manifest)
    if isinstance(scaler, PooledScaler) != (plan.target == "relative_gap"):
        raise Refused(f"the scaler was not fitted for models of the target {plan.target}; fit it again")
    if isinstance(scaler, PooledScaler):
        return train_relative(rows, split, scaler, plan, parts=parts, manifest=kept_manifest, tell=tell)
    examples = examples_of(rows, scaler, plan.target)
    learnt_from = examples.between(None, split.validation_from)
    train_x: WindowArray | DrawnWindows
    train_y: npt.NDArray[np.float32] | None
    if plan.drawn == "each epoch" and len(learnt_from.at) > plan.most_windows:
        train_x, train_y = learnt_from.drawn(plan), None
    else:
        train_x, train_y = learnt_from.arrays(plan)
    valid_x, valid_y = examples.between(split.validation_from, split.holdout_from).arrays(plan)
    if not len(learnt_from.at) or not len(valid_y):
        raise TooLittleHistory("no training or no validation row has an earlier row of its series")
    fitted = fit(
        train_x, train_y, valid_x, valid_y, seed=plan.seed, target=plan.target, epochs=plan.epochs,
        batch_size=plan.batch_size, learning_rate=plan.learning_rate, tell=tell,
    )  # fmt: skip
    with TemporaryDirectory(prefix="crypto_ml-train-") as name:
        onnx, keras = Path(name) / "network.onnx", Path(name) / "network.keras"
        export_onnx(fitted.model, onnx)
        save_keras(fitted.model, keras)
        difference = agreement(fitted.model, onnx, valid_x)
        network, trainable = onnx.read_bytes(), keras.read_bytes()
    onnx_equal = onnx_verdict(difference, ONNX_TOLERANCE)
    parts |= {"network_onnx": network, "weights_sha256": weights_sha256(fitted.model)}
    unproven = make_bundle(**parts, documents={TRAINING_MANIFEST: kept_manifest})
    holdout = holdout_predictions(rows, split, unproven)
    evaluation, longest = evaluated(holdout), longest_series(holdout)
    baseline, size = beats_baseline_verdict(evaluation), holdout_size_verdict(evaluation.overall.rows)
    metrics = {
        "holdout": evaluation.to_dict(),
        "loss": fitted.history,
        "best_epoch": fitted.best_epoch,
        "checks": {
            "onnx_equals_keras": asdict(onnx_equal),
            "enough_holdout_rows": asdict(size),
            "no_worse_than_last_close": asdict(baseline),
        },
    }
    documents = {
        TRAINING_MANIFEST: kept_manifest,
        METRICS: as_document(metrics),
        "network.keras": trainable,
        "MODEL_CARD.md": model_card(unproven, evaluation, baseline).encode(),
    }
    if can_draw():
        documents |= {
            "pictures/loss.png": loss_curve(fitted.history),
            "pictures/holdout.png": holdout_by_symbol(evaluation),
            "pictures/predictions.png": picture_of(longest),
        }
    bundle = make_bundle(**parts, documents=documents)
    return Trained(bundle, evaluation, onnx_equal, baseline, fitted.history, longest, size)
