"""`crypto-ml models`, `promote`, `rollback`: the registry, and the pointer that decides what serves."""

from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, get_args

import click

from crypto_ml.commands.printing import print_json, say
from crypto_ml.errors import CryptoMLError, Refused
from crypto_ml.ledger.layout import Environment
from crypto_ml.times import read_time

if TYPE_CHECKING:
    from crypto_ml.deployment import Deployment
    from crypto_ml.forecasting.comparison import SideBySide
    from crypto_ml.ledger.registry import Champion, Registry
    from crypto_ml.settings import Settings

in_environment = click.option(
    "--environment", type=click.Choice(get_args(Environment)), help="Default: CRYPTO_ML_ENVIRONMENT, else dev."
)


@click.command("models")
@click.option("--at", "time", help="Who was champion at this time (ISO 8601, UTC), instead of the list.")
@click.option("--history", "as_history", is_flag=True, help="Every champion there was, instead of the list.")
@click.option("--compare/--no-compare", default=True, help="Measure the newest on the same rows.  [default: compare]")
@in_environment
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def models(time: str | None, as_history: bool, compare: bool, environment: Environment | None, as_json: bool) -> None:
    """List the models, how good each is on its own holdout, and which of them serves (*).

    The champion and the newest others are also measured beside each other, on the same rows of the market history, and
    judged there against the last close and the champion: BEATS, TIES, WORSE or INCONCLUSIVE.
    """
    from crypto_ml.deployment import Deployment

    deployment = Deployment.reading(_settings(environment))
    registry = deployment.registry
    if time or as_history:
        entries = list(registry.champions()) if as_history else [_champion_at(registry, str(time))]
        if as_json:
            print_json([_document(entry) for entry in entries])
        for entry in [] if as_json else entries:
            say(_in_words(entry))
        return
    champion = registry.champion()
    found, why_not = _side_by_side(deployment) if compare else (None, "")
    rows = [_row(registry, version, champion, found) for version in registry.versions()]
    if as_json:
        comparison = {"comparison": found.to_dict() if found else None, "not_compared": why_not or None}
        print_json({"champion": _document(champion) if champion else None, "models": rows, **comparison})
        return
    if not rows:
        say("no model yet: the first run adds the one of model_out/, a retrain adds a candidate", err=True)
    for line in _aligned([_line(row) for row in rows] + _baselines(found)):
        say(line)
    if found:
        say(f"  same rows: {found.measured_on}, for the champion and the newest models", err=True)
        for one in found.models:
            if one.last_close:
                say(f"  {one.version}: {one.last_close.judgement.explanation}", err=True)
    elif why_not and rows:
        say(f"  not compared on the same rows: {why_not}", err=True)
    if champion:
        say(f"* {_in_words(champion)}", err=True)


def _side_by_side(deployment: "Deployment") -> "tuple[SideBySide | None, str]":
    """The models on the same rows; or None, and why they could not be compared, which keeps nobody from the list."""
    from crypto_ml.stages.comparison import compare_models

    try:
        return compare_models(deployment.registry, deployment.history), ""
    except CryptoMLError as error:
        return None, str(error)


def _line(row: dict[str, Any]) -> list[str]:
    """A model as the cells of a line: its own holdout, and the rows that are the same for all."""
    own = f"own holdout: {_off(row['mean_relative_error'], row['mase'])}"
    compared = row["compared"]
    beside = compared["why"] and f"same rows: –, {compared['why']}" if compared else ""
    if compared and not beside:
        said = {"no": "", "yes": "  (was fitted on some)", "unknown": "  (may have been fitted on some)"}
        words = f"{compared['verdict']}{_against_champion(compared)}"
        off = _off(compared["mean_relative_error"], compared["mase"])
        beside = f"same rows: {off}  {words}{said[compared['fitted']]}"
    own = f"{own}  {_own_word(row)}" if row["verdict"] else own
    return [f"{'*' if row['champion'] else ' '} {row['version']}", row["target"], own, beside]


def _own_word(row: dict[str, Any]) -> str:
    """The word on its own holdout; of a model that serves the last close also the one on what it learnt."""
    learnt = f" ({row['judgement']['word']} before λ = 0)" if row["serves_last_close"] and row["judgement"] else ""
    return f"{row['verdict']}{learnt}"


def _against_champion(compared: dict[str, Any]) -> str:
    word = compared["verdict_against_champion"]
    return f" ({word} against the champion)" if word else ""


