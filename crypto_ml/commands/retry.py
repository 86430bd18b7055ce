"""`crypto-ml retry`: answer again what was given up. It reads and writes S3 alone, wherever Dagster runs."""

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import click

from crypto_ml.commands.printing import say
from crypto_ml.errors import Refused
from crypto_ml.ledger.layout import UPLOADS

if TYPE_CHECKING:
    from crypto_ml.ledger.deliveries import Delivery
    from crypto_ml.ledger.formats.outcomes_v1 import Outcomes
    from crypto_ml.ledger.retries import Request
    from crypto_ml.storage.objects import ObjectStore

POLL_SECONDS: Final = 0.25


class NothingGivenUp(Refused):
    """There is nothing to answer again."""


@click.command("retry")
@click.argument("what", required=False)
@click.option("--given-up", "everything", is_flag=True, help="Every delivery that was given up, instead of one.")
@click.option("--wait", is_flag=True, help="Wait until each has its answer.")
@click.option("--timeout", default=120.0, show_default=True, help="Seconds to wait at most.")
def command(what: str | None, everything: bool, wait: bool, timeout: float) -> None:
    """Answer WHAT again: an upload (uploads/prices.csv) or a delivery (00000012) that was given up.

    The sensor sees the request within seconds and launches a run. What was answered meanwhile keeps its answer.
    """
    from crypto_ml.deployment import Deployment
    from crypto_ml.ledger.retries import RetryLog, given_up
    from crypto_ml.settings import Settings

    if everything == bool(what):
        raise click.UsageError("name an upload or a delivery, or give --given-up for all")
    store = Deployment(Settings.from_environment()).store
    if what and what.isdecimal():
        found = [_delivery(int(what), store)]
    elif what:
        found = [_delivery_of(what if what.startswith(UPLOADS) else UPLOADS + what, given_up(store), store)]
    elif not (found := given_up(store)):
        raise NothingGivenUp("no delivery was given up")
    request = RetryLog(store).ask(found, datetime.now(UTC))
    for delivery in found:
        keys = [upload.key for upload in delivery.uploads]
        more = f" and {len(keys) - 1} more" if len(keys) > 1 else ""
        say(f"delivery {delivery.id} ({keys[0]}{more}) is to be answered again (request {request.number})")
    if wait:
        _wait(found, request, store, timeout)


def _delivery(number: int, store: "ObjectStore") -> "Delivery":
    from crypto_ml.ledger.deliveries import DeliveryLog, delivery_id
    from crypto_ml.ledger.formats.outcomes_v1 import was_given_up
    from crypto_ml.ledger.retries import outcomes_of
    from crypto_ml.storage.failures import ObjectMissing

    try:
        delivery = DeliveryLog(store).get(number)
    except ObjectMissing:
        raise NothingGivenUp(f"there is no delivery {delivery_id(number)}") from None
    outcomes = outcomes_of(number, store)
    if outcomes is None:
        raise NothingGivenUp(f"delivery {delivery.id} has no outcome yet: `crypto-ml doctor` says what it waits for")
    if not was_given_up(outcomes):
        raise NothingGivenUp(f"delivery {delivery.id} was not given up: {_told(outcomes)}")
    return delivery


def _delivery_of(key: str, given_up: "Sequence[Delivery]", store: "ObjectStore") -> "Delivery":
    """The newest delivery that gave this upload up."""
    from crypto_ml.ledger.formats.outcomes_v1 import is_given_up
    from crypto_ml.ledger.reports import read_report
    from crypto_ml.ledger.retries import outcomes_of

    for delivery in reversed(given_up):
        outcomes = outcomes_of(delivery.number, store) or {}
        if key in outcomes and is_given_up(outcomes[key]):
            return delivery
    report = read_report(key, store)
    if report is None:
        raise NothingGivenUp(f"there is no report on {key}: `crypto-ml doctor` says whether it is still to be answered")
    raise NothingGivenUp(f"{key} was not given up: it is {report.outcome} in delivery {report.delivery}")


def _wait(found: "Sequence[Delivery]", request: "Request", store: "ObjectStore", timeout: float) -> None:
    from crypto_ml.ledger.formats.outcomes_v1 import is_given_up
    from crypto_ml.ledger.retries import is_open, outcomes_of

    deadline = time.monotonic() + timeout
    settled: dict[str, Outcomes] = {}
    while len(settled) < len(found) and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
        for delivery in found:
            outcomes = outcomes_of(delivery.number, store)
            if outcomes is not None and not is_open(request.number, outcomes):
                settled[delivery.id] = outcomes
    for name, outcomes in sorted(settled.items()):
        say(f"delivery {name}: {_told(outcomes)}")
    if late := [delivery.id for delivery in found if delivery.id not in settled]:
        raise Refused(f"no answer to {', '.join(late)} after {timeout:.0f} s; run `crypto-ml doctor`")
    again = [outcome for outcomes in settled.values() for outcome in outcomes.values() if is_given_up(outcome)]
    if again:
        raise Refused(f"given up again: {again[0]['reason']}")


def _told(outcomes: "Outcomes") -> str:
    from collections import Counter

    counts = Counter(str(outcome["outcome"]) for outcome in outcomes.values())
    return ", ".join(f"{count} {outcome}" for outcome, count in sorted(counts.items()))


COMMANDS: Final = (command,)
