"""Whether predictions are better than others of the same rows: one word, by a test that luck seldom passes.

Comparing two mean errors passes every second model that knows nothing: which of them looks better on a holdout is
chance. A test by row passes every fifth, because coins share the day. Here every day is one observation, and luck is
called BEATS once in twenty times. Does not belong here: acting on a word.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from functools import cache
from typing import Any, Final, Literal, get_args

import numpy as np
import numpy.typing as npt

from crypto_ml.errors import Refused

FloatArray = npt.NDArray[np.float64]
DayArray = npt.NDArray[np.datetime64]

Word = Literal["BEATS", "TIES", "WORSE", "INCONCLUSIVE"]
WORDS: Final = get_args(Word)

LEVEL: Final = 0.05
"""How often the test may say BEATS (one-sided) of predictions that are exactly as good."""
LEVEL_OF_EVERY_RETRAIN: Final = 0.025
"""The same where a candidate is judged every week: who tries again and again is lucky more often."""
DELTA: Final = 0.01
"""An excess of loss that does not matter, as a share of the last close's own: below it is a tie."""
FEWEST_DAYS: Final = 60
ADVISED_DAYS: Final = 90
FLOOR: Final = 1e-4
"""One basis point of a series' price, the least that its errors are divided by: without it a coin whose last close is
nearly always right outweighs all others together."""
MOST_BY_ROW: Final = 1e12
"""What a row's difference counts at most, so that an absurd prediction makes a bad mean and not none."""
MOST_PRICE: Final = 1e300
"""What a price counts at most, in parts of its series' largest close: sums of such prices are numbers still."""


@dataclass(frozen=True)
class DailyLoss:
    """By how much a prediction's loss exceeds the reference's, by day, ascending.

    sums: (T,) sum over the day's rows of d = (|e| − |e_reference|) / b, dimensionless; b is the series' mean error of
    the last close, FLOOR of its price at least. rows: (T,) rows of the day. by_coin: mean d of each series.
    """

    days: DayArray
    sums: FloatArray
    rows: npt.NDArray[np.int64]
    by_coin: dict[str, float]

    @property
    def mean(self) -> float:
        """Mean d of all rows."""
        return float(self.sums.sum() / self.rows.sum())

    @property
    def influence(self) -> FloatArray:
        """By how much each day moves the mean of all rows, times the number of days: (T,), with mean 0."""
        centred: FloatArray = (self.sums - self.rows * self.mean) * (len(self.days) / self.rows.sum())
        return centred


@dataclass(frozen=True)
class Judgement:
    """The word on predictions, and what it was decided by. Losses are shares of the last close's: −0.02 is 2 % less.

    mean: of d over all rows (see `DailyLoss`). low, high: its interval of 1 − 2·level (90 %). p: the chance of a mean
    so low or lower where both are equally good. The three are None where there are fewer than two days. coins_better:
    share of the series whose mean d is below 0. against: what the predictions were compared with, in words.
    """

    word: Word
    mean: float
    low: float | None
    high: float | None
    p: float | None
    days: int
    rows: int
    coins: int
    coins_better: float
    level: float
    delta: float
    against: str
    first_day: str
    last_day: str
    explanation: str

    def to_dict(self) -> dict[str, Any]:
        """Plain texts, numbers and None, for JSON."""
        return asdict(self)

    @property
    def numbers(self) -> dict[str, float | None]:
        """What is a number of it and plots over time."""
        names = ("mean", "low", "high", "p", "days", "rows", "coins", "coins_better")
        return {name: None if (value := getattr(self, name)) is None else float(value) for name in names}

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> "Judgement":
        """What `to_dict` gave, of this release or another: fields that a later one adds are left out."""
        return cls(**{one.name: document[one.name] for one in fields(cls) if one.name in document})


