"""uploads_sensor: notices new uploads, assigns them to deliveries, and asks for a run of each.

A tick gathers and returns one result. It waits for a while before it says that nothing came, so that a file is noticed
within a fraction of a second instead of at the daemon's next round.
"""

import time
from datetime import UTC, datetime
from functools import cache
from typing import Final

import dagster as dg

from crypto_ml.defs.jobs import score_uploads
from crypto_ml.defs.partitions import DELIVERIES
from crypto_ml.defs.resources import Platform
from crypto_ml.errors import CryptoMLError
from crypto_ml.ledger.deliveries import DeliveryLog, delivery_id

LONGEST_WAIT: Final = 10.0
"""Seconds a tick looks for uploads before it ends; Dagster gives it 60."""

SHORTEST_PAUSE: Final = 0.25
PAUSE_PER_LISTING: Final = 4.0
"""A pause is this many times the last look, so that a long listing never keeps a core or the store busy."""


@dg.sensor(
    name="uploads_sensor",
    job=score_uploads,
    minimum_interval_seconds=1,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Watches uploads/ and launches score_uploads for what is new.",
)
def uploads_sensor(context: dg.SensorEvaluationContext, platform: Platform) -> dg.SensorResult | dg.SkipReason:
    """One tick. The cursor is the last delivery a run was asked for; losing it costs time, never a file."""
    try:
        log = _delivery_log(platform.bucket, platform.prefix)
        requested = int(context.cursor) if context.cursor else None
        return _look(log, requested)
    except CryptoMLError as error:  # a failed listing is never "nothing there": say so, and look again
        return dg.SkipReason(f"could not look for uploads: {error}")


def _look(log: DeliveryLog, requested: int | None) -> dg.SensorResult | dg.SkipReason:
    deadline = time.monotonic() + LONGEST_WAIT
    while True:
        began = time.monotonic()
        log.assign_new(datetime.now(UTC))
        pending = log.unanswered(after=requested)
        if pending:
            return _requests(pending, log.last_number)
        now = time.monotonic()
        pause = max(SHORTEST_PAUSE, PAUSE_PER_LISTING * (now - began))
        if now + pause > deadline:
            return dg.SkipReason(f"no new upload; {log.last_number} deliveries so far")
        time.sleep(pause)


def _requests(pending: list[int], last: int) -> dg.SensorResult:
    ids = [delivery_id(number) for number in pending]
    return dg.SensorResult(
        run_requests=[dg.RunRequest(run_key=delivery, partition_key=delivery) for delivery in ids],
        dynamic_partitions_requests=[DELIVERIES.build_add_request(ids)],
        cursor=str(last),
    )


@cache
def _delivery_log(bucket: str, prefix: str) -> DeliveryLog:
    """One log for each process: it remembers the deliveries it has read, so that a look reads only what is new."""
    return DeliveryLog(Platform(bucket=bucket, prefix=prefix).store())
