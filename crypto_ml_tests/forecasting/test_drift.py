"""What is watched of a model and of data: the rules themselves, and what they find in the real market."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import drift as benchmark
from benchmarks.injected_faults import FAULTS, faults_at
from crypto_ml.forecasting.columns import Columns
from crypto_ml.forecasting.drift import (
    ALLOWANCE,
    LARGE_GAPS,
    LIMIT,
    MOST_BY_DAY,
    MOST_BY_ROW,
    Losses,
    Reference,
    coverage,
    cusum,
    data_faults,
    least_coverage,
    losses,
    most_large_gaps,
)
from crypto_ml.forecasting.features import FloatArray, series_starts
from crypto_ml.forecasting.unit_changes import MOST, unit_changes
from crypto_ml_tests.forecasting.markets import market

WELL = Reference(0.0, 1.0, 100, "a test")
numbers = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=80)


def by_day(daily: list[float] | FloatArray) -> Losses:
    return Losses(np.datetime64("2018-01-01") + np.arange(len(daily)), np.asarray(daily, np.float64))


@given(numbers)
def test_the_sum_grows_by_what_a_day_is_worse_than_it_used_to_be_and_never_by_more_than_a_crash(
    daily: list[float],
) -> None:
    found = cusum(by_day(daily), WELL)
    before = np.append(0.0, found.sums[:-1])
    assert (found.sums >= 0).all()
    assert (found.sums - before <= MOST_BY_DAY - ALLOWANCE + 1e-12).all()
    assert all(after <= level for after, level, one in zip(found.sums, before, daily, strict=True) if one <= ALLOWANCE)


@given(numbers)
def test_an_alarm_stands_from_the_limit_until_the_sum_is_back_at_nothing(daily: list[float]) -> None:
    found = cusum(by_day(daily), WELL)
    last_zero = max(np.flatnonzero(found.sums == 0), default=-1)
    above = np.flatnonzero(found.sums > LIMIT)
    standing = above[above > last_zero]
    assert (found.raised is not None) == bool(len(standing))
    if found.raised is not None and found.since is not None:
        assert found.raised == (np.datetime64("2018-01-01") + standing[0]).item()
        assert found.since == (np.datetime64("2018-01-01") + last_zero + 1).item()


def test_a_model_that_answers_with_the_last_close_is_never_accused() -> None:
    close, size = np.full(400, 50.0), np.full(400, 0.01)
    opens = 50.0 * np.exp(np.random.default_rng(0).standard_t(2, 400) * 0.1)
    found = losses(np.arange(400).astype("datetime64[D]"), opens, close, close, size)
    assert (found.daily == 0).all()
    assert cusum(found.between(60), Reference.of(found.between(0, 60), "its first days")).sums.max() == 0


@given(st.integers(0, 2**32 - 1), st.floats(0, 0.05))
def test_a_day_of_a_capped_model_counts_no_more_than_its_cap(seed: int, cap: float) -> None:
    random = np.random.default_rng(seed)
    close, size = np.exp(random.normal(0, 5, 50)), np.exp(random.normal(-6, 2, 50))
    opens = close * np.exp(random.normal(0, 1, 50))
    predicted = close * (1 + size * random.uniform(-cap, cap, 50))
    daily = losses(np.repeat(np.arange(5), 10).astype("datetime64[D]"), opens, predicted, close, size).daily
    assert (np.abs(daily) <= cap + 1e-9).all()
    hostile = losses(np.arange(50).astype("datetime64[D]"), opens, np.full(50, 1e308), close, size).daily
    assert (np.abs(hostile) <= MOST_BY_ROW).all()


def test_coverage_counts_what_has_an_interval_and_a_bound_belongs_to_it() -> None:
    found = coverage(np.array([1.0, 2.0, 3.0, 4.0]), np.array([1.0, 2.1, np.nan, 3.0]), np.array([2.0, 3.0, 9.0, 4.0]))
    assert (found.rows, found.inside, found.share) == (3, 2, 2 / 3)
    assert coverage(np.ones(2), np.full(2, np.nan), np.full(2, np.nan)).share is None
    assert least_coverage(0.9) == pytest.approx(0.8)


def test_of_few_rows_a_larger_share_is_chance() -> None:
    assert most_large_gaps(10_000) == LARGE_GAPS
    assert most_large_gaps(28) == pytest.approx(0.1 + 3 * np.sqrt(0.09 / 28))


@given(st.floats(-6, 6))
def test_a_row_is_in_another_unit_beyond_a_factor_and_the_first_of_a_series_never(change: float) -> None:
    opens, closes = np.array([1.0, 3.0 * np.exp(change), 1e9]), np.array([3.0, 1.0, 1.0])
    found = unit_changes(opens, closes, series_starts(["a", "a", "b"]))
    if abs(abs(change) - MOST) > 1e-9:
        assert found.tolist() == [False, abs(change) > MOST, False]


def test_days_that_are_missing_everywhere_and_always_are_no_fault() -> None:
    rows = market({"BTC": 300, "ETH": 300}, seed=3)
    monday_to_friday = rows[rows["date"].dt.day_of_week < 5].reset_index(drop=True)
    columns = Columns({name: monday_to_friday[name].to_numpy() for name in ("symbol", "open", "high", "low", "close")})
    found = data_faults(columns, series_starts(columns["symbol"]), monday_to_friday["date"].to_numpy("datetime64[D]"))
    assert found.missing > 0.2
    assert not found.days_are_missing


@pytest.mark.parametrize(
    ("fault", "rule"),
    [
        ("a fifth of the rows stale", "gaps"),
        ("close = middle of the range", "gaps"),
        ("prices of 3 digits", "rounded"),
        ("a tenth of the rows missing", "missing"),
        ("a tenth of the coins × 1,000", "units"),
    ],
)
def test_faults_that_are_put_into_the_real_market_are_found_and_a_sound_year_is_quiet(
    shared: Path, fault: str, rule: str
) -> None:
    rows = benchmark.market(shared / "market" / "crypto_markets.csv")
    found = benchmark.RULES[rule]
    for first in (np.datetime64("2017-02-20"), np.datetime64("2017-10-02")):
        assert not any(one(faults_at(rows, first)) for one in benchmark.RULES.values())
        assert found(faults_at(rows, first, FAULTS[fault]))
