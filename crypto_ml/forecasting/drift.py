"""Whether a model still does what it did, and whether rows are still what they were.

Belongs here: what is measured, with the thresholds that go with it, as pure functions of arrays. Does not belong here:
where rows come from, and what follows of an alarm.

What is watched of a model is its loss. Its inputs are not: prices are not stationary, so measures of their distribution
(PSI, Kolmogorov and Smirnov, Wasserstein) call nearly every healthy month drifted, and see nothing of a model that has
lost its skill. Inputs are watched for faults of the data alone, on gaps in the unit of `recent_gaps`. What each rule
found on a real market, and how often it was wrong, is in docs/monitoring.md.
"""

import math
from dataclasses import dataclass
from datetime import date
from typing import Final

import numpy as np
import numpy.typing as npt

from crypto_ml.forecasting.columns import Rows
from crypto_ml.forecasting.features import BoolArray, FloatArray, IntArray
from crypto_ml.forecasting.recent_gaps import log_gaps, recent_gaps
from crypto_ml.forecasting.schema import PRICES
from crypto_ml.forecasting.unit_changes import unit_changes

DayArray = npt.NDArray[np.datetime64]

ALLOWANCE: Final = 0.25
"""Deviations by which a day may be worse than it used to be before it counts: the k of a CUSUM."""

LIMIT: Final = 15.0
"""Where the sum of what counts becomes an alarm."""

MOST_BY_DAY: Final = 4.0
"""Deviations that one day counts at most: a crash is one bad day, and no lost skill."""

MOST_BY_ROW: Final = 0.1
"""Recent gaps that one row counts at most. What a capped prediction may lose is half of it; of others, a row whose open
ran far away says nothing of the model."""

LEAST_DEVIATION: Final = 0.001
"""Of the daily loss, in recent gaps. A model that answers with the last close has none, and a price that is corrected
afterwards is no drift of it."""

FEWEST_REFERENCE_DAYS: Final = 60
REFERENCE_DAYS: Final = 120
"""The days by which the later ones of a model are judged: so many where there are, no fewer than the other. By 30 days
a healthy model is accused in one year of five."""

RECENT_DAYS: Final = 28
BEFORE_DAYS: Final = 180
"""The days that are looked at for faults of the data, and those before them that they are held against."""

QUANTILE: Final = 0.9
LARGE_GAPS: Final = 0.146
"""Share of recent gaps above the earlier days' quantile, which is a tenth where nothing changed."""

STANDARD_ERRORS: Final = 3.0
"""By so many the share must be above a tenth in any case: of few rows a larger share is chance."""

MISSING: Final = 0.002
"""Share of days without a row, beyond that of the earlier days."""

FEWEST_MISSING: Final = 2

DIGITS: Final = 3
ROUNDED: Final = 0.5
"""Share of rows of which no price has more than DIGITS digits, beyond that of the earlier days."""

PSI_TOLD: Final = 0.19
"""A population stability index from which on a report says so; it is no alarm, for healthy months have it, too."""

FEWEST_COVERED: Final = 100
"""Intervals with an observed open below which their coverage is no evidence."""

FEWEST_COVERED_DAYS: Final = 14
"""And their days: coins share them. On the 44 coins of a real market intervals that hold 90 % of opens held less than
80 % in 7 % of the spans of three days, in 1 % of those of seven, and in none of fourteen."""


@dataclass(frozen=True, eq=False)
class Losses:
    """By how much a model's loss exceeds that of the last close, by day, ascending, (T,): the mean of the day's rows,
    in recent gaps."""

    days: DayArray
    daily: FloatArray

    def between(self, first: int, last: int | None = None) -> "Losses":
        """Some of the days, by their places."""
        return Losses(self.days[first:last], self.daily[first:last])


@dataclass(frozen=True)
class Reference:
    """What the daily loss of a model was while it was well: mean and deviation, of so many days. source: of which."""

    mean: float
    deviation: float
    days: int
    source: str

    @classmethod
    def of(cls, found: Losses, source: str) -> "Reference":
        """Of the losses of two days at least."""
        return cls(float(found.daily.mean()), float(found.daily.std(ddof=1)), len(found.daily), source)


@dataclass(frozen=True, eq=False)
class Cusum:
    """A one-sided cumulative sum of a daily loss, by day, ascending, (T,); it grows while that is above what it was.

    raised: the first day of the alarm that stands, None where none does; it stands until the sum is back at 0. since:
    the day on which the rise began that led to it.
    """

    days: DayArray
    sums: FloatArray
    raised: date | None
    since: date | None

    @property
    def now(self) -> float:
        """The sum on the last day; 0 without days."""
        return float(self.sums[-1]) if len(self.sums) else 0.0


