"""refreshed_rule: the champion's network with a serving rule of today, as a candidate that names where it came from.

What comes of it is a bundle like any other: written once, judged by the same gates, promoted by somebody or not at all.
Its training manifest is that of the model it came from, so that the same holdout tells of both, and says beside it
which model that was and which rows the rule was taken from.
"""

import logging
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final

from crypto_ml.deployment import Deployment
from crypto_ml.errors import Refused
from crypto_ml.extras import require_training
from crypto_ml.forecasting.bundle import TRAINING_MANIFEST, ModelBundle, with_rule
from crypto_ml.forecasting.columns import Columns
from crypto_ml.forecasting.comparison import fitted_before
from crypto_ml.forecasting.intervals import CALIBRATION_DAYS
from crypto_ml.forecasting.refreshed_rule import Refreshed, refreshed
from crypto_ml.forecasting.schema import PRICES
from crypto_ml.forecasting.stationary import LOOK_BACK
from crypto_ml.forecasting.trained import METRICS, as_document
from crypto_ml.stages.monitoring.live_predictions import read_series
from crypto_ml.stages.scaler import SOURCE

log: Final = logging.getLogger(__name__)
CARD: Final = "MODEL_CARD.md"
REFRESHED: Final = "refreshed"
"""The entry of the training manifest that names the model whose network it is."""


class NothingToRefresh(Refused):
    """A champion, or a history, of which no rule can be made anew."""


@dataclass(frozen=True)
class Candidate:
    """A refreshed model, what it was made of, and the model that it came from."""

    bundle: ModelBundle
    found: Refreshed
    parent: ModelBundle


def refresh(deployment: Deployment, version: str, now: datetime) -> Candidate:
    """Make the rule of a model anew, and add the model to the registry.

    Raises NothingToRefresh, NoRule, NotInstalled, and what store and history do.
    """
    require_training("Refreshing a serving rule")
    parent, history = deployment.bundle(version), deployment.history
    history_version, ends = history.version(), history.days()
    if history_version is None or ends is None:
        raise NothingToRefresh("the market history has no rows yet; drop files into uploads/ first")
    # the rows before those that are used measure them
    days = CALIBRATION_DAYS + 2 * LOOK_BACK
    symbols, _ = read_series(history, days)
    rows = history.current_rows(
        ["symbol", "date", *PRICES],
        symbols=symbols,
        since=ends[1] - timedelta(days - 1),
        version=history_version,
    )
    if not rows.num_rows:
        raise NothingToRefresh("all rows of the last year were retracted; drop files into uploads/ first")
    found = refreshed(
        parent,
        Columns.of(rows.drop_columns(["date"])),
        rows["date"].to_numpy().astype("datetime64[D]"),
        _unseen_from(parent, ends[1]),
    )
    bundle = _bundle(parent, found, history_version, now)
    deployment.registry.add(bundle)
    log.info("%s is %s with the rule of %s", bundle.version, parent.version, found.last_day)
    return Candidate(bundle, found, parent)


def root_of(bundle: ModelBundle) -> str:
    """The model that a network was trained as, however often its rule was made anew since."""
    told = bundle.document(TRAINING_MANIFEST).get(REFRESHED)
    return str(told["root"]) if told else bundle.version


def _unseen_from(bundle: ModelBundle, newest: date) -> date:
    """The first day that the network was not fitted on; of one that was trained elsewhere none is known."""
    manifest = bundle.document(TRAINING_MANIFEST)
    found = fitted_before(bundle) if manifest.get("source") == SOURCE else None
    return found or newest + timedelta(1)


def _bundle(parent: ModelBundle, found: Refreshed, history_version: int, now: datetime) -> ModelBundle:
    root = root_of(parent)
    said = {
        "of": parent.version,
        "of_sha256": parent.sha256,
        "root": root,
        "last_day": str(found.last_day),
        "history_version": history_version,
    }
    metrics: dict[str, Any] = parent.document(METRICS)
    if found.judgement is not None:
        metrics = {**metrics, "verdicts": {**metrics.get("verdicts", {}), "last_close": found.judgement.to_dict()}}
    documents = {
        TRAINING_MANIFEST: as_document({**parent.document(TRAINING_MANIFEST), REFRESHED: said}),
        METRICS: as_document(metrics),
        CARD: _card(parent, found).encode(),
    }
    about = {
        **parent.manifest["about"],
        "origin": "refreshed",
        "created_at": now.astimezone(UTC).isoformat(),
        REFRESHED: said,
    }
    return with_rule(parent, found.rule, label=f"{root}-r{found.last_day:%Y%m%d}", about=about, documents=documents)


def _card(parent: ModelBundle, found: Refreshed) -> str:
    word = found.judgement.explanation if found.judgement else "λ is what it was."
    quantiles = ", ".join(f"{level:g}: {one:.3f}" for level, one in sorted(found.rule.quantiles.items()))
    said = f"This is {parent.version} with a serving rule of {found.last_day}: λ = {found.rule.shrink:g}"
    card = parent.files.get(CARD, b"").decode()
    return f"{said}, interval quantiles {quantiles}. {word} What follows is the card of that model.\n\n{card}"
