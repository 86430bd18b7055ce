"""backtest: models at rolling origins of the market history, when somebody launches it; the scoreboard is kept."""

import logging
from collections.abc import Sequence
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any, Final

import dagster as dg
from pydantic import Field

from crypto_ml.defs.assets.models import champion_model
from crypto_ml.defs.assets.uploads import market_history
from crypto_ml.defs.failures import explained
from crypto_ml.defs.presentation import link, picture, records
from crypto_ml.defs.resources import Platform
from crypto_ml.errors import Refused
from crypto_ml.ledger.code import code_version
from crypto_ml.visible import visible

if TYPE_CHECKING:
    from crypto_ml.forecasting.backtest import Line, Scoreboard
    from crypto_ml.stages.backtest import Asked, Backtested

log: Final = logging.getLogger("crypto_ml.stages.backtest")


class RollingOrigins(dg.Config):
    """What a backtest is asked for; with nothing given, what a retrain would train, every four weeks."""

    every_days: int = Field(default=28, description="Days from one origin to the next.")
    first_origin: str = Field(
        default="",
        description="The first origin, such as 2017-01-31; empty: after a year of history, or half of a shorter one.",
    )
    models: list[str] = Field(
        default=[],
        description="Versions in the registry, each as it is at every origin.",
    )
    learners: list[str] = Field(
        default=[],
        description="Trained anew at every origin; empty, without models: those of CRYPTO_ML_LEARNERS, and beside them "
        "what a retrain takes of them.",
    )
    symbols: list[str] = Field(default=[], description="Only these series; empty: all.")
    check_leaks: bool = Field(default=False, description="true: also look whether any prediction knows of the future.")


@dg.asset(
    deps=[dg.AssetDep(market_history, partition_mapping=dg.AllPartitionMapping()), champion_model],
    kinds={"onnx", "json", "s3"},
    code_version=code_version("crypto_ml.stages.backtest"),
    group_name="models",
    owners=["team:ml"],
)
def backtest(context: dg.AssetExecutionContext, platform: Platform, config: RollingOrigins) -> dg.MaterializeResult:
    """The past predicted as it would have been: at each origin a model of what was known then. Launch it at will."""
    from crypto_ml.stages.backtest import LeaksFound
    from crypto_ml.stages.backtest import backtest as run_backtest
    from crypto_ml.stages.progress import logged

    with explained():
        deployment = platform.deployment
        done = run_backtest(_asked(config), deployment, datetime.now(UTC), logged(log, "backtest"))
        for board in done.scoreboards:
            context.log.info("%s: %s", visible(board.name), board.overall.judgement.explanation)
        if done.leaking:
            raise LeaksFound(f"{done.leaking} The scoreboard is kept all the same: {deployment.store.uri(done.key)}")
    return dg.MaterializeResult(
        metadata={
            "dagster/uri": deployment.store.uri(done.key),
            "kept": link(done.key, deployment.store),
            **_shown(done),
        }
    )


def _asked(config: RollingOrigins) -> "Asked":
    from crypto_ml.stages.backtest import Asked, learners_named

    try:
        first = date.fromisoformat(config.first_origin) if config.first_origin else None
    except ValueError as error:
        raise Refused(f"first_origin must be a date such as 2017-01-31, not {config.first_origin!r}") from error
    return Asked(
        every=config.every_days,
        first=first,
        models=tuple(config.models),
        learners=learners_named(config.learners),
        symbols=tuple(sorted(config.symbols)) or None,
        check_leaks=config.check_leaks,
    )


def _shown(done: "Backtested") -> dict[str, Any]:
    boards = done.scoreboards
    shown: dict[str, Any] = {
        "scoreboard": records([_row(board.name, board.overall) for board in boards]),
        **_pictures(boards),
        "by_regime": records(
            [_row(f"{board.name}, {line.group}", line) for board in boards for line in board.by_regime]
        ),
        "by_month": records([_row(f"{board.name}, {line.group}", line) for board in boards for line in board.by_month]),
        "by_coin": records([_row(f"{board.name}, {line.group}", line) for board in boards for line in board.by_coin]),
        "known_at_origins": done.knowledge,
        "origins": len(next(iter(done.document["origins"].values()))),
        "rows": boards[0].overall.rows,
        "last_day": done.document["last_day"],
        **{name: value for number, board in enumerate(boards, 1) for name, value in _numbers(number, board).items()},
    }
    if done.leaks:
        shown["leaks"] = visible(" ".join(f"{name}: {found.explanation}" for name, found in done.leaks.items()))
    return shown


def _pictures(boards: "Sequence[Scoreboard]") -> dict[str, Any]:
    """What each competitor's days add up to, where there is something to draw with."""
    from crypto_ml.extras import can_draw

    shown = {}
    for number, board in enumerate(boards, 1) if can_draw() else ():
        from crypto_ml.forecasting.pictures import excess_loss

        judgement = board.overall.judgement
        drawn = excess_loss(board.loss, judgement, board.name)
        shown[f"picture_{number}"] = picture(drawn, f"{board.name} against the last close: {judgement.word}")
    return shown


def _row(name: str, line: "Line") -> dict[str, Any]:
    judgement = line.judgement
    return {
        "predicted by": name,
        "rows": line.rows,
        "MASE": line.mase,
        "off by, %": 100 * line.error,
        "against the last close": judgement.word,
        "from, %": None if judgement.low is None else 100 * judgement.low,
        "to, %": None if judgement.high is None else 100 * judgement.high,
        "coverage, %": None if line.coverage is None else 100 * line.coverage,
    }


def _numbers(number: int, board: "Scoreboard") -> dict[str, Any]:
    """What plots over time, of the n-th competitor."""
    overall = board.overall
    found = {"mase": overall.mase, "error": overall.error, "coverage": overall.coverage}
    return {f"{name}_{number}": value for name, value in found.items() if value is not None}
