"""Features and windows against their definitions, written once more in plain Python."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crypto_ml.forecasting.features import add_levels, feature_block, gaps, series_starts
from crypto_ml.forecasting.schema import FEATURES, WINDOW
from crypto_ml.forecasting.windows import as_input, window_rows, windows
from crypto_ml_tests.forecasting import reference
from crypto_ml_tests.forecasting.markets import market, records

LENGTHS = st.dictionaries(st.sampled_from(["A", "B", "BTC", "LTC", "Z"]), st.integers(0, 14), min_size=1)


def test_the_features_are_those_of_the_handover_in_its_order() -> None:
    assert FEATURES == reference.FEATURE_ORDER


@given(lengths=LENGTHS, seed=st.integers(0, 1000))
def test_features_are_what_a_loop_over_the_definitions_gives(lengths: dict[str, int], seed: int) -> None:
    rows = market(lengths, seed)
    block = feature_block(add_levels(rows), series_starts(rows["symbol"]))
    expected = [
        [row[name] for name in reference.FEATURE_ORDER]
        for _, series in rows.groupby("symbol")
        for row in reference.features(records(series))
    ]
    assert block.shape == (len(rows), 13)
    np.testing.assert_allclose(block, np.array(expected).reshape(-1, 13), rtol=1e-14, atol=0)


def test_levels_are_nought_where_their_formulas_have_no_number() -> None:
    flat = {"open": 5.0, "high": 5.0, "low": 5.0, "close": 5.0}
    rows = pd.DataFrame([flat | {"market": value} for value in (0.0, np.nan, np.inf, 1e308, 5.0, 5.1)])
    levels = add_levels(rows)
    assert levels["close_ratio"].tolist() == [0.0] * 6
    assert levels["spread"].tolist() == [0.0] * 6
    assert levels["log_shares"].tolist() == [0, 0, 0, np.log(1e308 / 5), 0, np.log(2)]


@pytest.mark.parametrize(
    ("symbols", "starts"), [([], []), (["A"], [0]), (["A", "A", "B"], [0, 0, 2]), (["A", "B", "A"], [0, 1, 2])]
)
def test_a_series_starts_where_the_name_changes(symbols: list[str], starts: list[int]) -> None:
    assert series_starts(symbols).tolist() == starts


@given(lengths=LENGTHS, seed=st.integers(0, 1000))
def test_a_gap_is_the_open_less_the_last_close_and_nothing_on_a_first_row(lengths: dict[str, int], seed: int) -> None:
    rows = market(lengths, seed)
    expected = rows["open"] - rows.groupby("symbol")["close"].shift(1)
    assert np.array_equal(gaps(rows, series_starts(rows["symbol"])), expected, equal_nan=True)


@given(lengths=LENGTHS, data=st.data())
def test_a_window_holds_the_five_rows_before_and_zeros_in_front(lengths: dict[str, int], data: st.DataObject) -> None:
    symbols = np.repeat(sorted(lengths), [lengths[name] for name in sorted(lengths)])
    n = len(symbols)
    at = np.array(data.draw(st.lists(st.integers(0, max(n - 1, 0)), max_size=10 if n else 0)), np.int64)
    scaled = np.arange(n * 13, dtype=np.float64).reshape(n, 13) + 1
    scaled[np.random.default_rng(0).random((n, 13)) < 0.05] = np.nan
    found = windows(scaled, series_starts(symbols), at)
    assert found.shape == (len(at), WINDOW, 13)
    assert found.dtype == np.float32
    for row, window in zip(at, found, strict=True):
        for step in range(WINDOW):
            before = row - WINDOW + step
            same = before >= 0 and symbols[before] == symbols[row] and len(set(symbols[before : row + 1])) == 1
            assert np.array_equal(window[step], np.nan_to_num(scaled[before]) if same else np.zeros(13))


def test_rows_that_do_not_exist_can_still_be_gathered() -> None:
    index, exists = window_rows(np.array([0, 0, 2]), np.array([0, 1, 2]))
    assert exists.sum(axis=1).tolist() == [0, 1, 0]
    assert index.min() >= 0
    assert index.max() <= 2


def test_the_network_is_given_nothing_that_is_not_finite() -> None:
    values = np.array([np.nan, np.inf, -np.inf, 1e39, -1e39, 1.5])
    assert as_input(values).tolist() == [0, 0, 0, 0, 0, 1.5]
