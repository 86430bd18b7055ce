"""Rows that come longer after the row before them than rows of their series do: an interval says nothing of them.

An interval is as wide as gaps between a close and the open that follows it. Where a day is missing between, the open is
a day's moves further on: on the 44 coins of a real market 18 % of the opens lay within an interval of 90 % after one
missing day, 9 % after six. A series of weekly rows has no pause, for its close is the end of the week.
"""

from typing import Final

import numpy as np
import numpy.typing as npt

from crypto_ml.forecasting.features import BoolArray, IntArray

ROWS: Final = 20
"""Steps before a row, from row to row, that say what is usual: their median."""

LONGER: Final = 1.5
"""Times what is usual, beyond which a step is a pause: months have 28 to 31 days, and every second day is a pause."""

AT_ONCE: Final = 50_000


def after_pause(days: npt.ArrayLike, starts: IntArray, at: IntArray) -> BoolArray:
    """Which of the rows `at` (m,) stand behind a pause, (m,).

    days: of all n rows, datetime64, sorted by series and day; starts: from `features.series_starts`. It depends on the
    ROWS + 1 rows before a row, and the first ones of a series stand behind none.
    """
    when = np.asarray(days).astype("datetime64[D]").astype(np.int64)
    since = when[at] - when[np.maximum(at - 1, starts[at])]
    found = np.zeros(len(at), bool)
    asked = np.flatnonzero(since > 1)
    for begin in range(0, len(asked), AT_ONCE):
        some = asked[begin : begin + AT_ONCE]
        found[some] = since[some] > LONGER * _usual(when, starts, at[some], since[some])
    return found


def _usual(when: IntArray, starts: IntArray, at: IntArray, since: IntArray) -> npt.NDArray[np.float64]:
    """The median step of the rows before each of some rows; where there is none, the row's own."""
    index = at[:, None] - np.arange(1, ROWS + 1)
    there = index > starts[at][:, None]
    index = np.maximum(index, 1)
    steps = np.where(there, when[index] - when[index - 1], np.nan)
    steps[:, 0] = np.where(there[:, 0], steps[:, 0], since)
    return np.asarray(np.nanmedian(steps, axis=1), np.float64)
