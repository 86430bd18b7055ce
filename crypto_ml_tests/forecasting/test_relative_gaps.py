"""What a model of the target `relative_gap` is made of: units, windows, shrinkage, intervals and range."""

import json
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from crypto_ml.forecasting.bundle import RULE, BundleDamaged, ModelBundle, with_rule
from crypto_ml.forecasting.daily_range import (
    FROZEN,
    RangeModel,
    fit_range_model,
    observed_log_range,
    range_terms,
)
from crypto_ml.forecasting.features import series_starts
from crypto_ml.forecasting.inference import Network
from crypto_ml.forecasting.intervals import bounds, conformal_quantile, interval_quantiles
from crypto_ml.forecasting.pooled_scaler import BadScaler, PooledScaler, read_scaler, write_scaler
from crypto_ml.forecasting.recent_gaps import HALF_LIFE, LEAST, MOST, ROWS, recent_gaps
from crypto_ml.forecasting.schema import STATIONARY, WINDOW
from crypto_ml.forecasting.serving_rule import BadRule, ServingRule, read_rule, write_rule
from crypto_ml.forecasting.shrinkage import LAMBDAS, choose_shrinkage, served, shrunk_network
from crypto_ml.forecasting.stationary import LOOK_BACK, stationary_block, stationary_windows, units
from crypto_ml_tests.forecasting.markets import market as walks
from crypto_ml_tests.forecasting.markets import relative_model
from crypto_ml_tests.forecasting.networks import linear_network

ANY = st.floats(width=32, allow_nan=True, allow_infinity=True)
SHARE = st.floats(0, 1)


def market(lengths: list[int], seed: int = 1) -> pd.DataFrame:
    return walks({f"S{number}": length for number, length in enumerate(lengths)}, seed)


def test_the_recent_gap_size_is_the_weighted_mean_of_the_last_twenty_gaps() -> None:
    rows = market([40])
    found = recent_gaps(rows, series_starts(rows["symbol"]))
    opens, closes = rows["open"].to_numpy(), rows["close"].to_numpy()
    for t in (0, 1, 2, 9, 10, 11, 21, 39):
        gaps = [min(abs(np.log(opens[r] / closes[r - 1])), MOST) for r in range(t - 1, max(t - 1 - ROWS, 0), -1)]
        weights = 0.5 ** (np.arange(len(gaps)) / HALF_LIFE)
        expected = max(float(np.average(gaps, weights=weights)), LEAST) if gaps else LEAST
        assert found.count[t] == len(gaps)
        assert found.size[t] == pytest.approx(expected, rel=1e-12)


@given(lengths=st.lists(st.integers(1, 45), min_size=1, max_size=4), seed=st.integers(0, 1000))
def test_no_bit_of_a_row_depends_on_its_neighbours_or_on_rows_further_back_than_the_look_back(
    lengths: list[int], seed: int
) -> None:
    rows = market(lengths, seed)
    starts = series_starts(rows["symbol"])
    whole = _all_of(rows, starts)
    for last in np.append(np.flatnonzero(np.diff(starts)), len(rows) - 1):
        alone = rows.iloc[max(last - LOOK_BACK, starts[last]) : last + 1].reset_index(drop=True)
        cut = _all_of(alone, series_starts(alone["symbol"]))
        for name, values in whole.items():
            assert values[last].tobytes() == cut[name][-1].tobytes(), (name, values[last], cut[name][-1])


def _all_of(rows: pd.DataFrame, starts: np.ndarray) -> dict[str, np.ndarray]:
    measured = units(rows, starts)
    terms, enough = range_terms(rows, starts)
    scaler = PooledScaler(STATIONARY, np.linspace(-1, 1, 5), np.linspace(0.5, 2, 5))
    at = np.arange(len(rows))
    close = np.where(at > starts, np.append(np.nan, rows["close"].to_numpy()[:-1]), np.nan)
    low, high = bounds(close, measured.gaps.size, close, 2.5)
    return {
        "size": measured.gaps.size,
        "count": measured.gaps.count,
        "range": measured.range,
        "terms": terms,
        "enough": enough,
        "expected": FROZEN.expected(terms)[0],
        "windows": stationary_windows(stationary_block(rows, starts), measured, scaler, starts, at),
        "low": low,
        "high": high,
    }


