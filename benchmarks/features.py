"""The feature code against the loop of the original notebook, on the same rows in the same run.

The loop is the notebook's way of working, a row at a time with pandas lookups; where it ran it did 980 rows/s.
"""

import math
import sys
from datetime import date
from typing import Any, Final

import numpy as np
import pandas as pd

from benchmarks.measure import Missed, median_seconds
from crypto_ml.forecasting.features import FloatArray, add_levels, feature_block, series_starts
from crypto_ml.forecasting.schema import FEATURES
from crypto_ml.forecasting.simulation import simulate_market

NOTEBOOK_ROWS_PER_SECOND: Final = 980
LEAST_RATIO: Final = 500
SYMBOLS: Final = 100
DAYS: Final = 400
LOOPED_SYMBOLS: Final = 4
REPEATS: Final = 15


def main() -> None:
    """Measure, print, and end with 1 where the target is missed."""
    market = simulate_market(SYMBOLS, DAYS, seed=1, start=date(2022, 1, 1))
    few = market[market["symbol"].isin(market["symbol"].unique()[:LOOPED_SYMBOLS])].reset_index(drop=True)
    np.testing.assert_allclose(_looped(few), _features(few), rtol=1e-12, atol=1e-12)
    loop = len(few) / median_seconds(lambda: _looped(few), 3)
    same = len(few) / median_seconds(lambda: _features(few), REPEATS)
    ours = len(market) / median_seconds(lambda: _features(market), REPEATS)
    sys.stdout.write(
        f"features: {same:,.0f} rows/s against {loop:,.0f} rows/s of a row-wise loop on the same {len(few):,} rows: "
        f"{same / loop:,.0f} times\n"
        f"features: {ours:,.0f} rows/s on {len(market):,} rows, {ours / NOTEBOOK_ROWS_PER_SECOND:,.0f} times the "
        f"notebook's {NOTEBOOK_ROWS_PER_SECOND} rows/s (target {LEAST_RATIO})\n"
    )
    if ours < LEAST_RATIO * NOTEBOOK_ROWS_PER_SECOND or same < LEAST_RATIO * loop:
        raise Missed(f"{LEAST_RATIO} times the row-wise loop and the notebook")


def _features(rows: pd.DataFrame) -> FloatArray:
    return feature_block(add_levels(rows), series_starts(rows["symbol"].to_numpy()))


def _looped(market: pd.DataFrame) -> FloatArray:
    """The features a row at a time, as the notebook computed them: (n, 13) float64 in the order of `FEATURES`."""
    frame = market[["symbol", "open", "high", "low", "close", "market"]].astype({"market": "float64"})
    made = ("close_ratio", "spread", "v_open", "v_high", "v_low", "v_close", "v_close_ratio", "v_spread", "log_shares")
    for name in made:
        frame[name] = 0.0
    cell: Any = frame.loc
    for row in range(len(frame)):
        high, low, close = cell[row, "high"], cell[row, "low"], cell[row, "close"]
        cell[row, "spread"] = high - low
        cell[row, "close_ratio"] = (close - low) / (high - low) if high != low else 0.0
        shares = math.ceil(cell[row, "market"] / close)
        cell[row, "log_shares"] = math.log(shares) if shares > 0 else 0.0
        if row and cell[row, "symbol"] == cell[row - 1, "symbol"]:
            for name in ("open", "high", "low", "close", "close_ratio", "spread"):
                cell[row, f"v_{name}"] = cell[row, name] - cell[row - 1, name]
    return frame[list(FEATURES)].to_numpy(np.float64)


if __name__ == "__main__":
    main()
