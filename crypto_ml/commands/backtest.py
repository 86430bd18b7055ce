"""`crypto-ml backtest`: models at rolling origins of the market history, and how good they would have been."""

from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Final

import click

from crypto_ml.commands.printing import print_json, say
from crypto_ml.commands.progress import bar
from crypto_ml.errors import Refused

if TYPE_CHECKING:
    from crypto_ml.forecasting.backtest import Line, Scoreboard
    from crypto_ml.forecasting.plan import LearnerName


@click.command("backtest")
@click.option(
    "--every", default=28, show_default=True, type=click.IntRange(min=1), help="Days from one origin to the next."
)
@click.option("--first", metavar="DATE", help="The first origin. Default: after a year, or half of a shorter history.")
@click.option("--model", "models", multiple=True, help="A version in the registry, as it is; may be given again.")
@click.option("--learner", "learners", multiple=True, help="Trained anew at every origin; may be given again.")
@click.option("--symbols", metavar="A,B,…", help="Only these series. Default: all.")
@click.option("--check-leaks", is_flag=True, help="Also look whether any prediction knows of the future.")
@click.option("--json", "as_json", is_flag=True, help="Print the whole scoreboard as JSON.")
def command(
    *,
    every: int,
    first: str | None,
    models: tuple[str, ...],
    learners: tuple[str, ...],
    symbols: str | None,
    check_leaks: bool,
    as_json: bool,
) -> None:
    """Predict the past as it would have been predicted: at each origin a model made of what was known then.

    Without --model or --learner the learners of CRYPTO_ML_LEARNERS are trained at every origin, and `retrain` takes of
    them what a retrain would; training takes the extra `training`. The scoreboard has all rows, coins, months and
    regimes, each with MASE (1 is as good as the last close), the word on it with its interval, and how many opens lay
    within the intervals. It is kept under receipts/backtests/.
    """
    from crypto_ml.deployment import Deployment
    from crypto_ml.settings import Settings
    from crypto_ml.stages.backtest import Asked, LeaksFound, backtest

    asked = Asked(
        every=every,
        first=_day(first),
        models=models,
        learners=_learners(learners),
        symbols=_symbols(symbols),
        check_leaks=check_leaks,
    )
    deployment = Deployment(Settings.from_environment())
    with bar() as tell:
        done = backtest(asked, deployment, datetime.now(UTC), tell)
    if as_json:
        print_json(done.document)
    else:
        for board in done.scoreboards:
            _print(board)
    left_out = [at for origins in done.document["origins"].values() for at in origins if at["why"]]
    say(f"at each origin: {done.knowledge}", err=True)
    for at in left_out[:3]:
        say(f"left out: {at['origin']}: {at['why']}", err=True)
    if len(left_out) > 3:
        say(f"left out: {len(left_out) - 3} more origins", err=True)
    for name, found in done.leaks.items():
        say(f"{name}: {found.explanation}", err=True)
    say(f"kept: {deployment.store.uri(done.key)}", err=True)
    if done.leaking:
        raise LeaksFound(done.leaking)


def _day(text: str | None) -> date | None:
    try:
        return date.fromisoformat(text) if text else None
    except ValueError as error:
        raise click.BadParameter("must be a date such as 2017-01-31", param_hint="--first") from error


def _learners(names: tuple[str, ...]) -> "tuple[LearnerName, ...]":
    from crypto_ml.stages.backtest import learners_named

    try:
        return learners_named(names)
    except Refused as unknown:
        raise click.BadParameter(str(unknown), param_hint="--learner") from unknown


def _symbols(text: str | None) -> tuple[str, ...] | None:
    if text is None:
        return None
    named = tuple(sorted({one.strip() for one in text.split(",") if one.strip()}))
    if not named:
        raise click.BadParameter("must name series, with commas between them", param_hint="--symbols")
    return named


def _print(board: "Scoreboard") -> None:
    say(f"{board.name}: {board.overall.judgement.word}. {board.overall.judgement.explanation}")
    groups = {"": (board.overall,), "regime": board.by_regime, "month": board.by_month, "coin": board.by_coin}
    lines = [["", "rows", "MASE", "error", "verdict", "excess, 90 % interval", "coverage"]]
    for name, of_group in groups.items():
        lines += [_cells(f"{name} {line.group}".strip(), line) for line in of_group]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for cells in lines:
        say("  " + "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip())


def _cells(name: str, line: "Line") -> list[str]:
    judged = line.judgement
    sure = (
        "–" if judged.low is None or judged.high is None else f"{100 * judged.low:+.2f} to {100 * judged.high:+.2f} %"
    )
    covered = "–" if line.coverage is None else f"{100 * line.coverage:.1f} %"
    return [name, f"{line.rows:,}", f"{line.mase:.3f}", f"{100 * line.error:.3f} %", judged.word, sure, covered]


COMMANDS: Final = (command,)