def _baselines(found: "SideBySide | None") -> list[list[str]]:
    ways = (("last close", found.last_close), ("last open", found.last_open)) if found else ()
    return [[f"  {name}", "", "", f"same rows: {_off(errors.mre, errors.mase)}"] for name, errors in ways]


def _off(mre: float | None, mase: float | None) -> str:
    error = "–" if mre is None else f"{100 * mre:.3f} %"
    return f"error {error}  MASE {'–' if mase is None else f'{mase:.3f}'}"


def _aligned(lines: list[list[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True) if width).rstrip()
        for line in lines
    ]


@click.command("promote")
@click.argument("version")
@click.option("--by", required=True, help="Who decides.")
@click.option("--why", required=True, help="Why; it is recorded.")
@click.option("--override", help="Why it may serve although a gate fails; it is recorded and shown.")
@in_environment
def promote(version: str, by: str, why: str, override: str | None, environment: Environment | None) -> None:
    """Make VERSION the champion: the next answer uses it.

    Refused where its training failed a blocking check, or where on its holdout it does not at least tie with the last
    close and with the champion. prod takes only what preprod serves.
    """
    champion = _decide(version, by, why, override, environment)
    say(f"{champion.version} serves from now on (entry {champion.pointer} of the pointer)", err=True)


@click.command("rollback")
@click.option("--by", required=True, help="Who decides.")
@click.option("--why", required=True, help="Why; it is recorded.")
@in_environment
def rollback(by: str, why: str, environment: Environment | None) -> None:
    """Go back to the model that served before the champion."""
    champion = _decide(None, by, why, None, environment)
    say(f"{champion.version} serves again (entry {champion.pointer} of the pointer)", err=True)


def _decide(
    version: str | None, by: str, why: str, override: str | None, environment: Environment | None
) -> "Champion":
    from crypto_ml.deployment import Deployment
    from crypto_ml.stages.chained_decisions import chained_decision
    from crypto_ml.stages.experiments import told_of_decision
    from crypto_ml.stages.promotion import Decision, decide

    deployment = Deployment(_settings(environment))
    registry = deployment.registry
    champion = decide(Decision(version, by, why, override), registry, deployment.history, datetime.now(UTC))
    for said in told_of_decision(champion, registry).values():
        say(f"MLflow: {said}", err=True)
    for said in chained_decision(f"entry {champion.pointer} of the pointer", deployment, datetime.now(UTC)):
        say(said, err=True)
    return champion


def _settings(environment: Environment | None) -> "Settings":
    from crypto_ml.settings import Settings

    settings = Settings.from_environment()
    return settings.model_copy(update={"environment": environment or settings.environment})


def _champion_at(registry: "Registry", time: str) -> "Champion":
    served = registry.champion_at(read_time(time))
    if served is None:
        raise Refused(f"nothing served in {registry.environment} at {time}; `crypto-ml models --history` lists all")
    return served


def _document(entry: "Champion") -> dict[str, Any]:
    return {name: value for name, value in asdict(entry).items() if name != "recorded"}


def _in_words(entry: "Champion") -> str:
    failed = [str(gate["name"]) for gate in entry.gates if not gate["passed"]]
    overridden = f"; although {', '.join(failed)} failed: {entry.override}" if entry.override else ""
    return f"{entry.version} since {entry.at}, {entry.action} by {entry.decided_by}: {entry.why}{overridden}"


def _row(registry: "Registry", version: str, champion: "Champion | None", found: "SideBySide | None") -> dict[str, Any]:
    from crypto_ml.forecasting.trained import METRICS
    from crypto_ml.stages.promotion import recorded_judgement

    bundle = registry.load(version)
    network = bundle.document(METRICS).get("holdout", {}).get("overall", {}).get("network", {})
    beside = found.of(version) if found else None
    own = recorded_judgement(bundle.document(METRICS))
    serves_last_close = bundle.rule is not None and bundle.rule.serves_last_close
    return {
        "version": version,
        "champion": champion is not None and champion.version == version,
        "target": bundle.target,
        "mean_relative_error": network.get("mre"),
        "mase": network.get("mase"),
        "verdict": "TIES" if serves_last_close else own and own.word,
        "serves_last_close": serves_last_close,
        "judgement": own and own.to_dict(),
        "compared": beside
        and {
            "mean_relative_error": beside.errors and beside.errors.mre,
            "mase": beside.errors and beside.errors.mase,
            "fitted": beside.fitted,
            "why": beside.why,
            "verdict": beside.last_close and beside.last_close.judgement.word,
            "verdict_against_champion": beside.champion and beside.champion.judgement.word,
        },
    }


COMMANDS: Final = (models, promote, rollback)
