"""A learner's parameters, searched for on rolling validation, and never on the holdout.

What comes before the holdout is cut into FOLDS + 1 spans; each but the first is predicted by a learner (and a scaler)
fitted on those before it. Searched is the least mean of the losses on them, by Optuna's tree-structured Parzen
estimator (Bergstra et al. 2011); the learner's own DEFAULTS are the first trial. Belongs here: the search. Does not
belong here: what becomes of the parameters that were found (`stages.tuning`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Final

import numpy as np
import pandas as pd

from crypto_ml.errors import Refused
from crypto_ml.extras import require_tuning
from crypto_ml.forecasting.inference import Network
from crypto_ml.forecasting.learners.by_name import learner_of
from crypto_ml.forecasting.learners.learner import Between, Sample
from crypto_ml.forecasting.plan import Plan
from crypto_ml.forecasting.progress import Progress, Tell, tell_nobody
from crypto_ml.forecasting.stationary_examples import Examples, examples_of, fit_pooled_scaler
from crypto_ml.forecasting.training_set import Split, TooLittleHistory, days_before

if TYPE_CHECKING:
    import optuna

FOLDS: Final = 3
FIRST_SHARE: Final = 0.5
"""Of the rows before the holdout, those that no fold is measured on."""


@dataclass(frozen=True)
class Trial:
    """parameters: as tried. loss: mean absolute error over the folds, as a share of the last close's; None where the
    learner refused them, for the reason in `why`."""

    parameters: Mapping[str, float]
    loss: float | None
    why: str = ""


@dataclass(frozen=True)
class Tuned:
    """The best trial's plan, and all trials in order. folds: first and last day of each validation span."""

    plan: Plan
    trials: Sequence[Trial]
    folds: Sequence[tuple[str, str]]

    @property
    def best(self) -> Trial:
        """The trial of least loss; of equal ones the first, so that DEFAULTS stay where nothing is better."""
        return min((one for one in self.trials if one.loss is not None), key=lambda one: one.loss or 0.0)


def tune(
    rows: pd.DataFrame, split: Split, plan: Plan, *, trials: int, seconds: int | None = None, tell: Tell = tell_nobody
) -> Tuned:
    """Search for the parameters of the plan's learner, on rows before the holdout.

    rows: as for training; those of the holdout are not looked at. trials, seconds: when it ends. The same rows, plan
    and number of trials give the same trials. Raises Refused where the learner has nothing to search for,
    TooLittleHistory, NotInstalled.
    """
    require_tuning("A search for parameters")
    import optuna

    learner = learner_of(plan.learner)
    if not learner.SPACE:
        raise Refused(f"the learner {plan.learner} has no parameters to search for")
    folds = _folds(rows[days_before(rows, split.holdout_from)].reset_index(drop=True))
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=plan.seed % 2**32))
    study.enqueue_trial(dict(learner.DEFAULTS))
    found: list[Trial] = []

    def measured(trial: "optuna.Trial") -> float:
        parameters = {name: _suggested(trial, name, space) for name, space in learner.SPACE.items()}
        try:
            losses = [_loss(train, valid, replace(plan, parameters=parameters)) for train, valid in folds]
        except Refused as refused:
            found.append(Trial(parameters, None, str(refused)))
            raise optuna.TrialPruned from refused
        found.append(Trial(parameters, float(np.mean(losses))))
        best = min((one.loss for one in found if one.loss is not None), default=float("nan"))
        tell(Progress("tuning", len(found), trials, "trials", f"best {best:.5f} of the last close's loss"))
        return float(np.mean(losses))

    study.optimize(measured, n_trials=trials, timeout=seconds)
    if all(one.loss is None for one in found):
        raise Refused(f"no parameters of {plan.learner} could be fitted: {found[-1].why if found else 'no time'}")
    spans = [(str(valid.days.min()), str(valid.days.max())) for _, valid in folds]
    tuned = Tuned(plan, found, spans)
    return replace(tuned, plan=replace(plan, parameters=dict(tuned.best.parameters)))


def _folds(rows: pd.DataFrame) -> list[tuple[Examples, Examples]]:
    """What is learnt from, and what it is measured on, of each fold; a fold's scaler knows its training rows alone."""
    ordered = np.sort(rows["date"].to_numpy("datetime64[D]"))
    if not len(ordered):
        raise TooLittleHistory("there are no rows before the holdout to search on")
    shares = np.linspace(FIRST_SHARE, 1.0, FOLDS + 1)
    cuts = [ordered[min(int(len(ordered) * share), len(ordered) - 1)].item() for share in shares]
    found = []
    for begin, end in pairwise(cuts):
        examples = examples_of(rows, fit_pooled_scaler(rows, Split(begin, end)))
        train, valid = examples.between(None, begin), examples.between(begin, end)
        if not len(train) or not len(valid):
            raise TooLittleHistory(f"no row between {begin} and {end} has enough earlier rows of its series")
        found.append((train, valid))
    return found


def _loss(train: Examples, valid: Examples, plan: Plan) -> float:
    chosen = valid.some(plan.most_windows, plan.seed)
    sample = Sample(chosen.windows(), chosen.targets())
    fitted = learner_of(plan.learner).fit(train, sample, plan)
    output = Network.from_bytes(fitted.network, features=sample.windows.shape[-1]).predict(sample.windows)
    target = sample.target.astype(np.float64)
    return float(np.abs(target - output).mean() / np.abs(target).mean())


def _suggested(trial: "optuna.Trial", name: str, space: Between) -> float:
    if space.whole:
        return float(trial.suggest_int(name, int(space.low), int(space.high), log=space.log))
    return float(trial.suggest_float(name, space.low, space.high, log=space.log))
