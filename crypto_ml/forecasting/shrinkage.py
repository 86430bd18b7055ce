"""Never materially worse than the last close: what a learner says of the next gap, shrunk and capped.

    served = clip(λ · output, ±κ)          pred_open = last close · (1 + s · served)

The output is in units of the recent gap size s (`recent_gaps`). κ bounds the excess loss: whatever the network does, a
prediction is within κ recent gaps of the last close. λ is the smallest value whose loss on the validation rows lies
within one day-clustered standard error of the best (the one-standard-error rule, Hastie et al. 2009, §7.10); 0 is
allowed, and means the last close itself. Both stand in the exported graph, so whoever runs it serves the same.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from crypto_ml.errors import Refused
from crypto_ml.forecasting.features import FloatArray

if TYPE_CHECKING:
    import onnx

LAMBDAS: Final = (0.0, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
KAPPA: Final = 0.05

LAMBDA_NAME: Final = "shrink.lambda"
KAPPA_NAME: Final = "shrink.kappa"
RAW: Final = "raw_output"


@dataclass(frozen=True)
class Shrinkage:
    """λ and κ, and how λ was chosen: the mean loss of each λ of LAMBDAS (in recent gaps), the standard error that was
    allowed, and on how many rows and days; empty where it was given."""

    shrink: float
    cap: float = KAPPA
    chosen: Mapping[str, Any] | None = None


def served(output: FloatArray, shrink: float, cap: float) -> FloatArray:
    """clip(λ · output, ±κ), the shape of `output`; what is no number counts as 0. Computed as the exported graph does,
    in float32."""
    raw = output.astype(np.float32)
    raw = np.where(np.isnan(raw), np.float32(0), raw)
    limit = np.float32(np.finfo(np.float32).max)
    shrunk = np.clip(raw, -limit, limit) * np.float32(shrink)
    return np.asarray(np.clip(shrunk, -np.float32(cap), np.float32(cap)), np.float64)


def choose_shrinkage(
    output: FloatArray, target: FloatArray, days: npt.NDArray[Any], *, cap: float = KAPPA
) -> Shrinkage:
    """λ by the one-standard-error rule.

    output, target: (n,), the learner's output and the observed gap, both in recent gaps, of the validation rows; days:
    (n,), the day of each, by which the standard error is clustered. The loss is the mean of |target − served|.
    Raises Refused where there are no rows.
    """
    if not len(target):
        raise Refused("there are no validation rows to choose the shrinkage on; train on a longer history")
    _, of_day = np.unique(days, return_inverse=True)
    counts = np.bincount(of_day).astype(np.float64)
    losses = np.column_stack([np.abs(target - served(output, one, cap)) for one in LAMBDAS])
    means = losses.mean(axis=0)
    best = int(np.argmin(means))
    # how much further off a λ is than the best one, day by day: days are independent, coins of one day are not
    excess = losses - losses[:, [best]]
    by_day = np.column_stack([np.bincount(of_day, excess[:, k]) for k in range(len(LAMBDAS))]).astype(np.float64)
    spread = np.sqrt(((by_day - _if_alike(by_day, counts)) ** 2).sum(axis=0)) / len(target)
    allowed = [k for k in range(len(LAMBDAS)) if means[k] - means[best] <= spread[k]]
    chosen = min(allowed)
    return Shrinkage(
        LAMBDAS[chosen],
        cap,
        {
            "rule": "the least λ whose loss is within one standard error, clustered by day, of the least loss",
            "rows": len(target),
            "days": len(counts),
            "best": LAMBDAS[best],
            "loss": {str(one): float(mean) for one, mean in zip(LAMBDAS, means, strict=True)},
            "standard_error_at_chosen": float(spread[chosen]),
        },
    )


def _if_alike(by_day: FloatArray, counts: FloatArray) -> FloatArray:
    """What each day would sum to if all rows were alike: (days, k)."""
    return np.outer(counts, by_day.sum(axis=0) / counts.sum())


def shrunk_network(network_onnx: bytes, shrink: float, cap: float) -> bytes:
    """The network with λ and κ in its graph: one output (n, 1) float32, always a finite number within ±κ.

    network_onnx: a graph with one output (n, 1) float32, shrunk or not; of one that is, only λ and κ are replaced.
    """
    import onnx
    from onnx import numpy_helper

    model = onnx.load_model_from_string(network_onnx)
    values = {LAMBDA_NAME: shrink, KAPPA_NAME: cap}
    if is_shrunk(model):
        for tensor in model.graph.initializer:
            if tensor.name in values:
                tensor.CopyFrom(numpy_helper.from_array(np.array(values[tensor.name], np.float32), tensor.name))
    else:
        _append(model, values)
    onnx.checker.check_model(model, full_check=True)
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def unshrunk_network(network_onnx: bytes) -> bytes:
    """The graph with λ = 1 and a cap that nothing reaches: what its learner says, to the last bit."""
    return shrunk_network(network_onnx, 1.0, float(np.finfo(np.float32).max))


def is_shrunk(model: "onnx.ModelProto") -> bool:
    """Whether a graph has λ and κ in it."""
    return any(tensor.name == LAMBDA_NAME for tensor in model.graph.initializer)


def _append(model: "onnx.ModelProto", values: Mapping[str, float]) -> None:
    from onnx import helper, numpy_helper

    graph = model.graph
    (output,) = graph.output
    for node in graph.node:
        for number, name in enumerate(node.output):
            if name == output.name:
                node.output[number] = RAW
        for number, name in enumerate(node.input):
            if name == output.name:
                node.input[number] = RAW
    limit = float(np.finfo(np.float32).max)
    constants = {**values, "shrink.zero": 0.0, "shrink.most": limit, "shrink.least": -limit}
    graph.initializer.extend(
        numpy_helper.from_array(np.array(value, np.float32), name) for name, value in constants.items()
    )
    nodes = [
        helper.make_node("IsNaN", [RAW], ["shrink.missing"]),
        helper.make_node("Where", ["shrink.missing", "shrink.zero", RAW], ["shrink.number"]),
        helper.make_node("Clip", ["shrink.number", "shrink.least", "shrink.most"], ["shrink.finite"]),
        helper.make_node("Mul", ["shrink.finite", LAMBDA_NAME], ["shrink.shrunk"]),
        helper.make_node("Neg", [KAPPA_NAME], ["shrink.floor"]),
        helper.make_node("Clip", ["shrink.shrunk", "shrink.floor", KAPPA_NAME], [output.name]),
    ]
    for node in nodes:
        node.name = f"shrink.node.{node.output[0]}"
    graph.node.extend(nodes)
