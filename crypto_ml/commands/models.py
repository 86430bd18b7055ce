"""`crypto-ml models`, `promote`, `rollback`: the registry, and the pointer that decides what serves."""

import json
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import click

from crypto_ml.settings import Settings

if TYPE_CHECKING:
    from crypto_ml.ledger.registry import Champion, Registry


@click.command("models")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def models(as_json: bool) -> None:
    """List the models, how good each is on its holdout, and which of them serves."""
    registry = _registry()
    champion = registry.champion()
    rows = [_row(registry, version, champion) for version in registry.versions()]
    if as_json:
        click.echo(json.dumps({"champion": asdict(champion) if champion else None, "models": rows}, indent=2))
        return
    if not rows:
        click.echo("no model yet: the first run adds the one of model_out/, a retrain adds a candidate", err=True)
    for row in rows:
        mark = "*" if row["champion"] else " "
        error = "–" if row["mean_relative_error"] is None else f"{100 * row['mean_relative_error']:.3f} %"
        mase = "–" if row["mase"] is None else f"{row['mase']:.3f}"
        click.echo(f"{mark} {row['version']}  {row['target']}  error {error}  MASE {mase}")
    if champion:
        click.echo(f"* serves since {champion.at}, by {champion.by}: {champion.why}", err=True)


@click.command("promote")
@click.argument("version")
@click.option("--by", required=True, help="Who decides.")
@click.option("--why", required=True, help="Why; it is recorded.")
def promote(version: str, by: str, why: str) -> None:
    """Make VERSION the champion: the next answer uses it."""
    champion = _registry().promote(version, by=by, why=why, at=datetime.now(UTC))
    click.echo(f"{champion.version} serves from now on (entry {champion.pointer} of the pointer)", err=True)


@click.command("rollback")
@click.option("--by", required=True, help="Who decides.")
@click.option("--why", required=True, help="Why; it is recorded.")
def rollback(by: str, why: str) -> None:
    """Go back to the model that served before the champion."""
    champion = _registry().roll_back(by=by, why=why, at=datetime.now(UTC))
    click.echo(f"{champion.version} serves again (entry {champion.pointer} of the pointer)", err=True)


def _registry() -> "Registry":
    from crypto_ml.ledger.registry import Registry
    from crypto_ml.storage.objects import connect

    settings = Settings.from_environment()
    return Registry(connect(settings.bucket, settings.prefix))


def _row(registry: "Registry", version: str, champion: "Champion | None") -> dict[str, Any]:
    bundle = registry.load(version)
    network = bundle.document("metrics.json").get("holdout", {}).get("overall", {}).get("network", {})
    return {
        "version": version,
        "champion": champion is not None and champion.version == version,
        "target": bundle.target,
        "mean_relative_error": network.get("mre"),
        "mase": network.get("mase"),
    }


COMMANDS: Final = (models, promote, rollback)
