"""scaler: a week's training set, from market_history alone, and the scaler fitted on its training rows.

A training set is what was known of the market at some moment, the days before the end of the week, and the split; its
manifest says all of it. What becomes known later never changes it. Preparing a week again adds an entry to the week's
log and never changes one.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from typing import Any, Final

import numpy as np
import pandas as pd
import pyarrow as pa

from crypto_ml.digest import sha256_of
from crypto_ml.engine.mapping import Engine
from crypto_ml.errors import Refused
from crypto_ml.forecasting.bundle import TRAINING_MANIFEST, ModelBundle, read_statistics, write_statistics
from crypto_ml.forecasting.current import Order
from crypto_ml.forecasting.pooled_scaler import PooledScaler, read_scaler, write_scaler
from crypto_ml.forecasting.scaling import SeriesStatistics
from crypto_ml.forecasting.schema import MINIMUM_OWN_ROWS, OBSERVATION, Target
from crypto_ml.forecasting.sorting import as_frame
from crypto_ml.forecasting.stationary_examples import ROWS_NEEDED, fit_pooled_scaler
from crypto_ml.forecasting.training_set import (
    Split,
    TooLittleHistory,
    first_trainable,
    fit_scaler,
    rows_sha256,
    split_by_time,
)
from crypto_ml.ledger.formats.training_manifest_v2 import CURRENT, FORMAT, order_of
from crypto_ml.ledger.layout import MODELS, TRAINING_SETS
from crypto_ml.ledger.log import AppendOnlyLog
from crypto_ml.stages.progress import logged
from crypto_ml.stages.ranges import current_rows
from crypto_ml.storage.history import SCHEMA, MarketHistory
from crypto_ml.storage.objects import ObjectStore

log: Final = logging.getLogger(__name__)
SOURCE: Final = "market_history"
WEEK: Final = timedelta(days=7)
MOST_ROWS_LOOKED_AT: Final = 1_000_000
"""Rows of a history up to which it is tried whether it can be trained on, before anybody trains."""


class NoTrainingSet(Refused):
    """A week whose scaler was never fitted, or a bundle that was trained elsewhere."""


class HistoryChanged(Refused):
    """A history that no longer gives the rows a manifest names."""


@dataclass(frozen=True)
class TrainingSet:
    """The manifest of a week's training set, its hash, and the scaler fitted on its training rows.

    days: the first and the last day of its rows; None where it was read again.
    """

    manifest: Mapping[str, Any]
    sha256: str
    scaler: SeriesStatistics | PooledScaler
    days: tuple[date, date] | None = None

    @property
    def split(self) -> Split:
        return split_of(self.manifest)


def prepare(
    week: str,
    as_of: date,
    history: MarketHistory,
    store: ObjectStore,
    *,
    known_by: datetime,
    code: str,
    target: Target = "relative_gap",
    engine: Engine | None = None,
) -> TrainingSet:
    """Choose the rows before `as_of` that were known at `known_by`, split them, fit the scaler, record it all.

    target: of the models that are to be trained on it; those of `gap` and `change` have the same scaler. engine: who
    reads the rows in shards; None: they are read here, and are the same.
    """
    manifest, rows = choose(week, as_of, history, known_by, engine)
    try:
        split = split_by_time(rows["date"])
        scaler, content = fitted_scaler(rows, split, target)
    except TooLittleHistory as too_little:
        told = _when_there_is_enough(week, as_of, history, known_by=known_by, target=target) or str(too_little)
        raise TooLittleHistory(told) from too_little
    scaler_key = f"{MODELS}scalers/{sha256_of(content)}.json"
    store.create_or_same(scaler_key, content, content_type="application/json")
    days = rows["date"].to_numpy("datetime64[D]")
    first_valid, first_held = np.datetime64(split.validation_from), np.datetime64(split.holdout_from)
    manifest |= {
        "rows": {
            "train": int((days < first_valid).sum()),
            "validation": int(((days >= first_valid) & (days < first_held)).sum()),
            "holdout": int((days >= first_held).sum()),
        },
        "split": {"validation_from": str(split.validation_from), "holdout_from": str(split.holdout_from)},
        "scaler": {"key": scaler_key, "sha256": sha256_of(content), "pooled": isinstance(scaler, PooledScaler)},
        "code": code,
    }
    log = _log(week, store)
    while (entry := log.append(manifest, after=log.last_number())) is None:
        pass
    return replace(_training_set(entry.document, scaler), days=(days.min().astype(date), days.max().astype(date)))


def fitted_scaler(rows: pd.DataFrame, split: Split, target: Target) -> tuple[SeriesStatistics | PooledScaler, bytes]:
    """The scaler that models of a target need, and its content. Raises TooLittleHistory, NotInstalled."""
    if target == "relative_gap":
        pooled = fit_pooled_scaler(rows, split)
        return pooled, write_scaler(pooled)
    statistics = fit_scaler(rows, split)
    return statistics, write_statistics(statistics)


def why_not_yet(week: str, as_of: date, history: MarketHistory, target: Target = "relative_gap") -> str | None:
    """Why a model of a week is not worth the training, or cannot be trained; None where it can.

    Only days are read, and of a history so large that it surely has enough of them no more than that.
    """
    days = history.rows_by_day()
    if not days:
        return "there is no market history to train on; drop files into uploads/ first"
    if (newest := max(days)) < as_of - WEEK:
        return f"no row of the week {week} has come; the newest is of {newest}, and models of earlier weeks know it"
    if sum(days.values()) > MOST_ROWS_LOOKED_AT:
        return None
    rows = as_frame(history.current_rows(["symbol", "date"]))
    return None if first_trainable(rows, [as_of], _needed(target)) else _too_early(week, as_of, rows, target)


def _needed(target: Target) -> int:
    """Training rows that a series needs for the scaler of a target."""
    return ROWS_NEEDED if target == "relative_gap" else MINIMUM_OWN_ROWS


def _when_there_is_enough(
    week: str, as_of: date, history: MarketHistory, *, known_by: datetime, target: Target
) -> str | None:
    """What a week without a training set is told: where the history begins, and the first week that has one.

    None where nothing was known by then.
    """
    version = history.version_known_by(known_by)
    if version is None:
        return None
    rows = as_frame(history.current_rows(["symbol", "date"], version=version, known_by=known_by))
    return _too_early(week, as_of, rows, target) if len(rows) else None


def _too_early(week: str, as_of: date, rows: pd.DataFrame, target: Target) -> str:
    """What to say of a week that is too early; `rows` are those there are, of whatever days."""
    first, last = rows["date"].min().date(), rows["date"].max().date()
    count = max((last - as_of) // WEEK + 2, 1)
    begins = f"no model can be trained for the week {week}: history begins {first}"
    if end := first_trainable(rows, [as_of + WEEK * n for n in range(count)], _needed(target)):
        return f"{begins}; the first week that can be trained is {end - WEEK}"
    return f"{begins} and ends {last}, which is too short for any week yet; a model needs some weeks of it"


def choose(
    week: str, as_of: date, history: MarketHistory, known_by: datetime, engine: Engine | None = None
) -> tuple[dict[str, Any], pd.DataFrame]:
    """The rows of a week's training set, and what names them: what the manifest begins with.

    `known_by` in it is when the last became known of what was known of those days (a retraction is known since it was
    decided), and `history_version` the newest version known then.
    """
    version = history.version_known_by(known_by)
    table = _known_rows(history, as_of, known_by, version, CURRENT, engine=engine)
    known = None if version is None else history.last_known(before=as_of, version=version, known_by=known_by)
    newest = known or known_by
    rows = as_frame(table.select(list(OBSERVATION)))
    manifest = {
        "format": FORMAT,
        "source": SOURCE,
        "week": week,
        "as_of": as_of.isoformat(),
        "known_by": newest.isoformat(),
        "history_version": history.version_known_by(newest),
        "current": CURRENT,
        "uploads": sorted(table["upload_id"].unique().to_pylist()),
        "symbols": int(rows["symbol"].nunique()),
        "rows_sha256": rows_sha256(rows),
    }
    return manifest, rows


def rows_of(manifest: Mapping[str, Any], history: MarketHistory, engine: Engine | None = None) -> pd.DataFrame:
    """The rows that a manifest names, read again. engine: see `prepare`. Raises NoTrainingSet, HistoryChanged."""
    if manifest.get("source") != SOURCE:
        raise NoTrainingSet(f"it was not trained from this market history but on {manifest.get('source', 'nothing')}")
    known_by, version = datetime.fromisoformat(manifest["known_by"]), manifest["history_version"]
    table = _known_rows(
        history, date.fromisoformat(manifest["as_of"]), known_by, version, order_of(manifest), engine=engine
    )
    rows = as_frame(table.select(list(OBSERVATION)))
    if rows_sha256(rows) != manifest["rows_sha256"]:
        raise HistoryChanged(
            f"version {version} of market_history no longer gives the rows of the manifest of {manifest['week']}; its "
            "files were changed from outside: restore them"
        )
    return rows


def split_of(manifest: Mapping[str, Any]) -> Split:
    """Where the spans of a manifest begin."""
    spans = manifest["split"]
    return Split(date.fromisoformat(spans["validation_from"]), date.fromisoformat(spans["holdout_from"]))


def training_rows(bundle: ModelBundle, history: MarketHistory) -> tuple[pd.DataFrame, Split]:
    """The rows and spans that a bundle was trained on. Raises NoTrainingSet where it came from elsewhere."""
    manifest = bundle.document(TRAINING_MANIFEST)
    return rows_of(manifest, history), split_of(manifest)


def read_training_set(week: str, store: ObjectStore) -> TrainingSet:
    """The training set last prepared for a week. Raises NoTrainingSet."""
    last = _log(week, store).last()
    if last is None:
        raise NoTrainingSet(f"no scaler was fitted for the week {week}; materialise scaler for that partition first")
    kept = last.document["scaler"]
    content = store.read(kept["key"])
    return _training_set(last.document, read_scaler(content) if kept.get("pooled") else read_statistics(content))


def _training_set(manifest: Mapping[str, Any], scaler: SeriesStatistics | PooledScaler) -> TrainingSet:
    identity = {name: manifest[name] for name in ("rows_sha256", "split", "scaler")}
    return TrainingSet(manifest, sha256_of(repr(sorted(identity.items())).encode()), scaler)


def _known_rows(
    history: MarketHistory,
    as_of: date,
    known_by: datetime,
    version: int | None,
    order: Order,
    *,
    engine: Engine | None,
) -> pa.Table:
    if version is None:  # nothing was known by then, whatever is known now
        return SCHEMA.empty_table()
    columns = [*OBSERVATION, "upload_id"]
    if engine is not None:
        tell = logged(log, f"training set before {as_of}")
        return current_rows(
            engine, history, columns, before=as_of, version=version, known_by=known_by, order=order, tell=tell
        )
    return history.current_rows(columns, before=as_of, version=version, known_by=known_by, order=order)


def _log(week: str, store: ObjectStore) -> AppendOnlyLog:
    return AppendOnlyLog(store, f"{TRAINING_SETS}{week}/")
