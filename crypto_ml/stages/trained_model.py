"""trained_model: a candidate, trained on the training set that was prepared for its week."""

import logging
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Final

from crypto_ml.forecasting.evaluation import Verdict, recency_verdict
from crypto_ml.forecasting.plan import Plan
from crypto_ml.forecasting.trained import Trained
from crypto_ml.forecasting.training import train
from crypto_ml.ledger.registry import Registry
from crypto_ml.settings import Settings
from crypto_ml.stages.progress import logged
from crypto_ml.stages.scaler import TrainingSet, read_training_set, rows_of
from crypto_ml.storage.history import MarketHistory
from crypto_ml.storage.objects import ObjectStore

log: Final = logging.getLogger(__name__)


@dataclass(frozen=True)
class Candidate:
    """A model and what it was trained on; `recency` says whether that reaches into the week it is named by."""

    training_set: TrainingSet
    trained: Trained
    recency: Verdict


def train_week(week: str, history: MarketHistory, store: ObjectStore, settings: Settings, now: datetime) -> Candidate:
    """Train on the week's training set and add the bundle to the registry, as a candidate."""
    training_set = read_training_set(week, store)
    manifest = training_set.manifest
    rows = rows_of(manifest, history)
    trained = train(
        rows,
        training_set.split,
        training_set.statistics,
        Plan(target=settings.target, epochs=settings.epochs, drawn="each epoch"),
        label=week,
        manifest=manifest,
        created_at=now.astimezone(UTC).isoformat(),
        tell=logged(log, f"model of the week {week}"),
    )
    Registry(store).add(trained.bundle)
    newest: date = rows["date"].max().date()
    return Candidate(training_set, trained, recency_verdict(newest, date.fromisoformat(manifest["as_of"])))
