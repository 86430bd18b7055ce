"""`crypto-ml export`: one answer's evidence as a folder that anybody can check offline."""

from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import click

from crypto_ml.commands.audit import as_json_option
from crypto_ml.commands.printing import print_json, say


@click.command("export")
@click.argument("reference", metavar="PREDICTIONS_KEY_OR_ID")
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path), help="The folder, which is made.")
@click.option("--symbol", help="With --date: the one row that is meant.")
@click.option("--date", "day", type=click.DateTime(["%Y-%m-%d"]), help="With --symbol: the one row that is meant.")
@as_json_option
def command(reference: str, out: Path, symbol: str | None, day: datetime | None, as_json: bool) -> None:
    """Put the evidence behind an answer or a forecast into a folder that anybody can check offline.

    PREDICTIONS_KEY_OR_ID is what `crypto-ml trace` takes. The folder has a README.md, which says what is in it, and a
    script: `python FOLDER/check.py` checks hashes, chain and witnesses, and computes the numbers again with onnxruntime
    and numpy alone.
    """
    from crypto_ml.audit.export import export
    from crypto_ml.audit.references import resolve
    from crypto_ml.deployment import Deployment
    from crypto_ml.settings import Settings

    settings = Settings.from_environment()
    store = Deployment.reading(settings).store
    named = resolve(reference, store, symbol=symbol, day=day.date() if day else None)
    found = export(named, store, settings, out, datetime.now(UTC))
    if as_json:
        print_json({**asdict(found), "directory": str(found.directory)})
        return
    for note in found.notes:
        say(f"note: {note}", err=True)
    chain = f"links {found.links[0]} to {found.links[1]} of the chain" if found.links else "no link of the chain"
    say(f"{found.files} files, with {chain}; check them with: python {found.directory / 'check.py'}", err=True)
    for script, sha256 in found.scripts.items():
        say(f"{script} has sha256 {sha256}: whoever checks should have them from a release", err=True)
    say(str(found.directory))


COMMANDS: Final = (command,)
