"""`crypto-ml make-model`: remake the bundle in `model_out/` from the simulated market (`make model`)."""

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from crypto_ml import sample
from crypto_ml.commands.printing import say

if TYPE_CHECKING:
    import pandas as pd

    from crypto_ml.forecasting.plan import LearnerName
    from crypto_ml.forecasting.trained import Trained
    from crypto_ml.forecasting.training_set import Split

README: Final = """# The model a fresh clone serves with

Version `{version}`, made by `make model` and by nothing else: this project's own training
(`crypto_ml.forecasting.training`) on {coins} coins that do not exist, {days} days from {first} (`crypto_ml.sample`,
seed {seed}). It knows nothing of real markets; it is here so that a new deployment answers before its first retrain.
Replace it by promoting a model that was trained on your own history.

{about}- `bundle.json` says what is predicted (`{target}`) and the sha256 of every file; `MODEL_CARD.md` how good it is.
- The same seed and the same library versions (`bundle.json`, `about`) give the same weights and the same version.
- CRYPTO_ML_MODEL_OUT names another folder to begin with.
"""


LAST_CLOSE: Final = """\
- It predicts the last close, with intervals, and the range of the day. The simulated market has a pattern that a
  learner finds (`crypto-ml make-model --learner boosting` BEATS the last close there), but what was learnt from coins
  that do not exist must not correct real ones: on the 44 coins of a real market (2014 to 2018) that model is 0.46 %
  worse than the last close.
- How wide its intervals are comes from the simulated market, too: on that real market the opens lay within those of
  90 % on 87.5 % of the days. A retrain on your own history sets them right.
"""

LEARNT: Final = (
    "- `{learner}` learnt it; whether that is better than the last close on your market, a retrain finds out.\n"
)


@click.command("make-model", hidden=True)
@click.option(
    "-o", "--out", type=click.Path(file_okay=False, path_type=Path), help="Folder; the repository's own if not given."
)
@click.option("--epochs", default=15, show_default=True, type=click.IntRange(min=1))
@click.option(
    "--learner",
    default="last_close",
    show_default=True,
    type=click.Choice(["last_close", "gru", "boosting", "absolute"]),
)
def command(out: Path | None, epochs: int, learner: "LearnerName") -> None:
    """Train the model of a fresh clone on the simulated market."""
    from crypto_ml.settings import Settings

    directory = out or Settings.from_environment().model_out
    trained = train_on_simulated_market(learner, epochs)
    replace_bundle(trained, directory)
    say(f"{trained.bundle.version} in {directory}, learnt by {trained.learner}", err=True)
    say(trained.onnx.explanation, err=True)
    say(trained.baseline.explanation, err=True)


def train_on_simulated_market(learner: "LearnerName", epochs: int) -> "Trained":
    """Train as a retrain does, on upload rows that took the road every upload takes."""
    from crypto_ml.forecasting.plan import Plan
    from crypto_ml.forecasting.stationary_examples import fit_pooled_scaler
    from crypto_ml.forecasting.training import train
    from crypto_ml.forecasting.training_set import rows_sha256, split_by_time

    rows = _observations(sample.training_market())
    split = split_by_time(rows["date"])
    last_day = sample.FIRST_DAY + timedelta(days=sample.TRAINING_DAYS - 1)
    return train(
        rows,
        split,
        fit_pooled_scaler(rows, split),
        Plan(target="relative_gap", learner=learner, seed=sample.SEED, epochs=epochs),
        label=f"simulated-{last_day}",
        manifest=_manifest(rows, split, rows_sha256(rows)),
        created_at=datetime(last_day.year, last_day.month, last_day.day, tzinfo=UTC).isoformat(),
    )


def replace_bundle(trained: "Trained", directory: Path) -> None:
    """Put the bundle and its README in place of whatever bundle was in `directory`."""
    if directory.exists():
        shutil.rmtree(directory)
    trained.bundle.write(directory)
    text = README.format(
        version=trained.bundle.version,
        target=trained.bundle.target,
        about=LAST_CLOSE if trained.learner == "last_close" else LEARNT.format(learner=trained.learner),
        coins=sample.COINS,
        days=sample.TRAINING_DAYS,
        first=sample.FIRST_DAY,
        seed=sample.SEED,
    )
    (directory / "README.md").write_text(text, encoding="utf-8")


def _observations(upload: "pd.DataFrame") -> "pd.DataFrame":
    from tempfile import TemporaryDirectory

    import pandas as pd

    from crypto_ml.forecasting.intake import IntakeRules, Repeats, settled_chunks, take_in
    from crypto_ml.forecasting.schema import OBSERVATION
    from crypto_ml.forecasting.sorting import RowSorter

    with TemporaryDirectory(prefix="crypto_ml-model-") as name, RowSorter(Path(name) / "sort") as sorter:
        path = Path(name) / "market.csv"
        upload.to_csv(path, index=False)
        day_after = sample.FIRST_DAY + timedelta(days=sample.TRAINING_DAYS)
        intake = take_in(path, IntakeRules(day_after), sorter)
        if intake.refusal or intake.refused_rows:
            reasons = sorter.refusals.commonest_reasons(file=0, most=3)
            raise click.ClickException(f"the simulated market has rows that are refused: {intake.refusal or reasons}")
        chunks = list(settled_chunks(sorter, Repeats()))
    return pd.concat(chunks, ignore_index=True)[list(OBSERVATION)]


def _manifest(rows: "pd.DataFrame", split: "Split", sha256: str) -> dict[str, Any]:
    """What a retrain's manifest says, of a market that has no history table (see `stages.scaler.prepare`)."""
    days = rows["date"].dt.date
    training, holdout = days < split.validation_from, days >= split.holdout_from
    return {
        "source": "a simulated market (crypto_ml.sample)",
        "seed": sample.SEED,
        "first_day": sample.FIRST_DAY.isoformat(),
        "as_of": (sample.FIRST_DAY + timedelta(days=sample.TRAINING_DAYS)).isoformat(),
        "symbols": int(rows["symbol"].nunique()),
        "rows": {
            "train": int(training.sum()),
            "validation": int((~training & ~holdout).sum()),
            "holdout": int(holdout.sum()),
        },
        "rows_sha256": sha256,
        "split": {"validation_from": str(split.validation_from), "holdout_from": str(split.holdout_from)},
    }


COMMANDS: Final = (command,)
