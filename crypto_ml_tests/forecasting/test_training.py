"""Training sees what it may see: three spans of time, and nothing of the later ones in the earlier."""

import json
import sys
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crypto_ml.forecasting.bundle import NETWORK, SCALER, ModelBundle
from crypto_ml.forecasting.holdout import holdout_predictions
from crypto_ml.forecasting.plan import Plan
from crypto_ml.forecasting.progress import Progress, Tell, tell_nobody
from crypto_ml.forecasting.schema import MINIMUM_OWN_ROWS, OBSERVATION, PRICES
from crypto_ml.forecasting.scoring import score_rows
from crypto_ml.forecasting.simulation import simulate_market
from crypto_ml.forecasting.trained import METRICS, Trained
from crypto_ml.forecasting.training import train
from crypto_ml.forecasting.training_set import (
    SHARES,
    Split,
    TooLittleHistory,
    fit_scaler,
    rows_sha256,
    split_by_time,
)
from crypto_ml.forecasting.windows import DrawnWindows
from crypto_ml_tests.forecasting.markets import FIRST_DAY, market, model

DAYS = 100


def simulated(coins: int = 4, days: int = DAYS) -> pd.DataFrame:
    """Rows of a simulated market as history gives them."""
    rows = simulate_market(coins, days, 1, FIRST_DAY)
    return rows.assign(date=pd.to_datetime(rows["date"]))[list(OBSERVATION)].astype(dict(OBSERVATION))


def moved(rows: pd.DataFrame, first: date) -> pd.DataFrame:
    """The same history up to a day, and another one from there on."""
    later = rows["date"].to_numpy("datetime64[D]") >= np.datetime64(first)
    factor = np.where(later, np.random.default_rng(0).uniform(0.2, 5, len(rows)), 1.0)
    return rows.assign(**{name: rows[name] * factor for name in (*PRICES, "market")})


@given(st.lists(st.dates(date(2015, 1, 1), date(2015, 6, 1)), max_size=300))
def test_a_history_is_cut_into_three_spans_of_whole_days_or_refused(days: list[date]) -> None:
    dates = pd.Series(pd.to_datetime(days), dtype="datetime64[s]")
    try:
        split = split_by_time(dates)
    except TooLittleHistory:
        assert len(set(days)) < 3 or max(days.count(day) for day in set(days)) > 0.14 * len(days)
        return
    assert min(days) < split.validation_from < split.holdout_from <= max(days)
    training = sum(day < split.validation_from for day in days)
    fitted = sum(day < split.holdout_from for day in days)
    assert training <= SHARES[0] * len(days)
    assert fitted <= sum(SHARES) * len(days)
    # a span ends before its share by no more than the one day that would have gone beyond it
    assert training + days.count(split.validation_from) > int(SHARES[0] * len(days))
    assert fitted + days.count(split.holdout_from) > int(sum(SHARES) * len(days))


@pytest.mark.parametrize(
    ("days", "reason"), [(0, "drop files into uploads/ first"), (1, "some weeks"), (2, "some weeks")]
)
def test_too_little_history_is_refused_with_what_to_do(days: int, reason: str) -> None:
    with pytest.raises(TooLittleHistory, match=reason):
        split_by_time(market({"A": days, "B": days})["date"])


def test_series_too_short_to_scale_are_left_to_their_own_statistics() -> None:
    rows = pd.concat([market({"LONG": 60}), market({"NEW": 60}).iloc[51:], market({"SHORT": 60}).iloc[41:]])
    rows = rows.sort_values(["symbol", "date"], ignore_index=True)
    split = Split(FIRST_DAY + timedelta(days=50), FIRST_DAY + timedelta(days=55))
    assert fit_scaler(rows, split).symbols == ("LONG",)
    a_row_more = fit_scaler(rows, Split(FIRST_DAY + timedelta(days=41 + MINIMUM_OWN_ROWS), split.holdout_from))
    assert a_row_more.symbols == ("LONG", "SHORT")
    with pytest.raises(TooLittleHistory, match="no series has 10 rows"):
        fit_scaler(rows[rows["symbol"] != "LONG"], split)


