"""How far off predictions are, day by day and on average, beside the two predictions that cost nothing.

Errors are those of `forecasting.evaluation`, on the rows where everything that is compared is there: the seed rows, the
first row of a series and rows without an observed open are left out.
"""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from crypto_ml.forecasting.evaluation import Errors, evaluate
from crypto_ml.page.predictions_file import DayArray, FloatArray, Predictions, SeriesRows


@dataclass(frozen=True, eq=False)
class KnownRows:
    """What a market history has of one symbol: m days, ascending, and their opens and closes."""

    days: DayArray
    opens: FloatArray
    closes: FloatArray


@dataclass(frozen=True, eq=False)
class Baselines:
    """What the two free predictions say for n rows: the open and the close of the row before; NaN where none is known.

    from_history: whether the rows before are those of the market history; else last_open is that of the row before in
    the file, and no close is known.
    """

    last_open: FloatArray
    last_close: FloatArray
    from_history: bool


@dataclass(frozen=True)
class Accuracy:
    """Mean errors on the same `rows` rows; last_close: None where closes are not known."""

    rows: int
    model: Errors
    last_open: Errors
    last_close: Errors | None


def baselines(rows: SeriesRows, known: KnownRows | None) -> Baselines:
    """The two free predictions for each row, from the history where there is one that knows the symbol."""
    nothing = np.full(len(rows.days), np.nan)
    if known is None or not len(known.days):
        return Baselines(rows.last_open, nothing, from_history=False)
    before = np.searchsorted(known.days, rows.days, side="left") - 1
    there = before >= 0
    return Baselines(
        np.where(there, known.opens[before], nothing), np.where(there, known.closes[before], nothing), from_history=True
    )


def percent_off(predicted: FloatArray, observed: FloatArray) -> FloatArray:
    """(predicted − observed) / observed in percent, NaN where either is missing."""
    with np.errstate(over="ignore"):  # a file may have any numbers; infinite is what such an error is
        return np.asarray(100.0 * (predicted - observed) / observed, np.float64)


def rolling_mean(values: FloatArray, rows: int) -> FloatArray:
    """The mean of each value and up to `rows` − 1 before it, of those that are numbers; NaN where none is.

    values: (n,), none of them negative.
    """
    there = np.isfinite(values)
    sums, counts = (
        np.concatenate([[0.0], np.cumsum(np.where(there, each, 0.0))]) for each in (values, np.ones_like(values))
    )
    begins = np.maximum(np.arange(1, len(values) + 1) - rows, 0)
    count = counts[1:] - counts[begins]
    mean = np.maximum(sums[1:] - sums[begins], 0.0) / np.maximum(count, 1.0)
    return np.where(count > 0, mean, np.nan)


def accuracy(rows: SeriesRows, beside: Baselines) -> Accuracy | None:
    """The mean errors of one symbol; None where there is no row on which they could be compared."""
    closes = beside.last_close if np.isfinite(beside.last_close).any() else None
    return _accuracy(np.zeros(len(rows.days), np.int64), rows.observed, rows.predicted, beside.last_open, closes)


def accuracy_of_all(predictions: Predictions) -> Accuracy | None:
    """The mean errors over all rows of a file, beside the open of the row before in it."""
    return _accuracy(*predictions.columns(), None)


def _accuracy(
    symbols: npt.NDArray[np.int64],
    observed: FloatArray,
    predicted: FloatArray,
    last_open: FloatArray,
    last_close: FloatArray | None,
) -> Accuracy | None:
    ways = [observed, predicted, last_open, *([] if last_close is None else [last_close])]
    there = np.logical_and.reduce([np.isfinite(way) for way in ways])
    if not there.any():
        return None
    # where no close is known, the open stands in for it, and what was measured by it is left out
    closes = last_open if last_close is None else last_close
    measured = evaluate(symbols[there], observed[there], predicted[there], last_open[there], closes[there]).overall
    if last_close is None:
        return Accuracy(
            measured.rows, replace(measured.network, mase=None), replace(measured.last_open, mase=None), None
        )
    return Accuracy(measured.rows, measured.network, measured.last_open, measured.last_close)
