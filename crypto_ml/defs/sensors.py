"""uploads_sensor: notices new uploads, assigns them to deliveries, and sees each delivery through to its outcome.

A tick gathers and returns one result; what it could not do is said there, and keeps nothing else from being done. It
waits for a while before it says that nothing came, so that a file is noticed within a fraction of a second instead of
at the daemon's next round. What it knows of deliveries is in S3; the cursor (the last delivery there was) is only
shown.
"""

import logging
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Final

import dagster as dg

from crypto_ml.defs.dagster_internals import PRIORITY_TAG
from crypto_ml.defs.jobs import SCORE_UPLOADS
from crypto_ml.defs.partitions import DELIVERIES
from crypto_ml.defs.resources import Platform
from crypto_ml.defs.watch import Wanted, Watch, watch
from crypto_ml.deployment import Deployment
from crypto_ml.errors import CryptoMLError
from crypto_ml.ledger.deliveries import Delivery, weight
from crypto_ml.ledger.layout import UPLOADS
from crypto_ml.storage.hints import NoHints
from crypto_ml.visible import visible

LONGEST_WAIT: Final = 10.0
"""Seconds a tick looks for uploads before it ends; Dagster gives it 60."""

SHORTEST_PAUSE: Final = 0.25
PAUSE_PER_LISTING: Final = 4.0
"""A pause is this many times the last look, so that a long listing never keeps a core or the store busy."""

LONGEST_UNTOLD: Final = 5.0
"""Seconds between two looks while a queue tells of uploads: what it does not tell of is noticed after so long."""

FILES_TAG: Final = "crypto_ml/files"
MOST_NAMED: Final = 3
LONGEST_NAME: Final = 80
"""Characters: a tag is shown whole in each line of the page of runs."""

URGENT_FILES: Final = 10
URGENT_BYTES: Final = 8 << 20
log: Final = logging.getLogger(__name__)


@dg.sensor(
    name="uploads_sensor",
    job_name=SCORE_UPLOADS,
    minimum_interval_seconds=1,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Watches uploads/, launches score_uploads for what is new, and closes deliveries whose runs died.",
)
def uploads_sensor(context: dg.SensorEvaluationContext, platform: Platform) -> dg.SensorResult | dg.SkipReason:
    """One tick."""
    try:
        watched = watch(platform.deployment)
    except CryptoMLError as error:  # a store that cannot be opened is never an empty one: say so, and look again
        return dg.SkipReason(f"could not look for uploads: {visible(str(error))}")
    return _tick(watched, context.instance, platform.deployment)


def _tick(watch: Watch, instance: dg.DagsterInstance, deployment: Deployment) -> dg.SensorResult | dg.SkipReason:
    deadline = time.monotonic() + LONGEST_WAIT
    problems: dict[str, None] = {}
    while True:
        began = time.monotonic()
        wanted: dict[str, Wanted] = {}
        try:
            wanted |= {one.run_key: one for one in watch.look(datetime.now(UTC))}
        except Exception as error:  # a failed listing is never "nothing there": say so, and look again
            problems[f"could not look for uploads: {error}"] = None
            log.warning("could not look for uploads", exc_info=error)
            deadline = began
        try:
            reviewed = watch.review(instance, datetime.now(UTC))
            wanted |= {one.run_key: one for one in reviewed.wanted}
            problems |= dict.fromkeys(reviewed.problems)
        except Exception as error:
            problems[f"could not look after open deliveries: {error}"] = None
            log.warning("could not look after open deliveries", exc_info=error)
        if wanted:
            return _requests(wanted.values(), watch.log.last_number)
        now = time.monotonic()
        pause = max(SHORTEST_PAUSE, PAUSE_PER_LISTING * (now - began))
        if now + pause > deadline:
            last = watch.log.last_number
            told = f"no new upload; {'1 delivery' if last == 1 else f'{last} deliveries'} so far"
            return dg.SkipReason(visible("; ".join(problems)) or told)
        _wait(deployment, pause, deadline - now, problems)


def _wait(deployment: Deployment, pause: float, left: float, problems: dict[str, None]) -> None:
    """Return when it is time for the next look: after a pause, or later, when a queue tells of an upload."""
    earliest = time.monotonic() + pause
    try:
        hints = deployment.hints
        if hints is not None:
            hints.wait(max(1.0, min(LONGEST_UNTOLD, left)))
    except NoHints as error:
        problems[str(error)] = None
        log.warning("%s", error)
    time.sleep(max(0.0, earliest - time.monotonic()))


def _requests(wanted: Iterable[Wanted], last: int) -> dg.SensorResult:
    requests = [
        dg.RunRequest(
            run_key=one.run_key,
            partition_key=one.delivery.id,
            tags={PRIORITY_TAG: str(priority(one.delivery)), FILES_TAG: files_named(one.delivery)},
        )
        for one in wanted
    ]
    added = DELIVERIES.build_add_request([str(request.partition_key) for request in requests])
    return dg.SensorResult(run_requests=requests, dynamic_partitions_requests=[added], cursor=str(last))


def files_named(delivery: Delivery) -> str:
    """The files of a delivery as its runs are tagged: the first ones by name, and how many more there are.

    A run whose delivery is one file has its name alone, by which the page of runs finds it.
    """
    names = [visible(upload.key.removeprefix(UPLOADS)) for upload in delivery.uploads]
    shown = [name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…" for name in names[:MOST_NAMED]]
    more = f" and {len(names) - len(shown):,} more" if len(names) > len(shown) else ""
    return ", ".join(shown) + more


def priority(delivery: Delivery) -> int:
    """The place of a delivery in the queue: a few small files go before a burst, a burst before one large file."""
    size = sum(map(weight, delivery.uploads))
    if len(delivery.uploads) <= URGENT_FILES and size <= URGENT_BYTES:
        return 2
    return 1 if len(delivery.uploads) > 1 else 0
