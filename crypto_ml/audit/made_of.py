"""How a model with a serving rule came to a number: the units and the rule, beside the rows that they come from."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from crypto_ml.forecasting.answers import BESIDE
from crypto_ml.forecasting.bundle import ModelBundle
from crypto_ml.forecasting.columns import Columns
from crypto_ml.forecasting.recent_gaps import FEWEST
from crypto_ml.forecasting.relative_answers import of_the_next_day
from crypto_ml.forecasting.schema import PRICES


@dataclass(frozen=True)
class MadeOf:
    """pred_open = last_close · (1 + recent_gap · served), and what is said beside it, None where nothing is.

    last_close, pred_low, pred_high: in the upload's currency. recent_gap: the recent gap size s, of `gaps` gaps
    (dimensionless). served: what the network said, after λ (`shrink`) and κ (`cap`, in recent gaps), 0 where it was not
    asked. quantile, level: of the interval, last_close · exp(±quantile · recent_gap). expected_range, range_high: of
    ln(high / low), from the 22 rows before.
    """

    last_close: float
    recent_gap: float
    gaps: int
    served: float
    shrink: float
    cap: float
    quantile: float | None
    level: float
    pred_low: float | None
    pred_high: float | None
    expected_range: float | None
    range_high: float | None


def made_of(
    earlier: Sequence[Mapping[str, Any]], bundle: ModelBundle, level: float, beside: Mapping[Any, Any]
) -> MadeOf | None:
    """What a prediction was made of. earlier: the prices of the rows that it was made from, oldest first; beside: what
    the answer says beside the open. None for a bundle without a serving rule, and where there is no earlier row."""
    rule = bundle.rule
    if rule is None or not earlier:
        return None
    rows = Columns({name: np.array([row[name] for row in earlier], np.float64) for name in PRICES})
    said = of_the_next_day(rows, bundle, rule, level)
    return MadeOf(
        last_close=float(said.close[0]),
        recent_gap=float(said.size[0]),
        gaps=int(said.gaps[0]),
        served=float(said.served[0]),
        shrink=rule.shrink,
        cap=rule.cap,
        quantile=rule.quantiles.get(level),
        level=level,
        **{name: _there(beside[name]) for name in BESIDE.names},
    )


def _there(value: Any) -> float | None:
    return None if value is None or np.isnan(value) else float(value)


def told_made_of(made: MadeOf) -> Iterator[str]:
    """What a prediction was made of, in lines for people."""
    yield f"  last close    {made.last_close!r}, recent gap {made.recent_gap:.6g} of it, the mean of {made.gaps} gaps"
    if made.gaps < FEWEST:
        yield f"  served        the last close: below {FEWEST} gaps nothing else is said"
    elif not made.shrink or not made.cap:
        yield f"  served        the last close: λ is {made.shrink:g} and κ {made.cap:g}, so no network was asked"
    else:
        yield (
            f"  served        {made.served:+.6g} recent gaps, of λ {made.shrink:g} and at most κ {made.cap:g}: "
            f"last close · (1 + {made.recent_gap:.6g} · {made.served:.6g})"
        )
    if made.pred_low is not None and made.quantile is not None:
        yield (
            f"  interval      {made.pred_low!r} to {made.pred_high!r} at {made.level:.0%}: last close · "
            f"exp(±{made.quantile:.6g} · {made.recent_gap:.6g})"
        )
    elif made.quantile is not None and made.gaps >= FEWEST:
        yield "  interval      none: days are missing before it, or it is a running sum of changes"
    if made.expected_range is not None:
        above = "" if made.range_high is None else f", at most {made.range_high:.6g} at 90%"
        yield f"  range         ln(high / low) {made.expected_range:.6g}{above}, from the 22 rows before"
