"""model_drift: whether the champion is still as good as it was, by the sum of what its daily losses are above that."""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from crypto_ml.deployment import Deployment
from crypto_ml.forecasting.drift import (
    FEWEST_REFERENCE_DAYS,
    LIMIT,
    REFERENCE_DAYS,
    Cusum,
    Reference,
    cusum,
    daily_mean,
)
from crypto_ml.forecasting.evaluation import Verdict
from crypto_ml.forecasting.verdicts import daily_loss
from crypto_ml.ledger.alarms import Condition
from crypto_ml.stages.monitoring.live_predictions import LivePredictions, live_predictions

DAYS: Final = 365
MODEL_DRIFTS: Final = "model_drifts"


@dataclass(frozen=True, eq=False)
class ModelDrift:
    """The champion's daily losses against the last close (T,), and the sum that watches them; None for both where there
    is no reference yet, for the reason in `why_not`."""

    version: str
    day: str
    daily: np.ndarray
    days: np.ndarray
    reference: Reference | None
    sum: Cusum | None
    why_not: str = ""


def model_drift(deployment: Deployment, version: str) -> ModelDrift | None:
    """Of the champion, over DAYS days at most; None where no open has come that it predicted."""
    live = live_predictions(deployment, DAYS, version)
    if live is None or not len(live):
        return None
    return drift_of(live, version, held_out(deployment.registry.load(version).document("metrics.json")))


def held_out(metrics: Any) -> Reference | None:
    """What the model's daily losses were on its holdout, as far as its metrics tell: the mean, and the deviation that
    its interval follows from."""
    found = metrics.get("verdict") if isinstance(metrics, dict) else None
    told = found if isinstance(found, dict) else {}
    mean, low, high, days = (told.get(name) for name in ("mean", "low", "high", "days"))
    if mean is None or low is None or high is None or not days:
        return None
    # an interval of 90 % is 1.645 errors of the mean to each side; by that the deviation allows for days alike
    deviation = (high - low) / 2 / 1.645 * float(np.sqrt(days))
    return Reference(float(mean), deviation, int(days), "its holdout")


def drift_of(live: LivePredictions, version: str, known: Reference | None) -> ModelDrift:
    """What some predictions of one model, one at least, tell of it. known: its losses before it served."""
    loss = daily_loss(live.days, live.symbols.astype(str), live.opens, live.predicted, live.closes, live.closes)
    daily, days, day = daily_mean(loss), loss.days, str(live.newest_day)
    if len(days) > FEWEST_REFERENCE_DAYS:
        # its first days are what it does; but half of them at least are left to be watched
        count = min(REFERENCE_DAYS, max(FEWEST_REFERENCE_DAYS, len(days) // 2))
        reference = Reference.of(daily[:count], f"its first {count} days")
        return ModelDrift(version, day, daily, days, reference, cusum(days[count:], daily[count:], reference))
    if known is not None:
        return ModelDrift(version, day, daily, days, known, cusum(days, daily, known))
    why_not = (
        f"{len(days)} days with predictions of {version} whose opens have come, and {FEWEST_REFERENCE_DAYS + 1} are "
    )
    return ModelDrift(version, day, daily, days, None, None, why_not + "needed to say what it does when it is well")


def model_is_what_it_was(found: ModelDrift | None) -> Verdict:
    """Whether the champion's losses have not risen above what they were."""
    if found is None:
        return Verdict(True, {}, LIMIT, "there is no prediction of the champion yet whose open has come")
    if found.sum is None or found.reference is None:
        return Verdict(True, {"days": len(found.days)}, LIMIT, f"too early to tell: {found.why_not}")
    of = found.reference
    against = (
        f"a mean loss of {100 * of.mean:+.2f} % of the last close's (deviation {100 * of.deviation:.2f} %), {of.source}"
    )
    numbers: dict[str, float | None] = {"cusum": found.sum.now, "days": len(found.sum.days), "reference_mean": of.mean}
    if found.sum.raised is None:
        said = f"{found.version}: the sum is {found.sum.now:.1f} of {LIMIT:g}, against {against}"
        return Verdict(True, numbers, LIMIT, said)
    rise = found.daily[found.days >= np.datetime64(found.sum.since or found.sum.raised)]
    said = (
        f"{found.version} is worse than it was since {found.sum.since}: a mean loss of {100 * rise.mean():+.2f} % "
        f"against {against}; the sum is {found.sum.now:.1f}, and {LIMIT:g} is the limit, passed on {found.sum.raised}"
    )
    return Verdict(False, numbers, LIMIT, said)


def conditions(found: ModelDrift | None) -> list[Condition]:
    """What of it may be an alarm. Of a new champion the alarm about the one before it is over."""
    if found is None:
        return []
    verdict = model_is_what_it_was(found)
    sums = found.sum.sums if found.sum is not None else np.zeros(0)
    return [
        Condition(
            MODEL_DRIFTS,
            passed=verdict.passed,
            what=verdict.explanation,
            how_bad=float(sums[-1] / LIMIT) if len(sums) else 0.0,
            todo="look at data_faults first; where the data is sound, roll back (`crypto-ml rollback`), or retrain and "
            "promote a model whose verdict is BEATS",
            day=found.day,
            since=str(found.sum.since) if found.sum is not None and found.sum.since else None,
            asks_retrain=True,
        )
    ]
