"""Rolling origins: what models would have predicted, had they been made every few weeks from what was known then.

At each origin a model is made from the rows of earlier days, by the code that makes those that serve, and predicts the
days after the origin up to the next one, on the road every upload takes. Nothing is fitted on a day that it predicts.

Belongs here: which days, the predictions, and the scoreboard, of rows at hand. Does not belong here: what was known
when (the market history knows), and where a scoreboard is kept.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import date, timedelta
from typing import Any, Final, Literal

import numpy as np
import pandas as pd

from crypto_ml.errors import Refused
from crypto_ml.forecasting.bundle import ModelBundle
from crypto_ml.forecasting.evaluation import relative_errors
from crypto_ml.forecasting.features import series_starts
from crypto_ml.forecasting.holdout import holdout_predictions
from crypto_ml.forecasting.progress import Progress, Tell, tell_nobody
from crypto_ml.forecasting.recent_gaps import recent_gaps
from crypto_ml.forecasting.training_set import Split, TooLittleHistory
from crypto_ml.forecasting.verdicts import MOST_PRICE, DailyLoss, Judgement, daily_loss, judge

EVERY_DAYS: Final = 28
A_YEAR: Final = 365
KEYS: Final = ["symbol", "date"]

Knowledge = Literal["known", "dates"]
"""How it is told what there was at an origin. `known`: the rows that had become known. `dates`: rows of earlier days,
where the history was told of them later, all at once."""


@dataclass(frozen=True)
class Span:
    """The days from the one after an origin to the next origin, which what is made at the origin predicts."""

    origin: date
    first_day: date
    last_day: date


@dataclass(frozen=True, eq=False)
class Known:
    """The rows of the days before some day as they were known at its end: OBSERVATION columns, whole series, sorted."""

    rows: pd.DataFrame
    knowledge: Knowledge


History = Callable[[date], Known]
"""What was known at the end of a day, of the days before it."""

Maker = Callable[[pd.DataFrame, date], ModelBundle]
"""From the rows known at an origin to the model that predicts from then on. Raises TooLittleHistory."""


@dataclass(frozen=True)
class AtOrigin:
    """What came of one origin. version: of the model; rows: that it predicted; why: where there are none.

    shrink: by how much it corrects the last close, λ; None where it has no serving rule.
    """

    span: Span
    knowledge: Knowledge
    version: str
    rows: int
    why: str = ""
    shrink: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain texts and numbers, for JSON."""
        said = {name: str(value) for name, value in asdict(self.span).items()}
        made = {"version": self.version, "lambda": self.shrink, "rows": self.rows, "why": self.why}
        return {**said, "knowledge": self.knowledge, **made}


@dataclass(frozen=True, eq=False)
class Ran:
    """One competitor's predictions over all origins.

    rows: `symbol`, `date`, `val_open`, `pred_open`, `last_close`, `pred_low`, `pred_high` (currency; NaN where there is
    no interval), and `size`, the recent gap size before the row.
    """

    name: str
    rows: pd.DataFrame
    origins: tuple[AtOrigin, ...]


@dataclass(frozen=True)
class Line:
    """One line of a scoreboard.

    mase: mean error as a share of the last close's, which is one basis point of the price at least. error: the mean
    relative error, in parts of the observed open. coverage: share of the rows with an interval whose open lay within;
    `intervals` counts them.
    """

    group: str
    rows: int
    days: int
    coins: int
    mase: float
    error: float
    judgement: Judgement
    coverage: float | None
    intervals: int

    def to_dict(self) -> dict[str, Any]:
        """Plain texts, numbers and None, for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Scoreboard:
    """One competitor's lines: over all rows, by coin, by month, and by regime."""

    name: str
    overall: Line
    by_coin: tuple[Line, ...]
    by_month: tuple[Line, ...]
    by_regime: tuple[Line, ...]
    loss: DailyLoss

    def to_dict(self) -> dict[str, Any]:
        """Plain texts, numbers and None, for JSON; `daily` has what the picture is drawn from."""
        groups = {"by_coin": self.by_coin, "by_month": self.by_month, "by_regime": self.by_regime}
        return {
            "name": self.name,
            "overall": self.overall.to_dict(),
            **{name: [line.to_dict() for line in lines] for name, lines in groups.items()},
            "daily": {
                "day": [str(day) for day in self.loss.days],
                "sum": self.loss.sums.tolist(),
                "rows": self.loss.rows.tolist(),
            },
        }


