"""A training set: which rows a model learns from, chosen by time and named by what is in them, and its scaler.

Belongs here: spans of time, and what is fitted on rows before any learner sees them. Does not belong here: what a
learner is given (`examples`), and the fit itself (`training`).
"""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date
from itertools import pairwise
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from crypto_ml.errors import Refused
from crypto_ml.extras import require_training
from crypto_ml.forecasting.features import BoolArray, IntArray, add_levels, feature_block, gaps
from crypto_ml.forecasting.features import series_starts as starts_of
from crypto_ml.forecasting.scaling import SeriesStatistics
from crypto_ml.forecasting.schema import MINIMUM_OWN_ROWS, PRICES, SCALED

SHARES: Final = (0.7, 0.15)
"""Shares of the rows that end the training span, and the validation span behind it; no day is cut in two."""

ROWS_AT_ONCE: Final = 100_000
"""Rows whose features are computed at once."""


class TooLittleHistory(Refused):
    """A history from which no model can be trained."""


@dataclass(frozen=True)
class Split:
    """First days of the validation span and of the holdout; training rows are those before both."""

    validation_from: date
    holdout_from: date


def split_by_time(dates: pd.Series) -> Split:
    """Where the spans begin, chosen so that they hold about SHARES of the rows. Raises TooLittleHistory."""
    return _split(np.sort(dates.to_numpy("datetime64[D]")))


def first_trainable(rows: pd.DataFrame, ends: Iterable[date], needed: int = MINIMUM_OWN_ROWS) -> date | None:
    """The first of `ends` (ascending) with rows enough before it for a split and a scaler; None where none has.

    rows: symbol and date, sorted by both; as `split_by_time` and the fit of a scaler would be given those before that
    day. needed: training rows that a series needs for that fit.
    """
    days = rows["date"].to_numpy("datetime64[D]")
    ordered = np.sort(days)
    place = rows.groupby("symbol", sort=False).cumcount().to_numpy()
    enough = days[place == needed - 1]  # when each series had the rows that a scaler needs
    for end in ends if len(enough) else ():
        try:
            split = _split(ordered[: np.searchsorted(ordered, np.datetime64(end))])
        except TooLittleHistory:
            continue
        if enough.min() < np.datetime64(split.validation_from):
            return end
    return None


def _split(ordered: npt.NDArray[np.datetime64]) -> Split:
    if not len(ordered):
        raise TooLittleHistory("there is no market history to train on; drop files into uploads/ first")
    cuts = [ordered[min(int(len(ordered) * share), len(ordered) - 1)] for share in (SHARES[0], sum(SHARES))]
    if not ordered[0] < cuts[0] < cuts[1] <= ordered[-1]:
        raise TooLittleHistory(
            f"the market history reaches from {ordered[0]} to {ordered[-1]}, which cannot be split into training, "
            "validation and holdout; a model needs some weeks of it"
        )
    return Split(*(cut.astype(date) for cut in cuts))


def rows_sha256(rows: pd.DataFrame) -> str:
    """The identity of a training set: sha256 over symbols, dates, prices and market, in order."""
    digest = hashlib.sha256()
    symbols = rows["symbol"]
    for begin in range(0, len(symbols), ROWS_AT_ONCE):
        digest.update((("\n" if begin else "") + "\n".join(symbols.iloc[begin : begin + ROWS_AT_ONCE])).encode())
    digest.update(b"\0" + rows["date"].to_numpy("datetime64[D]").astype("<i8").tobytes())
    for name in (*PRICES, "market"):
        digest.update(b"\0" + rows[name].to_numpy("<f8").tobytes())
    return digest.hexdigest()


def groups_of_series(rows: pd.DataFrame) -> Iterator[pd.DataFrame]:
    """Rows sorted by symbol in pieces of whole series, about ROWS_AT_ONCE rows each: what is computed of a series does
    not change a bit with those beside it, and what it is computed in takes several times the memory of its rows."""
    begins = _begins(rows)
    wanted = np.searchsorted(begins, np.arange(0, max(len(rows), 1), ROWS_AT_ONCE))
    cuts = [*dict.fromkeys(begins[wanted[wanted < len(begins)]].tolist()), len(rows)]
    for begin, end in pairwise(cuts):
        yield rows.iloc[begin:end]


def _begins(rows: pd.DataFrame) -> IntArray:
    """Where the series of sorted rows begin."""
    codes = pd.factorize(rows["symbol"])[0]
    return np.flatnonzero(np.append(True, codes[1:] != codes[:-1])) if len(rows) else np.zeros(0, np.int64)


def fit_scaler(rows: pd.DataFrame, split: Split) -> SeriesStatistics:
    """Statistics of each series' training rows, and of no others.

    rows: OBSERVATION columns, sorted by symbol and date. Series with fewer than MINIMUM_OWN_ROWS training rows get
    none; when scored they count as never seen. Raises TooLittleHistory where that leaves no series, NotInstalled where
    the libraries of training are missing.
    """
    require_training("Training")
    from crypto_ml.forecasting.scaler_estimator import SeriesStandardScaler

    fitted: list[SeriesStatistics] = []
    for group in groups_of_series(rows):
        levels = add_levels(group)
        starts = starts_of(levels["symbol"])
        features = pd.DataFrame(feature_block(levels, starts)[:, : len(SCALED)], columns=list(SCALED))
        features = features.assign(symbol=levels["symbol"].to_numpy(), gap=gaps(levels, starts))
        training = features[days_before(levels, split.validation_from)]
        enough = training["symbol"].map(training["symbol"].value_counts()) >= MINIMUM_OWN_ROWS
        if enough.any():
            fitted.append(SeriesStandardScaler().fit(training[enough]).statistics_)
    if not fitted:
        raise TooLittleHistory(f"no series has {MINIMUM_OWN_ROWS} rows before {split.validation_from} to train on")
    symbols = [symbol for one in fitted for symbol in one.symbols]
    order = sorted(range(len(symbols)), key=symbols.__getitem__)
    mean, scale, gap_scale = (
        np.concatenate([getattr(one, name) for one in fitted])[order] for name in ("mean", "scale", "gap_scale")
    )
    return SeriesStatistics(tuple(symbols[at] for at in order), mean, scale, gap_scale)


def days_before(rows: pd.DataFrame, day: date) -> BoolArray:
    """Which rows are of days before `day`, (n,)."""
    return np.asarray(rows["date"].to_numpy("datetime64[D]") < np.datetime64(day))
