"""`crypto-ml explain`: why a number is what it is."""

from datetime import datetime
from typing import Final

import click

from crypto_ml.commands.audit import as_json_option
from crypto_ml.commands.printing import print_json, say


@click.command("explain")
@click.argument("reference", metavar="PREDICTION_ID")
@click.option("--symbol", help="With --date: the one row that is meant.")
@click.option("--date", "day", type=click.DateTime(["%Y-%m-%d"]), help="With --symbol: the one row that is meant.")
@as_json_option
def command(reference: str, symbol: str | None, day: datetime | None, as_json: bool) -> None:
    """Show why a predicted number is what it is, and what makes its interval so wide.

    PREDICTION_ID is that of an answer's or a forecast's row; or the key of its file, with --symbol and --date. Of trees
    and of the linear learner the parts are exact Shapley values; of the network what it loses without each number. A
    model that serves the last close has no parts, and the gaps that set the interval are shown.
    """
    from crypto_ml.audit.explanation import explain, told
    from crypto_ml.audit.references import resolve
    from crypto_ml.deployment import Deployment
    from crypto_ml.settings import Settings

    store = Deployment.reading(Settings.from_environment()).store
    found = explain(resolve(reference, store, symbol=symbol, day=day.date() if day else None), store)
    if as_json:
        print_json(found.document())
        return
    for line in told(found):
        say(line)


COMMANDS: Final = (command,)
