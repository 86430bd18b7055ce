"""The model card of a bundle: what it is for, what it was made from, how good it is, in words a person reads."""

from collections.abc import Mapping
from typing import Any

from crypto_ml.forecasting.bundle import TRAINING_MANIFEST, ModelBundle
from crypto_ml.forecasting.evaluation import Errors, Evaluation, Verdict

_TARGETS = {
    "change": "the standardised change of the open since the row before",
    "gap": "the gap between the open and the last close, in units of the series' own gap deviation on training rows",
}


def model_card(bundle: ModelBundle, evaluation: Evaluation, baseline: Verdict) -> str:
    """A model card (Mitchell et al. 2019, doi:10.1145/3287560.3287596) in Markdown."""
    lines = [
        f"# Model {bundle.version}",
        "",
        "Predicts the next opening price of a cryptocurrency from its last five daily rows.",
        "",
        f"- Output of the network: {_TARGETS[bundle.target]}.",
        "- Architecture: bidirectional GRU, batch normalisation, two dense layers; input (5, 13), float32.",
        _training_data(bundle),
        "",
        *_on_the_holdout("network", evaluation),
        "",
        baseline.explanation,
        "",
        "## Not for",
        "",
        "Trading on it. The open of a market that never closes is almost exactly the last close, and what is left is",
        "close to noise: compare with the last-close line above before using any number.",
    ]
    return "\n".join(lines) + "\n"


def relative_model_card(
    bundle: ModelBundle, evaluation: Evaluation, architecture: str, metrics: Mapping[str, Any]
) -> str:
    """The same of a model of relative gaps: what it serves, what it would say by itself, how sure it is."""
    verdict, shrinkage = metrics["verdicts"]["last_close"], metrics["shrinkage"]
    raw, expected = metrics["raw"], metrics["range"]
    lines = [
        f"# Model {bundle.version}",
        "",
        "Predicts the next opening price of a cryptocurrency, says between which prices it will lie, and how wide the",
        "day will be.",
        "",
        _what_it_serves(verdict, shrinkage),
        "",
        f"- Learner: {metrics['learner']}. Architecture: {architecture}; input (5, 5), float32, without a unit.",
        "- Output: ln(next open / last close) in recent gap sizes of the series, shrunk by λ and capped at "
        f"{shrinkage['cap']:g} of them.",
        f"- λ chosen on validation rows: {shrinkage['validation']:g}; λ served: {shrinkage['served']:g}.",
        _training_data(bundle),
        "",
        *_on_the_holdout("what is served", evaluation),
        "",
        f"Shrunk by the λ that validation chose, against the last close: {verdict['word']}. {verdict['explanation']}",
        "",
        f"Neither shrunk nor capped: {raw['word']}. {raw['explanation']}",
        "",
        "## Intervals and ranges on the holdout",
        "",
    ]
    levels = metrics["coverage"].get("by_level", {})
    if levels:
        lines += ["| level | opens within | median width, % of the price |", "|---|---|---|"]
        lines += [
            f"| {100 * float(level):.0f} % | {100 * one['coverage']:.1f} % | {100 * one['median_width']:.3f} |"
            for level, one in levels.items()
        ]
    else:
        lines += ["There were too few gaps before the holdout for intervals; it answers without."]
    if expected:
        bounds = ", ".join(f"{100 * float(at):.0f} %: {100 * one:.1f} %" for at, one in expected["below_bound"].items())
        ratio = "–" if expected["ratio"] is None else f"{expected['ratio']:.3f}"
        lines += ["", f"Error of the expected range, as a share of that of the last range: {ratio}."]
        lines += [f"Ranges below their upper bound, by level: {bounds or 'no bound could be had'}."]
    if any(metrics["importance"].values()):
        lines += ["", "## What the output rests on", ""]
        lines += [
            "Loss added on the holdout by shuffling a part of the windows, before the output is shrunk, in percent:"
        ]
        lines += ["", "| feature, or row | loss added |", "|---|---|"]
        lines += [f"| {name} | {100 * value:+.2f} |" for name, value in metrics["importance"].items()]
    lines += [
        "",
        "## Not for",
        "",
        "Trading on it. Over rolling origins of three real markets nothing beat the last close at the next open; what",
        "can be had is how sure one may be of it, and the range of the day.",
    ]
    return "\n".join(lines) + "\n"


def _what_it_serves(verdict: Mapping[str, Any], shrinkage: Mapping[str, Any]) -> str:
    if shrinkage["served"]:
        return (
            f"**It serves the last close, corrected by λ = {shrinkage['served']:g} of what was learnt**: on its "
            "holdout that was better, by a test that luck seldom passes."
        )
    return (
        "**It serves the last close itself (λ = 0), with intervals**: on its holdout the learner was not shown to be "
        f"better ({verdict['word']}), and what was learnt is not used."
    )


def _training_data(bundle: ModelBundle) -> str:
    manifest = bundle.document(TRAINING_MANIFEST)
    rows = manifest.get("rows", {})
    return (
        f"- Training data: {manifest.get('source', 'unknown')}, up to {manifest.get('as_of', 'unknown')}, "
        f"{rows.get('train', 0):,} training, {rows.get('validation', 0):,} validation and {rows.get('holdout', 0):,} "
        f"holdout rows of {manifest.get('symbols', 0):,} series."
    )


def _on_the_holdout(name: str, evaluation: Evaluation) -> list[str]:
    overall = evaluation.overall
    return [
        "## On the holdout, which nothing was fitted on",
        "",
        "| prediction | mean relative error | MASE | directional accuracy |",
        "|---|---|---|---|",
        _line(name, overall.network),
        _line("last close", overall.last_close),
        _line("last open", overall.last_open),
    ]


def _line(name: str, errors: Errors) -> str:
    mase = "–" if errors.mase is None else f"{errors.mase:.3f}"
    direction = "–" if errors.directional_accuracy is None else f"{100 * errors.directional_accuracy:.1f} %"
    return f"| {name} | {100 * errors.mre:.3f} % | {mase} | {direction} |"
