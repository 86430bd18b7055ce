"""How good predictions are, always beside the two predictions that cost nothing: the last open and the last close.

Belongs here: errors, and verdicts on them as plain data. Does not belong here: acting on a verdict.
"""

import math
from dataclasses import asdict, dataclass
from datetime import date
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from crypto_ml.errors import Refused

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

FEWEST_HOLDOUT_ROWS: Final = 100
"""Rows that a comparison of mean errors needs. Tried on samples of the 4,502 holdout rows of a real market (43 coins,
2017-12-09 to 2018-03-25), where the model of a fresh clone is worse than the last close by a tenth of its error: on 14
rows the better one looked worse in 19 of 100 samples, on 30 in 11, on 50 in 6, on 100 in 1."""


MOST_RELATIVE: Final = 1e12
"""What an error counts at most in parts of a price or of another error: a row that opens at nearly nothing makes a bad
mean, and not none."""


@dataclass(frozen=True)
class Errors:
    """Errors of one way of predicting the next open. `mae` and `rmse` in currency, the rest dimensionless."""

    mae: float
    """Mean of |observed − predicted|."""
    rmse: float
    """Square root of the mean of (observed − predicted)²."""
    mre: float
    """Mean of |observed − predicted| / observed: comparable across coins of any price."""
    mase: float | None
    """Mean absolute scaled error; None where it is not defined. See `evaluate`."""
    directional_accuracy: float | None
    """Share of rows whose predicted sign of open[t] − open[t−1] is the observed one; None where no open moved."""


@dataclass(frozen=True)
class Comparison:
    """The network and the two baselines on the same rows."""

    rows: int
    network: Errors
    last_open: Errors
    last_close: Errors


@dataclass(frozen=True)
class Evaluation:
    """Errors over all rows, and for each symbol, sorted by symbol. No number in it is NaN; one that float64 cannot hold
    is infinite."""

    overall: Comparison
    by_symbol: dict[str, Comparison]

    def to_dict(self) -> dict[str, Any]:
        """Plain dicts, numbers and None, for JSON, which has no infinite numbers."""
        found: dict[str, Any] = _finite(asdict(self))
        return found


@dataclass(frozen=True)
class Verdict:
    """Whether something may pass, the numbers it was decided on, and why, in one sentence."""

    passed: bool
    numbers: dict[str, float | None]
    threshold: float
    explanation: str


def evaluate(
    symbols: npt.ArrayLike,
    observed: FloatArray,
    predicted: FloatArray,
    last_open: FloatArray,
    last_close: FloatArray,
) -> Evaluation:
    """Compares predicted opens with the observed ones, and with the baselines, on the same n rows (prices, (n,)).

    MASE (Hyndman & Koehler 2006, doi:10.1016/j.ijforecast.2006.03.001): of a symbol, the mean absolute error divided
    by that of the last close, the naive prediction of an open, both on the rows given here (not on training rows, so
    that the two are measured on the same days); over all rows, the geometric mean of the symbols' MASE, in which
    halving one symbol's error makes up for doubling another's. A symbol whose last close was right on every row has
    no MASE, and one that was predicted without any error is left out of the mean as well.
    Raises Refused for no rows, lengths that differ, or numbers that are not finite and positive where they must be.
    """
    names = np.asarray(symbols)
    _check(names, observed, predicted, last_open, last_close)
    unique, codes = np.unique(names, return_inverse=True)
    counts = np.bincount(codes)
    ways = {"network": predicted, "last_open": last_open, "last_close": last_close}
    base = np.bincount(codes, np.abs(observed - last_close)) / counts
    tables = {
        way: _by_symbol(codes, base, observed=observed, values=values, last_open=last_open)
        for way, values in ways.items()
    }
    overall = {
        way: _overall(observed, values, last_open, [errors.mase for errors in tables[way]])
        for way, values in ways.items()
    }
    return Evaluation(
        overall=Comparison(rows=len(observed), **overall),
        by_symbol={
            str(name): Comparison(rows=int(counts[code]), **{way: table[code] for way, table in tables.items()})
            for code, name in enumerate(unique)
        },
    )


def onnx_verdict(difference: float, tolerance: float, learner: str = "Keras") -> Verdict:
    """Whether the exported network is the trained one: its largest difference is at most `tolerance` (and a number)."""
    passed = difference <= tolerance
    relation = "within" if passed else "not within"
    return Verdict(
        passed=passed,
        numbers={"largest_difference": difference if math.isfinite(difference) else None},
        threshold=tolerance,
        explanation=f"ONNX and {learner} differ by at most {difference:.3g}, {relation} the tolerance of "
        f"{tolerance:.3g}.",
    )


