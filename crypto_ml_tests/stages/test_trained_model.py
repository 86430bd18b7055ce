"""The models of a week: every learner a candidate with its word, the best that BEATS taken, else the last close."""

import uuid
from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pytest

from crypto_ml.audit.differences import Differs
from crypto_ml.audit.retraining import retrained
from crypto_ml.forecasting.bundle import NETWORK, ModelBundle, with_rule
from crypto_ml.forecasting.onnx_graph import stored_arrays
from crypto_ml.forecasting.serving_rule import ServingRule
from crypto_ml.forecasting.trained import METRICS
from crypto_ml.forecasting.verdicts import LEVEL_OF_EVERY_RETRAIN
from crypto_ml.ledger.registry import Registry
from crypto_ml.settings import Settings
from crypto_ml.stages.scaler import NoTrainingSet, prepare
from crypto_ml.stages.trained_model import Candidate, train_week
from crypto_ml.storage.history import MarketHistory
from crypto_ml.storage.objects import ObjectStore, connect
from crypto_ml_tests.forecasting.markets import FIRST_DAY, market
from crypto_ml_tests.forecasting.test_relative_training import DAYS, skilled
from crypto_ml_tests.stages.test_training_set import append

T = datetime(2020, 1, 1, tzinfo=UTC)
AS_OF = FIRST_DAY + timedelta(days=DAYS)
WEEK = str(AS_OF - timedelta(days=7))
SETTINGS = Settings(learners="boosting,absolute")


def week_of(rows: pd.DataFrame, store: ObjectStore, table: str) -> tuple[Candidate, MarketHistory]:
    history = MarketHistory(store, table)
    append(history, rows, T, "00000001.0")
    prepare(WEEK, AS_OF, history, store, known_by=T, code="code")
    return train_week(WEEK, history, store, SETTINGS, T), history


@pytest.fixture(scope="module")
def store(bucket: str) -> ObjectStore:
    return connect(bucket, f"tests/{uuid.uuid4().hex}")


@pytest.fixture(scope="module")
def week(store: ObjectStore) -> tuple[Candidate, MarketHistory]:
    lines = skilled()
    return week_of(lines.assign(line=range(2, len(lines) + 2)), store, "history-skilled")


def test_the_best_learner_that_beats_the_last_close_is_taken_all_are_candidates_and_come_out_again(
    week: tuple[Candidate, MarketHistory], store: ObjectStore
) -> None:
    candidate, history = week
    assert {one.learner for one in candidate.all} == {"boosting", "absolute"}
    words = {one.learner: one.judgement for one in candidate.all}
    assert all(word is not None and word.word == "BEATS" for word in words.values())
    assert {word.level for word in words.values() if word} == {LEVEL_OF_EVERY_RETRAIN / 2}
    assert candidate.trained.judgement == min((word for word in words.values() if word), key=lambda word: word.mean)
    registry = Registry(store)
    assert set(registry.versions()) == {one.bundle.version for one in candidate.all}
    for one in candidate.all:
        kept = registry.load(one.bundle.version)
        assert kept.document(METRICS)["learner"] == one.learner
        assert retrained(kept, history) is None
    rule = candidate.trained.bundle.rule
    assert rule is not None
    other = with_rule(
        candidate.trained.bundle,
        ServingRule(rule.shrink, rule.cap, {0.9: 1.0}),
        label=WEEK,
        about=candidate.trained.bundle.manifest["about"],
        documents={},
    )
    with pytest.raises(Differs, match="same network and another serving rule"):
        retrained(other, history)
    with pytest.raises(NoTrainingSet, match="another target than gap; materialise scaler"):
        train_week(WEEK, history, store, Settings(target="gap"), T)


def moved(bundle: ModelBundle, by: float, **about: str) -> ModelBundle:
    """A bundle whose weights are so many times theirs, and which says something else of where it was trained."""
    network = bundle.files[NETWORK]
    weights = max(stored_arrays(network).values(), key=np.size)
    others = (weights * np.float32(by)).astype(np.float32)
    assert network.count(weights.tobytes()) == 1
    return ModelBundle(
        {**bundle.manifest, "sha256": "another", "about": {**bundle.manifest["about"], **about}},
        {**bundle.files, NETWORK: network.replace(weights.tobytes(), others.tobytes())},
    )


def test_weights_of_another_processor_are_equal_within_rounding_and_any_others_differ(
    week: tuple[Candidate, MarketHistory],
) -> None:
    candidate, history = week
    (trained,) = (one.bundle for one in candidate.all if one.learner == "absolute")
    said = retrained(moved(trained, 1 + 1e-6, processor="another one"), history)
    assert said is not None
    assert "EQUAL WITHIN ROUNDING" in said
    assert "trained on another one, now on" in said
    for other in (moved(trained, 1 + 1e-6), moved(trained, 1.5, processor="another one")):
        with pytest.raises(Differs, match="other weights"):
            retrained(other, history)


def test_where_no_learner_beats_the_last_close_it_is_taken_itself_with_its_intervals(store: ObjectStore) -> None:
    candidate, _ = week_of(market({f"C{number}": DAYS for number in range(8)}), store, "history-random")
    assert [one.learner for one in candidate.all] == ["boosting", "absolute", "last_close"]
    assert candidate.trained.learner == "last_close"
    assert candidate.trained.bundle.version in Registry(store).versions()
    for one in candidate.all:
        rule = one.bundle.rule
        assert rule is not None and rule.serves_last_close and set(rule.quantiles) == {0.8, 0.9, 0.95}
