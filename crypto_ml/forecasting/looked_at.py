"""What of a stream of predictions is kept to be looked at: its longest series, and how far off it was.

Memory is bounded by a few series, however many rows go by.
"""

from heapq import nlargest
from typing import Final

import numpy as np
import pandas as pd

from crypto_ml.forecasting.fingerprint import runs
from crypto_ml.forecasting.sketches import MOST_POINTS, FloatArray, Series

MOST_SERIES: Final = 6
MOST_ERRORS: Final = 2_000
FEWEST_ROWS: Final = 2


class LookedAt:
    """Sees predicted rows, in chunks of whole series.

    series: the longest ones (of the same length, those seen first), their last MOST_POINTS days, the longest first.
    errors: |observed − predicted| / observed of the first MOST_ERRORS rows, (n,). mean_relative_error: of all rows that
    were seen; None where there was none.
    """

    def __init__(self) -> None:
        self.errors: FloatArray = np.zeros(0)
        self._kept: list[tuple[int, Series]] = []
        self._sum, self._rows = 0.0, 0

    @property
    def series(self) -> list[Series]:
        return [series for _, series in self._kept]

    @property
    def mean_relative_error(self) -> float | None:
        return self._sum / self._rows if self._rows else None

    def add(self, predicted: pd.DataFrame) -> None:
        """See rows that were predicted, in the columns of `scoring.score`."""
        observed, made = (predicted[name].to_numpy(np.float64) for name in ("val_open", "pred_open"))
        errors = np.abs(observed - made) / observed
        self._sum += float(errors.sum())
        self._rows += len(errors)
        if len(self.errors) < MOST_ERRORS:
            self.errors = np.concatenate([self.errors, errors])[:MOST_ERRORS]
        self._keep_longest(predicted, observed, made)

    def _keep_longest(self, predicted: pd.DataFrame, observed: FloatArray, made: FloatArray) -> None:
        symbols, days = predicted["symbol"].to_numpy(), predicted["date"].to_numpy("datetime64[D]")
        least = self._kept[-1][0] if len(self._kept) == MOST_SERIES else FEWEST_ROWS - 1
        for _, rows in runs(predicted.groupby(["file", "symbol"], sort=False).ngroup().to_numpy()):
            count = rows.stop - rows.start
            if count > least:
                series = Series(str(symbols[rows.start]), days[rows], observed[rows], made[rows]).last(MOST_POINTS)
                self._kept.append((count, series))
        self._kept = nlargest(MOST_SERIES, self._kept, key=lambda kept: kept[0])
