"""A model trained once more from its training manifest, and held against its bundle."""

import numpy as np

from crypto_ml.audit.differences import Differs, at_stage
from crypto_ml.forecasting.bundle import NETWORK, SCALER, TRAINING_MANIFEST, ModelBundle
from crypto_ml.forecasting.onnx_graph import stored_arrays
from crypto_ml.forecasting.plan import Plan
from crypto_ml.forecasting.training import train
from crypto_ml.stages.scaler import NoTrainingSet, fitted_scaler, training_rows
from crypto_ml.storage.history import MarketHistory


def retrained(bundle: ModelBundle, history: MarketHistory) -> None:
    """Return where the same rows give the same scaler and weights, to the last bit.

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
    scaler, content = at_stage("scaler", lambda: fitted_scaler(rows, split, bundle.target))
    if content != bundle.files[SCALER]:
        raise Differs("scaler", "the same rows give other statistics")
    about = bundle.manifest["about"]
    again = at_stage(
        "trained_model",
        lambda: train(
            rows,
            split,
            scaler,
            Plan(**about["plan"]),
            label="again",
            manifest=bundle.document(TRAINING_MANIFEST),
            created_at="",
        ),
    ).bundle
    if again.sha256 == bundle.sha256:
        return
    if again.files[NETWORK] == bundle.files[NETWORK]:
        raise Differs("trained_model", "the same rows give the same network and another serving rule")
    now, then = (stored_arrays(found.files[NETWORK]) for found in (again, bundle))
    if now.keys() != then.keys() or any(now[name].shape != then[name].shape for name in now):
        raise Differs("trained_model", "the network is built otherwise")
    largest = max(float(np.abs(now[name] - then[name]).max()) for name in now)
    if not largest:  # what differs is in the graph itself, as trees are
        raise Differs("trained_model", "the same rows give another graph")
    raise Differs("trained_model", f"the same rows give other weights; the largest difference is {largest:.3g}")