def judge(  # noqa: PLR0917 - six columns of the same rows
    days: npt.ArrayLike,
    symbols: npt.ArrayLike,
    observed: FloatArray,
    predicted: FloatArray,
    reference: FloatArray,
    close: FloatArray,
    *,
    level: float = LEVEL,
    delta: float = DELTA,
    against: str = "the last close",
) -> Judgement:
    """The word on `predicted` against `reference`, of the same n rows in any order.

    days: datetime64 or ISO strings; symbols: texts; the others prices of opens in each row's currency, (n,) float64.
    reference: the predictions compared with, which are `close` itself (close of the row before) or another model's.

    The test is Diebold and Mariano's (1995) on days: d of all rows of a day is summed up, and the mean of all rows is
    taken as a mean of days (each a cluster, whatever its number of rows). Its variance is that of Newey and West (1987)
    with lag 4(n/100)^(2/9) of n days, corrected as by Harvey, Leybourne and Newbold (1997), with Student's t.
    The first that applies: TIES where every prediction is the reference's; INCONCLUSIVE below FEWEST_DAYS; BEATS where
    the interval lies below 0 and more than half of the coins are better; TIES where it lies below `delta`; WORSE where
    it lies above 0; INCONCLUSIVE.
    Raises Refused for no rows, lengths that differ, numbers that are not finite, prices that are not positive.
    """
    loss = daily_loss(days, symbols, observed, predicted, reference, close)
    interval = _interval(loss, level)
    low, high, p = interval or (None, None, None)
    better = float(np.mean([one < 0 for one in loss.by_coin.values()]))
    count, equal = len(loss.days), np.array_equal(predicted, reference)
    word: Word = "INCONCLUSIVE"
    if equal:
        word = "TIES"
    elif high is None or low is None or count < FEWEST_DAYS:
        word = "INCONCLUSIVE"
    elif high < 0 and better > 0.5:
        word = "BEATS"
    elif high < delta:
        word = "TIES"
    elif low > 0:
        word = "WORSE"
    told = Judgement(
        word=word, mean=loss.mean, low=low, high=high, p=p, days=count, rows=int(loss.rows.sum()),
        coins=len(loss.by_coin), coins_better=better, level=level, delta=delta, against=against,
        first_day=str(loss.days[0]), last_day=str(loss.days[-1]), explanation="",
    )  # fmt: skip
    return replace(told, explanation=_explanation(told, equal=equal))


def daily_loss(  # noqa: PLR0917 - six columns of the same rows
    days: npt.ArrayLike,
    symbols: npt.ArrayLike,
    observed: FloatArray,
    predicted: FloatArray,
    reference: FloatArray,
    close: FloatArray,
) -> DailyLoss:
    """What `judge` judges by, day by day; arguments and errors as there."""
    when, names = np.asarray(days).astype("datetime64[D]"), np.asarray(symbols)
    columns = (observed, predicted, reference, close)
    _check(when, names, columns)
    # sums depend on their order in the last bit: rows in any order give the same
    unique_names, codes = np.unique(names, return_inverse=True)
    order = np.lexsort((predicted, observed, codes, when))
    when, codes = when[order], codes[order]
    actual, ours, theirs, naive = _in_units_of_the_series(codes, [column[order] for column in columns])
    rows_of = np.bincount(codes)
    base = np.maximum(
        np.bincount(codes, np.abs(actual - naive)) / rows_of, FLOOR * (np.bincount(codes, naive) / rows_of)
    )
    with np.errstate(over="ignore"):
        difference = (np.abs(actual - ours) - np.abs(actual - theirs)) / base[codes]
    difference = np.clip(difference, -MOST_BY_ROW, MOST_BY_ROW)
    unique_days, places = np.unique(when, return_inverse=True)
    by_coin = np.bincount(codes, difference) / rows_of
    return DailyLoss(
        unique_days,
        np.bincount(places, difference).astype(np.float64),
        np.bincount(places).astype(np.int64),
        {str(name): float(value) for name, value in zip(unique_names, by_coin, strict=True)},
    )


def _in_units_of_the_series(codes: npt.NDArray[np.intp], prices: list[FloatArray]) -> list[FloatArray]:
    """Prices by series (the last of them closes), divided by the power of two above its largest close: nothing is
    rounded, and what is compared is neither too small nor too large for float64, whatever a coin is quoted in."""
    largest = np.zeros(int(codes.max()) + 1)
    np.maximum.at(largest, codes, prices[-1])
    powers = -np.frexp(largest)[1][codes]
    with np.errstate(over="ignore", under="ignore"):
        return [np.clip(np.ldexp(one, powers), -MOST_PRICE, MOST_PRICE) for one in prices]


def lag_of(count: int) -> int:
    """How many days the variance of a mean of `count` days looks back (Newey and West 1994)."""
    return int(4 * (count / 100) ** (2 / 9))


def running_mean(loss: DailyLoss, level: float = LEVEL) -> tuple[FloatArray, FloatArray]:
    """What the days up to each add to the mean d of all rows, and how far chance reaches to either side: both (T,).

    The first ends at the mean, the second at half the interval's width; in between it grows with the root of the days.
    """
    count = len(loss.days)
    added: FloatArray = np.cumsum(loss.sums) / loss.rows.sum()
    interval = _interval(loss, level)
    half = 0.0 if interval is None else (interval[1] - interval[0]) / 2
    return added, half * np.sqrt(np.arange(1, count + 1) / count)