def first_origin(first_day: date, last_day: date) -> date:
    """Where a backtest begins that is not told: after a year of history, or half of it where that is less."""
    return first_day + timedelta(min(A_YEAR, (last_day - first_day).days // 2))


def spans(first: date, last_day: date, every: int = EVERY_DAYS) -> list[Span]:
    """The spans of origins from `first` on, every so many days, that predict days up to `last_day`; the last one may be
    shorter. Raises Refused where there is none."""
    if every < 1:
        raise Refused(f"origins every {every} days lead nowhere; give 1 or more")
    starts = [first + timedelta(days) for days in range(0, (last_day - first).days, every)]
    if not starts:
        raise Refused(f"no day after the first origin {first} is known: the newest is {last_day}; give an earlier one")
    return [Span(origin, origin + timedelta(1), min(origin + timedelta(every), last_day)) for origin in starts]


def by_dates(rows: pd.DataFrame) -> History:
    """The history of rows that are known since their days: OBSERVATION columns, sorted by symbol and date."""
    days = rows["date"].to_numpy("datetime64[D]")
    return lambda day: Known(rows[days < np.datetime64(day)].reset_index(drop=True), "dates")


def served(bundle: ModelBundle, fitted_before: date | None) -> Maker:
    """One model at every origin; where it is known to have been fitted on later rows, it says so instead."""

    def make(_rows: pd.DataFrame, origin: date) -> ModelBundle:
        if fitted_before and fitted_before > origin + timedelta(1):
            raise TooLittleHistory(f"{bundle.version} was fitted on rows up to the day before {fitted_before}")
        return bundle

    return make


def run(name: str, over: Sequence[Span], history: History, make: Maker, tell: Tell = tell_nobody) -> Ran:
    """One competitor over all spans; an origin with too little history is left out, and says why.

    Raises Refused where no row could be predicted at any of them.
    """
    parts: list[pd.DataFrame] = []
    origins: list[AtOrigin] = []
    for number, span in enumerate(over):
        tell(Progress("backtest", number, len(over), "origins", f"{name}, {span.origin}"))
        known = history(span.origin)
        try:
            bundle = make(known.rows, span.origin)
            rows = predicted(history(span.last_day + timedelta(1)).rows, span, bundle)
        except TooLittleHistory as none:
            origins.append(AtOrigin(span, known.knowledge, "", 0, str(none)))
            continue
        parts.append(rows)
        shrink = bundle.rule.shrink if bundle.rule else None
        origins.append(AtOrigin(span, known.knowledge, bundle.version, len(rows), shrink=shrink))
    tell(Progress("backtest", len(over), len(over), "origins", name))
    if not parts:
        raise Refused(f"{name} could predict at none of {len(over)} origins; the last says: {origins[-1].why}")
    return Ran(name, pd.concat(parts, ignore_index=True), tuple(origins))


def predicted(rows: pd.DataFrame, span: Span, bundle: ModelBundle) -> pd.DataFrame:
    """What a model predicts of the days of a span, in the columns of `Ran.rows`; rows: up to the last of them."""
    found = holdout_predictions(rows, Split(span.first_day, span.first_day), bundle)
    sizes = rows[KEYS].assign(size=recent_gaps(rows, series_starts(rows["symbol"])).size)
    for name in ("pred_low", "pred_high"):
        if name not in found:
            found = found.assign(**{name: np.nan})
    columns = [*KEYS, "val_open", "pred_open", "last_close", "pred_low", "pred_high"]
    return found[columns].merge(sizes, on=KEYS, how="left")


def scoreboards(ran: Iterable[Ran]) -> list[Scoreboard]:
    """The scoreboard of each competitor, all on the rows that every one of them predicted. Raises Refused for none."""
    competitors = list(ran)
    common = competitors[0].rows[KEYS]
    for other in competitors[1:]:
        common = common.merge(other.rows[KEYS], on=KEYS)
    if common.empty:
        raise Refused("the competitors predicted no row in common; give them origins that all of them can begin at")
    return [_scoreboard(one.name, one.rows.merge(common, on=KEYS)) for one in competitors]


def regimes(rows: pd.DataFrame) -> pd.Series:
    """calm or turbulent, for each row: by its day's market gap size, the median over coins of what gaps were before it,
    which is above the median of all days or not."""
    of_day = rows.groupby("date")["size"].median()
    turbulent = of_day > of_day.median()
    named: pd.Series = rows["date"].map(turbulent).map({True: "turbulent", False: "calm"})
    return named


def _scoreboard(name: str, rows: pd.DataFrame) -> Scoreboard:
    months = rows["date"].dt.strftime("%Y-%m")
    overall, loss = _line("all", rows)
    return Scoreboard(
        name,
        overall,
        by_coin=_lines(rows, rows["symbol"]),
        by_month=_lines(rows, months),
        by_regime=_lines(rows, regimes(rows)),
        loss=loss,
    )


def _lines(rows: pd.DataFrame, groups: pd.Series) -> tuple[Line, ...]:
    return tuple(_line(str(group), of_group)[0] for group, of_group in rows.groupby(groups.to_numpy(str)))


def _line(group: str, rows: pd.DataFrame) -> tuple[Line, DailyLoss]:
    """Prices are taken in parts of the last close: over years, days of high prices would otherwise count for most."""
    close = rows["last_close"].to_numpy(np.float64)
    with np.errstate(over="ignore"):
        observed, made = (rows[name].to_numpy(np.float64) / close for name in ("val_open", "pred_open"))
    observed, made = np.clip(observed, 1 / MOST_PRICE, MOST_PRICE), np.clip(made, -MOST_PRICE, MOST_PRICE)
    one = np.ones(len(rows))
    days, symbols = rows["date"].to_numpy(), rows["symbol"].to_numpy(str)
    loss = daily_loss(days, symbols, observed, made, one, one)
    judgement = judge(days, symbols, observed, made, one, one)
    low, high, opened = (rows[name].to_numpy(np.float64) for name in ("pred_low", "pred_high", "val_open"))
    told = np.isfinite(low) & np.isfinite(high)
    covered = float(np.mean((low <= opened)[told] & (opened <= high)[told])) if told.any() else None
    base = daily_loss(days, symbols, observed, one, observed, one)  # the last close's errors, on the same scale
    line = Line(
        group=group,
        rows=len(rows),
        days=judgement.days,
        coins=judgement.coins,
        mase=base.mean + loss.mean,
        error=float(relative_errors(observed, made).mean()),
        judgement=judgement,
        coverage=covered,
        intervals=int(told.sum()),
    )
    return line, loss