@settings(max_examples=25)
@given(
    output=arrays(np.float32, 20, elements=ANY), shrink=SHARE, cap=SHARE, weights=arrays(np.float32, 25, elements=ANY)
)
def test_whatever_a_network_says_what_is_served_is_a_number_within_the_cap(
    output: np.ndarray, shrink: float, cap: float, weights: np.ndarray
) -> None:
    for found in (served(output, shrink, cap), _run(weights, shrink, cap)):
        assert np.isfinite(found).all()
        assert (np.abs(found) <= np.float32(cap)).all()
        assert shrink > 0 or not found.any()


def _run(weights: np.ndarray, shrink: float, cap: float) -> np.ndarray:
    network = Network.from_bytes(shrunk_network(linear_network(weights), shrink, cap), features=5)
    windows = np.random.default_rng(3).normal(0, 1, (8, WINDOW, 5)).astype(np.float32)
    return network.predict(windows)


def test_the_exported_graph_serves_what_the_formula_says_and_shrinking_again_replaces_the_numbers() -> None:
    windows = np.random.default_rng(4).normal(0, 1, (500, WINDOW, 5)).astype(np.float32)
    raw = linear_network(np.linspace(-1, 1, 25, dtype=np.float32))
    output = Network.from_bytes(raw, features=5).predict(windows)
    once = shrunk_network(raw, 0.3, 0.05)
    for content, shrink, cap in ((once, 0.3, 0.05), (shrunk_network(once, 0.7, 0.5), 0.7, 0.5)):
        found = Network.from_bytes(content, features=5).predict(windows)
        assert found.tobytes() == served(output, shrink, cap).tobytes()
    assert shrunk_network(raw, 0.7, 0.5) == shrunk_network(once, 0.7, 0.5)


def test_noise_is_shrunk_to_the_last_close_and_real_skill_is_kept() -> None:
    random = np.random.default_rng(5)
    days = np.repeat(np.arange(200), 20)
    target = random.laplace(0, 1, len(days)) * (random.random(len(days)) > 0.3)
    noise = choose_shrinkage(random.normal(0, 1, len(days)), target, days, cap=1.0)
    skilled = choose_shrinkage(target + random.normal(0, 0.3, len(days)), target, days, cap=10.0)
    assert noise.shrink == 0.0
    assert skilled.shrink >= 0.5
    assert skilled.chosen is not None and set(skilled.chosen["loss"]) == {str(one) for one in LAMBDAS}


@given(st.integers(200, 2000), st.sampled_from([0.8, 0.9, 0.95]), st.integers(0, 99))
def test_a_conformal_quantile_covers_at_least_its_share_of_what_it_was_taken_of(
    n: int, level: float, seed: int
) -> None:
    scores = np.abs(np.random.default_rng(seed).standard_t(3, n))
    assert (scores <= conformal_quantile(scores, level)).mean() >= level


def test_bounds_hold_the_prediction_and_grow_with_the_level() -> None:
    close, size = np.array([100.0, 1e-300, 1e300]), np.array([0.01, 0.1, 0.1])
    quantiles = interval_quantiles(np.abs(np.random.default_rng(6).standard_t(3, 1000)))
    within = close
    for level in sorted(quantiles):
        low, high = bounds(close, size, close, quantiles[level])
        assert (low < within).all() and (within < high).all() and np.isfinite(high).all()
    assert quantiles[0.8] < quantiles[0.9] < quantiles[0.95]
    assert interval_quantiles(np.ones(199)) == {}


def test_the_range_model_finds_the_coefficients_that_made_the_ranges() -> None:
    random = np.random.default_rng(8)
    y = list(random.normal(-3, 0.3, 22))
    for _ in range(4000):
        recent = np.array(y[-22:])
        y.append(-0.2 + 0.3 * recent[-1] + 0.25 * recent[-5:].mean() + 0.35 * recent.mean() + random.normal(0, 0.3))
    low = np.full(len(y), 100.0)
    rows = pd.DataFrame({"high": low * np.exp(np.exp(y)), "low": low})
    terms, enough = range_terms(rows, np.zeros(len(y), np.int64))
    found = fit_range_model(terms[enough], observed_log_range(rows)[enough])
    assert (found.last, found.mean_5, found.mean_22) == pytest.approx((0.3, 0.25, 0.35), abs=0.08)
    expected, upper = found.expected(terms[enough])
    assert (np.exp(np.array(y))[enough] <= upper).mean() == pytest.approx(0.9, abs=0.01)
    assert (expected < upper).all()
    few = fit_range_model(terms[enough][:300], observed_log_range(rows)[enough][:300])
    assert few.last == FROZEN.last


