"""What is looked at is what was stored: predictions against opens that came later, rows, answers; and the report."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest

from crypto_ml.forecasting.drift import Losses
from crypto_ml.ledger.alarms import AlarmLog, Condition, after_look
from crypto_ml.stages.monitoring import data_faults, model_drift, prediction_performance, service_health
from crypto_ml.stages.monitoring.drift_report import write_report
from crypto_ml.stages.monitoring.live_predictions import LivePredictions, live_predictions
from crypto_ml.storage.objects import ObjectStore, connect
from crypto_ml_tests.forecasting.markets import market
from crypto_ml_tests.stages.road import Road, upload

LAST = 120
NASTY = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def road(bucket: str) -> Iterator[Road]:
    """A history of 120 days, of which every day was predicted; then the last day once more, corrected: its first
    prediction is what people acted on."""
    made = Road(connect(bucket, f"tests/monitoring-{datetime.now(UTC).timestamp()}"))
    rows = market({"BTC": LAST, "ETH": LAST, "LTC": LAST - 2, NASTY: LAST}, seed=5)
    made.drop(prices=upload(rows))
    made.answer_new()
    again = rows.groupby("symbol").tail(1).assign(close=lambda one: (one["open"] + one["close"]) / 2)
    made.drop(again=upload(again))
    made.answer_new()
    yield made


def test_each_prediction_counts_once_beside_the_close_and_open_of_the_row_before(road: Road) -> None:
    live = live_predictions(road.deployment, 90)
    assert live is not None
    answered = road.predictions("prices")
    expected = answered[(answered["status"] == "predicted") & (answered["date"] > str(live.newest_day - timedelta(90)))]
    assert live.symbols.tolist() == expected["symbol"].tolist()
    assert np.array_equal(live.days, expected["date"].to_numpy("datetime64[D]"))
    assert np.array_equal(live.predicted, expected["pred_open"])
    own = live.where(live.symbols == "BTC")
    history = road.history.current_rows(["date", "open", "close"], symbols=["BTC"]).to_pandas()
    assert np.array_equal(own.closes, history["close"].to_numpy()[-len(own) - 1 : -1])
    assert np.array_equal(own.opens_before, history["open"].to_numpy()[-len(own) - 1 : -1])
    assert np.array_equal(own.opens, history["open"].to_numpy()[-len(own) :])
    assert np.isnan(own.low).all()


def test_performance_is_that_of_the_predictions_beside_both_baselines(road: Road) -> None:
    found = prediction_performance.performance(road.deployment)
    assert found is not None
    assert found.overall.last_close.mase == 1
    assert found.overall.rows == len(found.live)
    assert {one.symbol for one in found.by_coin} == {"BTC", "ETH", "LTC", NASTY}
    assert "none" in prediction_performance.intervals_hold(found).explanation
    verdict = prediction_performance.not_worse_than_last_close(found)
    assert verdict.passed == (found.judgement.word != "WORSE")
    (worse, _) = prediction_performance.conditions(found)
    assert worse.how_bad == pytest.approx(max(found.judgement.mean, 0) / 0.01)


def twice(live: LivePredictions) -> LivePredictions:
    """The same predictions, each of them two times."""
    columns: dict[str, Any] = {name: getattr(live, name) for name in LivePredictions.__dataclass_fields__}
    repeated: dict[str, Any] = {name: np.tile(one, 2) for name, one in columns.items() if isinstance(one, np.ndarray)}
    return LivePredictions(**{**columns, **repeated})


def test_intervals_that_miss_twice_as_often_as_promised_are_an_alarm(road: Road) -> None:
    live = live_predictions(road.deployment, 90)
    assert live is not None

    def with_intervals(share: float) -> LivePredictions:
        width = np.where(np.arange(len(live)) % 100 < 100 * share, 1e9, 0.0)
        given = {name: getattr(live, name) for name in LivePredictions.__dataclass_fields__}
        return LivePredictions(
            **given
            | {"low": live.opens - width - 1e-12, "high": live.opens + width - 1e-13, "levels": 0 * live.opens + 0.9}
        )

    held = prediction_performance.performance_of(with_intervals(0.95))
    missed = prediction_performance.performance_of(with_intervals(0.7))
    assert prediction_performance.intervals_hold(held).passed
    assert not prediction_performance.intervals_hold(missed).passed
    assert prediction_performance.conditions(missed)[1].passed is False
    assert "none" not in {str(one.coverage) for one in missed.by_coin}
    crashed = with_intervals(0.7).last(13)
    for _ in range(4):  # rows enough, of 13 days: a crash is one day of all coins
        crashed = twice(crashed)
    crashed_here = prediction_performance.performance_of(crashed)
    assert prediction_performance.intervals_hold(crashed_here).passed
    assert "of fewer than 14 days, tell nothing" in prediction_performance.intervals_hold(crashed_here).explanation
    assert prediction_performance.conditions(crashed_here)[1].passed is None


def test_the_champion_is_held_against_its_first_days_and_before_them_against_nothing(road: Road) -> None:
    version = road.serving().version
    found = model_drift.model_drift(road.deployment, version)
    assert found is not None
    assert found.reference is not None
    assert found.sum is not None
    assert len(found.sum.days) == len(found.losses.days) - found.reference.days
    few = model_drift.drift_of(found.losses.between(0, 20), version, "2018-01-20")
    assert model_drift.model_is_what_it_was(few).passed
    assert "too early" in model_drift.model_is_what_it_was(few).explanation
    before = found.losses.between(0, 70)
    worse = Losses(before.days + np.timedelta64(70, "D"), before.daily + 0.09)
    drifted = model_drift.drift_of(worse.between(0, 50), version, "2018-05-30", before)
    (condition,) = model_drift.conditions(drifted)
    assert condition.passed is False
    assert condition.asks_retrain
    assert condition.since is not None
    assert "before it served" in condition.what


def test_data_and_service_are_looked_at_over_their_days(road: Road) -> None:
    now = datetime.now(UTC)
    one = data_faults.data_faults(road.deployment, road.now + timedelta(days=2))
    assert one is not None
    assert str(one.found.last_day) == "2018-04-30"
    assert {name for name, verdict in data_faults.verdicts(one).items() if not verdict.passed} == {"rows_late"}
    assert one.came == road.now
    assert data_faults.conditions(one, road.now)[-1].since == "2026-01-01T00:00:00+00:00"
    service = service_health.service_health(road.store, now)
    assert service.outcomes == {}
    assert service_health.answers_in_time(service).passed
    then = service_health.service_health(road.store, road.now)
    assert (then.deliveries, len(then.waiting), then.outcomes) == (2, 0, {"PREDICTED": 2})
    assert service_health.nothing_given_up(then).passed


def test_the_report_is_one_page_that_fetches_and_runs_nothing(road: Road) -> None:
    now = datetime.now(UTC)
    bad = Condition("model_drifts", False, NASTY, 2.0, "retrain", "2018-04-30")
    AlarmLog(road.store).change(lambda before, number: after_look(before, [bad], number, now))
    written = write_report(road.deployment, road.serving().version, now)
    page = road.store.read(written.key).decode()
    assert written.key.startswith("receipts/watched/")
    assert NASTY not in page
    assert "&lt;script&gt;" in page
    assert page.count("<svg") >= 2
    assert not any(mark in page for mark in ("<script", "src=", "href=", "http-equiv='refresh", "url("))
    assert write_report(road.deployment, road.serving().version, now).key == written.key


def test_an_empty_store_has_nothing_to_look_at(store: ObjectStore) -> None:
    empty = Road(store)
    assert prediction_performance.performance(empty.deployment) is None
    assert model_drift.model_drift(empty.deployment, "none") is None
    assert data_faults.data_faults(empty.deployment, empty.now) is None
    assert prediction_performance.not_worse_than_last_close(None).passed
    assert b"no rows" in store.read(write_report(empty.deployment, "none", empty.now).key)
