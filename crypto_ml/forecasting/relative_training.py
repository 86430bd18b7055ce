"""The training of a model of relative gaps: fit, shrink, calibrate, judge; whoever learns.

Three spans of time, as in `training`. On the second λ is chosen; interval quantiles and the range's model come from the
year before the third, the holdout; there the shrunk predictions are judged against the last close. λ stays above 0 on
BEATS alone, otherwise the bundle serves the last close with its intervals, and says what λ would have been.
"""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Final

import numpy as np
import pandas as pd

from crypto_ml.extras import can_draw
from crypto_ml.forecasting.bundle import TRAINING_MANIFEST, ModelBundle, make_bundle
from crypto_ml.forecasting.calibration import SHOWN_LEVEL, Calibrated, calibrated, coverage, range_skill, ranges_of
from crypto_ml.forecasting.evaluation import Verdict, holdout_size_verdict, onnx_verdict
from crypto_ml.forecasting.features import FloatArray
from crypto_ml.forecasting.holdout import evaluated, holdout_predictions, longest_series
from crypto_ml.forecasting.importance import permutation_importance
from crypto_ml.forecasting.inference import Network
from crypto_ml.forecasting.intervals import LEAST_PRICE, MOST_PRICE
from crypto_ml.forecasting.learners.by_name import learner_of
from crypto_ml.forecasting.learners.learner import Fitted, Sample
from crypto_ml.forecasting.model_card import relative_model_card
from crypto_ml.forecasting.pictures import coverage_by_month, excess_loss, holdout_by_symbol, importances, loss_curve
from crypto_ml.forecasting.plan import Plan
from crypto_ml.forecasting.pooled_scaler import PooledScaler
from crypto_ml.forecasting.progress import Tell
from crypto_ml.forecasting.schema import STATIONARY
from crypto_ml.forecasting.serving_rule import ServingRule
from crypto_ml.forecasting.shrinkage import Shrinkage, choose_shrinkage, shrunk_network
from crypto_ml.forecasting.stationary_examples import Examples, examples_of
from crypto_ml.forecasting.trained import METRICS, Trained, as_document, picture_of
from crypto_ml.forecasting.training_set import Split, TooLittleHistory
from crypto_ml.forecasting.verdicts import Judgement, daily_loss, judge

LOSS_UNIT: Final = "mean absolute error, recent gap sizes"


def train_relative(
    rows: pd.DataFrame,
    split: Split,
    scaler: PooledScaler,
    plan: Plan,
    *,
    parts: Mapping[str, Any],
    manifest: bytes,
    tell: Tell,
) -> Trained:
    """Train the plan's learner on `rows` and put the bundle together; see `training.train`.

    parts: of `make_bundle`, without network and rule. manifest: the training manifest, as it is kept. Raises
    TooLittleHistory.
    """
    examples = examples_of(rows, scaler)
    held = examples.between(split.holdout_from, None)
    validated, fitted = fit_learner(examples, split, plan, tell)
    network = Network.from_bytes(fitted.network, features=len(STATIONARY))
    if not len(held):
        raise TooLittleHistory(f"no row from {split.holdout_from} on can be predicted, so nothing can be evaluated")
    chosen = chosen_shrinkage(network, validated)
    ranges = ranges_of(examples)
    found = calibrated(examples, ranges, split.holdout_from)
    parts = {**parts, "weights_sha256": fitted.weights_sha256}

    def serving(rule: ServingRule) -> ModelBundle:
        network_onnx = shrunk_network(fitted.network, rule.shrink, rule.cap)
        documents = {TRAINING_MANIFEST: manifest}
        return make_bundle(**parts, network_onnx=network_onnx, rule=rule, documents=documents)

    shrunk = ServingRule(chosen.shrink, chosen.cap, found.quantiles, found.range)
    holdout = holdout_predictions(rows, split, serving(shrunk))
    columns = judged_columns(holdout)
    judgement = judge(**columns, level=plan.level)
    rule = rule_of(chosen, found, judgement)
    unproven = serving(rule)
    if rule.serves_last_close and not shrunk.serves_last_close:
        holdout = holdout_predictions(rows, split, unproven)
    onnx_equal = onnx_verdict(fitted.difference, fitted.tolerance, plan.learner)
    evaluation, longest = evaluated(holdout), longest_series(holdout)
    windows = held.windows()
    output = network.predict(windows)
    by_itself = _predicted(held, output)
    raw = judge(**judged_columns(by_itself), level=plan.level)
    baseline, size = _served_verdict(rule, judgement), holdout_size_verdict(evaluation.overall.rows)
    covered = coverage(held, found.quantiles)
    importance = permutation_importance(network, windows, held.targets().astype(np.float64), plan.seed)
    metrics = {
        "holdout": evaluation.to_dict(),
        "learner": plan.learner,
        "parameters": dict(fitted.parameters),
        "loss": {name: list(values) for name, values in fitted.history.items()},
        "best_epoch": fitted.best,
        "checks": {
            "onnx_equals_keras": asdict(onnx_equal),
            "enough_holdout_rows": asdict(size),
            "no_worse_than_last_close": asdict(baseline),
        },
        "verdicts": {"last_close": judgement.to_dict()},
        "raw": {
            "excess_loss": raw.mean,
            "mase": evaluated(by_itself).overall.network.mase,
            "word": raw.word,
            "explanation": raw.explanation,
        },
        "shrinkage": {"validation": chosen.shrink, "served": rule.shrink, "cap": rule.cap},
        "coverage": covered,
        "range": range_skill(ranges, found.range, split.holdout_from),
        "importance": importance,
    }
    documents = {
        TRAINING_MANIFEST: manifest,
        METRICS: as_document(metrics),
        **fitted.documents,
        "MODEL_CARD.md": relative_model_card(unproven, evaluation, fitted.architecture, metrics).encode(),
    }
    if can_draw():
        documents |= {
            "pictures/holdout.png": holdout_by_symbol(evaluation),
            "pictures/predictions.png": picture_of(longest),
        }
        if plan.learner != "last_close":
            step = "tree" if plan.learner == "boosting" else "epoch"
            who = f"{plan.learner}, λ = {chosen.shrink:g}"
            documents["pictures/loss.png"] = loss_curve(fitted.history, LOSS_UNIT, step)
            documents["pictures/verdict.png"] = excess_loss(daily_loss(**columns), judgement, who)
        if months := covered.get("by_month"):
            documents["pictures/coverage.png"] = coverage_by_month(months, SHOWN_LEVEL)
        if any(importance.values()):
            documents["pictures/importance.png"] = importances(importance)
    bundle = make_bundle(
        **parts, network_onnx=shrunk_network(fitted.network, rule.shrink, rule.cap), rule=rule, documents=documents
    )
    return Trained(bundle, evaluation, onnx_equal, baseline, fitted.history, longest, size, judgement)


