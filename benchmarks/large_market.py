"""Upload files of millions of rows, made once and kept under .crypto_ml/bench."""

from datetime import date
from multiprocessing import get_context
from pathlib import Path
from typing import Final

FOLDER: Final = Path(".crypto_ml/bench")
DAYS: Final = 400
SYMBOLS_AT_ONCE: Final = 2_500
FIRST_DAY: Final = date(2023, 1, 1)


def market_file(symbols: int) -> Path:
    """A CSV file of `symbols` × DAYS rows, sorted by symbol and date: an upload with every required column.

    It is written by a process of its own, so that the caller stays small.
    """
    path = FOLDER / f"market_{symbols}x{DAYS}.csv"
    if not path.exists():
        FOLDER.mkdir(parents=True, exist_ok=True)
        writer = get_context("spawn").Process(target=_write, args=(path, symbols))
        writer.start()
        writer.join()
        if writer.exitcode:
            raise SystemExit(f"{path} could not be written; is there room on the disk?")
    return path


def _write(path: Path, symbols: int) -> None:
    import numpy as np
    import pandas as pd
    import pyarrow as pa
    from pyarrow import csv

    random = np.random.default_rng(symbols)
    dates = pd.date_range(FIRST_DAY, periods=DAYS).strftime("%Y-%m-%d").to_numpy(str)
    partial = path.with_suffix(".part")
    with partial.open("wb") as file:
        for first in range(0, symbols, SYMBOLS_AT_ONCE):
            count = min(SYMBOLS_AT_ONCE, symbols - first)
            shape = (count, DAYS)
            level = np.exp(random.uniform(np.log(1e-3), np.log(1e4), (count, 1)))
            close = level * np.exp(np.cumsum(0.04 * random.standard_normal(shape), axis=1))
            open_ = np.concatenate([level, close[:, :-1]], axis=1) * np.exp(0.004 * random.standard_normal(shape))
            high = np.maximum(open_, close) * np.exp(np.abs(0.02 * random.standard_normal(shape)))
            low = np.minimum(open_, close) * np.exp(-np.abs(0.02 * random.standard_normal(shape)))
            names = np.array([f"B{number:06d}" for number in range(first, first + count)])
            columns = {"symbol": np.repeat(names, DAYS), "date": np.tile(dates, count)}
            columns |= {name: prices.ravel() for name, prices in zip(_PRICES, (open_, high, low, close), strict=True)}
            columns["market"] = np.round(close * 1e7).ravel()
            csv.write_csv(pa.table(columns), file, csv.WriteOptions(include_header=first == 0))
    partial.replace(path)


_PRICES: Final = ("open", "high", "low", "close")
