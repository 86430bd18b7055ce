"""`crypto-ml retract`: take a wrong file back. It reads and writes S3 alone, wherever Dagster runs."""

from dataclasses import asdict
from datetime import UTC, datetime
from typing import Final

import click

from crypto_ml.commands.printing import print_json, say


@click.command("retract")
@click.argument("upload")
@click.option("--by", required=True, help="Who decides.")
@click.option("--why", required=True, help="Why; it is recorded and shown.")
@click.option("--all", "everything", is_flag=True, help="Every version that was received under the key.")
@click.option("--json", "as_json", is_flag=True, help="Print what was made void, and what had used it, as JSON.")
def command(upload: str, by: str, why: str, everything: bool, as_json: bool) -> None:
    """Take UPLOAD back: its rows stay as evidence, and count as void from now on.

    UPLOAD is a key (uploads/prices.csv), or the id of an upload (00000012.0), by which `trace` names where rows came
    from. Lists the answers, forecasts and models that had used the rows. To undo it, drop the file again.
    """
    from crypto_ml.audit.retractions import told, told_retraction, used
    from crypto_ml.deployment import Deployment
    from crypto_ml.ledger.deliveries import DeliveryLog
    from crypto_ml.settings import Settings
    from crypto_ml.stages.chained_decisions import chained_decision
    from crypto_ml.stages.retraction import Decision, retract

    deployment = Deployment(Settings.from_environment())
    store = deployment.store
    retracted = retract(Decision(upload, by, why, everything), store, deployment.history, datetime.now(UTC))
    for said in chained_decision("the retraction", deployment, datetime.now(UTC)):
        say(said, err=True)
    if as_json:
        print_json([asdict(used(one, store)) for one in retracted])
        return
    for one in retracted:
        for line in told_retraction(one, store):
            say(line)
        for line in told(used(one, store)):
            say(line)
    log = DeliveryLog(store)
    log.catch_up()
    if waiting := len(log.unanswered()):
        say(
            f"note: {waiting} {'delivery is' if waiting == 1 else 'deliveries are'} being answered, perhaps from these "
            "rows; the same command again, once that is done, lists them too",
            err=True,
        )


COMMANDS: Final = (command,)
