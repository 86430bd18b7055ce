"""Regression trees as an ONNX graph that gives the same bits in any batch and on any number of threads.

onnxruntime adds trees up in float32, in an order that depends on batch and threads. So the leaves are rounded to
multiples of a power of two that is coarse enough for every partial sum to be exact: then order does not matter. A
threshold is rounded down to float32, so that inputs, which are float32, take the branch that they took in float64:
x ≤ t exactly where x ≤ the largest float32 not above t. (skl2onnx does neither, hence by hand.)
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from crypto_ml.forecasting.features import FloatArray, IntArray
from crypto_ml.forecasting.onnx_graph import INPUT, OPSET, OUTPUT, model_bytes

ML_OPSET: Final = 3
LEAF: Final = -1
MANTISSA: Final = 24
"""Bits of a float32's significand."""


@dataclass(frozen=True, eq=False)
class Tree:
    """One tree of m nodes, the root first: an input below or at `threshold` goes `left`.

    feature: (m,) int64, which of the 25 numbers of a window, LEAF at leaves. threshold: (m,) float32. left, right: (m,)
    int64. value: (m,) float64, what leaves add. rows: (m,) float64, how many training rows came by.
    """

    feature: IntArray
    threshold: npt.NDArray[np.float32]
    left: IntArray
    right: IntArray
    value: FloatArray
    rows: FloatArray


@dataclass(frozen=True, eq=False)
class Ensemble:
    """Trees and what is added to their sum; all values multiples of `grid`, so that sums in float32 are exact."""

    trees: tuple[Tree, ...]
    base: float
    grid: float

    @property
    def tolerance(self) -> float:
        """By how much rounding the leaves can move an output at most, and what float64 sums may add."""
        return (len(self.trees) + 1) * self.grid / 2 + 1e-9

    @property
    def sha256(self) -> str:
        """Name of the ensemble by what it computes."""
        digest = hashlib.sha256(f"trees {len(self.trees)} {self.base!r}".encode())
        for tree in self.trees:
            for array in (tree.feature, tree.threshold, tree.left, tree.right, tree.value):
                digest.update(np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes())
        return digest.hexdigest()


def rounded_down(thresholds: FloatArray) -> npt.NDArray[np.float32]:
    """The largest float32 not above each threshold."""
    with np.errstate(over="ignore"):
        nearest = thresholds.astype(np.float32)
    above = nearest.astype(np.float64) > thresholds
    return np.where(above, np.nextafter(nearest, np.float32(-np.inf)), nearest).astype(np.float32)


def exact(trees: Sequence[Tree], base: float) -> Ensemble:
    """The trees with leaves on the finest grid on which every sum of them is exact in float32."""
    most = abs(base) + sum(float(np.abs(tree.value[tree.feature == LEAF]).max()) for tree in trees)
    most += 1e-6 * most + float(np.finfo(np.float32).tiny)  # rounding to the grid may add half of it for each tree
    grid = float(2.0 ** (np.ceil(np.log2(most)) + 1 - MANTISSA))
    return Ensemble(
        tuple(
            Tree(one.feature, one.threshold, one.left, one.right, np.round(one.value / grid) * grid, one.rows)
            for one in trees
        ),
        round(base / grid) * grid,
        grid,
    )


def tree_graph(ensemble: Ensemble, features: int) -> bytes:
    """windows (n, 5, k) → the sum of the trees' leaves and the base, (n, 1)."""
    from onnx import helper

    nodes = [
        helper.make_node("Flatten", [INPUT], ["trees.inputs"], name="trees.inputs"),
        helper.make_node(
            "TreeEnsembleRegressor", ["trees.inputs"], [OUTPUT], name=OUTPUT, domain="ai.onnx.ml",
            **_attributes(ensemble),
        ),
    ]  # fmt: skip
    return model_bytes(nodes, {}, features=features, opsets={"": OPSET, "ai.onnx.ml": ML_OPSET})


def _attributes(ensemble: Ensemble) -> dict[str, Any]:
    found: dict[str, list[Any]] = {
        **{f"nodes_{name}": [] for name in ("treeids", "nodeids", "featureids", "values", "modes", "hitrates")},
        **{f"nodes_{name}": [] for name in ("truenodeids", "falsenodeids", "missing_value_tracks_true")},
        **{f"target_{name}": [] for name in ("treeids", "nodeids", "ids", "weights")},
    }
    for number, tree in enumerate(ensemble.trees):
        leaves = tree.feature == LEAF
        count = len(leaves)
        found["nodes_treeids"] += [number] * count
        found["nodes_nodeids"] += range(count)
        found["nodes_featureids"] += np.where(leaves, 0, tree.feature).tolist()
        found["nodes_values"] += np.where(leaves, 0, tree.threshold).astype(float).tolist()
        found["nodes_modes"] += np.where(leaves, "LEAF", "BRANCH_LEQ").tolist()
        found["nodes_hitrates"] += tree.rows.tolist()  # how many training rows came by: an explanation needs it
        found["nodes_truenodeids"] += np.where(leaves, 0, tree.left).tolist()
        found["nodes_falsenodeids"] += np.where(leaves, 0, tree.right).tolist()
        found["nodes_missing_value_tracks_true"] += [0] * count
        at = np.flatnonzero(leaves).tolist()
        found["target_treeids"] += [number] * len(at)
        found["target_nodeids"] += at
        found["target_ids"] += [0] * len(at)
        found["target_weights"] += tree.value[leaves].tolist()
    return {
        **found,
        "n_targets": 1,
        "base_values": [ensemble.base],
        "aggregate_function": "SUM",
        "post_transform": "NONE",
    }


def read_trees(network_onnx: bytes) -> Ensemble | None:
    """The trees of a graph of `tree_graph`, shrunk or not; None where it has none."""
    import onnx
    from onnx import helper

    nodes = onnx.load_model_from_string(network_onnx).graph.node
    node = next((one for one in nodes if one.op_type == "TreeEnsembleRegressor"), None)
    if node is None:
        return None
    said = {one.name: helper.get_attribute_value(one) for one in node.attribute}
    ids, leaf_ids = np.array(said["nodes_treeids"]), np.array(said["target_treeids"])
    columns = {
        name: np.array(said[f"nodes_{name}"])
        for name in ("featureids", "values", "truenodeids", "falsenodeids", "hitrates")
    }
    leaves = np.array([mode == b"LEAF" for mode in said["nodes_modes"]])
    trees = []
    for number in range(int(ids.max()) + 1):
        mine = ids == number
        value = np.zeros(int(mine.sum()))
        value[np.array(said["target_nodeids"])[leaf_ids == number]] = np.array(said["target_weights"], np.float64)[
            leaf_ids == number
        ]
        one = {name: column[mine] for name, column in columns.items()}
        trees.append(
            Tree(
                np.where(leaves[mine], LEAF, one["featureids"]),
                one["values"].astype(np.float32),
                one["truenodeids"],
                one["falsenodeids"],
                value,
                one["hitrates"].astype(np.float64),
            )
        )
    return Ensemble(tuple(trees), float(said["base_values"][0]), 0.0)