def losses(days: DayArray, observed: FloatArray, predicted: FloatArray, closes: FloatArray, size: FloatArray) -> Losses:
    """Of n rows, (n,) each: (|e| − |e of the last close|) / (size · close), clipped at ± MOST_BY_ROW, by day.

    size: the recent gap size of each row's series (`recent_gaps`). In this unit a loss means the same in a calm month
    and in a crash; in the unit of a verdict, the mean error of the days that are judged, a healthy model was accused
    two to four times as often.
    """
    unit = np.maximum(size * closes, np.finfo(np.float64).tiny)
    with np.errstate(over="ignore"):
        each = np.clip((np.abs(observed - predicted) - np.abs(observed - closes)) / unit, -MOST_BY_ROW, MOST_BY_ROW)
    unique, places = np.unique(days, return_inverse=True)
    return Losses(unique, np.bincount(places, each) / np.bincount(places))


def cusum(watched: Losses, reference: Reference) -> Cusum:
    """The sum of the daily losses of a model that had those of the reference while it was well.

    z = (daily − mean) / deviation, clipped at ± MOST_BY_DAY; sum[t] = max(0, sum[t−1] + z − ALLOWANCE); an alarm above
    LIMIT (Page 1954).
    """
    days = watched.days
    z = np.clip((watched.daily - reference.mean) / max(reference.deviation, LEAST_DEVIATION), -MOST_BY_DAY, MOST_BY_DAY)
    sums = np.zeros(len(z))
    level, begun = 0.0, 0
    raised: int | None = None
    since: int | None = None
    for at, one in enumerate(z.tolist()):
        if level == 0.0:
            begun = at
        level = max(0.0, level + one - ALLOWANCE)
        sums[at] = level
        if level > LIMIT and raised is None:
            raised, since = at, begun
        elif level == 0.0:
            raised = since = None
    return Cusum(days, sums, _day(days, raised), _day(days, since))


def _day(days: DayArray, at: int | None) -> date | None:
    if at is None:
        return None
    found: date = days[at].astype("datetime64[D]").item()
    return found


@dataclass(frozen=True)
class Coverage:
    """How many of so many observed opens lay within their interval."""

    rows: int
    inside: int

    @property
    def share(self) -> float | None:
        return self.inside / self.rows if self.rows else None


def coverage(observed: FloatArray, low: FloatArray, high: FloatArray) -> Coverage:
    """Of n observed opens and their intervals, all (n,); an interval that is NaN is none."""
    known = np.isfinite(low) & np.isfinite(high)
    inside = known & (low <= observed) & (observed <= high)
    return Coverage(int(known.sum()), int(inside.sum()))


def least_coverage(level: float) -> float:
    """The share of opens within intervals of a level below which something is wrong: twice as many misses as promised.

    At 90 % that is 80 %; the worst month of three real markets had 82.
    """
    return 1 - 2 * (1 - level)


@dataclass(frozen=True)
class DataFaults:
    """The last days of a history, held against those before them.

    rows, earlier_rows: with a gap in the unit of its series. large_gaps: the share of the recent ones above the earlier
    QUANTILE, and most_large_gaps what it may be. missing, missing_before: the share of days without a row, between the
    first and the last of each series. missing_days: how many those are. unit_changes: (symbol, day, open over the close
    before) of recent rows. rounded, rounded_before: the share of rows with few digits. psi: of |gap| itself. None where
    there are too few rows to tell. by_day: the share of large gaps on each day of both, NaN on days without rows.
    """

    first_day: date
    last_day: date
    series: int
    rows: int
    earlier_rows: int
    large_gaps: float | None
    most_large_gaps: float
    missing: float
    missing_before: float
    missing_days: int
    unit_changes: tuple[tuple[str, date, float], ...]
    rounded: float
    rounded_before: float
    psi: float | None
    by_day: tuple[float, ...] = ()

    @property
    def gaps_changed(self) -> bool:
        return self.large_gaps is not None and self.large_gaps > self.most_large_gaps

    @property
    def days_are_missing(self) -> bool:
        return self.missing - self.missing_before > MISSING and self.missing_days >= FEWEST_MISSING

    @property
    def is_rounded(self) -> bool:
        return self.rounded - self.rounded_before > ROUNDED


FEWEST_ROWS: Final = 28
"""Rows, recent and before, from which on shares are told: a month of one series."""


