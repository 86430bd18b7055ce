"""`crypto-ml rescore`: what a model says of days that are over, from the market history."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import click

from crypto_ml.commands.printing import print_json, say
from crypto_ml.commands.progress import bar


@click.command("rescore")
@click.argument("days", metavar="FROM..TO")
@click.option("--model", help="A version in the registry. Default: the champion.")
@click.option("-o", "--out", type=click.Path(path_type=Path), help="Where the predictions go, too.")
@click.option("--json", "as_json", is_flag=True, help="Print the record as JSON.")
def command(*, days: str, model: str | None, out: Path | None, as_json: bool) -> None:
    """Score every row that the market history has of some days: 2018-03-01..2018-03-31, 2018-03 or 2018-03-25.

    They are scored as if they were dropped as one file now. What was published stays as it is: this is kept under
    receipts/rescorings/, in the columns of a predictions file. It is computed in parts, on the cluster that
    CRYPTO_ML_CLUSTER names or in this process; parts that stand are not computed again.
    """
    from crypto_ml.deployment import Deployment
    from crypto_ml.engine.mapping import Engine
    from crypto_ml.settings import Settings
    from crypto_ml.stages.rescoring import Asked, period, rescore

    try:
        first, last = period(days)
    except ValueError as wrong:
        raise click.BadParameter(f"must be like 2018-03-01..2018-03-31 or 2018-03 ({wrong})") from wrong
    deployment = Deployment(Settings.from_environment())
    engine = Engine.of(deployment)
    with bar() as tell:
        done = rescore(Asked(first, last, model), deployment, engine, datetime.now(UTC), out=out, tell=tell)
    document = done.document
    if as_json:
        print_json(document)
    else:
        error = document["mean_relative_error"]
        off = "" if error is None else f", off by {100 * error:.3f} % on average"
        say(
            f"{document['rows']:,} rows of {document['series']:,} series by {document['model']}: "
            f"{document['predicted']:,} predicted{off}"
        )
    say("it stood already" if done.ran is None else str(done.ran), err=True)
    say(f"kept: {deployment.store.uri(done.predictions)}", err=True)


COMMANDS: Final = (command,)
