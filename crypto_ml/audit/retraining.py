"""A model trained once more from its training manifest, and held against its bundle."""

import json
import math
from dataclasses import replace
from typing import Any, Final

import numpy as np

from crypto_ml.audit.differences import Differs, at_stage
from crypto_ml.forecasting.bundle import NETWORK, SCALER, TRAINING_MANIFEST, ModelBundle
from crypto_ml.forecasting.onnx_graph import stored_arrays
from crypto_ml.forecasting.plan import Plan
from crypto_ml.forecasting.schema import WINDOW
from crypto_ml.forecasting.serving_rule import write_rule
from crypto_ml.forecasting.trained import about
from crypto_ml.forecasting.training import train
from crypto_ml.stages.scaler import NoTrainingSet, fitted_scaler, training_rows
from crypto_ml.storage.history import MarketHistory

TRIED: Final = 4_096
"""Windows on which two networks are compared, of standard normal numbers, as what a scaler gives is about."""

ROUNDING: Final = 1e-3
"""How far apart predictions of two networks may be, in units of the target (deviations, or recent gap sizes), where
rounding can be why: other thread counts gave 1e-6 after five epochs, and each makes more of it. Also how far apart, as
a share, the numbers of their serving rules may be."""

ROUNDING_OF_SUMS: Final = 1e-9
"""How far apart, as a share, means and deviations of the same rows may be."""


def retrained(bundle: ModelBundle, history: MarketHistory) -> str | None:
    """None where the same rows give the same scaler and weights, to the last bit; in words how far they are apart where
    they were made with another processor or other libraries, and are equal within ROUNDING.

    Raises Differs at `market_history`, `scaler` or `trained_model`; NoTrainingSet where it was trained elsewhere,
    and of a model whose serving rule was made anew, whose network is that of another one.
    """
    if refreshed := bundle.document(TRAINING_MANIFEST).get("refreshed"):
        raise NoTrainingSet(
            f"{bundle.version} was not trained: it is {refreshed['root']} with another serving rule; replay an answer "
            "by that one with --retrain"
        )
    try:
        rows, split = at_stage("market_history", lambda: training_rows(bundle, history))
    except Differs as found:
        if isinstance(found.__cause__, NoTrainingSet):
            raise NoTrainingSet(f"{bundle.version} cannot be trained again: {found.__cause__}") from found
        raise
    elsewhere = _made_elsewhere(bundle)
    scaler, content = at_stage("scaler", lambda: fitted_scaler(rows, split, bundle.target))
    if content != bundle.files[SCALER] and not (
        elsewhere and _apart(content, bundle.files[SCALER]) <= ROUNDING_OF_SUMS
    ):
        raise Differs("scaler", "the same rows give other statistics")
    plan = Plan(**bundle.manifest["about"]["plan"])
    again = at_stage(
        "trained_model",
        lambda: train(
            rows,
            split,
            scaler,
            plan,
            label="again",
            manifest=bundle.document(TRAINING_MANIFEST),
            created_at="",
        ),
    ).bundle
    if again.sha256 == bundle.sha256:
        return None
    if elsewhere and (largest := _largest_difference(bundle, again)) <= ROUNDING:
        return (
            f"trained again, its model is EQUAL WITHIN ROUNDING: on {TRIED:,} windows its predictions differ by "
            f"{largest:.1g} of a unit of the target at most (bound {ROUNDING:g}); {elsewhere}"
        )
    if again.files[NETWORK] == bundle.files[NETWORK]:
        raise Differs("trained_model", "the same rows give the same network and another serving rule")
    now, then = (stored_arrays(found.files[NETWORK]) for found in (again, bundle))
    if now.keys() != then.keys() or any(now[name].shape != then[name].shape for name in now):
        raise Differs("trained_model", "the network is built otherwise")
    largest = max(float(np.abs(now[name] - then[name]).max()) for name in now)
    if not largest:  # what differs is in the graph itself, as trees are
        raise Differs("trained_model", "the same rows give another graph")
    raise Differs("trained_model", f"the same rows give other weights; the largest difference is {largest:.3g}")


def _made_elsewhere(bundle: ModelBundle) -> str:
    """What differs of the processor and the libraries by which a model was trained, in words; empty where nothing."""
    then, now = bundle.manifest["about"], about(Plan(), "")
    differing = []
    if (before := then.get("processor", "a processor that was not recorded")) != now["processor"]:
        differing.append(f"trained on {before}, now on {now['processor']}")
    for name, version in now["libraries"].items():
        if (before := then.get("libraries", {}).get(name, "of a version that was not recorded")) != version:
            differing.append(f"{name} {before}, now {version}")
    return "; ".join(differing)


def _largest_difference(then: ModelBundle, now: ModelBundle) -> float:
    """How far the predictions of two bundles are apart, in units of the target; infinite where they are of another
    shape, or serve by another rule."""
    rules = [write_rule(replace(found.rule, made_from={})) if found.rule else b"{}" for found in (then, now)]
    if (then.target, then.features) != (now.target, now.features) or _apart(*rules) > ROUNDING:
        return math.inf
    windows = np.random.default_rng(0).standard_normal((TRIED, WINDOW, len(then.features)), np.float32)
    return float(np.abs(then.network.predict(windows) - now.network.predict(windows)).max())


def _apart(one: bytes, other: bytes) -> float:
    """The largest difference of numbers in two JSON documents, as a share of the larger one; infinite where anything
    else in them differs."""

    def largest(this: Any, that: Any) -> float:
        if isinstance(this, dict) and isinstance(that, dict) and this.keys() == that.keys():
            return max((largest(this[name], that[name]) for name in this), default=0.0)
        if isinstance(this, list) and isinstance(that, list) and len(this) == len(that):
            return max(map(largest, this, that), default=0.0)
        if this == that:
            return 0.0
        if not (isinstance(this, float) and isinstance(that, float)):
            return math.inf
        return abs(this - that) / max(abs(this), abs(that))

    return largest(json.loads(one), json.loads(other))
