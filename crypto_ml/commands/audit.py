"""`crypto-ml trace`, `replay`, `corrections`: where a number comes from, whether it comes out again, what used it."""

from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Final

import click

from crypto_ml.commands.printing import print_json, say
from crypto_ml.errors import Refused

if TYPE_CHECKING:
    from crypto_ml.storage.objects import ObjectStore

as_json_option = click.option("--json", "as_json", is_flag=True, help="Print as JSON.")


@click.command("trace")
@click.argument("reference", metavar="PREDICTIONS_KEY_OR_ID")
@click.option("--symbol", help="With --date: the one row that is meant.")
@click.option("--date", "day", type=click.DateTime(["%Y-%m-%d"]), help="With --symbol: the one row that is meant.")
@as_json_option
def trace(reference: str, symbol: str | None, day: datetime | None, as_json: bool) -> None:
    """Show everything behind an answer or a forecast, or behind one predicted number.

    PREDICTIONS_KEY_OR_ID is a key such as predictions/prices_preds.csv or forecasts/latest.csv, a prediction_id, or the
    id of an answer to a file or a request, or of a forecast. Reads S3 alone: Dagster and its database may be gone.

    What holds a line stands before it: `chain` (a link of the chain of evidence has its hash, or that of the receipt
    that has it), `receipt` (no link has that yet), `nothing`, or `ALTERED`, which ends with exit code 1. Whether the
    chain is whole says `crypto-ml verify`.
    """
    from crypto_ml.audit import forecast_trace, held
    from crypto_ml.audit import trace as tracing
    from crypto_ml.audit.references import resolve

    store = _store()
    named = resolve(reference, store, symbol=symbol, day=day.date() if day else None)
    if named.is_forecast:
        forecast = forecast_trace.trace(named, store)
        document, lines, holding = (
            forecast.document(),
            forecast_trace.lines(forecast, store),
            held.of_forecast(forecast, store),
        )
    else:
        answer = tracing.trace(named, store)
        document, lines, holding = answer.document(), tracing.lines(answer, store), held.of_answer(answer, store)
    if as_json:
        print_json({**document, **held.document(holding)})
    else:
        for line in held.told(lines, holding):
            say(line)
    if wrong := held.altered(holding):
        raise held.EvidenceAltered(f"ALTERED: {'; '.join(wrong)}")


@click.command("replay")
@click.argument("reference", metavar="PREDICTIONS_KEY_OR_ID")
@click.option("--retrain", is_flag=True, help="Train the model again as well, and compare its weights.")
@click.option("--full", is_flag=True, help="Read every row and object of the history behind it, not its windows alone.")
@as_json_option
def replay(reference: str, retrain: bool, full: bool, as_json: bool) -> None:
    """Compute an answer or a forecast again from the bytes that were received.

    Prints IDENTICAL, EQUAL WITHIN n ulp (of a float32, on another processor), or DIFFERS AT the first stage that does
    not give again what the receipt says, which ends with exit code 1. A model that was trained on another processor or
    with other libraries may be EQUAL WITHIN ROUNDING: how far apart its predictions are is said.
    """
    from crypto_ml.audit import forecast_replay
    from crypto_ml.audit import replay as answer_replay
    from crypto_ml.audit.references import resolve

    store = _store()
    named = resolve(reference, store)
    compute_again = forecast_replay.replay if named.is_forecast else answer_replay.replay
    verdict = compute_again(named.answer_id, store, retrain=retrain, full=full)
    if as_json:
        print_json({**asdict(verdict), "verdict": str(verdict)})
    else:
        say(str(verdict))
    if verdict.note:
        say(verdict.note, err=True)
    if verdict.outcome == "DIFFERS":
        raise Refused(f"answer {verdict.answer_id} does not come out again: {verdict.stage}")


@click.command("corrections")
@click.argument("reference", metavar="UPLOAD_KEY_OR_ID")
@as_json_option
def corrections(reference: str, as_json: bool) -> None:
    """List what an upload corrected, and which past answers and models had used the values before.

    Answers to requests are among them, the first 1,000 that were about the same series since; how many more there are
    is said.
    """
    from crypto_ml.audit import corrections as correcting
    from crypto_ml.audit.references import resolve
    from crypto_ml.ledger.requests import is_request

    store = _store()
    named = resolve(reference, store)
    if named.is_forecast:
        raise Refused(f"{reference} is a forecast, which corrects nothing: name an upload or its answer")
    if is_request(named.answer_id.partition("-")[0]):
        raise Refused(f"{reference} is of a request, which corrects nothing: its rows are not in the market history")
    found = correcting.corrections(named.answer_id, store)
    if as_json:
        print_json(asdict(found))
        return
    for line in correcting.told(found):
        say(line)


def _store() -> "ObjectStore":
    """For these commands permission to read is enough."""
    from crypto_ml.deployment import Deployment
    from crypto_ml.settings import Settings

    return Deployment.reading(Settings.from_environment()).store


COMMANDS: Final = (trace, replay, corrections)
