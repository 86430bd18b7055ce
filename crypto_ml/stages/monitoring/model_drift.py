"""model_drift: whether the champion is still as good as it was, by the sum of what its daily losses are above that.

What it was is what it did on days that it was not fitted on: its first days in service; where these are too few, the
days before them, of which it predicts the history again.
"""

from dataclasses import dataclass
from datetime import date, timedelta
from typing import Final

import numpy as np

from crypto_ml.deployment import Deployment
from crypto_ml.forecasting.bundle import ModelBundle
from crypto_ml.forecasting.drift import (
    FEWEST_REFERENCE_DAYS,
    LIMIT,
    REFERENCE_DAYS,
    Cusum,
    Losses,
    Reference,
    cusum,
    losses,
)
from crypto_ml.forecasting.evaluation import Verdict
from crypto_ml.forecasting.features import series_starts
from crypto_ml.forecasting.recent_gaps import recent_gaps
from crypto_ml.forecasting.schema import OBSERVATION
from crypto_ml.forecasting.scoring import PREDICTED, score_rows
from crypto_ml.ledger.alarms import Condition
from crypto_ml.stages.comparison import MOST_ROWS, chosen_series
from crypto_ml.stages.monitoring.live_predictions import LivePredictions, live_predictions, never_seen_from
from crypto_ml.storage.history import MarketHistory

DAYS: Final = 365
MODEL_DRIFTS: Final = "model_drifts"


@dataclass(frozen=True, eq=False)
class ModelDrift:
    """The champion's daily losses against the last close, and the sum that watches them; no sum where there is no
    reference yet."""

    version: str
    day: str
    losses: Losses
    reference: Reference | None
    sum: Cusum | None


def model_drift(deployment: Deployment, version: str) -> ModelDrift | None:
    """Of the champion, over DAYS days at most; None where no open has come that it predicted."""
    live = live_predictions(deployment, DAYS, version)
    if live is None or not len(live):
        return None
    found = losses_of(live)
    before = None
    if len(found.days) <= FEWEST_REFERENCE_DAYS:
        before = predicted_again(deployment.bundle(version), deployment.history, found.days.min().item())
    return drift_of(found, version, str(live.newest_day), before)


def losses_of(live: LivePredictions) -> Losses:
    """By day, of the rows whose series has a recent gap size."""
    known = live.where(np.isfinite(live.size))
    return losses(known.days, known.opens, known.predicted, known.closes, known.size)


def predicted_again(bundle: ModelBundle, history: MarketHistory, until: date) -> Losses | None:
    """What a model's losses would have been on the REFERENCE_DAYS days before a day, of those that it was not fitted
    on; None where it was trained elsewhere. Bounded as `comparison` is."""
    first = never_seen_from(bundle)
    if first is None:
        return None
    first = max(first, until - timedelta(REFERENCE_DAYS))
    lengths = history.last_days().to_pandas()
    span = (until - (history.days() or (until, until))[0]).days + 1
    symbols = chosen_series(lengths.assign(rows=span), MOST_ROWS)
    rows = history.current_rows(list(OBSERVATION), symbols=symbols, before=until).to_pandas()
    rows = rows.astype(dict(OBSERVATION))
    days = rows["date"].to_numpy("datetime64[D]")
    asked = days >= np.datetime64(first)
    if not asked.any():
        return None
    size = recent_gaps(rows, series_starts(rows["symbol"].to_numpy(object)))
    closes = rows.groupby("symbol", sort=False)["close"].shift(1).to_numpy(np.float64)
    scored = score_rows(rows.assign(file=0, line=0, context=~asked), bundle, "one_step")
    made = (scored["status"] == PREDICTED).to_numpy() & size.enough[asked]
    price = scored["pred_open"].to_numpy(np.float64)
    opens = rows["open"].to_numpy(np.float64)
    return losses(days[asked][made], opens[asked][made], price[made], closes[asked][made], size.size[asked][made])


def drift_of(found: Losses, version: str, day: str, before: Losses | None = None) -> ModelDrift:
    """What the losses of a model tell of it. before: its losses on days before it served, where it served few."""
    count = len(found.days)
    if count > FEWEST_REFERENCE_DAYS:
        # its first days are what it does; but half of them at least are left to be watched
        first = min(REFERENCE_DAYS, max(FEWEST_REFERENCE_DAYS, count // 2))
        reference = Reference.of(found.between(0, first), f"its first {first} days in service")
        return ModelDrift(version, day, found, reference, cusum(found.between(first), reference))
    if before is not None and len(before.days) >= FEWEST_REFERENCE_DAYS:
        reference = Reference.of(before, f"the {len(before.days)} days before it served")
        return ModelDrift(version, day, found, reference, cusum(found, reference))
    return ModelDrift(version, day, found, None, None)


def model_is_what_it_was(found: ModelDrift | None) -> Verdict:
    """Whether the champion's losses have not risen above what they were."""
    if found is None:
        return Verdict(True, {}, LIMIT, "there is no prediction of the champion yet whose open has come")
    if found.sum is None or found.reference is None:
        count = len(found.losses.days)
        days = "1 day has" if count == 1 else f"{count} days have"
        said = f"too early to tell: {days} come that {found.version} predicted, and it takes {FEWEST_REFERENCE_DAYS}"
        return Verdict(True, {"days": count}, LIMIT, said)
    of = found.reference
    against = f"{of.mean:+.4f} (deviation {of.deviation:.4f}) in {of.source}"
    numbers: dict[str, float | None] = {"cusum": found.sum.now, "days": len(found.sum.days), "reference_mean": of.mean}
    if found.sum.raised is None:
        mean = f"{found.losses.daily.mean():+.4f}" if len(found.losses.daily) else "none"
        said = (
            f"{found.version}: the sum is {found.sum.now:.1f} of {LIMIT:g}; the mean daily loss is {mean} recent gaps"
        )
        return Verdict(True, numbers, LIMIT, f"{said} beyond the last close's, and was {against}")
    rise = found.losses.daily[found.losses.days >= np.datetime64(found.sum.since or found.sum.raised)]
    said = (
        f"{found.version} is worse than it was since {found.sum.since}: a mean daily loss of {rise.mean():+.4f} recent "
        f"gaps beyond the last close's, against {against}; the sum is {found.sum.now:.1f}, and passed its limit of "
        f"{LIMIT:g} on {found.sum.raised}"
    )
    return Verdict(False, numbers, LIMIT, said)


def conditions(found: ModelDrift | None) -> list[Condition]:
    """What of it may be an alarm. Of a new champion the alarm about the one before it is over."""
    if found is None:
        return []
    verdict = model_is_what_it_was(found)
    return [
        Condition(
            MODEL_DRIFTS,
            passed=verdict.passed,
            what=verdict.explanation,
            how_bad=found.sum.now / LIMIT if found.sum is not None else 0.0,
            todo="look at data_faults first; where the data is sound, roll back (`crypto-ml rollback`), or retrain and "
            "promote a model whose verdict is BEATS",
            day=found.day,
            since=str(found.sum.since) if found.sum is not None and found.sum.since else None,
            asks_retrain=True,
        )
    ]
