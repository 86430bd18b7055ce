"""`crypto-ml tune`: search for the parameters of learners, on rolling validation of the market history."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import click

from crypto_ml.commands.printing import print_json, say

if TYPE_CHECKING:
    from crypto_ml.forecasting.plan import LearnerName


@click.command("tune")
@click.argument("learners", nargs=-1, type=click.Choice(["gru", "boosting", "absolute"]))
@click.option("--trials", type=click.IntRange(min=1), help="Trials for each learner, at most.")
@click.option("--seconds", type=click.IntRange(min=1), help="Seconds for each learner, at most.")
@click.option("--json", "as_json", is_flag=True, help="Print every trial as JSON.")
def command(learners: "tuple[LearnerName, ...]", trials: int | None, seconds: int | None, as_json: bool) -> None:
    """Search for parameters of LEARNERS; of those that retrain trains, where none is named.

    Every trial is measured on spans before the holdout, each predicted from the rows before it; the holdout is never
    looked at. What is found is recorded, and used by retrains whose holdout comes later. The first trial has the
    parameters that there are without a search, so nothing worse than those is found.
    """
    from crypto_ml.commands.progress import bar
    from crypto_ml.deployment import Deployment
    from crypto_ml.settings import Settings
    from crypto_ml.stages.trained_model import plans_of
    from crypto_ml.stages.tuning import tune_learner

    settings = Settings.from_environment()
    names = learners or tuple(name for name in settings.learner_names if name != "last_close")
    asked = settings.model_copy(update={"learners": ",".join(names), "target": "relative_gap"})
    if not names:
        raise click.UsageError("CRYPTO_ML_LEARNERS names no learner that has parameters to search for; name one")
    deployment = Deployment(settings)
    documents: list[dict[str, Any]] = []
    for plan in plans_of(asked):
        with bar() as tell:
            tuning, tuned = tune_learner(
                plan, deployment.history, deployment.store, datetime.now(UTC), tell=tell,
                trials=trials or settings.tune_trials, seconds=seconds or settings.tune_seconds,
            )  # fmt: skip
        documents.append(tuning.manifest())
        if not as_json:
            shown = ", ".join(f"{name} {value:g}" for name, value in tuned.best.parameters.items())
            first = tuned.trials[0].loss
            before = "" if first is None else f" (without a search {first:.5f})"
            say(f"{plan.learner}: {shown}; loss {tuned.best.loss:.5f} of the last close's{before}")
            say(
                f"  {len(tuned.trials)} trials on {len(tuned.folds)} spans, {tuned.folds[0][0]} to {tuned.folds[-1][1]}"
            )
    if as_json:
        print_json(documents)


COMMANDS: Final = (command,)
