"""trained_model: the candidates of a week, trained on the training set that was prepared for it, and which to take.

Of the target `relative_gap` every learner that the settings name is trained and judged on the holdout; the best that
BEATS the last close is taken, and where none does, the last close itself with its intervals. Every week is another try,
and every learner another one in it: the level at which luck passes is divided among them.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from typing import Final

from crypto_ml.engine.mapping import Engine
from crypto_ml.forecasting.evaluation import Verdict, recency_verdict
from crypto_ml.forecasting.plan import LearnerName, Plan
from crypto_ml.forecasting.pooled_scaler import PooledScaler
from crypto_ml.forecasting.trained import Trained
from crypto_ml.forecasting.training import train
from crypto_ml.forecasting.verdicts import LEVEL_OF_EVERY_RETRAIN
from crypto_ml.ledger.registry import Registry
from crypto_ml.settings import Settings
from crypto_ml.stages.progress import logged
from crypto_ml.stages.scaler import NoTrainingSet, TrainingSet, read_training_set, rows_of
from crypto_ml.stages.tuning import tuning_for
from crypto_ml.storage.history import MarketHistory
from crypto_ml.storage.objects import ObjectStore

log: Final = logging.getLogger(__name__)


@dataclass(frozen=True)
class Candidate:
    """A model and what it was trained on; `recency` says whether that reaches into the week it is named by.

    all: every model that was trained for the week, each a candidate in the registry, `trained` among them.
    """

    training_set: TrainingSet
    trained: Trained
    recency: Verdict
    all: Sequence[Trained] = ()

    @property
    def onnx(self) -> Verdict:
        """Whether all of them compute what was trained: the verdict on the first that does not, or on the one taken."""
        return next((one.onnx for one in self.all if not one.onnx.passed), self.trained.onnx)


def train_week(
    week: str,
    history: MarketHistory,
    store: ObjectStore,
    settings: Settings,
    now: datetime,
    *,
    engine: Engine | None = None,
) -> Candidate:
    """Train on the week's training set and add the bundles to the registry, as candidates. engine: see `prepare`.

    Raises NoTrainingSet, HistoryChanged, TooLittleHistory.
    """
    training_set = read_training_set(week, store)
    manifest = training_set.manifest
    if isinstance(training_set.scaler, PooledScaler) != (settings.target == "relative_gap"):
        raise NoTrainingSet(
            f"the scaler of the week {week} was fitted for models of another target than {settings.target}; "
            "materialise scaler for that partition again"
        )
    rows = rows_of(manifest, history, engine)

    def trained(plan: Plan) -> Trained:
        tuning = tuning_for(plan.learner, training_set.split, store) if plan.target == "relative_gap" else None
        if tuning:
            plan = replace(plan, parameters=tuning.parameters)
        return train(
            rows,
            training_set.split,
            training_set.scaler,
            plan,
            label=week,
            manifest={**manifest, "tuning": tuning.manifest()} if tuning else manifest,
            created_at=now.astimezone(UTC).isoformat(),
            image=settings.image,
            tell=logged(log, f"model of the week {week}, {plan.learner}"),
        )

    plans = plans_of(settings)
    every = [trained(plan) for plan in plans]
    taken = best(every)
    if taken is None:
        taken = trained(replace(plans[0], learner="last_close"))
        every.append(taken)
    registry = Registry(store)
    for one in every:
        registry.add(one.bundle)
    newest: date = rows["date"].max().date()
    return Candidate(training_set, taken, recency_verdict(newest, date.fromisoformat(manifest["as_of"])), every)


def plans_of(settings: Settings, learners: Sequence[LearnerName] = ()) -> list[Plan]:
    """What is trained for a week, by the settings; learners: others than theirs."""
    plan = Plan(target=settings.target, epochs=settings.epochs, drawn="each epoch")
    if settings.target != "relative_gap":
        return [plan]
    names = learners or settings.learner_names
    return [replace(plan, learner=name, level=LEVEL_OF_EVERY_RETRAIN / len(names)) for name in names]


def best(every: Sequence[Trained]) -> Trained | None:
    """The model to take of those trained for a week; None where it is the last close, and that is not among them.

    Of the targets `gap` and `change`, of which there is one, it is that.
    """
    if every[0].judgement is None:
        return every[0]
    better = [
        one for one in every if one.judgement and one.judgement.word == "BEATS" and one.onnx.passed and _corrects(one)
    ]
    if better:
        return min(better, key=lambda one: one.judgement.mean if one.judgement else 0.0)
    return next((one for one in every if one.learner == "last_close"), None)


def _corrects(one: Trained) -> bool:
    return one.bundle.rule is not None and not one.bundle.rule.serves_last_close
