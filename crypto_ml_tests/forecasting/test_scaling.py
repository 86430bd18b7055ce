"""Standardising with a scaler's numbers, and with a series' own where the scaler has none."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crypto_ml.forecasting.features import add_levels, feature_block, gaps, series_starts
from crypto_ml.forecasting.scaler_estimator import SeriesStandardScaler
from crypto_ml.forecasting.scaling import BadStatistics, OwnStatistics, SeriesStatistics, own_statistics
from crypto_ml.forecasting.schema import SCALED
from crypto_ml_tests.forecasting import reference
from crypto_ml_tests.forecasting.markets import KNOWN, market, records, statistics


def own(rows: pd.DataFrame) -> OwnStatistics:
    starts = series_starts(rows["symbol"])
    return own_statistics(feature_block(add_levels(rows), starts), gaps(rows, starts), starts)


@given(lengths=st.dictionaries(st.sampled_from("ABC"), st.integers(0, 16), min_size=1), seed=st.integers(0, 1000))
def test_own_statistics_are_those_of_the_rows_before(lengths: dict[str, int], seed: int) -> None:
    rows = market(lengths, seed)
    found = own(rows)
    row = 0
    for _, series in rows.groupby("symbol"):
        known = records(series)
        for at in range(len(known)):
            expected = reference.own_scaler(known, at)
            assert found.count[row] == at
            if at:
                # rounding is of the size of the largest price seen, not of the mean, which may be close to 0
                size = max(record["high"] for record in known[:at])
                np.testing.assert_allclose(found.mean[row], list(expected.mean.values()), rtol=1e-9, atol=1e-13 * size)
            np.testing.assert_allclose(found.scale[row], list(expected.scale.values()), rtol=1e-6)
            np.testing.assert_allclose(found.gap_scale[row], expected.gap_scale, rtol=1e-6)
            row += 1


@pytest.mark.parametrize("price", [1e-9, 0.1, 123456.789, 1e15])
@pytest.mark.parametrize("wobble", [0.0, 1e-16])
def test_own_statistics_and_the_fitted_scaler_agree_on_what_is_constant(price: float, wobble: float) -> None:
    random = np.random.default_rng(1)
    rows = market({"A": 40}).assign(open=price, close=price)
    rows = rows.assign(high=price * (1.1 + wobble * random.integers(-2, 3, 40)), low=price * 0.9)
    starts = series_starts(rows["symbol"])
    block = feature_block(add_levels(rows), starts)
    frame = pd.DataFrame(block[:-1, :12], columns=list(SCALED)).assign(symbol="A", gap=gaps(rows, starts)[:-1])
    fitted = SeriesStandardScaler().fit(frame).statistics_
    found = own(rows)
    np.testing.assert_allclose(found.scale[-1], fitted.scale[0], rtol=1e-9)
    np.testing.assert_allclose(found.gap_scale[-1], fitted.gap_scale[0], rtol=1e-9)
    assert (found.scale[-1][:6] == 1.0).all()


@given(seed=st.integers(0, 1000), length=st.integers(12, 60))
def test_own_statistics_of_all_rows_are_what_the_scaler_learns_from_them(seed: int, length: int) -> None:
    rows = market({"A": length}, seed)
    starts = series_starts(rows["symbol"])
    block = feature_block(add_levels(rows), starts)
    frame = pd.DataFrame(block[:-1, :12], columns=list(SCALED)).assign(symbol="A", gap=gaps(rows, starts)[:-1])
    fitted = SeriesStandardScaler().fit(frame).statistics_
    np.testing.assert_allclose(own(rows).scale[-1], fitted.scale[0], rtol=1e-9)
    np.testing.assert_allclose(own(rows).gap_scale[-1], fitted.gap_scale[0], rtol=1e-9)


@given(before=st.integers(0, 8), after=st.integers(0, 8), seed=st.integers(0, 100))
def test_own_statistics_do_not_change_a_bit_with_the_neighbours(before: int, after: int, seed: int) -> None:
    alone = market({"M": 12}, seed)
    together = pd.concat([market({"A": before}, 1), alone, market({"Z": after}, 2)], ignore_index=True)
    expected, found = own(alone), own(together)
    rows = slice(before, before + 12)
    assert np.array_equal(found.mean[rows], expected.mean)
    assert np.array_equal(found.scale[rows], expected.scale)
    assert np.array_equal(found.gap_scale[rows], expected.gap_scale)


def test_no_rows_have_no_statistics() -> None:
    assert own(market({})).mean.shape == (0, 12)


def test_scaling_a_block_leaves_log_shares_and_marks_unseen_series() -> None:
    learnt = statistics()
    block = np.random.default_rng(3).normal(size=(3, 13))
    codes = learnt.codes(pd.Series(["LTC", "nobody", "BTC"]))
    assert codes.tolist() == [2, -1, 0]
    scaled = learnt.scale_block(block, codes)
    assert np.array_equal(scaled[:, 12], block[:, 12])
    assert np.isnan(scaled[1, :12]).all()
    for row, code in ((0, 2), (2, 0)):
        assert np.array_equal(scaled[row, :12], (block[row, :12] - learnt.mean[code]) / learnt.scale[code])


def test_a_scaler_of_nobody_knows_nobody() -> None:
    empty = SeriesStatistics((), np.zeros((0, 12)), np.ones((0, 12)), np.ones(0))
    codes = empty.codes(pd.Series(["BTC"]))
    assert codes.tolist() == [-1]
    assert np.isnan(empty.scale_block(np.ones((1, 13)), codes)[0, :12]).all()


def test_everything_wrong_with_statistics_is_said_at_once() -> None:
    good = statistics()
    scale = good.scale.copy()
    scale[0, 0] = 0.0
    with pytest.raises(BadStatistics) as caught:
        SeriesStatistics(tuple(reversed(KNOWN)), np.full((3, 11), np.inf), scale, np.ones(2))
    for complaint in (
        "sorted and unique",
        "mean must have shape (3, 12)",
        "means must be finite",
        "finite and positive",
    ):
        assert complaint in str(caught.value)
    assert "gap_scale must have shape (3,)" in str(caught.value)
