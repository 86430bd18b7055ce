"""Moments as people write them."""

from datetime import UTC, datetime

from crypto_ml.errors import Refused


class UnreadableTime(Refused):
    """A text that is no moment."""


def read_time(text: str) -> datetime:
    """An ISO 8601 time; without a zone it is UTC, without a time of day the day's begin. Raises UnreadableTime."""
    try:
        time = datetime.fromisoformat(text.strip())
    except ValueError as error:
        raise UnreadableTime(f"{text!r} is not an ISO 8601 time such as 2018-03-25T00:00:00+00:00") from error
    return time if time.tzinfo else time.replace(tzinfo=UTC)