def data_faults(rows: Rows, starts: IntArray, days: DayArray) -> DataFaults:
    """What is to be said of the last RECENT_DAYS days of n rows, sorted by series and date, beside BEFORE_DAYS before.

    rows: `symbol` and the prices. days: (n,) datetime64[D]. Rows before those days are read for the unit of the first
    ones (`recent_gaps.ROWS` and one more for each series).
    """
    last = days.max()
    recent = days > last - np.timedelta64(RECENT_DAYS, "D")
    before = ~recent & (days > last - np.timedelta64(RECENT_DAYS + BEFORE_DAYS, "D"))
    gaps, size = log_gaps(rows, starts), recent_gaps(rows, starts)
    ratio = np.where(size.enough, np.abs(gaps) / size.size, np.nan)
    now, then = ratio[recent & np.isfinite(ratio)], ratio[before & np.isfinite(ratio)]
    enough = len(now) >= FEWEST_ROWS and len(then) >= FEWEST_ROWS
    missing, missing_days = _missing(starts, days, recent)
    opens, closes = (np.asarray(rows[name], np.float64) for name in ("open", "close"))
    changed = np.flatnonzero(recent & unit_changes(opens, closes, starts))
    symbols = np.asarray(rows["symbol"], object)
    few = _few_digits(rows)
    return DataFaults(
        first_day=(last - np.timedelta64(RECENT_DAYS - 1, "D")).item(),
        last_day=last.item(),
        series=len(np.unique(starts[recent])),
        rows=len(now),
        earlier_rows=len(then),
        large_gaps=float((now > np.quantile(then, QUANTILE)).mean()) if enough else None,
        most_large_gaps=most_large_gaps(len(now)),
        missing=missing,
        missing_before=_missing(starts, days, before)[0],
        missing_days=missing_days,
        unit_changes=tuple((str(symbols[at]), days[at].item(), float(np.exp(gaps[at]))) for at in changed),
        rounded=_share(few, recent),
        rounded_before=_share(few, before) if before.any() else _share(few, recent),
        psi=_psi(np.abs(gaps), before, recent) if enough else None,
        by_day=_by_day(ratio > np.quantile(then, QUANTILE), np.isfinite(ratio), days) if enough else (),
    )


def _by_day(large: BoolArray, known: BoolArray, days: DayArray) -> tuple[float, ...]:
    """The share of large gaps among those that are known, on each of the days that are looked at."""
    first = days.max() - np.timedelta64(RECENT_DAYS + BEFORE_DAYS - 1, "D")
    at = (days - first).astype(np.int64)
    chosen = known & (at >= 0)
    count = np.bincount(at[chosen], minlength=RECENT_DAYS + BEFORE_DAYS)
    found = np.bincount(at[chosen], large[chosen], RECENT_DAYS + BEFORE_DAYS) / np.where(count > 0, count, np.nan)
    return tuple(found.tolist())


def most_large_gaps(rows: int) -> float:
    """Which share of so many gaps may be above the quantile before it is a fault."""
    tenth = 1 - QUANTILE
    return max(LARGE_GAPS, tenth + STANDARD_ERRORS * math.sqrt(tenth * QUANTILE / max(rows, 1)))


def _missing(starts: IntArray, days: DayArray, chosen: BoolArray) -> tuple[float, int]:
    """The share of days without a row, between the first and the last row of each series among the chosen, and how
    many those are."""
    if not chosen.any():
        return 0.0, 0
    of, when = starts[chosen], days[chosen]
    begins = np.flatnonzero(np.concatenate([[True], of[1:] != of[:-1]]))
    ends = np.append(begins[1:], len(of)) - 1
    expected = int(((when[ends] - when[begins]).astype(np.int64) + 1).sum())
    lacking = expected - len(of)
    return lacking / expected, lacking


def _few_digits(rows: Rows) -> BoolArray:
    """Which rows have no price with more than DIGITS significant digits."""
    found = np.ones(len(np.asarray(rows["open"])), bool)
    for name in PRICES:
        prices = np.asarray(rows[name], np.float64)
        with np.errstate(divide="ignore", invalid="ignore"):
            unit = 10.0 ** (np.floor(np.log10(prices)) - (DIGITS - 1))
            found &= np.abs(prices - np.round(prices / unit) * unit) <= 1e-9 * prices
    return found


def _share(found: BoolArray, chosen: BoolArray) -> float:
    return float(found[chosen].mean()) if chosen.any() else 0.0


def _psi(gaps: FloatArray, before: BoolArray, recent: BoolArray) -> float:
    known = np.isfinite(gaps)
    return population_stability(gaps[before & known], gaps[recent & known])


def population_stability(before: FloatArray, now: FloatArray, bins: int = 10) -> float:
    """The population stability index of positive numbers, now against before, in bins of equal share before."""
    inner = np.quantile(before[before > 0], np.linspace(0, 1, bins + 1)[1:-1]) if (before > 0).any() else np.zeros(0)
    shares = []
    for values in (before, now):
        counted = np.bincount(np.searchsorted(inner, values), minlength=bins)[:bins] / len(values)
        shares.append(np.maximum(counted, 1e-4))
    then, since = shares
    return float(((since - then) * np.log(since / then)).sum())