@given(seed=st.integers(0, 1000), cut=st.integers(MINIMUM_OWN_ROWS, 35), coins=st.integers(1, 3))
def test_the_scaler_does_not_change_a_bit_with_rows_after_the_training_span(seed: int, cut: int, coins: int) -> None:
    rows = market(dict.fromkeys("ABC"[:coins], 40), seed)
    first = FIRST_DAY + timedelta(days=cut)
    split = Split(first, first + timedelta(days=2))
    expected = fit_scaler(rows, split)
    for other in (moved(rows, first), rows[rows["date"].dt.date < first]):
        found = fit_scaler(other, split)
        assert found.symbols == expected.symbols
        for name in ("mean", "scale", "gap_scale"):
            assert getattr(found, name).tobytes() == getattr(expected, name).tobytes()


@given(at=st.integers(0, 19), name=st.sampled_from([*PRICES, "market", "symbol", "date"]))
def test_a_training_set_is_named_by_all_of_it(at: int, name: str) -> None:
    rows = market({"A": 10, "B": 10})
    changed = rows.copy()
    if name == "symbol":
        changed.loc[at, name] = "C"
    elif name == "date":
        changed[name] = rows[name].where(rows.index != at, rows[name] + pd.Timedelta(days=1))
    else:
        changed[name] = np.where(changed.index == at, np.nextafter(rows[name], np.inf), rows[name])
    assert rows_sha256(changed) != rows_sha256(rows)
    assert rows_sha256(rows.assign(line=0, slug="x")) == rows_sha256(rows)


def test_the_holdout_is_predicted_from_everything_before_each_of_its_rows() -> None:
    rows, bundle = market({"BTC": 40, "LTC": 40}), model("gap")
    split = Split(FIRST_DAY + timedelta(days=20), FIRST_DAY + timedelta(days=30))
    held = holdout_predictions(rows, split, bundle)
    whole = score_rows(rows, bundle, "one_step")
    expected = whole[whole["date"].dt.date >= split.holdout_from]
    assert held["pred_open"].tolist() == expected["pred_open"].tolist()
    before = rows.groupby("symbol")[["open", "close"]].shift(1)[rows["date"].dt.date >= split.holdout_from]
    assert held["last_open"].tolist() == before["open"].tolist()
    assert held["last_close"].tolist() == before["close"].tolist()


def test_a_holdout_in_which_nothing_can_be_predicted_is_refused() -> None:
    rows = market({"BTC": 20})
    with pytest.raises(TooLittleHistory, match="nothing can be evaluated"):
        holdout_predictions(rows.iloc[:1], Split(FIRST_DAY, FIRST_DAY), model("gap"))


def trained_on(rows: pd.DataFrame, split: Split, tell: Tell = tell_nobody) -> Trained:
    named = {"label": "2018-04-01", "created_at": "now"}
    plan = Plan(epochs=1, batch_size=64)
    return train(rows, split, fit_scaler(rows, split), plan, **named, manifest={"rows": {}}, tell=tell)


@pytest.fixture(scope="module")
def history() -> pd.DataFrame:
    return simulated()


@pytest.fixture(scope="module")
def split(history: pd.DataFrame) -> Split:
    return split_by_time(history["date"])


@pytest.fixture(scope="module")
def told() -> list[Progress]:
    """What the training of `trained` told."""
    return []


@pytest.fixture(scope="module")
def trained(history: pd.DataFrame, split: Split, told: list[Progress]) -> Trained:
    return trained_on(history, split, told.append)


@pytest.fixture(scope="module")
def trained_with_another_holdout(history: pd.DataFrame, split: Split) -> Trained:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "matplotlib", None)  # as where no picture can be drawn
        return trained_on(moved(history, split.holdout_from), split)


def test_a_trained_bundle_loads_and_scores(trained: Trained, history: pd.DataFrame, tmp_path: Path) -> None:
    trained.bundle.write(tmp_path)
    loaded = ModelBundle.load(tmp_path)
    assert loaded.version == trained.bundle.version
    rows = history.assign(file=0, line=0, context=False)
    found = score_rows(rows, loaded, "one_step")
    assert np.isfinite(found["pred_open"]).all()
    assert len(found) == len(rows)
    assert found["pred_open"].tolist() == score_rows(rows, trained.bundle, "one_step")["pred_open"].tolist()


