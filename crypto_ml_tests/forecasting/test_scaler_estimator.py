"""Each series is standardised by its own rows and by nothing else."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.preprocessing import StandardScaler

from crypto_ml.errors import Refused
from crypto_ml.forecasting.scaler_estimator import SeriesStandardScaler
from crypto_ml.forecasting.schema import SCALED


def rows(counts: dict[str, int], seed: int = 0) -> pd.DataFrame:
    """Rows of several series at very different price levels, mixed."""
    generator = np.random.default_rng(seed)
    total = sum(counts.values())
    symbols = [name for name, count in counts.items() for _ in range(count)]
    level = 10.0 ** np.repeat(generator.uniform(-6, 5, len(counts)), list(counts.values()))
    frame = pd.DataFrame(
        level[:, None] * (1 + 0.1 * generator.normal(size=(total, len(SCALED) + 1))), columns=[*SCALED, "gap"]
    )
    frame.insert(0, "symbol", symbols)
    frame.loc[~frame["symbol"].duplicated(), "gap"] = np.nan
    return frame.sample(frac=1, random_state=seed)


FRAME = rows({"BTC": 40, "ETH": 17, "ONE": 1, "XRP": 200})

counts_of_series = st.dictionaries(
    st.text("ABC:é ", min_size=1, max_size=4), st.integers(1, 12), min_size=1, max_size=6
)


def test_every_series_is_scaled_as_scikit_learn_scales_it_alone() -> None:
    scaler = SeriesStandardScaler().fit(FRAME)
    scaled = scaler.transform(FRAME)
    for code, symbol in enumerate(scaler.statistics_.symbols):
        own = FRAME[FRAME["symbol"] == symbol]
        reference = StandardScaler().fit(own[list(SCALED)])
        np.testing.assert_allclose(scaler.statistics_.mean[code], reference.mean_, rtol=1e-12)
        np.testing.assert_allclose(scaler.statistics_.scale[code], reference.scale_, rtol=1e-12)
        expected = reference.transform(own[list(SCALED)])
        np.testing.assert_allclose(scaled.loc[own.index, list(SCALED)], expected, rtol=1e-10, atol=1e-12)


def test_the_gap_is_measured_over_the_rows_that_have_one() -> None:
    statistics = SeriesStandardScaler().fit(FRAME).statistics_
    known = FRAME[FRAME["symbol"] == "BTC"]["gap"].dropna()
    assert len(known) == 39
    assert statistics.gap_scale[statistics.symbols.index("BTC")] == pytest.approx(known.std(ddof=0), rel=1e-12)
    assert statistics.gap_scale[statistics.symbols.index("ONE")] == 1.0


@pytest.mark.parametrize("value", [0.0, 0.1, 1e-7, 123456.789])
def test_a_constant_series_is_left_unscaled(value: float) -> None:
    frame = pd.DataFrame({"symbol": ["A"] * 37, **dict.fromkeys(SCALED, [value] * 37), "gap": [np.nan] + [value] * 36})
    scaler = SeriesStandardScaler().fit(frame)
    assert (scaler.statistics_.scale == 1.0).all()
    assert (scaler.statistics_.gap_scale == 1.0).all()
    np.testing.assert_allclose(scaler.transform(frame)[list(SCALED)], 0.0, atol=1e-10)


def test_a_series_of_one_row_is_moved_to_zero() -> None:
    frame = rows({"ONE": 1})
    assert (SeriesStandardScaler().fit_transform(frame)[list(SCALED)].to_numpy() == 0.0).all()


@settings(deadline=None)
@given(counts=counts_of_series, seed=st.integers(0, 1000))
def test_what_is_scaled_comes_back(counts: dict[str, int], seed: int) -> None:
    frame = rows(counts, seed)
    scaler = SeriesStandardScaler().fit(frame)
    back = scaler.inverse_transform(scaler.transform(frame))
    pd.testing.assert_frame_equal(back, frame, rtol=1e-12, atol=0)


@settings(deadline=None)
@given(counts=counts_of_series, seed=st.integers(0, 1000))
def test_a_series_numbers_do_not_depend_on_the_series_beside_it(counts: dict[str, int], seed: int) -> None:
    own = rows({"OWN": 9}, seed)
    beside = rows({f"{name}!": count for name, count in counts.items()}, seed + 1)
    alone = SeriesStandardScaler().fit(own).statistics_
    together = SeriesStandardScaler().fit(pd.concat([beside, own])).statistics_
    code = together.symbols.index("OWN")
    assert np.array_equal(together.mean[code], alone.mean[0])
    assert np.array_equal(together.scale[code], alone.scale[0])
    assert together.gap_scale[code] == alone.gap_scale[0]


def test_the_order_of_columns_changes_nothing() -> None:
    turned = FRAME[FRAME.columns[::-1]]
    straight = SeriesStandardScaler().fit(FRAME)
    reverse = SeriesStandardScaler().fit(turned)
    assert np.array_equal(straight.statistics_.mean, reverse.statistics_.mean)
    pd.testing.assert_frame_equal(reverse.transform(turned)[FRAME.columns], straight.transform(FRAME))


def test_index_columns_and_the_frame_given_are_left_as_they_are() -> None:
    frame = FRAME.assign(log_shares=3.5, note="kept")
    before = frame.copy()
    scaler = SeriesStandardScaler().fit(frame)
    scaled = scaler.transform(frame)
    pd.testing.assert_frame_equal(frame, before)
    others = [name for name in frame.columns if name not in SCALED]
    pd.testing.assert_frame_equal(scaled[others], frame[others])
    assert list(scaler.get_feature_names_out()) == list(scaled.columns)


def test_transform_agrees_with_the_arithmetic_of_scoring() -> None:
    scaler = SeriesStandardScaler().fit(FRAME)
    block = np.column_stack([FRAME[list(SCALED)], np.zeros(len(FRAME))])
    scored = scaler.statistics_.scale_block(block, scaler.statistics_.codes(FRAME["symbol"]))
    assert np.array_equal(scored[:, : len(SCALED)], scaler.transform(FRAME)[list(SCALED)].to_numpy())


def test_symbols_the_scaler_has_not_seen_are_refused_by_name() -> None:
    scaler = SeriesStandardScaler().fit(FRAME[FRAME["symbol"].isin(["BTC", "ONE"])])
    with pytest.raises(Refused, match="fitted without ETH, XRP;"):
        scaler.transform(FRAME)
    with pytest.raises(Refused, match="fitted without ETH, XRP;"):
        scaler.inverse_transform(FRAME)


def test_a_clone_has_the_parameters_and_nothing_learnt() -> None:
    fitted = SeriesStandardScaler().fit(FRAME)
    copy = clone(fitted)
    assert copy.get_params() == fitted.get_params()
    with pytest.raises(NotFittedError):
        copy.transform(FRAME)


def test_missing_columns_are_all_named() -> None:
    with pytest.raises(Refused, match="high, gap"):
        SeriesStandardScaler().fit(FRAME.drop(columns=["gap", "high"]))


def test_rows_that_cannot_be_learnt_from_are_refused() -> None:
    with pytest.raises(Refused, match="no rows"):
        SeriesStandardScaler().fit(FRAME[:0])
    with pytest.raises(Refused, match=r"not finite \(in low\)"):
        SeriesStandardScaler().fit(FRAME.assign(low=np.inf))