def holdout_size_verdict(rows: int) -> Verdict:
    """Whether a holdout has enough rows for its mean errors to be believed."""
    passed = rows >= FEWEST_HOLDOUT_ROWS
    return Verdict(
        passed=passed,
        numbers={"rows": float(rows)},
        threshold=float(FEWEST_HOLDOUT_ROWS),
        explanation=f"The holdout has {rows:,} rows that could be predicted, "
        + (
            f"at least the {FEWEST_HOLDOUT_ROWS} that a comparison needs."
            if passed
            else f"and a comparison needs {FEWEST_HOLDOUT_ROWS}: on so few, chance decides who is better."
        ),
    )


def recency_verdict(newest: date, week_end: date) -> Verdict:
    """Whether the newest row a model was made from is of the week that it is named by."""
    behind = (week_end - newest).days
    passed = behind <= 7
    return Verdict(
        passed=passed,
        numbers={"days_behind": float(behind)},
        threshold=7.0,
        explanation=f"The newest row that it knows is of {newest}, "
        + (
            "in its week."
            if passed
            else f"{behind:,} days before the end of its week: it knows nothing of the time since."
        ),
    )


def beats_baseline_verdict(evaluation: Evaluation) -> Verdict:
    """Whether the network is at least as close as the last close on these rows, by mean relative error."""
    network, baseline = evaluation.overall.network, evaluation.overall.last_close
    passed = network.mre <= baseline.mre
    mase = "undefined" if network.mase is None else f"{network.mase:.3f}"
    return Verdict(
        passed=passed,
        numbers={
            "network_mre": network.mre,
            "last_close_mre": baseline.mre,
            "last_open_mre": evaluation.overall.last_open.mre,
            "network_mase": network.mase,
        },
        threshold=baseline.mre,
        explanation=(
            f"On {evaluation.overall.rows} rows the network is {100 * network.mre:.3f} % off on average (MASE {mase}), "
            f"{'no worse' if passed else 'worse'} than the last close with {100 * baseline.mre:.3f} %."
        ),
    )


def _finite(found: Any) -> Any:
    if isinstance(found, dict):
        return {name: _finite(inner) for name, inner in found.items()}
    return None if isinstance(found, float) and not math.isfinite(found) else found


def relative_errors(observed: FloatArray, predicted: FloatArray) -> FloatArray:
    """How far off predictions are in parts of what was observed, (n,)."""
    return _relative(np.abs(observed - predicted), observed)


def _relative(error: FloatArray, size: FloatArray) -> FloatArray:
    """Errors in parts of something that is above 0."""
    with np.errstate(over="ignore"):
        return np.minimum(error / size, MOST_RELATIVE)


def _by_symbol(
    codes: IntArray, base: FloatArray, *, observed: FloatArray, values: FloatArray, last_open: FloatArray
) -> list[Errors]:
    """Errors of each symbol, in the order of the codes; `base` is each symbol's mean error of the last close."""
    counts = np.bincount(codes)
    error = np.abs(observed - values)
    mae = np.bincount(codes, error) / counts
    with np.errstate(over="ignore"):
        rmse = np.sqrt(np.bincount(codes, error**2) / counts)
    mre = np.bincount(codes, _relative(error, observed)) / counts
    mase = _relative(mae, np.where(base > 0, base, np.inf))
    moved, right = _direction(observed, values, last_open)
    moves = np.bincount(codes, moved)
    hits = np.bincount(codes, right)
    return [
        Errors(
            mae=float(mae[code]),
            rmse=float(rmse[code]),
            mre=float(mre[code]),
            mase=float(mase[code]) if base[code] > 0 else None,
            directional_accuracy=float(hits[code] / moves[code]) if moves[code] else None,
        )
        for code in range(len(counts))
    ]


def _overall(observed: FloatArray, values: FloatArray, last_open: FloatArray, mases: list[float | None]) -> Errors:
    error = np.abs(observed - values)
    moved, right = _direction(observed, values, last_open)
    defined = [mase for mase in mases if mase]
    with np.errstate(over="ignore"):
        rmse = float(np.sqrt((error**2).mean()))
    return Errors(
        mae=float(error.mean()),
        rmse=rmse,
        mre=float(_relative(error, observed).mean()),
        mase=float(np.exp(np.log(defined).mean())) if defined else None,
        directional_accuracy=float(right.sum() / moved.sum()) if moved.any() else None,
    )


def _direction(
    observed: FloatArray, values: FloatArray, last_open: FloatArray
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Rows whose open moved, and those among them whose move was predicted with the right sign."""
    moved = observed != last_open
    return moved, moved & (np.sign(values - last_open) == np.sign(observed - last_open))


def _check(names: npt.NDArray[Any], *columns: FloatArray) -> None:
    if not len(names):
        raise Refused("There are no rows to evaluate; choose a holdout that has some.")
    if any(column.shape != names.shape for column in columns):
        lengths = ", ".join(str(column.shape) for column in (names, *columns))
        raise Refused(f"Symbols, observed, predicted, last open and last close differ in shape ({lengths}).")
    if not all(np.isfinite(column).all() for column in columns) or (columns[0] <= 0).any():
        raise Refused("Only finite predictions of positive observed prices can be evaluated; leave seed rows out.")
