"""`crypto-ml handover`: a handed-over Keras 2 network and its pickled scalers, turned into a model bundle."""

from pathlib import Path
from typing import Final

import click

from crypto_ml.commands.printing import say
from crypto_ml.errors import Refused


@click.command("handover")
@click.argument("network", type=click.Path(path_type=Path), metavar="MODEL.h5")
@click.argument("scaler", type=click.Path(path_type=Path), metavar="SCALER.pkl")
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path), help="Folder for the bundle; made anew.")
@click.option("--slugs", type=click.Path(path_type=Path), help="CSV symbol,slug: which coin each symbol is.")
@click.option("--register", is_flag=True, help="Also add the bundle to the registry, as a candidate.")
def command(network: Path, scaler: Path, out: Path, slugs: Path | None, register: bool) -> None:
    """Read both files as data, without running anything in them, and write a model bundle."""
    from crypto_ml.forecasting.handover import bundle_from_handover

    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise Refused(f"{out} is there already; name a folder that is new or empty")
    bundle = bundle_from_handover(network, scaler, slugs)
    bundle.write(out)
    say(f"{bundle.version} in {out}", err=True)
    if register:
        from crypto_ml.deployment import Deployment
        from crypto_ml.settings import Settings

        Deployment(Settings.from_environment()).registry.add(bundle)
        say(f"registered as a candidate: crypto-ml promote {bundle.version} --by … --why …", err=True)


COMMANDS: Final = (command,)
