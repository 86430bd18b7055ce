"""trained_model: a candidate, trained on the training set that was prepared for its week."""

from datetime import UTC, datetime

from crypto_ml.forecasting.training import Plan, Trained, train
from crypto_ml.ledger.registry import Registry
from crypto_ml.settings import Settings
from crypto_ml.stages.scaler import TrainingSet, read_training_set, rows_of
from crypto_ml.storage.history import MarketHistory
from crypto_ml.storage.objects import ObjectStore


def train_week(
    week: str, history: MarketHistory, store: ObjectStore, settings: Settings, now: datetime
) -> tuple[TrainingSet, Trained]:
    """Train on the week's training set and add the bundle to the registry, as a candidate."""
    training_set = read_training_set(week, store)
    manifest = training_set.manifest
    rows = rows_of(manifest, history)
    trained = train(
        rows,
        training_set.split,
        training_set.statistics,
        Plan(target=settings.target, epochs=settings.epochs),
        label=week,
        manifest=manifest,
        created_at=now.astimezone(UTC).isoformat(),
    )
    Registry(store).add(trained.bundle)
    return training_set, trained
