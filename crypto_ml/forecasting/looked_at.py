"""What of a stream of predictions is kept to be looked at: its longest series, and how far off it was.

Memory is bounded by a few series, however many rows go by.
"""

from heapq import nlargest
from typing import Final

import numpy as np
import pyarrow as pa

from crypto_ml.forecasting.sketches import MOST_POINTS, FloatArray, Series
from crypto_ml.forecasting.sorting import begins_series

MOST_SERIES: Final = 6
MOST_ERRORS: Final = 2_000
FEWEST_ROWS: Final = 2


class LookedAt:
    """Sees predicted rows, in chunks of whole series.

    series: the longest ones (of the same length, those seen first), their last MOST_POINTS days, the longest first.
    off_by: (predicted − observed) / observed of the first MOST_ERRORS rows, (n,). mean_relative_error: the
    mean of their amounts over all rows; None where there was no row, or one that was off beyond all numbers.
    """

    def __init__(self) -> None:
        self.off_by: FloatArray = np.zeros(0)
        self._kept: list[tuple[int, Series]] = []
        self._sum, self._rows = 0.0, 0

    @property
    def series(self) -> list[Series]:
        return [series for _, series in self._kept]

    @property
    def mean_relative_error(self) -> float | None:
        return self._sum / self._rows if self._rows and np.isfinite(self._sum) else None

    def add(self, predicted: pa.Table) -> None:
        """See rows that were predicted, in the columns of `scoring.SCORED`."""
        observed, made = (predicted[name].to_numpy() for name in ("val_open", "pred_open"))
        with np.errstate(over="ignore"):
            off_by = (made - observed) / observed
        self.off_by = np.concatenate([self.off_by, off_by[: MOST_ERRORS - len(self.off_by)]])
        self._sum += float(np.abs(off_by).sum())
        self._rows += len(observed)
        self._keep_longest(predicted, observed, made)

    def _keep_longest(self, predicted: pa.Table, observed: FloatArray, made: FloatArray) -> None:
        days = predicted["date"].to_numpy()
        starts = np.flatnonzero(begins_series(predicted))
        lengths = np.diff(starts, append=predicted.num_rows)
        least = self._kept[-1][0] if len(self._kept) == MOST_SERIES else FEWEST_ROWS - 1
        longest = np.argsort(-lengths, kind="stable")[:MOST_SERIES]
        for begin, count in zip(starts[longest].tolist(), lengths[longest].tolist(), strict=True):
            if count > least:
                rows = slice(begin, begin + count)
                series = Series(predicted["symbol"][begin].as_py(), days[rows], observed[rows], made[rows]).last(
                    MOST_POINTS
                )
                self._kept.append((count, series))
        self._kept = nlargest(MOST_SERIES, self._kept, key=lambda kept: kept[0])
