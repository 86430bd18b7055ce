"""scaler and trained_model: a week's training set and its model, from market_history alone.

A training set is a state of the history (table version), the days before the end of the week, and the split; its
manifest says all of it. Preparing a week again adds an entry to the week's log and never changes one.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

import pandas as pd

from crypto_ml.digest import sha256_of
from crypto_ml.errors import Refused
from crypto_ml.forecasting.bundle import read_statistics, write_statistics
from crypto_ml.forecasting.scaling import SeriesStatistics
from crypto_ml.forecasting.schema import OBSERVATION
from crypto_ml.forecasting.sorting import as_frame
from crypto_ml.forecasting.training import Plan, Split, Trained, fit_scaler, rows_sha256, split_by_time, train
from crypto_ml.ledger.layout import MODELS, TRAINING_SETS
from crypto_ml.ledger.log import AppendOnlyLog
from crypto_ml.ledger.registry import Registry
from crypto_ml.settings import Settings
from crypto_ml.storage.history import MarketHistory
from crypto_ml.storage.objects import ObjectStore


class NoTrainingSet(Refused):
    """A week whose scaler was never fitted."""


class HistoryChanged(Refused):
    """A history that no longer gives the rows a manifest names."""


@dataclass(frozen=True)
class TrainingSet:
    """The manifest of a week's training set, its hash, and the statistics fitted on its training rows."""

    manifest: Mapping[str, Any]
    sha256: str
    statistics: SeriesStatistics

    @property
    def split(self) -> Split:
        spans = self.manifest["split"]
        return Split(date.fromisoformat(spans["validation_from"]), date.fromisoformat(spans["holdout_from"]))


def prepare(week: str, as_of: date, history: MarketHistory, store: ObjectStore, code: str) -> TrainingSet:
    """Choose the rows before `as_of`, split them, fit the scaler, and record it all under the week."""
    version = history.version()
    rows, uploads = _rows(history, as_of, version)
    split = split_by_time(rows["date"])
    statistics = fit_scaler(rows, split)
    content = write_statistics(statistics)
    scaler_key = f"{MODELS}scalers/{sha256_of(content)}.json"
    store.create_or_same(scaler_key, content, content_type="application/json")
    days = rows["date"].dt.date
    manifest = {
        "source": "market_history",
        "week": week,
        "as_of": as_of.isoformat(),
        "history_version": version,
        "uploads": uploads,
        "symbols": int(rows["symbol"].nunique()),
        "rows": {
            "train": int((days < split.validation_from).sum()),
            "validation": int(((days >= split.validation_from) & (days < split.holdout_from)).sum()),
            "holdout": int((days >= split.holdout_from).sum()),
        },
        "rows_sha256": rows_sha256(rows),
        "split": {"validation_from": str(split.validation_from), "holdout_from": str(split.holdout_from)},
        "scaler": {"key": scaler_key, "sha256": sha256_of(content)},
        "code": code,
    }
    log = _log(week, store)
    while (entry := log.append(manifest, after=log.last_number())) is None:
        pass
    return _training_set(entry.document, statistics)


def read_training_set(week: str, store: ObjectStore) -> TrainingSet:
    """The training set last prepared for a week. Raises NoTrainingSet."""
    last = _log(week, store).last()
    if last is None:
        raise NoTrainingSet(f"no scaler was fitted for the week {week}; materialise scaler for that partition first")
    statistics = read_statistics(store.read(last.document["scaler"]["key"]))
    return _training_set(last.document, statistics)


def train_week(
    week: str, history: MarketHistory, store: ObjectStore, settings: Settings, now: datetime
) -> tuple[TrainingSet, Trained]:
    """Train on the week's training set and add the bundle to the registry, as a candidate."""
    training_set = read_training_set(week, store)
    manifest = training_set.manifest
    rows, _ = _rows(history, date.fromisoformat(manifest["as_of"]), manifest["history_version"])
    if rows_sha256(rows) != manifest["rows_sha256"]:
        raise HistoryChanged(
            f"version {manifest['history_version']} of market_history no longer gives the rows of the manifest of "
            f"{week}; its files were changed from outside: restore them"
        )
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


def _training_set(manifest: Mapping[str, Any], statistics: SeriesStatistics) -> TrainingSet:
    identity = {name: manifest[name] for name in ("rows_sha256", "split", "scaler")}
    return TrainingSet(manifest, sha256_of(repr(sorted(identity.items())).encode()), statistics)


def _rows(history: MarketHistory, as_of: date, version: int | None) -> tuple[pd.DataFrame, list[str]]:
    table = history.current_rows([*OBSERVATION, "upload_id"], before=as_of, version=version)
    uploads = sorted(table["upload_id"].unique().to_pylist())
    return as_frame(table.select(list(OBSERVATION))), uploads


def _log(week: str, store: ObjectStore) -> AppendOnlyLog:
    return AppendOnlyLog(store, f"{TRAINING_SETS}{week}/")
