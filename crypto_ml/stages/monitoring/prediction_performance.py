"""prediction_performance: how far predictions were off, beside the last close and the last open, and how many opens lay
within their intervals."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from crypto_ml.deployment import Deployment
from crypto_ml.forecasting.drift import (
    FEWEST_COVERED,
    FEWEST_COVERED_DAYS,
    RECENT_DAYS,
    Coverage,
    coverage,
    least_coverage,
)
from crypto_ml.forecasting.evaluation import Comparison, Verdict, evaluate
from crypto_ml.forecasting.verdicts import (
    ADVISED_DAYS,
    LEVEL_OF_EVERY_RETRAIN,
    DailyLoss,
    Judgement,
    daily_loss,
    judge,
)
from crypto_ml.ledger.alarms import Condition
from crypto_ml.stages.monitoring.live_predictions import LivePredictions, live_predictions

DAYS: Final = ADVISED_DAYS
"""Days of predictions that are judged together; coverage is that of the last RECENT_DAYS of them."""

WORSE_THAN_LAST_CLOSE: Final = "predictions_worse_than_last_close"
INTERVALS_MISS: Final = "intervals_miss"


@dataclass(frozen=True)
class CoinPerformance:
    """One series: its rows, its mean absolute error over that of the last close, and its coverage (None: none told)."""

    symbol: str
    rows: int
    mase: float | None
    coverage: float | None


@dataclass(frozen=True, eq=False)
class Performance:
    """What predictions were worth. level: the share of opens that the intervals behind
    `coverage` promise to hold, None where there are none; covered_days: the days of these. loss: by day, against the
    last close. covered_by_day: (T,) share of each day's opens within their intervals, NaN where there were none.

    judgement: the word on all of it; worst first by_coin.
    """

    live: LivePredictions
    overall: Comparison
    judgement: Judgement
    loss: DailyLoss
    coverage: Coverage
    covered_by_day: np.ndarray
    level: float | None
    by_coin: Sequence[CoinPerformance]
    covered_days: int = 0

    @property
    def too_few_covered(self) -> bool:
        """Whether there are too few intervals, or of too few days, for their coverage to tell anything."""
        return self.coverage.rows < FEWEST_COVERED or self.covered_days < FEWEST_COVERED_DAYS

    @property
    def day(self) -> str:
        return str(self.live.newest_day)


def performance(deployment: Deployment) -> Performance | None:
    """Of the last DAYS days; None where there is no prediction whose open has come. Failures as for
    `live_predictions`."""
    live = live_predictions(deployment, DAYS)
    return None if live is None or not len(live) else performance_of(live)


def performance_of(live: LivePredictions) -> Performance:
    """What some predictions, one at least, were worth."""
    found = evaluate(live.symbols.astype(str), live.opens, live.predicted, live.opens_before, live.closes)
    judged = (live.days, live.symbols.astype(str), live.opens, live.predicted, live.closes, live.closes)
    recent = live.last(RECENT_DAYS)
    levels = recent.levels[np.isfinite(recent.levels)]
    return Performance(
        live=live,
        overall=found.overall,
        judgement=judge(*judged, level=LEVEL_OF_EVERY_RETRAIN),
        loss=daily_loss(*judged),
        coverage=coverage(recent.opens, recent.low, recent.high),
        covered_by_day=_covered_by_day(live),
        level=round(float(levels.mean()), 6) if len(levels) else None,
        by_coin=_by_coin(live, {name: one.network.mase for name, one in found.by_symbol.items()}),
        covered_days=len(np.unique(recent.days[np.isfinite(recent.low) & np.isfinite(recent.high)])),
    )


def _covered_by_day(live: LivePredictions) -> np.ndarray:
    days, places = np.unique(live.days, return_inverse=True)
    known = np.isfinite(live.low) & np.isfinite(live.high)
    inside = known & (live.low <= live.opens) & (live.opens <= live.high)
    with np.errstate(invalid="ignore"):
        return np.asarray(
            np.bincount(places, inside, len(days))
            / np.where((n := np.bincount(places, known, len(days))) > 0, n, np.nan)
        )


def _by_coin(live: LivePredictions, mase: dict[str, float | None]) -> list[CoinPerformance]:
    names, places = np.unique(live.symbols.astype(str), return_inverse=True)
    found = []
    for at, name in enumerate(names.tolist()):
        own = places == at
        covered = coverage(live.opens[own], live.low[own], live.high[own])
        found.append(CoinPerformance(name, int(own.sum()), mase[name], covered.share))
    return sorted(found, key=lambda one: (-(one.mase or 0.0), one.symbol))


def not_worse_than_last_close(found: Performance | None) -> Verdict:
    """Whether chance explains that predictions were worse than the last close, where they were."""
    if found is None:
        return Verdict(True, {}, 0.0, "there is no prediction yet whose open has come")
    told = found.judgement
    return Verdict(
        passed=told.word != "WORSE",
        numbers={"loss_against_last_close": told.mean, "low": told.low, "high": told.high, "days": told.days},
        threshold=0.0,
        explanation=f"{told.word}: {told.explanation}",
    )


def intervals_hold(found: Performance | None) -> Verdict:
    """Whether the opens of the last RECENT_DAYS lay within their intervals about as often as promised."""
    share = found.coverage.share if found else None
    if found is None or share is None or found.level is None:
        return Verdict(True, {}, 0.0, "no prediction whose open has come has an interval: none")
    least, rows = least_coverage(found.level), found.coverage.rows
    said = f"{100 * share:.1f} % of {rows:,} opens of the last {RECENT_DAYS} days lay within their interval"
    return Verdict(
        passed=found.too_few_covered or share >= least,
        numbers={"coverage": share, "intervals": rows},
        threshold=least,
        explanation=f"{said}, of which {100 * found.level:g} % is promised and {100 * least:g} % is the least"
        + (
            f"; fewer than {FEWEST_COVERED}, or of fewer than {FEWEST_COVERED_DAYS} days, tell nothing"
            if found.too_few_covered
            else ""
        ),
    )


def conditions(found: Performance | None) -> list[Condition]:
    """What of it may be an alarm."""
    if found is None:
        return []
    told, intervals = found.judgement, intervals_hold(found)
    share = found.coverage.share
    return [
        Condition(
            WORSE_THAN_LAST_CLOSE,
            passed=not_worse_than_last_close(found).passed,
            what=told.explanation,
            how_bad=max(told.mean, 0.0) / told.delta,
            todo="promote a model whose verdict is BEATS or TIES, or roll back (`crypto-ml models`)",
            day=found.day,
            since=told.first_day,
            asks_retrain=True,
        ),
        Condition(
            INTERVALS_MISS,
            passed=None if share is None or found.too_few_covered else intervals.passed,
            what=intervals.explanation,
            how_bad=0.0 if share is None else (1 - share) / (1 - intervals.threshold) if intervals.threshold else 0.0,
            todo="look at data_faults first; where the data is sound, retrain, which measures the intervals anew",
            day=found.day,
            asks_retrain=True,
        ),
    ]


def daily_losses(found: Performance) -> np.ndarray:
    """The mean loss of each day against the last close's, as a share of it: (T,)."""
    return np.asarray(found.loss.sums / found.loss.rows)
