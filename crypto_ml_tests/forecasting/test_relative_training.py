"""The training of a model of relative gaps: it serves what was shown to be better, and otherwise the last close."""

from dataclasses import replace
from datetime import date, timedelta

import numpy as np
import pandas as pd
import pytest

from crypto_ml.errors import Refused
from crypto_ml.forecasting.bundle import NETWORK, SCALER, ModelBundle
from crypto_ml.forecasting.holdout import holdout_predictions
from crypto_ml.forecasting.plan import LearnerName, Plan
from crypto_ml.forecasting.pooled_scaler import write_scaler
from crypto_ml.forecasting.relative_training import judged_columns
from crypto_ml.forecasting.schema import OBSERVATION, PRICES
from crypto_ml.forecasting.scoring import score_rows
from crypto_ml.forecasting.shrinkage import shrunk_network
from crypto_ml.forecasting.simulation import simulate_market
from crypto_ml.forecasting.stationary_examples import ROWS_NEEDED, fit_pooled_scaler
from crypto_ml.forecasting.trained import METRICS, Trained
from crypto_ml.forecasting.training import train
from crypto_ml.forecasting.training_set import Split, TooLittleHistory, fit_scaler, split_by_time
from crypto_ml.forecasting.verdicts import Judgement, judge
from crypto_ml_tests.forecasting.markets import FIRST_DAY, market

PLAN = Plan(target="relative_gap", learner="absolute", most_windows=1500)
DAYS = 460


def skilled() -> pd.DataFrame:
    """A market whose opens lean against the day before, and by much: there is something to learn."""
    rows = simulate_market(8, DAYS, 3, FIRST_DAY)
    rows = rows.assign(date=pd.to_datetime(rows["date"]))[list(OBSERVATION)].astype(dict(OBSERVATION))
    before = rows.groupby("symbol")["close"].shift(1)
    body = rows.assign(body=np.log(rows["close"] / rows["open"])).groupby("symbol")["body"].shift(1)
    leaning = (before * np.exp(-0.15 * body)).where(before.notna(), rows["open"])
    opens = 0.5 * leaning + 0.5 * rows["open"]
    return rows.assign(
        open=opens,
        high=np.maximum(rows["high"], opens),
        low=np.minimum(rows["low"], opens),
    )


def trained_on(rows: pd.DataFrame, split: Split, plan: Plan = PLAN) -> Trained:
    return train(rows, split, fit_pooled_scaler(rows, split), plan, label="week", manifest={"rows": {}}, created_at="")


def moved(rows: pd.DataFrame, first: date) -> pd.DataFrame:
    """The same history up to a day, and another one from there on."""
    later = rows["date"].to_numpy("datetime64[D]") >= np.datetime64(first)
    factor = np.where(later, np.random.default_rng(0).uniform(0.5, 2, len(rows)), 1.0)
    return rows.assign(**{name: rows[name] * factor for name in PRICES})


@pytest.fixture(scope="module")
def history() -> pd.DataFrame:
    return skilled()


@pytest.fixture(scope="module")
def split(history: pd.DataFrame) -> Split:
    return split_by_time(history["date"])


@pytest.fixture(scope="module")
def better(history: pd.DataFrame, split: Split) -> Trained:
    return trained_on(history, split)


@pytest.fixture(scope="module")
def no_better() -> tuple[pd.DataFrame, Split, Trained]:
    """A model of random walks, which have nothing to learn."""
    rows = market({f"C{number}": DAYS for number in range(8)})
    split = split_by_time(rows["date"])
    return rows, split, trained_on(rows, split)


def test_a_model_that_beats_the_last_close_serves_what_it_learnt(
    better: Trained, history: pd.DataFrame, split: Split
) -> None:
    assert better.judgement is not None and better.judgement.word == "BEATS"
    rule = better.bundle.rule
    assert rule is not None and rule.shrink > 0
    assert rule.made_from["shrinkage"]["lambda"] == rule.shrink
    served = holdout_predictions(history, split, better.bundle)
    assert (served["pred_open"] != served["last_close"]).mean() > 0.9
    assert better.evaluation.overall.network.mre < better.evaluation.overall.last_close.mre


def test_what_was_judged_is_what_is_served(better: Trained, history: pd.DataFrame, split: Split) -> None:
    assert better.judgement is not None
    served = holdout_predictions(history, split, better.bundle)
    assert judge(**judged_columns(served), level=PLAN.level) == better.judgement


def test_a_model_that_does_not_beat_the_last_close_serves_it_and_says_what_validation_chose(
    no_better: tuple[pd.DataFrame, Split, Trained],
) -> None:
    rows, split, trained = no_better
    assert trained.judgement is not None and trained.judgement.word != "BEATS"
    rule, metrics = trained.bundle.rule, trained.bundle.document(METRICS)
    assert rule is not None and rule.serves_last_close
    assert metrics["shrinkage"]["served"] == 0.0
    assert metrics["shrinkage"]["validation"] == rule.made_from["shrinkage"]["lambda"]
    assert Judgement.read(metrics["verdicts"]["last_close"]) == trained.judgement
    served = holdout_predictions(rows, split, trained.bundle)
    assert served["pred_open"].tolist() == served["last_close"].tolist()
    assert trained.baseline.passed
    assert "serves the last close itself (λ = 0)" in trained.bundle.files["MODEL_CARD.md"].decode()


