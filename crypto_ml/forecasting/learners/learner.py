"""The seam of learners: windows and gaps in, a network in ONNX out.

Belongs here: what every learner is given and gives. A learner is a module with the function `fit` and with DEFAULTS,
the parameters that a plan may vary. What it exports gives a window the same bits whatever stands beside it, in however
large a batch and on however many threads: a prediction is replayed by itself.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from crypto_ml.errors import Refused
from crypto_ml.forecasting.features import FloatArray
from crypto_ml.forecasting.plan import Plan
from crypto_ml.forecasting.progress import Tell, tell_nobody
from crypto_ml.forecasting.windows import Drawn, WindowArray


@dataclass(frozen=True, eq=False)
class Sample:
    """windows: (n, 5, k) float32. target: (n,) float32, the gap in recent gap sizes, clipped."""

    windows: WindowArray
    target: npt.NDArray[np.float32]


class Source(Protocol):
    """Rows that can be learnt from."""

    def __len__(self) -> int: ...

    def sample(self, most: int, seed: int) -> Sample:
        """All rows; where there are more than `most`, a seeded sample of so many."""
        ...

    def drawn(self, an_epoch: int, seed: int) -> Drawn:
        """All rows, of which each epoch takes `an_epoch` others."""
        ...


@dataclass(frozen=True, eq=False)
class Fitted:
    """What a fit leaves behind.

    network: ONNX, windows (n, 5, k) float32 → (n, 1) float32, in recent gap sizes, neither shrunk nor capped. history:
    `loss` and `val_loss` (mean absolute error, in recent gap sizes), one number for each epoch or tree; best: which of
    them, counted from 1, was kept. difference: the largest difference of the network and what was fitted, on the
    validation windows; tolerance: how large rounding may make it. documents: further files of the bundle.
    """

    network: bytes
    weights_sha256: str
    difference: float
    tolerance: float
    history: Mapping[str, Sequence[float]]
    best: int
    parameters: Mapping[str, float]
    architecture: str
    documents: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True)
class Between:
    """Values that a parameter may have: both ends are among them. log: searched by its logarithm."""

    low: float
    high: float
    log: bool = False
    whole: bool = False


class Learner(Protocol):
    """What a module of this package is. DEFAULTS: its parameters; SPACE: where each may be searched for."""

    DEFAULTS: Mapping[str, float]
    SPACE: Mapping[str, Between]

    def fit(self, train: Source, valid: Sample, plan: Plan, tell: Tell = tell_nobody) -> Fitted:
        """Learn from `train`; `valid` says when it is enough. The same rows and plan give the same network."""
        ...


def chosen(plan: Plan, defaults: Mapping[str, float]) -> dict[str, float]:
    """A learner's parameters, the plan's where it has one. Raises Refused for one that the learner has not."""
    if unknown := sorted(set(plan.parameters) - set(defaults)):
        raise Refused(
            f"the learner {plan.learner} has no parameter {', '.join(unknown)}; it has {', '.join(defaults) or 'none'}"
        )
    return {**defaults, **plan.parameters}


def absolute_error(output: FloatArray, sample: Sample) -> float:
    """Mean absolute error of outputs (n,), in recent gap sizes."""
    return float(np.abs(output - sample.target.astype(np.float64)).mean())
