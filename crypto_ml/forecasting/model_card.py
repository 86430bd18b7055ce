"""The model card of a bundle: what it is for, what it was made from, how good it is, in words a person reads."""

from crypto_ml.forecasting.bundle import TRAINING_MANIFEST, ModelBundle
from crypto_ml.forecasting.evaluation import Errors, Evaluation, Verdict

_TARGETS = {
    "change": "the standardised change of the open since the row before",
    "gap": "the gap between the open and the last close, in units of the series' own gap deviation on training rows",
}


def model_card(bundle: ModelBundle, evaluation: Evaluation, baseline: Verdict) -> str:
    """A model card (Mitchell et al. 2019, doi:10.1145/3287560.3287596) in Markdown."""
    manifest = bundle.document(TRAINING_MANIFEST)
    overall = evaluation.overall
    rows = manifest.get("rows", {})
    lines = [
        f"# Model {bundle.version}",
        "",
        "Predicts the next opening price of a cryptocurrency from its last five daily rows.",
        "",
        f"- Output of the network: {_TARGETS[bundle.target]}.",
        "- Architecture: bidirectional GRU, batch normalisation, two dense layers; input (5, 13), float32.",
        f"- Training data: {manifest.get('source', 'unknown')}, up to {manifest.get('as_of', 'unknown')}, "
        f"{rows.get('train', 0):,} training, {rows.get('validation', 0):,} validation and {rows.get('holdout', 0):,} "
        f"holdout rows of {manifest.get('symbols', 0):,} series.",
        "",
        "## On the holdout, which nothing was fitted on",
        "",
        "| prediction | mean relative error | MASE | directional accuracy |",
        "|---|---|---|---|",
        _line("network", overall.network),
        _line("last close", overall.last_close),
        _line("last open", overall.last_open),
        "",
        baseline.explanation,
        "",
        "## Not for",
        "",
        "Trading on it. The open of a market that never closes is almost exactly the last close, and what is left is",
        "close to noise: compare with the last-close line above before using any number.",
    ]
    return "\n".join(lines) + "\n"


def _line(name: str, errors: Errors) -> str:
    mase = "–" if errors.mase is None else f"{errors.mase:.3f}"
    direction = "–" if errors.directional_accuracy is None else f"{100 * errors.directional_accuracy:.1f} %"
    return f"| {name} | {100 * errors.mre:.3f} % | {mase} | {direction} |"