@pytest.mark.parametrize("learner", ["boosting", "last_close"])
def test_other_learners_take_the_same_road(learner: LearnerName, history: pd.DataFrame, split: Split) -> None:
    parameters = {"trees": 20, "rows_in_leaf": 40, "learning_rate": 0.2} if learner == "boosting" else {}
    trained = trained_on(history, split, replace(PLAN, learner=learner, parameters=parameters))
    assert trained.learner == learner
    assert trained.onnx.passed
    assert trained.judgement is not None
    assert trained.judgement.word == ("BEATS" if learner == "boosting" else "TIES")


def test_coverage_in_the_metrics_is_that_of_the_intervals_that_are_answered(
    better: Trained, history: pd.DataFrame, split: Split
) -> None:
    metrics = better.bundle.document(METRICS)
    held = history["date"].dt.date >= split.holdout_from
    asked = history.assign(file=0, line=0, context=~held)
    for level, said in metrics["coverage"]["by_level"].items():
        answered = score_rows(asked, better.bundle, "one_step", float(level))
        inside = (answered["val_open"] >= answered["pred_low"]) & (answered["val_open"] <= answered["pred_high"])
        assert inside.mean() == pytest.approx(said["coverage"], abs=1e-12)
        assert abs(inside.mean() - float(level)) < 0.06
    assert set(metrics["coverage"]["by_coin"]) == set(history["symbol"])
    assert sum(one["rows"] for one in metrics["coverage"]["by_month"].values()) == metrics["coverage"]["rows"]
    assert metrics["range"]["ratio"] < 1
    assert 0.8 < metrics["range"]["below_bound"]["0.90"] < 0.97


def test_importance_names_what_the_gap_was_made_from(better: Trained) -> None:
    importance = better.bundle.document(METRICS)["importance"]
    assert (
        max(("body", "log_gap", "upper_shadow", "lower_shadow", "close_position"), key=importance.__getitem__) == "body"
    )
    assert "| body | +" in better.bundle.files["MODEL_CARD.md"].decode()
    assert importance["row 1 before"] > 0.05 > importance["row 4 before"]


def test_the_holdout_changes_the_verdict_and_nothing_that_was_fitted(
    better: Trained, history: pd.DataFrame, split: Split
) -> None:
    other = trained_on(moved(history, split.holdout_from), split)
    rule, theirs = better.bundle.rule, other.bundle.rule
    assert rule is not None and theirs is not None
    assert other.bundle.files[SCALER] == better.bundle.files[SCALER]
    networks = [shrunk_network(one.bundle.files[NETWORK], 1.0, 1.0) for one in (better, other)]
    assert networks[0] == networks[1]
    assert (theirs.quantiles, theirs.range) == (rule.quantiles, rule.range)
    assert theirs.made_from["shrinkage"] == rule.made_from["shrinkage"]
    assert other.judgement != better.judgement


def test_the_same_rows_give_the_same_bundle_however_they_are_cut_and_whether_pictures_can_be_drawn(
    better: Trained, history: pd.DataFrame, split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("crypto_ml.forecasting.training_set.ROWS_AT_ONCE", 700)
    monkeypatch.setattr("crypto_ml.forecasting.relative_training.can_draw", lambda: False)
    again = trained_on(history, split)
    assert again.bundle.sha256 == better.bundle.sha256
    drawn = {name for name in better.bundle.files if name.startswith("pictures/")}
    assert {
        f"pictures/{name}.png" for name in ("loss", "holdout", "predictions", "verdict", "coverage", "importance")
    } == drawn
    assert ModelBundle.from_files(again.bundle.files).rule == better.bundle.rule


def test_the_scaler_is_fitted_on_training_rows_alone_and_knows_the_series_that_have_enough_of_them() -> None:
    rows = pd.concat([market({"LONG": 60}), market({"NEW": 60}).iloc[40 - ROWS_NEEDED + 1 :]], ignore_index=True)
    split = Split(FIRST_DAY + timedelta(days=40), FIRST_DAY + timedelta(days=50))
    scaler = fit_pooled_scaler(rows, split)
    assert scaler.symbols == ("LONG",)
    assert write_scaler(fit_pooled_scaler(moved(rows, split.validation_from), split)) == write_scaler(scaler)
    a_day_later = Split(FIRST_DAY + timedelta(days=41), split.holdout_from)
    assert fit_pooled_scaler(rows, a_day_later).symbols == ("LONG", "NEW")
    with pytest.raises(TooLittleHistory, match="no series has 12 rows"):
        fit_pooled_scaler(rows[rows["symbol"] == "NEW"], split)


def test_a_scaler_of_another_target_is_refused(history: pd.DataFrame, split: Split) -> None:
    for scaler, target in ((fit_scaler(history, split), "relative_gap"), (fit_pooled_scaler(history, split), "gap")):
        plan = replace(PLAN, target=target)  # type: ignore[arg-type]
        with pytest.raises(Refused, match=f"not fitted for models of the target {target}"):
            train(history, split, scaler, plan, label="x", manifest={}, created_at="")


def test_a_history_without_examples_is_refused(history: pd.DataFrame, split: Split) -> None:
    scaler = fit_pooled_scaler(history, split)
    with pytest.raises(TooLittleHistory, match="enough earlier rows"):
        train(history.groupby("symbol").head(8), split, scaler, PLAN, label="x", manifest={}, created_at="")
