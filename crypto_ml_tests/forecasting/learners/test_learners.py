"""Every learner leaves a network that computes what was fitted, and a window has the same bits however it is asked."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crypto_ml.errors import Refused
from crypto_ml.forecasting.inference import Network
from crypto_ml.forecasting.learners.by_name import learner_of
from crypto_ml.forecasting.learners.learner import Fitted, Sample
from crypto_ml.forecasting.learners.linear_graph import COEFFICIENTS
from crypto_ml.forecasting.learners.tree_graph import (
    LEAF,
    Ensemble,
    Tree,
    exact,
    read_trees,
    rounded_down,
    tree_graph,
)
from crypto_ml.forecasting.onnx_graph import stored_arrays
from crypto_ml.forecasting.plan import LearnerName, Plan
from crypto_ml.forecasting.schema import WINDOW
from crypto_ml.forecasting.shrinkage import shrunk_network
from crypto_ml.forecasting.windows import Drawn, taken_by

ROWS = 1200
RANDOM = np.random.default_rng(11)
WINDOWS = RANDOM.normal(size=(ROWS, WINDOW, 5)).astype(np.float32)
TARGET = (0.4 * WINDOWS[:, -1, 1] + 0.3 * (WINDOWS[:, 0, 0] > 0) + RANDOM.laplace(0, 0.3, ROWS)).astype(np.float32)
VALID = Sample(WINDOWS[:300], TARGET[:300])
SMALL = Plan(target="relative_gap", epochs=3, batch_size=64, learning_rate=5e-3, most_windows=800, drawn="each epoch")
FEW: Mapping[str, Mapping[str, float]] = {
    "boosting": {"trees": 12, "rows_in_leaf": 30, "learning_rate": 0.2},
    "gru": {"units": 8},
}


@dataclass(frozen=True)
class Given:
    """Rows to learn from, held in memory."""

    all: Sample

    def __len__(self) -> int:
        return len(self.all.target)

    def sample(self, most: int, seed: int) -> Sample:  # noqa: ARG002 - the seam's
        return Sample(self.all.windows[:most], self.all.target[:most])

    def drawn(self, an_epoch: int, seed: int) -> Drawn:
        return Handed(self.all, an_epoch, seed)


@dataclass(frozen=True)
class Handed:
    all: Sample
    an_epoch: int
    seed: int

    @property
    def targets(self) -> np.ndarray:
        return self.all.target

    def of_epoch(self, epoch: int) -> np.ndarray:
        return taken_by(epoch, len(self.all.target), self.an_epoch, self.seed)

    def batch(self, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self.all.windows[chosen], self.all.target[chosen]


def learnt(name: LearnerName, plan: Plan = SMALL) -> Fitted:
    given = Given(Sample(WINDOWS[300:], TARGET[300:]))
    return learner_of(name).fit(given, VALID, replace(plan, learner=name, parameters=FEW.get(name, {})))


@pytest.fixture(scope="module", params=get_args(LearnerName))
def name(request: pytest.FixtureRequest) -> LearnerName:
    found: LearnerName = request.param
    return found


@pytest.fixture(scope="module")
def fitted(name: LearnerName) -> Fitted:
    return learnt(name)


@pytest.mark.parametrize("shrink", [None, 0.7])
def test_a_window_has_the_same_bits_whatever_stands_beside_it_and_on_however_many_threads(
    fitted: Fitted, shrink: float | None
) -> None:
    content = fitted.network if shrink is None else shrunk_network(fitted.network, shrink, 0.05)
    networks = [Network.from_bytes(content, threads=threads, features=5) for threads in (1, 2, 4)]
    expected = networks[0].predict(WINDOWS)
    for network in networks:
        for size in (1, 3, 130, ROWS):
            rows = WINDOWS[: size * 40]
            found = [network.predict(rows[begin : begin + size]) for begin in range(0, len(rows), size)]
            assert np.concatenate(found).tobytes() == expected[: len(rows)].tobytes()


def test_what_is_exported_is_what_was_fitted_and_the_same_rows_give_the_same_bytes(
    name: LearnerName, fitted: Fitted
) -> None:
    assert fitted.difference <= fitted.tolerance < 1e-3
    again = fitted if name == "gru" else learnt(name)  # that a network is repeated is held by test_network
    assert (again.network, again.weights_sha256) == (fitted.network, fitted.weights_sha256)
    assert again.documents == fitted.documents
    assert fitted.history["val_loss"][fitted.best - 1] == min(fitted.history["val_loss"])


def test_a_learner_is_better_than_the_last_close_where_there_is_something_to_learn(
    name: LearnerName, fitted: Fitted
) -> None:
    error = np.abs(Network.from_bytes(fitted.network, features=5).predict(VALID.windows) - VALID.target).mean()
    naive = np.abs(VALID.target).mean()
    assert error == pytest.approx(naive) if name == "last_close" else error < 0.95 * naive


def test_a_parameter_that_the_learner_does_not_have_is_refused_with_those_it_has() -> None:
    plan = replace(SMALL, learner="absolute", parameters={"trees": 3})
    with pytest.raises(Refused, match="absolute has no parameter trees; it has penalty"):
        learner_of("absolute").fit(Given(VALID), VALID, plan)


def test_the_parameters_of_every_learner_may_be_searched_for_round_those_it_has_by_default(name: LearnerName) -> None:
    learner = learner_of(name)
    assert learner.SPACE.keys() == learner.DEFAULTS.keys()
    assert all(space.low <= learner.DEFAULTS[one] <= space.high for one, space in learner.SPACE.items())


def test_least_absolute_deviations_find_what_made_the_rows_though_some_are_far_off() -> None:
    windows = np.random.default_rng(2).normal(size=(600, WINDOW, 5)).astype(np.float32)
    target = 0.5 * windows[:, 4, 1] - 0.25 * windows[:, 0, 3]
    target[::10] += 10
    found = learner_of("absolute").fit(Given(Sample(windows, target)), VALID, replace(SMALL, learner="absolute"))
    coefficients = stored_arrays(found.network)[COEFFICIENTS].reshape(WINDOW, 5)
    expected = np.zeros((WINDOW, 5))
    expected[4, 1], expected[0, 3] = 0.5, -0.25
    np.testing.assert_allclose(coefficients, expected, atol=1e-5)


@given(
    st.floats(allow_nan=False, allow_infinity=False, width=64), st.floats(allow_nan=False, width=32), st.integers(-2, 2)
)
def test_a_rounded_threshold_sends_every_float32_where_the_exact_one_does(
    threshold: float, value: float, beside: int
) -> None:
    rounded = rounded_down(np.array([threshold]))[0]
    near = np.float32(rounded)
    with np.errstate(over="ignore"):
        for _ in range(abs(beside)):
            near = np.nextafter(near, np.float32(np.inf if beside > 0 else -np.inf))
    for one in (np.float32(value), near):
        assert (one <= rounded) == (float(one) <= threshold)


@given(st.integers(0, 10_000), st.integers(1, 30), st.floats(1e-3, 1e3))
def test_trees_add_up_to_the_same_bits_in_any_order(seed: int, count: int, size: float) -> None:
    ensemble = random_trees(seed, count, size)
    leaves = np.array([tree.value[1:] for tree in ensemble.trees]).astype(np.float32)
    random = np.random.default_rng(seed)
    chosen = leaves[np.arange(count), random.integers(0, 2, count)]
    sums = {
        np.float32(np.add.reduce(np.concatenate([[np.float32(ensemble.base)], random.permutation(chosen)])))
        for _ in range(5)
    }
    exactly = float(chosen.astype(np.float64).sum()) + ensemble.base
    assert sums == {np.float32(exactly)}
    assert float(np.float32(exactly)) == exactly


def random_trees(seed: int, count: int, size: float) -> Ensemble:
    """Trees of one question and two leaves."""
    random = np.random.default_rng(seed)
    trees = [
        Tree(
            np.array([random.integers(0, 25), LEAF, LEAF]),
            np.array([random.normal(), 0, 0], np.float32),
            np.array([1, 0, 0]),
            np.array([2, 0, 0]),
            np.array([0.0, *random.normal(0, size, 2)]),
            np.array([10.0, 4.0, 6.0]),
        )
        for _ in range(count)
    ]
    return exact(trees, float(random.normal(0, size)))


def test_trees_are_read_back_from_a_graph_as_they_were_written_shrunk_or_not() -> None:
    ensemble = random_trees(1, 7, 1.0)
    content = tree_graph(ensemble, 5)
    for graph in (content, shrunk_network(content, 0.5, 0.05)):
        found = read_trees(graph)
        assert found is not None
        assert found.base == ensemble.base
        for one, other in zip(found.trees, ensemble.trees, strict=True):
            for field in ("feature", "threshold", "left", "right", "value", "rows"):
                assert getattr(one, field).tolist() == getattr(other, field).tolist()
