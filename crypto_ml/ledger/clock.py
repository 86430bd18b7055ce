"""Time in the ledger, which never goes backwards, although the clocks it is read from do."""

from datetime import UTC, datetime, timedelta


def not_before(time: datetime, *earlier: str) -> str:
    """A moment as it is recorded (ISO 8601, UTC): `time`, or the latest of those before it where that is later."""
    return max([time, *map(datetime.fromisoformat, earlier)]).astimezone(UTC).isoformat()


def waited(since: str, until: str) -> float:
    """Seconds between two recorded moments; 0 where clocks that disagree put them the other way round."""
    return max(datetime.fromisoformat(until) - datetime.fromisoformat(since), timedelta()).total_seconds()
