"""How far off predictions are: the errors of `forecasting.evaluation`, on the rows that can be compared."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from crypto_ml.forecasting.evaluation import evaluate
from crypto_ml.page.accuracy import KnownRows, accuracy, accuracy_of_all, baselines, rolling_mean
from crypto_ml.page.charts import drawn
from crypto_ml.page.predictions_file import read_predictions
from crypto_ml_tests.page.files import as_csv, predictions


def test_without_a_history_the_row_before_in_the_file_is_the_only_baseline() -> None:
    read = read_predictions(as_csv(predictions({"BTC": 40, "ETH": 1})))
    rows = read.of("BTC")
    beside = baselines(rows, None)
    measured = accuracy(rows, beside)
    assert measured is not None
    assert measured.rows == 39
    assert measured.model.mre == pytest.approx(0.01)
    assert measured.last_open.mae == pytest.approx(np.abs(np.diff(rows.observed)).mean())
    assert measured.last_close is None
    assert measured.model.mase is None
    assert accuracy(read.of("ETH"), baselines(read.of("ETH"), None)) is None
    whole = accuracy_of_all(read)
    assert whole is not None
    assert whole.rows == 39
    assert not beside.from_history


def test_with_a_history_open_and_close_are_those_of_the_day_before_that_it_has() -> None:
    rows = read_predictions(as_csv(predictions({"BTC": 4}))).of("BTC")
    days = np.array(["2022-12-31", "2023-01-01", "2023-01-03"], "datetime64[D]")
    known = KnownRows(days, np.array([1.0, 2.0, 3.0]), np.array([11.0, 12.0, 13.0]))
    beside = baselines(rows, known)
    assert beside.last_open.tolist() == [1.0, 2.0, 2.0, 3.0]
    assert beside.last_close.tolist() == [11.0, 12.0, 12.0, 13.0]
    measured = accuracy(rows, beside)
    assert measured is not None
    assert measured.last_close is not None
    wanted = evaluate(
        np.zeros(3), rows.observed[1:], rows.predicted[1:], beside.last_open[1:], beside.last_close[1:]
    ).overall
    assert (measured.model, measured.last_open, measured.last_close) == (
        wanted.network,
        wanted.last_open,
        wanted.last_close,
    )
    # a history that begins later says nothing of the days before
    later = baselines(rows, KnownRows(days[2:], np.array([3.0]), np.array([13.0])))
    assert np.isnan(later.last_close).tolist() == [True, True, True, False]


@given(arrays(np.float64, st.integers(1, 60), elements=st.floats(0, 1e6) | st.just(np.nan)), st.integers(1, 40))
def test_a_rolling_mean_is_the_mean_of_the_numbers_among_the_last_rows(values: np.ndarray, rows: int) -> None:
    for number, mean in enumerate(rolling_mean(values, rows)):
        window = values[max(0, number - rows + 1) : number + 1]
        there = window[np.isfinite(window)]
        assert mean == pytest.approx(there.mean(), abs=1e-6) if len(there) else np.isnan(mean)


def test_what_is_drawn_is_one_symbol_its_interval_where_there_is_one_and_errors_without_their_sign() -> None:
    rows = read_predictions(
        as_csv(predictions({"BTC": 3}, pred_low=[np.nan, 9.0, np.nan], pred_high=[1.0, 11.0, 12.0]))
    )
    seen = drawn(rows.of("BTC"), baselines(rows.of("BTC"), None))
    assert {len(column) for column in seen.lines.values()} == {3}
    assert seen.lines["day"].tolist() == [1672531200000.0 + 86_400_000 * n for n in range(3)]
    assert seen.lines["model_day"][1:] == pytest.approx([1.0, 1.0])
    assert np.isnan(seen.lines["off"][0])
    assert np.isnan(seen.lines["last_close"]).all()
    assert [column.tolist() for column in seen.band.values()] == [[1672617600000.0], [9.0], [11.0]]