def _served_verdict(rule: ServingRule, judgement: Judgement) -> Verdict:
    """That what is served is no worse than the last close: it is the last close, or was shown to be better."""
    numbers = {"excess_loss": judgement.mean, "low": judgement.low, "high": judgement.high, "p": judgement.p}
    told = f"{judgement.word}: {judgement.explanation}"
    if rule.serves_last_close:
        told += " It serves the last close itself."
    return Verdict(True, {**numbers, "lambda": rule.shrink}, 0.0, told)


def fit_learner(examples: Examples, split: Split, plan: Plan, tell: Tell) -> tuple[Examples, Fitted]:
    """Fit the plan's learner on the training span; the validation rows it was shown, and what it left behind.

    Raises TooLittleHistory.
    """
    learnt_from = examples.between(None, split.validation_from)
    validated = examples.between(split.validation_from, split.holdout_from).some(plan.most_windows, plan.seed)
    if not len(learnt_from) or not len(validated):
        raise TooLittleHistory("no training or no validation row has enough earlier rows of its series")
    valid = Sample(validated.windows(), validated.targets())
    return validated, learner_of(plan.learner).fit(learnt_from, valid, plan, tell)


def chosen_shrinkage(network: Network, validated: Examples) -> Shrinkage:
    """λ by the one-standard-error rule on validation rows."""
    target = validated.targets().astype(np.float64)
    return choose_shrinkage(network.predict(validated.windows()), target, validated.days)


def rule_of(chosen: Shrinkage, found: Calibrated, judgement: Judgement) -> ServingRule:
    """What is served: the network with the λ that was chosen where the word is BEATS, and the last close otherwise."""
    return ServingRule(
        chosen.shrink if judgement.word == "BEATS" else 0.0,
        chosen.cap,
        found.quantiles,
        found.range,
        {
            "shrinkage": {**(chosen.chosen or {}), "lambda": chosen.shrink},
            "verdict": judgement.to_dict(),
            "calibration": found.made_from,
        },
    )


def judged_columns(holdout: pd.DataFrame) -> dict[str, Any]:
    """What `judge` takes, of what `holdout_predictions` gave."""
    close = holdout["last_close"].to_numpy(np.float64)
    return {
        "days": holdout["date"].to_numpy("datetime64[D]"),
        "symbols": holdout["symbol"].to_numpy(str),
        "observed": holdout["val_open"].to_numpy(np.float64),
        "predicted": holdout["pred_open"].to_numpy(np.float64),
        "reference": close,
        "close": close,
    }


def _predicted(held: Examples, gaps: FloatArray) -> pd.DataFrame:
    """What gaps (m,) of the examples, in recent gap sizes, would predict, in the columns that are judged."""
    close = held.rows["close"].to_numpy(np.float64)[held.at - 1]
    with np.errstate(over="ignore"):
        price = np.clip(close * (1.0 + held.units.gaps.size[held.at] * gaps), LEAST_PRICE, MOST_PRICE)
    opens = held.rows["open"].to_numpy(np.float64)
    asked = held.rows[["symbol", "date"]].iloc[held.at].assign(pred_open=price, last_close=close)
    return asked.assign(val_open=opens[held.at], last_open=opens[held.at - 1])
