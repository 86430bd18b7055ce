"""Whether predictions know of the future: what comes later is changed, and what was predicted before must not move.

A prediction of a day may rest on the rows of earlier days and on nothing else, neither in its features nor in the
model that makes it. So the rows of a day and of all days after it are changed or taken away, everything is done again
from the training on, and the predictions of the days up to that day are compared to the last bit. A leak shows whatever
way it takes: a feature of the same day, a scaler fitted on all rows, a holdout that was learnt from.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from typing import Any, Final, Literal, get_args

import numpy as np
import pandas as pd

from crypto_ml.errors import Refused
from crypto_ml.forecasting.schema import PRICES

KEYS: Final = ["symbol", "date"]
OBSERVED: Final = frozenset({*KEYS, "val_open"})
"""What stands beside predictions and is no prediction."""

Disturbance = Literal["changed", "taken away"]
Predict = Callable[[pd.DataFrame], pd.DataFrame]
"""From rows (OBSERVATION columns, whole series, sorted) to predictions: `symbol`, `date`, and columns of numbers."""


@dataclass(frozen=True)
class Leak:
    """Predictions that moved when the rows since `since` were disturbed, of days up to it: how many, and the first."""

    disturbance: Disturbance
    since: date
    rows: int
    symbol: str
    day: date
    column: str
    before: float
    after: float

    def to_dict(self) -> dict[str, Any]:
        """Plain texts, numbers and None, for JSON."""
        numbers = {name: value if np.isfinite(value := getattr(self, name)) else None for name in ("before", "after")}
        return {**asdict(self), "since": str(self.since), "day": str(self.day), **numbers}


@dataclass(frozen=True)
class LeakCheck:
    """compared: predictions that had to stay as they were. followed: predictions of later days that moved with the rows
    they may rest on, which shows that the disturbances were seen. leaks: the predictions that moved and must not."""

    compared: int
    followed: int
    leaks: tuple[Leak, ...]

    @property
    def passed(self) -> bool:
        return not self.leaks

    @property
    def explanation(self) -> str:
        """What was found, in a sentence."""
        if self.passed:
            return (
                f"No prediction knows of the future: {self.compared:,} of them stayed as they were, to the last bit, "
                f"when later rows were changed or taken away; {self.followed:,} of later days followed the rows before "
                "them."
            )
        first = self.leaks[0]
        return (
            f"{sum(leak.rows for leak in self.leaks):,} of {self.compared:,} predictions know of the future: where the "
            f"rows since {first.since} were {first.disturbance}, {first.column} of {first.symbol} on {first.day} moved "
            f"from {first.before!r} to {first.after!r}. Look for a feature, a scaler or a split that sees later rows."
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain texts, numbers and None, for JSON."""
        return {
            "passed": self.passed,
            "compared": self.compared,
            "followed": self.followed,
            "leaks": [leak.to_dict() for leak in self.leaks],
            "explanation": self.explanation,
        }


def check_leaks(predict: Predict, rows: pd.DataFrame, cuts: Sequence[date], seed: int = 1) -> LeakCheck:
    """Disturb the rows since each of the days `cuts`, in each way, and compare the predictions of days up to it.

    predict is called once for the rows as they are and once for each disturbance, and has to give the same for the same
    rows. Raises Refused where there is nothing to compare, or where no prediction rests on any row that was disturbed:
    such a check would find nothing whatever there was.
    """
    whole = _sorted(predict(rows))
    found: list[Leak] = []
    compared = followed = 0
    for since in cuts:
        for disturbance in get_args(Disturbance):
            again = _sorted(predict(disturbed(rows, since, disturbance, seed)))
            upto = _until(whole, since)
            compared += len(upto)
            found += _moved(upto, _until(again, since), disturbance, since)
            followed += _followed(whole, again, since)
    if not compared:
        raise Refused("there is no prediction up to any of the days that rows were disturbed from; choose later days")
    if not followed:
        raise Refused("no prediction follows the rows that were disturbed, so nothing is shown; choose earlier days")
    return LeakCheck(compared, followed, tuple(found))


def disturbed(rows: pd.DataFrame, since: date, disturbance: Disturbance, seed: int = 1) -> pd.DataFrame:
    """Rows of which those since a day are others.

    changed: prices, market and volume of every one of them, by another factor each, so that ratios and ranges change as
    well. taken away: all but those of the day itself, whose open is asked for and whose prices are changed.
    """
    days = rows["date"].to_numpy("datetime64[D]")
    if disturbance == "taken away":
        kept = days <= np.datetime64(since)
        rows, days = rows[kept].reset_index(drop=True), days[kept]
    later = days >= np.datetime64(since)
    random = np.random.default_rng(seed)
    count = int(later.sum())
    prices = rows.loc[later, list(PRICES)].to_numpy(np.float64) * np.exp(random.normal(0, 0.3, (count, 1)))
    opened, closed = (
        prices[:, PRICES.index(name)] * np.exp(random.normal(0, 0.05, count)) for name in ("open", "close")
    )
    ends = {
        "open": opened,
        "close": closed,
        "high": np.maximum(opened, closed) * np.exp(np.abs(random.normal(0, 0.05, count))),
        "low": np.minimum(opened, closed) * np.exp(-np.abs(random.normal(0, 0.05, count))),
    }
    other = rows.copy()
    for name, values in ends.items():
        other.loc[later, name] = values
    for name in ("market", "volume"):
        if name in other:
            other.loc[later, name] = other.loc[later, name].to_numpy(np.float64) * np.exp(random.normal(0, 1, count))
    return other


def _sorted(found: pd.DataFrame) -> pd.DataFrame:
    return found.sort_values(KEYS, kind="stable").set_index(KEYS)


def _until(found: pd.DataFrame, since: date) -> pd.DataFrame:
    return found[found.index.get_level_values("date") <= pd.Timestamp(since)]


def _moved(before: pd.DataFrame, after: pd.DataFrame, disturbance: Disturbance, since: date) -> Iterator[Leak]:
    """One leak for each column of predictions that moved; a row that is gone or new has moved as well."""
    rows = before.index.union(after.index)
    before, after = before.reindex(rows), after.reindex(rows)
    for column in before.columns.difference(list(OBSERVED)):
        old, new = (frame[column].to_numpy(np.float64) for frame in (before, after))
        moved = np.flatnonzero(old.view(np.int64) != new.view(np.int64))
        moved = moved[~(np.isnan(old[moved]) & np.isnan(new[moved]))]
        if len(moved):
            symbol, day = rows[moved[0]]
            yield Leak(
                disturbance, since, len(moved), str(symbol), day.date(), str(column), float(old[moved[0]]),
                float(new[moved[0]]),
            )  # fmt: skip


def _followed(before: pd.DataFrame, after: pd.DataFrame, since: date) -> int:
    later = before[before.index.get_level_values("date") > pd.Timestamp(since)]
    both = later.join(after.add_suffix(" again"), how="inner")
    columns = later.columns.difference(list(OBSERVED))
    moved = [both[column].to_numpy(np.float64) != both[f"{column} again"].to_numpy(np.float64) for column in columns]
    return int(np.any(moved, axis=0).sum()) if moved and len(both) else 0
