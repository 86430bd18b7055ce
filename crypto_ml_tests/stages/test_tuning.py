"""A search for parameters sees nothing of the holdout, is recorded with its trials, and is used by later retrains."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from crypto_ml.audit.retraining import retrained
from crypto_ml.errors import Refused
from crypto_ml.forecasting.bundle import TRAINING_MANIFEST
from crypto_ml.forecasting.plan import Plan
from crypto_ml.forecasting.training_set import Split, split_by_time
from crypto_ml.forecasting.tuning import FOLDS, tune
from crypto_ml.settings import Settings
from crypto_ml.stages.scaler import prepare
from crypto_ml.stages.trained_model import train_week
from crypto_ml.stages.tuning import tune_learner, tuning_for
from crypto_ml.storage.history import MarketHistory
from crypto_ml.storage.objects import ObjectStore
from crypto_ml_tests.forecasting.test_relative_training import moved, skilled
from crypto_ml_tests.stages.test_training_set import append

T = datetime(2020, 1, 1, tzinfo=UTC)
PLAN = Plan(target="relative_gap", learner="absolute", most_windows=600)


def test_rows_of_the_holdout_change_no_trial() -> None:
    rows = skilled()
    split = split_by_time(rows["date"])
    tuned = tune(rows, split, PLAN, trials=3)
    assert tune(moved(rows, split.holdout_from), split, PLAN, trials=3) == tuned
    assert len(tuned.folds) == FOLDS
    assert max(last for _, last in tuned.folds) < str(split.holdout_from)
    losses = [one.loss for one in tuned.trials if one.loss is not None]
    assert tuned.trials[0].parameters == {"penalty": 0.0}  # what there is without a search
    assert len(losses) == 3 and tuned.best.loss == min(losses)
    assert tuned.plan == replace(PLAN, parameters=tuned.best.parameters)


def test_a_learner_without_parameters_is_refused() -> None:
    rows = skilled()
    with pytest.raises(Refused, match="last_close has no parameters to search for"):
        tune(rows, split_by_time(rows["date"]), replace(PLAN, learner="last_close"), trials=1)


def test_a_retrain_uses_the_last_tuning_that_has_not_seen_its_holdout_and_its_manifest_keeps_every_trial(
    store: ObjectStore,
) -> None:
    rows = skilled()
    rows = rows.assign(line=range(2, len(rows) + 2))
    history = MarketHistory(store, "history-tuned")
    append(history, rows, T, "00000001.0")
    tuning, tuned = tune_learner(PLAN, history, store, T, trials=2, seconds=60)
    as_of = rows["date"].max().date() + timedelta(days=1)
    settings = Settings(learners="absolute")
    for week, before, uses in (("later", as_of, True), ("earlier", as_of - timedelta(days=60), False)):
        prepare(week, before, history, store, known_by=T, code="code")
        candidate = train_week(week, history, store, settings, T)
        bundle = next(one.bundle for one in candidate.all if one.learner == "absolute")
        manifest, plan = bundle.document(TRAINING_MANIFEST), bundle.manifest["about"]["plan"]
        assert plan["parameters"] == (tuning.parameters if uses else {})
        assert (len(manifest["tuning"]["trials"]) == len(tuned.trials)) if uses else "tuning" not in manifest
        retrained(bundle, history)
    split = split_by_time(rows["date"])
    assert tuning_for("absolute", split, store) == tuning
    assert tuning_for("absolute", Split(split.validation_from, split.holdout_from - timedelta(days=1)), store) is None
    assert tuning_for("boosting", split, store) is None
