"""Errors are what their formulas say, and a network that loses to the last close does not pass."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crypto_ml.errors import Refused
from crypto_ml.forecasting.evaluation import Evaluation, beats_baseline_verdict, evaluate, onnx_verdict

SYMBOLS = np.array(["B", "A", "A", "B"])
OBSERVED = np.array([100.0, 2.0, 4.0, 200.0])
LAST_OPEN = np.array([80.0, 1.0, 5.0, 200.0])
LAST_CLOSE = np.array([90.0, 2.5, 4.5, 210.0])
PREDICTED = np.array([95.0, 2.5, 4.0, 190.0])
EVALUATION = evaluate(SYMBOLS, OBSERVED, PREDICTED, LAST_OPEN, LAST_CLOSE)


def simulated(factor: float, seed: int = 0, symbols: int = 5) -> Evaluation:
    """An evaluation of predictions `factor` times as far off as the last close, on every row."""
    random = np.random.default_rng(seed)
    names = np.repeat([f"S{number}" for number in range(symbols)], 20)
    observed = random.lognormal(3, 2, len(names))
    last_close = observed * (1 + 0.01 * random.normal(size=len(names)))
    predicted = observed - factor * (observed - last_close)
    return evaluate(names, observed, predicted, observed * 1.05, last_close)


def test_overall_errors_are_those_worked_out_by_hand() -> None:
    errors = EVALUATION.overall.network
    assert EVALUATION.overall.rows == 4
    assert errors.mae == pytest.approx((5 + 0.5 + 0 + 10) / 4)
    assert errors.rmse == pytest.approx(np.sqrt((25 + 0.25 + 100) / 4))
    assert errors.mre == pytest.approx((0.05 + 0.25 + 0 + 0.05) / 4)


def test_errors_of_a_symbol_are_over_its_own_rows() -> None:
    assert list(EVALUATION.by_symbol) == ["A", "B"]
    a, b = EVALUATION.by_symbol["A"], EVALUATION.by_symbol["B"]
    assert (a.rows, b.rows) == (2, 2)
    assert a.network.mae == pytest.approx(0.25)
    assert a.network.mase == pytest.approx(0.5)
    assert b.network.mase == pytest.approx(0.75)
    assert b.last_open.mae == pytest.approx(10.0)


def test_mase_over_all_rows_is_the_geometric_mean_of_the_symbols() -> None:
    assert EVALUATION.overall.network.mase == pytest.approx(np.sqrt(0.5 * 0.75))
    assert EVALUATION.overall.last_close.mase == pytest.approx(1.0)


def test_direction_counts_only_rows_whose_open_moved() -> None:
    assert EVALUATION.by_symbol["B"].network.directional_accuracy == 1.0
    assert EVALUATION.overall.network.directional_accuracy == 1.0
    assert EVALUATION.overall.last_open.directional_accuracy == 0.0
    still = evaluate(["A"], np.array([2.0]), np.array([3.0]), np.array([2.0]), np.array([2.0]))
    assert still.overall.network.directional_accuracy is None


def test_a_last_close_without_error_leaves_no_mase_and_no_nan() -> None:
    exact = evaluate(["A", "A"], np.array([2.0, 3.0]), np.array([2.0, 4.0]), np.array([1.0, 2.0]), np.array([2.0, 3.0]))
    assert exact.overall.network.mase is None
    assert exact.by_symbol["A"].network.mase is None
    assert json.loads(json.dumps(exact.to_dict(), allow_nan=False)) == exact.to_dict()


@pytest.mark.parametrize("column", range(4))
@pytest.mark.parametrize("price", [1e-320, 1e15])
def test_a_row_that_is_quoted_absurdly_leaves_numbers_that_json_has(column: int, price: float) -> None:
    columns = [OBSERVED, PREDICTED, LAST_OPEN, LAST_CLOSE]
    columns[column] = np.where(np.arange(4) == 2, price, columns[column])
    found = evaluate(SYMBOLS, *columns)
    document = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert document["overall"]["network"]["mre"] == found.overall.network.mre
    beyond = evaluate(SYMBOLS, OBSERVED, np.full(4, 1e300), LAST_OPEN, LAST_CLOSE)
    assert beyond.overall.network.rmse == np.inf  # said to be off beyond all numbers, where models are compared
    assert json.loads(json.dumps(beyond.to_dict(), allow_nan=False))["overall"]["network"]["rmse"] is None


@given(factor=st.floats(0.01, 10), seed=st.integers(0, 1000), symbols=st.integers(1, 8))
def test_mase_is_how_many_times_as_far_off_as_the_last_close(factor: float, seed: int, symbols: int) -> None:
    evaluation = simulated(factor, seed, symbols)
    assert evaluation.overall.network.mase == pytest.approx(factor, rel=1e-6)


@given(seed=st.integers(0, 1000), scale=st.floats(1e-6, 1e6))
def test_the_currency_changes_no_relative_error(seed: int, scale: float) -> None:
    random = np.random.default_rng(seed)
    columns = random.lognormal(0, 1, (4, 12))
    names = np.repeat(["A", "B", "C"], 4)
    here, there = evaluate(names, *columns).overall, evaluate(names, *(scale * columns)).overall
    assert there.network.mre == pytest.approx(here.network.mre, rel=1e-9)
    assert there.network.mase == pytest.approx(here.network.mase, rel=1e-9)


def test_a_network_worse_than_the_last_close_does_not_pass_and_the_sentence_has_the_numbers() -> None:
    evaluation = simulated(1.2)
    verdict = beats_baseline_verdict(evaluation)
    assert not verdict.passed
    assert verdict.threshold == evaluation.overall.last_close.mre
    assert verdict.numbers["network_mase"] == pytest.approx(1.2)
    for number in (evaluation.overall.network.mre, evaluation.overall.last_close.mre):
        assert f"{100 * number:.3f} %" in verdict.explanation
    assert "worse than the last close" in verdict.explanation


def test_a_network_closer_than_the_last_close_passes() -> None:
    assert beats_baseline_verdict(simulated(0.9)).passed


@pytest.mark.parametrize(("difference", "passed"), [(0.0, True), (1e-5, True), (1.1e-5, False), (float("nan"), False)])
def test_an_export_passes_up_to_the_tolerance(difference: float, passed: bool) -> None:
    assert onnx_verdict(difference, 1e-5).passed is passed


def test_rows_that_cannot_be_compared_are_refused() -> None:
    one = np.ones(1)
    with pytest.raises(Refused, match="no rows"):
        evaluate([], *[np.ones(0)] * 4)
    with pytest.raises(Refused, match="differ in shape"):
        evaluate(["A"], one, np.ones(2), one, one)
    with pytest.raises(Refused, match="finite predictions"):
        evaluate(["A"], one, np.array([np.nan]), one, one)
    with pytest.raises(Refused, match="positive observed"):
        evaluate(["A"], np.zeros(1), one, one, one)
