"""What a model of relative gaps says of rows is what its definitions say, the same bits however rows are cut."""

import math
from dataclasses import replace
from functools import cache

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from crypto_ml.forecasting.answers import BESIDE
from crypto_ml.forecasting.bundle import NETWORK, RULE, ModelBundle, make_bundle
from crypto_ml.forecasting.features import series_starts
from crypto_ml.forecasting.recent_gaps import FEWEST, HALF_LIFE, LEAST, MOST, ROWS, recent_gaps
from crypto_ml.forecasting.scaled_by import BY_MODEL
from crypto_ml.forecasting.schema import PRICES, Recovery
from crypto_ml.forecasting.scoring import PREDICTED, SEED, score, score_rows
from crypto_ml.forecasting.serving_rule import ServingRule, write_rule
from crypto_ml.forecasting.shrinkage import shrunk_network
from crypto_ml_tests.forecasting.markets import RELATIVE_QUANTILES, market, relative_model
from crypto_ml_tests.forecasting.networks import linear_network
from crypto_ml_tests.forecasting.test_scoring import with_context

LENGTHS = st.dictionaries(st.sampled_from(["BTC", "NEW", "AAA"]), st.integers(0, 40), min_size=1)
SEEDS = st.integers(0, 1000)
SAID = ["pred_open", *BESIDE.names]


@cache
def without_network() -> ModelBundle:
    """A model of λ = 0 whose network cannot be loaded."""
    bundle = relative_model(0.0)
    return replace(bundle, files={**bundle.files, NETWORK: b"no network"})


def said_of(series: pd.DataFrame, t: int, level: float) -> dict[str, float]:
    """The definitions of `relative_answers` at λ = 0, for row t of one series, number by number."""
    opens, closes, high, low = (series[name].tolist() for name in ("open", "close", "high", "low"))
    gaps = [min(abs(math.log(opens[r] / closes[r - 1])), MOST) for r in range(t - 1, max(t - 1 - ROWS, 0), -1)]
    said = {"pred_open": closes[t - 1], **dict.fromkeys(BESIDE.names, math.nan)}
    if len(gaps) >= FEWEST:
        weights = [0.5 ** (k / HALF_LIFE) for k in range(len(gaps))]
        size = max(sum(w * a for w, a in zip(weights, gaps, strict=True)) / sum(weights), LEAST)
        width = RELATIVE_QUANTILES[level] * size
        said |= {"pred_low": closes[t - 1] * math.exp(-width), "pred_high": closes[t - 1] * math.exp(width)}
    if t >= 22:
        y = [math.log(max(math.log(high[r] / low[r]), 1e-4)) for r in range(t - 1, t - 23, -1)]
        expected = -0.146 + 0.333 * y[0] + 0.258 * sum(y[:5]) / 5 + 0.348 * sum(y) / 22
        said |= {"expected_range": math.exp(expected), "range_high": math.exp(expected + 0.7)}
    return said


@given(lengths=LENGTHS, seed=SEEDS, level=st.sampled_from(sorted(RELATIVE_QUANTILES)))
def test_without_shrinkage_left_it_is_the_last_close_and_the_definitions_and_no_network_is_asked(
    lengths: dict[str, int], seed: int, level: float
) -> None:
    rows = market(lengths, seed)
    found = score_rows(rows, without_network(), "one_step", level)
    expected = []
    for _, series in rows.groupby("symbol"):
        seed_row = {"pred_open": series["open"].iloc[0], **dict.fromkeys(BESIDE.names, math.nan)}
        expected += [seed_row, *(said_of(series, t, level) for t in range(1, len(series)))]
    assert found["pred_open"].tolist() == [one["pred_open"] for one in expected]
    for name in SAID:
        np.testing.assert_allclose(found[name], [one[name] for one in expected], rtol=1e-9)
    assert found["status"].tolist() == [PREDICTED if number else SEED for number in found["index"]]
    assert found["scaled_by"].tolist() == [BY_MODEL if number else "" for number in found["index"]]


def test_below_ten_gaps_it_is_the_last_close_and_from_then_on_what_the_network_says() -> None:
    rows = market({"NEW": 30}, 3)
    found = score_rows(rows, relative_model(1.0), "one_step")
    off = found["pred_open"].to_numpy()[1:] - rows["close"].to_numpy()[:-1]
    assert (off != 0).tolist() == [False] * FEWEST + [True] * (29 - FEWEST)
    assert found["pred_low"].notna().tolist() == [False] * (FEWEST + 1) + [True] * (29 - FEWEST)
    assert found["expected_range"].notna().tolist() == [False] * 22 + [True] * 8


