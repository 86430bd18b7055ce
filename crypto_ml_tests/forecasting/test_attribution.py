"""The parts of an output: exact where they are said to be, by the definition written out."""

from itertools import combinations
from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crypto_ml.forecasting.attribution import EXACT, OCCLUSION, attribution, tree_parts
from crypto_ml.forecasting.bundle import ModelBundle, make_bundle
from crypto_ml.forecasting.learners.linear_graph import linear_graph
from crypto_ml.forecasting.learners.tree_graph import LEAF, Ensemble, Tree, exact, tree_graph
from crypto_ml.forecasting.schema import WINDOW
from crypto_ml.forecasting.serving_rule import ServingRule
from crypto_ml.forecasting.shrinkage import shrunk_network
from crypto_ml_tests.forecasting.markets import relative_model

INPUTS = 4


def random_tree(random: np.random.Generator, depth: int, inputs: int) -> Tree:
    """A whole tree of this depth that asks anything, also twice on one way."""
    count = 2 ** (depth + 1) - 1
    inner = np.arange(count) < 2**depth - 1
    numbers = np.arange(count)
    return Tree(
        np.where(inner, random.integers(0, inputs, count), LEAF),
        np.where(inner, random.normal(0, 1, count), 0).astype(np.float32),
        np.where(inner, 2 * numbers + 1, 0),
        np.where(inner, 2 * numbers + 2, 0),
        np.where(inner, 0.0, random.normal(0, 1, count)),
        np.ones(count),
    )


def value_of(ensemble: Ensemble, inputs: np.ndarray) -> float:
    total = ensemble.base
    for tree in ensemble.trees:
        node = 0
        while tree.feature[node] != LEAF:
            goes_left = inputs[tree.feature[node]] <= tree.threshold[node]
            node = int((tree.left if goes_left else tree.right)[node])
        total += tree.value[node]
    return float(total)


@settings(max_examples=40)
@given(st.integers(0, 10_000), st.integers(1, 4), st.integers(1, 4))
def test_the_parts_of_trees_are_shapley_values_as_they_are_defined(seed: int, depth: int, count: int) -> None:
    random = np.random.default_rng(seed)
    ensemble = exact([random_tree(random, depth, INPUTS) for _ in range(count)], 0.3)
    inputs, baseline = random.normal(0, 1, (2, INPUTS)).astype(np.float32)
    expected = np.zeros(INPUTS)
    for one in range(INPUTS):
        others = [number for number in range(INPUTS) if number != one]
        for size in range(INPUTS):
            for chosen in combinations(others, size):
                mixed = baseline.copy()
                mixed[list(chosen)] = inputs[list(chosen)]
                without = value_of(ensemble, mixed)
                mixed[one] = inputs[one]
                expected[one] += (value_of(ensemble, mixed) - without) / (INPUTS * comb(INPUTS - 1, size))
    found = tree_parts(ensemble, inputs, baseline)
    np.testing.assert_allclose(found, expected, atol=1e-9)
    assert found.sum() == pytest.approx(value_of(ensemble, inputs) - value_of(ensemble, baseline), abs=1e-9)


def serving(network: bytes, shrink: float) -> ModelBundle:
    return make_bundle(
        label="x", target="relative_gap", scaler=relative_model().scaler, slugs={}, weights_sha256="", about={},
        network_onnx=shrunk_network(network, shrink, 0.05), documents={}, rule=ServingRule(shrink, 0.05),
    )  # fmt: skip


@pytest.mark.parametrize("shrink", [0.0, 0.4])
def test_exact_parts_add_up_to_what_the_network_says_beyond_an_average_window_however_it_is_shrunk(
    shrink: float,
) -> None:
    random = np.random.default_rng(4)
    window = random.normal(0, 1, (WINDOW, 5)).astype(np.float32)
    trees = exact([random_tree(random, 3, 25) for _ in range(9)], 0.1)
    coefficients = random.normal(0, 1, (WINDOW, 5))
    for network in (tree_graph(trees, 5), linear_graph(coefficients, 0.25)):
        found = attribution(serving(network, shrink), window)
        assert found.method == EXACT
        assert found.parts.sum() == pytest.approx(found.output - found.average, abs=1e-5)
        assert np.abs(found.parts).max() > 0.1
    assert found.average == 0.25


def test_parts_of_another_network_are_what_it_loses_without_each_number() -> None:
    bundle = relative_model(0.0)  # one product that is not one of the learners' graphs
    window = np.random.default_rng(5).normal(0, 1, (WINDOW, 5)).astype(np.float32)
    found = attribution(bundle, window)
    assert found.method == OCCLUSION
    assert found.parts.sum() == pytest.approx(found.output - found.average, abs=1e-5)
    assert np.abs(found.parts).max() > 0.01
