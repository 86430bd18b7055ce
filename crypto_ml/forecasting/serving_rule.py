"""What a bundle of the target `relative_gap` serves with beside its network: `serving.json`.

Belongs here: shrinkage, interval quantiles and the model of the range as one document that travels with the network and
is part of the bundle's identity. Does not belong here: how each of them is chosen (`shrinkage`, `intervals`,
`daily_range`), and how they are applied to rows (`scoring`).
"""

import json
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from crypto_ml.errors import Refused
from crypto_ml.forecasting.daily_range import FROZEN, RangeModel
from crypto_ml.forecasting.daily_range import LEVELS as RANGE_LEVELS
from crypto_ml.forecasting.intervals import LEVELS

FORMAT: Final = 1
_COEFFICIENTS: Final = ("intercept", "last", "mean_5", "mean_22")


class BadRule(Refused):
    """A serving rule that means nothing to this program."""


@dataclass(frozen=True)
class ServingRule:
    """shrink: λ, 0 … 1. cap: κ, in recent gap sizes. quantiles: q_L by level, as many as could be had. range: the model
    of the next day's range. made_from: how they were chosen, shown and never computed with."""

    shrink: float
    cap: float
    quantiles: Mapping[float, float] = field(default_factory=dict)
    range: RangeModel = FROZEN
    made_from: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        numbers = [self.shrink, self.cap, *self.quantiles.values(), *self.range.upper.values()]
        numbers += [getattr(self.range, name) for name in _COEFFICIENTS]
        sound = all(math.isfinite(number) for number in numbers) and 0 <= self.shrink <= 1 and self.cap >= 0
        sound &= _grows(self.quantiles, LEVELS) and _grows(self.range.upper, RANGE_LEVELS)
        if not sound or any(quantile < 0 for quantile in self.quantiles.values()):
            raise BadRule(
                "a serving rule needs λ in 0 … 1, κ of 0 or more, and finite quantiles of the known levels, none below "
                "that of a lower level"
            )

    @property
    def serves_last_close(self) -> bool:
        """Whether the network's output is multiplied by nothing, so that it need not be asked."""
        return self.shrink == 0.0 or self.cap == 0.0


def _grows(by_level: Mapping[float, float], levels: Collection[float]) -> bool:
    """Whether numbers are those of known levels, and none is below that of a lower level."""
    ordered = [by_level[level] for level in sorted(by_level)]
    return set(by_level) <= set(levels) and ordered == sorted(ordered)


def write_rule(rule: ServingRule) -> bytes:
    """A rule as JSON; numbers are the shortest decimals that read back as the same float64."""
    said = {
        "format": FORMAT,
        "lambda": rule.shrink,
        "kappa": rule.cap,
        "interval_quantiles": {f"{level:.2f}": quantile for level, quantile in sorted(rule.quantiles.items())},
        "range": {
            **{name: getattr(rule.range, name) for name in _COEFFICIENTS},
            "upper": {f"{level:.2f}": one for level, one in sorted(rule.range.upper.items())},
        },
        "made_from": dict(rule.made_from),
    }
    return json.dumps(said, indent=2, allow_nan=False).encode() + b"\n"


def read_rule(content: bytes) -> ServingRule:
    """The inverse of `write_rule`. Raises BadRule."""
    try:
        said = json.loads(content)
        if said["format"] != FORMAT:
            raise BadRule(
                f"a serving rule of format {said['format']}; serve it with the release that made it, or a later one"
            )
        found = said["range"]
        upper = {float(level): float(one) for level, one in found["upper"].items()}
        coefficients = {name: float(found[name]) for name in _COEFFICIENTS}
        model = RangeModel(**coefficients, upper=upper)
        quantiles = {float(level): float(one) for level, one in said["interval_quantiles"].items()}
        return ServingRule(float(said["lambda"]), float(said["kappa"]), quantiles, model, said["made_from"])
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError, RecursionError) as error:
        raise BadRule(f"a serving rule that is not as this program writes one ({error!r})") from error
