"""Intervals and ranges of a training set: what they are taken from, and how often they held on the holdout.

Belongs here: the year before the holdout, from which the numbers of a serving rule come, and their coverage on days
that no number was taken from. Does not belong here: what an interval is (`intervals`), a range (`daily_range`).
"""

from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import numpy as np
import numpy.typing as npt

from crypto_ml.forecasting.daily_range import RangeModel, fit_range_model, observed_log_range, range_terms
from crypto_ml.forecasting.features import BoolArray, FloatArray
from crypto_ml.forecasting.intervals import CALIBRATION_DAYS, LEVELS, bounds, interval_quantiles
from crypto_ml.forecasting.pauses import after_pause
from crypto_ml.forecasting.stationary_examples import Examples

SHOWN_LEVEL = 0.90
"""The level whose coverage is told by coin and by month."""


@dataclass(frozen=True, eq=False)
class Calibrated:
    """quantiles: q by level (see `intervals`). range: the fitted model. made_from: days and rows, for the record."""

    quantiles: dict[float, float]
    range: RangeModel
    made_from: dict[str, Any]


@dataclass(frozen=True, eq=False)
class Ranges:
    """What the range of each of n rows is predicted from (n, 3), and what it was (n,), both of ln; which rows have
    either."""

    terms: FloatArray
    observed: FloatArray
    there: BoolArray
    days: npt.NDArray[np.datetime64]


def ranges_of(examples: Examples) -> Ranges:
    """The ranges of the rows that examples stand in."""
    terms, there = range_terms(examples.rows, examples.starts)
    observed = observed_log_range(examples.rows)
    return Ranges(terms, observed, there & np.isfinite(observed), examples.rows["date"].to_numpy("datetime64[D]"))


def calibrated(examples: Examples, ranges: Ranges, holdout_from: date) -> Calibrated:
    """Quantiles and range model from the CALIBRATION_DAYS days before the holdout, or as many of them as there are."""
    first = holdout_from - timedelta(days=CALIBRATION_DAYS)
    before = without_pauses(examples.between(first, holdout_from))
    inside = ranges.there & (ranges.days >= np.datetime64(first)) & (ranges.days < np.datetime64(holdout_from))
    model = fit_range_model(ranges.terms[inside], ranges.observed[inside])
    made_from = {"from": str(first), "before": str(holdout_from), "gaps": len(before), "ranges": int(inside.sum())}
    return Calibrated(interval_quantiles(np.abs(before.target)), model, made_from)


def coverage(held: Examples, quantiles: dict[float, float]) -> dict[str, Any]:
    """Share of the observed opens within their intervals, by level; at SHOWN_LEVEL by coin and by month, too.

    held: the examples of the holdout; those behind a pause have no interval. It is that of the last close: a served
    prediction lies within κ recent gap sizes of it, and that is far within. Empty without quantiles.
    """
    held = without_pauses(held)
    if not len(held):
        return {}
    close, opens = held.rows["close"].to_numpy(np.float64)[held.at - 1], held.rows["open"].to_numpy(np.float64)[held.at]
    size, symbols = held.units.gaps.size[held.at], held.rows["symbol"].to_numpy(str)[held.at]
    found: dict[str, Any] = {"rows": len(held), "by_level": {}}
    for level in LEVELS:
        if level not in quantiles:
            continue
        low, high = bounds(close, size, close, quantiles[level])
        inside = (opens >= low) & (opens <= high)
        found["by_level"][f"{level:.2f}"] = {
            "coverage": float(inside.mean()),
            "median_width": float(np.median((high - low) / close)),
        }
        if level == SHOWN_LEVEL:
            found["by_coin"] = _shares(symbols, inside)
            found["by_month"] = _shares(held.days.astype("datetime64[M]").astype(str), inside)
    return found if found["by_level"] else {}


def without_pauses(examples: Examples) -> Examples:
    """Those that have an interval (see `pauses`)."""
    paused = after_pause(examples.rows["date"].to_numpy(), examples.starts, examples.at)
    return examples.of(np.flatnonzero(~paused)) if paused.any() else examples


def range_skill(ranges: Ranges, model: RangeModel, holdout_from: date) -> dict[str, Any]:
    """How far off the expected range is on the holdout beside the last range, and how often its bounds held.

    Errors are of ln(ln(high / low)), mean absolute. Empty where no row of the holdout has a range.
    """
    inside = ranges.there & (ranges.days >= np.datetime64(holdout_from))
    if not inside.any():
        return {}
    terms, observed = ranges.terms[inside], ranges.observed[inside]
    made = model.predict(terms)
    error, naive = float(np.abs(observed - made).mean()), float(np.abs(observed - terms[:, 0]).mean())
    return {
        "rows": int(inside.sum()),
        "error": error,
        "error_of_last_range": naive,
        "ratio": error / naive if naive else None,
        "below_bound": {
            f"{level:.2f}": float((observed <= made + max(one, 0.0)).mean()) for level, one in model.upper.items()
        },
    }


def _shares(names: npt.NDArray[Any], inside: BoolArray) -> dict[str, dict[str, float]]:
    unique, codes = np.unique(names, return_inverse=True)
    rows, hits = np.bincount(codes), np.bincount(codes, inside)
    return {
        str(name): {"rows": int(rows[code]), "coverage": float(hits[code] / rows[code])}
        for code, name in enumerate(unique)
    }