def _interval(loss: DailyLoss, level: float) -> tuple[float, float, float] | None:
    """Low, high and the one-sided p of the mean; None where there are fewer than two days."""
    count, mean = len(loss.days), loss.mean
    if count < 2:
        return None
    each = loss.influence
    largest = float(np.abs(each).max())
    if not largest:
        return mean, mean, float(mean > 0) if mean else 0.5
    each = each / largest  # squares of absurd predictions stay numbers
    variance = float(each @ each)
    lag = min(lag_of(count), count - 1)
    for back in range(1, lag + 1):
        variance += 2 * (1 - back / (lag + 1)) * float(each[back:] @ each[:-back])
    # the factor of Harvey, Leybourne and Newbold for one step ahead, under the root of the variance of a mean
    error = largest * math.sqrt(max(variance, 0.0)) / count * math.sqrt(count / (count - 1))
    half = student_quantile(1 - level, count - 1) * error
    return mean - half, mean + half, student_cdf(mean / error, count - 1) if error else float(mean > 0)


def student_cdf(value: float, freedom: int) -> float:
    """Student's distribution function, to some 1e-14: what scoring installs has no library that knows it.

    With t = √ν·tan θ it is 1/2 + ∫ cos^(ν−1) over (0, θ), divided by its value over a half circle; the integrand is
    smooth, so Gauss and Legendre's rule is exact to rounding.
    """
    nodes, weights = _nodes()
    angle = math.atan(abs(value) / math.sqrt(freedom))
    # beyond that the power is nothing: all nodes go where it is something
    end = min(angle, 40 / math.sqrt(freedom))
    inside = end / 2 * float(weights @ np.cos(end / 2 * (nodes + 1)) ** (freedom - 1))
    whole = math.sqrt(math.pi) * math.exp(math.lgamma(freedom / 2) - math.lgamma((freedom + 1) / 2))
    upper = min(inside / whole, 0.5)
    return 0.5 + upper if value >= 0 else 0.5 - upper


@cache
def _nodes() -> tuple[FloatArray, FloatArray]:
    return np.polynomial.legendre.leggauss(100)


@cache
def student_quantile(share: float, freedom: int) -> float:
    """Where Student's distribution function is `share`, between 0.5 and 1, by halving."""
    low, high = 0.0, 1.0
    while student_cdf(high, freedom) < share:
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if student_cdf(middle, freedom) < share else (low, middle)
    return (low + high) / 2


def _explanation(told: Judgement, *, equal: bool) -> str:
    on = f"{told.rows:,} rows of {told.coins:,} coins over {told.days:,} days"
    if equal:
        return f"On {on} every prediction is that of {told.against}."
    off = f"its loss is {_percent(told.mean)} that of {told.against}"
    if told.low is None or told.high is None:
        return f"On {on} {off}; one day tells nothing."
    sure = f"({100 * (1 - 2 * told.level):g} % interval {100 * told.low:+.2f} to {100 * told.high:+.2f} %)"
    coins = f"{100 * told.coins_better:.0f} % of the coins"
    why = {
        "BEATS": f"that is no chance, and holds for {coins}",
        "TIES": f"an excess of {100 * told.delta:g} % is ruled out"
        + (f", but it is better for {coins} only" if told.high < 0 else ""),
        "WORSE": "that is no chance",
        "INCONCLUSIVE": f"it may be better, and may be worse by {100 * told.delta:g} % and more"
        if told.days >= FEWEST_DAYS
        else f"fewer than {FEWEST_DAYS} days tell nothing",
    }[told.word]
    return f"On {on} {off} {sure}: {why}."


def _percent(mean: float) -> str:
    return f"{100 * abs(mean):.2f} % {'below' if mean < 0 else 'above'}"


def _check(when: DayArray, names: npt.NDArray[Any], columns: tuple[FloatArray, ...]) -> None:
    if not len(names):
        raise Refused("There are no rows to judge; choose days that have some.")
    if any(column.shape != names.shape for column in (when, *columns)):
        lengths = ", ".join(str(column.shape) for column in (when, names, *columns))
        raise Refused(f"Days, symbols, observed, predicted, reference and close differ in shape ({lengths}).")
    if np.isnat(when).any() or not all(np.isfinite(column).all() for column in columns):
        raise Refused("Only finite predictions on days that are known can be judged; leave seed rows out.")
    if (columns[0] <= 0).any() or (columns[3] <= 0).any():
        raise Refused("Only positive prices can be judged; leave rows without an observed open out.")