def test_a_bundle_with_a_rule_comes_back_as_it_was_and_another_rule_is_another_bundle(tmp_path: object) -> None:
    bundle = relative_model(0.5)
    assert ModelBundle.from_files(bundle.files).rule == bundle.rule
    assert bundle.manifest["format"] == 2
    assert bundle.look_back == LOOK_BACK
    rule = ServingRule(0.0, 0.05, {0.9: 2.0})
    other = with_rule(bundle, rule, label="again", about={}, documents={})
    assert other.rule == rule
    assert other.sha256 != bundle.sha256
    assert other.manifest["weights_sha256"] == bundle.manifest["weights_sha256"]


@pytest.mark.parametrize("coefficient", [1e308, -1e308, 400.0])
def test_no_range_is_less_than_nothing_or_more_than_prices_can_have_and_its_bound_is_never_below_it(
    coefficient: float,
) -> None:
    rows = market([40])
    terms, enough = range_terms(rows, series_starts(rows["symbol"]))
    for upper in ({}, {0.9: -3.0}, {0.9: 1e308}):
        expected, bound = RangeModel(0.1, coefficient, -coefficient, coefficient, upper).expected(terms[enough])
        known = np.isfinite(expected)
        assert ((expected >= 0) & (expected < 1455))[known].all()
        assert np.isnan(bound).all() if not upper else (bound >= expected)[known].all()
    # ranges of calm coins are below what the frozen coefficients expect, in nine of ten and more
    calm = market([300]).assign(high=lambda rows: rows["low"])
    terms, enough = range_terms(calm, series_starts(calm["symbol"]))
    model = fit_range_model(terms[enough], observed_log_range(calm)[enough])
    expected, bound = model.expected(terms[enough])
    assert (bound >= expected).all()


HUGE = int(f"1{'0' * 400}")
"""An integer that JSON may have and float64 has not."""


@pytest.mark.parametrize(
    "spoilt",
    [
        b"", b"[]", b"{}", b'{"format": 2}', b"[" * 100_000,
        write_rule(ServingRule(0.0, 0.05)).replace(b'"lambda": 0.0', f'"lambda": {HUGE}'.encode()),
        f'{{"columns": ["a"], "symbols": [], "rows": 1, "mean": [{HUGE}], "scale": [1]}}'.encode(),
    ],
    ids=range(7),
)  # fmt: skip
def test_a_rule_or_a_scaler_that_cannot_be_read_is_refused(spoilt: bytes) -> None:
    with pytest.raises(BadRule):
        read_rule(spoilt)
    with pytest.raises(BadScaler):
        read_scaler(spoilt)
    with pytest.raises(BundleDamaged):
        ModelBundle.from_files({**relative_model(0.5).files, RULE: spoilt})


@pytest.mark.parametrize(
    "change",
    [
        {"lambda": -0.1},
        {"lambda": 1.5},
        {"lambda": math.nan},
        {"kappa": -1},
        {"kappa": math.inf},
        {"interval_quantiles": {"0.5": 1}},
        {"interval_quantiles": {"0.80": 3, "0.90": 2}},
        {"interval_quantiles": {"0.90": math.nan}},
        {"interval_quantiles": {"nan": 1}},
        {"range": {"intercept": 0, "last": 0, "mean_5": 0, "mean_22": 0, "upper": {"0.99": 1}}},
        {"range": {"intercept": 0, "last": 0, "mean_5": 0, "mean_22": 0, "upper": {"0.80": 2, "0.90": 1}}},
    ],
)
def test_a_rule_with_numbers_that_mean_nothing_is_refused(change: dict[str, object]) -> None:
    said = json.loads(write_rule(ServingRule(0.1, 0.05)))
    with pytest.raises(BadRule):
        read_rule(json.dumps(said | change).encode())


def test_a_scaler_comes_back_to_the_last_bit() -> None:
    scaler = PooledScaler(("a", "b"), np.array([0.1, -1e-300]), np.array([1 / 3, 7.0]), ("BTC", "ETH"), 12)
    back = read_scaler(write_scaler(scaler))
    assert back.mean.tobytes() == scaler.mean.tobytes() and back.scale.tobytes() == scaler.scale.tobytes()
    assert (back.columns, back.symbols, back.rows) == (scaler.columns, scaler.symbols, scaler.rows)