def test_the_same_training_rows_give_the_same_version_whatever_the_holdout_holds_drawn_or_not(
    trained: Trained, trained_with_another_holdout: Trained
) -> None:
    same, other = trained.bundle, trained_with_another_holdout.bundle
    assert other.version == same.version
    for name in (NETWORK, SCALER, "network.keras"):
        assert other.files[name] == same.files[name]
    assert other.files[METRICS] != same.files[METRICS]
    assert set(same.files) - set(other.files) == {
        "pictures/loss.png",
        "pictures/holdout.png",
        "pictures/predictions.png",
    }


def test_a_training_tells_every_batch_with_its_epoch_and_loss(trained: Trained, told: list[Progress]) -> None:
    assert [one.done for one in told] == list(range(1, len(told) + 1))
    assert {(one.what, one.total, one.unit) for one in told} == {("training", len(told), "batches")}
    assert len(told) > 1
    loss = trained.bundle.document(METRICS)["loss"]["loss"][0]
    assert told[-1].note == f"epoch 1 of at most 1, loss {loss:.5f}"


def test_a_bundle_says_how_good_it_is_beside_the_baselines(trained: Trained) -> None:
    metrics = trained.bundle.document(METRICS)
    overall = metrics["holdout"]["overall"]
    assert set(overall) >= {"network", "last_open", "last_close"}
    assert metrics["checks"]["onnx_equals_keras"]["passed"] is trained.onnx.passed is True
    assert len(metrics["loss"]["loss"]) == 1
    card = trained.bundle.files["MODEL_CARD.md"].decode()
    assert trained.bundle.version in card
    assert "| last close |" in card
    assert set(trained.bundle.files) >= {"pictures/loss.png", "pictures/holdout.png", "pictures/predictions.png"}
    assert trained.bundle.slugs == {f"SIM{n:03d}": f"simcoin-{n:03d}" for n in range(1, 5)}
    json.dumps(trained.bundle.manifest, allow_nan=False)


def test_a_network_cannot_be_trained_where_no_row_has_a_row_before_it(history: pd.DataFrame) -> None:
    first = history.groupby("symbol").head(1)
    statistics = fit_scaler(history, split_by_time(history["date"]))
    with pytest.raises(TooLittleHistory, match="no training or no validation row"):
        train(
            first,
            Split(FIRST_DAY + timedelta(days=1), FIRST_DAY + timedelta(days=2)),
            statistics,
            Plan(epochs=1),
            label="x",
            manifest={},
            created_at="now",
        )


@given(windows=st.integers(1, 40), an_epoch=st.integers(1, 25), epochs=st.integers(1, 6))
def test_epochs_take_every_window_equally_often_and_none_twice_in_a_round(
    windows: int, an_epoch: int, epochs: int
) -> None:
    at = np.arange(windows)
    drawn = DrawnWindows(np.zeros((windows, 2), np.float32), at, at, np.zeros(windows, np.float32), an_epoch, 7)
    taken = [drawn.of_epoch(epoch) for epoch in range(epochs)]
    assert {len(one) for one in taken} == {an_epoch}
    counts = np.bincount(np.concatenate(taken), minlength=windows)
    assert counts.max() - counts.min() <= 1
    assert [one.tolist() for one in taken] == [drawn.of_epoch(epoch).tolist() for epoch in range(epochs)]


def test_drawn_windows_give_the_same_network_however_the_rows_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = simulated(coins=5, days=60)
    split = split_by_time(rows["date"])
    found = []
    for rows_at_once in (10**6, 70):
        monkeypatch.setattr("crypto_ml.forecasting.training_set.ROWS_AT_ONCE", rows_at_once)
        statistics = fit_scaler(rows, split)
        plan = Plan(epochs=2, most_windows=100, drawn="each epoch")
        trained = train(rows, split, statistics, plan, label="week", manifest={}, created_at="")
        found.append((rows_sha256(rows), trained.bundle.sha256, trained.evaluation))
    assert found[0] == found[1]
    assert trained.bundle.manifest["about"]["plan"]["drawn"] == "each epoch"
    assert Plan().drawn == "once"  # what a bundle says that was made before there was a choice
