"""Tunings: a log for each learner of the parameters that were searched for, on what, and what every trial gave.

A tuning is used by every later retrain of its learner, and by none whose holdout begins before the day up to which the
tuning had seen rows: parameters chosen on a holdout would flatter the model that is judged there. It stands in the
training manifest of each model that used it, with all its trials.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import date, datetime, timedelta
from typing import Any, Final

from crypto_ml.forecasting.plan import LearnerName, Plan
from crypto_ml.forecasting.progress import Tell, tell_nobody
from crypto_ml.forecasting.training_set import Split, TooLittleHistory, split_by_time
from crypto_ml.forecasting.tuning import Tuned, tune
from crypto_ml.ledger.layout import TUNINGS
from crypto_ml.ledger.log import AppendOnlyLog
from crypto_ml.stages.scaler import choose
from crypto_ml.storage.history import MarketHistory
from crypto_ml.storage.objects import ObjectStore

FORMAT: Final = 1


@dataclass(frozen=True)
class Tuning:
    """An entry of the log of a learner. document: as it is stored, and as a training manifest repeats it."""

    number: int
    document: Mapping[str, Any]

    @property
    def parameters(self) -> dict[str, float]:
        """What was found."""
        return {name: float(value) for name, value in self.document["parameters"].items()}

    def manifest(self) -> dict[str, Any]:
        """What a training manifest says of it."""
        return {"entry": self.number, **self.document}


def tune_learner(
    plan: Plan,
    history: MarketHistory,
    store: ObjectStore,
    now: datetime,
    *,
    trials: int,
    seconds: int | None,
    tell: Tell = tell_nobody,
) -> tuple[Tuning, Tuned]:
    """Search on what is known now, without its last days, which are the holdout of a model trained now; record it.

    Raises TooLittleHistory, Refused, NotInstalled.
    """
    days = history.rows_by_day()
    if not days:
        raise TooLittleHistory("there is no market history to search on; drop files into uploads/ first")
    manifest, rows = choose("tuning", max(days) + timedelta(days=1), history, now)
    split = split_by_time(rows["date"])
    tuned = tune(rows, split, plan, trials=trials, seconds=seconds, tell=tell)
    document = {
        "format": FORMAT,
        "learner": plan.learner,
        "parameters": dict(tuned.plan.parameters),
        "loss": tuned.best.loss,
        "trials": [asdict(one) for one in tuned.trials],
        "folds": [list(span) for span in tuned.folds],
        "rows_before": str(split.holdout_from),
        "known_by": manifest["known_by"],
        "history_version": manifest["history_version"],
        "rows_sha256": manifest["rows_sha256"],
        "at": now.isoformat(),
    }
    log = _log(plan.learner, store)
    while (entry := log.append(document, after=log.last_number())) is None:
        pass
    return Tuning(entry.number, entry.document), tuned


def tuning_for(learner: LearnerName, split: Split, store: ObjectStore) -> Tuning | None:
    """The last tuning of a learner that has seen no row of a holdout; None where there is none."""
    log = _log(learner, store)
    for number in range(log.last_number(), 0, -1):
        entry = log.read(number)
        if date.fromisoformat(entry.document["rows_before"]) <= split.holdout_from:
            return Tuning(entry.number, entry.document)
    return None


def _log(learner: LearnerName, store: ObjectStore) -> AppendOnlyLog:
    return AppendOnlyLog(store, f"{TUNINGS}{learner}/")