@settings(max_examples=40)
@given(
    weights=arrays(np.float32, 25, elements=st.floats(width=32, allow_nan=True, allow_infinity=True)),
    shrink=st.floats(0, 1),
    cap=st.sampled_from([0.0, 0.05, 1.0, 50.0]),
    seed=SEEDS,
    scale=st.sampled_from([1e-300, 1e-9, 1.0, 1e300]),
)
def test_whatever_the_network_the_open_is_within_the_cap_of_the_last_close_and_within_its_bounds(
    weights: np.ndarray, shrink: float, cap: float, seed: int, scale: float
) -> None:
    bundle = relative_model(0.5)
    rule = ServingRule(shrink, cap, {0.9: 0.0 if seed % 2 else 2.0})
    network = shrunk_network(linear_network(weights), shrink, cap)
    hostile = replace(bundle, files={**bundle.files, NETWORK: network, RULE: write_rule(rule)})
    rows = market({"BTC": 40, "NEW": 15}, seed)
    rows[list(PRICES)] *= scale
    found = score_rows(rows, hostile, "one_step")
    made = found[found["status"] == PREDICTED]
    close = rows["close"].shift().to_numpy()[made.index]
    size = sizes(rows)[made.index]
    price = made["pred_open"].to_numpy()
    assert np.isfinite(price).all() and (price > 0).all()
    with np.errstate(under="ignore", over="ignore"):
        assert (np.abs(price - close) <= cap * size * close * (1 + 1e-12) + 2 * np.spacing(close)).all()
    bounded = made[made["pred_low"].notna()]
    assert len(bounded) == 29 + 4
    assert (bounded["pred_low"] > 0).all() and np.isfinite(bounded["pred_high"]).all()
    assert (bounded["pred_low"] <= bounded["pred_open"]).all() and (bounded["pred_open"] <= bounded["pred_high"]).all()


def sizes(rows: pd.DataFrame) -> np.ndarray:
    return recent_gaps(rows, series_starts(rows["symbol"])).size


@given(lengths=LENGTHS, seed=SEEDS, recovery=st.sampled_from(["one_step", "cumulative"]), cut=st.integers(0, 3))
def test_no_bit_changes_with_other_series_or_with_chunking_and_context_is_never_answered(
    lengths: dict[str, int], seed: int, recovery: Recovery, cut: int
) -> None:
    rows, bundle = with_context(market(lengths, seed), seed), relative_model()
    together = score_rows(rows, bundle, recovery)
    assert together["line"].tolist() == rows.loc[~rows["context"], "line"].tolist()
    series = [part for _, part in rows.groupby("symbol")]
    halves = [pd.concat(part) for part in (series[:cut], series[cut:]) if part]
    for parts in (series, halves):
        found = pd.concat([together.iloc[:0], *score(parts, bundle, recovery)], ignore_index=True)
        pd.testing.assert_frame_equal(found, together, check_exact=True)


@given(lengths=LENGTHS, seed=SEEDS, at=st.integers(0, 39))
def test_no_bit_changes_with_its_own_row_with_later_ones_or_with_those_before_the_look_back(
    lengths: dict[str, int], seed: int, at: int
) -> None:
    rows, bundle = market(lengths, seed), relative_model()
    whole = score_rows(rows, bundle, "one_step")
    place = rows.groupby("symbol").cumcount()
    changed = rows[(place <= at) & (place >= at - bundle.look_back)].copy()
    now = place[changed.index] == at
    changed.loc[now, list(PRICES)] = np.nan
    found = score_rows(changed.assign(context=~now), bundle, "one_step")
    expected = whole[(whole["index"] == at) & (whole["status"] == PREDICTED)]
    made = found[found["status"] == PREDICTED]
    pd.testing.assert_frame_equal(
        made[["symbol", *SAID]].reset_index(drop=True),
        expected[["symbol", *SAID]].reset_index(drop=True),
        check_exact=True,
        check_dtype=False,
    )


def test_a_running_sum_of_changes_has_no_bounds_and_levels_that_the_model_lacks_have_none_either() -> None:
    rows = market({"BTC": 30}, 5)
    one_step, summed = (score_rows(rows, relative_model(), recovery) for recovery in ("one_step", "cumulative"))
    assert summed[["pred_low", "pred_high"]].isna().all().all()
    assert summed["expected_range"].tolist()[22:] == one_step["expected_range"].tolist()[22:]
    changes = one_step["pred_open"].to_numpy()[1:] - rows["open"].to_numpy()[:-1]
    expected = rows["open"].iloc[0] + np.concatenate([[0], np.cumsum(changes)])
    np.testing.assert_allclose(summed["pred_open"], expected, rtol=1e-12)
    bundle = relative_model(0.0)
    files = {**bundle.files, RULE: write_rule(ServingRule(0.0, 0.05))}
    assert score_rows(rows, replace(bundle, files=files), "one_step")["pred_low"].isna().all()


@pytest.mark.parametrize("slug", [None, "batcoin"])
def test_nothing_of_a_coin_is_kept_so_names_and_slugs_change_nothing(slug: str | None) -> None:
    rows = market({"BTC": 30}, 2)
    bundle = relative_model()
    named = make_bundle(
        label="named",
        target="relative_gap",
        scaler=bundle.scaler,
        slugs={"BTC": "bitcoin"},
        network_onnx=bundle.files[NETWORK],
        weights_sha256="",
        about={},
        documents={},
        rule=bundle.rule,
    )
    expected = score_rows(rows, bundle, "one_step")
    for other in (rows.assign(slug=slug), rows.assign(symbol="NEW")):
        pd.testing.assert_frame_equal(
            score_rows(other, named, "one_step").drop(columns="symbol"), expected.drop(columns="symbol")
        )
