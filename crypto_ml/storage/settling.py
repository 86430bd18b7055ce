"""A conditional write seen through to its real outcome, which its first answer does not always tell.

Two answers mislead. 409 says that two writers met and nobody has won yet. And the SDK repeats a request whose answer
was lost, as does whoever tried another client first: where the first one had succeeded, the repetition is answered 412,
as if somebody else had been first. So each
write carries a mark of its own in the object's metadata, and a repeated write that lost looks whose mark is there.
"""

import random
import time
import uuid
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from botocore.exceptions import ClientError

from crypto_ml.errors import Refused
from crypto_ml.storage.failures import StoreUnavailable, named_failures, status_of

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

CONFLICT_ATTEMPTS: Final = 6
"""Tries while the store answers 409; about two seconds in all."""

LOST: Final = "lost"
"""What a first try says where the condition did not hold, which no ETag is."""

WRITE_MARK: Final = "crypto-ml-write"
"""Name of the metadata entry that holds the mark."""


def settled(
    client: "S3Client",
    where: tuple[str, str],
    send: Callable[[Mapping[str, Any]], str],
    *,
    described: Mapping[str, Any],
    condition: Mapping[str, str],
    lost: Refused,
    first: Callable[[Mapping[str, Any]], str | None] | None = None,
) -> str:
    """Run `send(described with the mark)` at `where` (bucket, key) and return the bare ETag of what it wrote.

    first: a quicker way, tried once; it returns the ETag, `LOST` where the condition did not hold, and None where
    nobody knows whether it wrote anything. Raises: `lost` where the condition did not hold; StoreUnavailable;
    StoreRefused.
    """
    bucket, key = where
    uri = f"s3://{bucket}/{key}"
    mark = uuid.uuid4().hex
    marked = {**described, "Metadata": {**described.get("Metadata", {}), WRITE_MARK: mark}}
    meanings = {412: lost} if condition else {}
    if "IfMatch" in condition:
        meanings[404] = lost  # what was to be replaced is gone
    tried = first(marked) if first else None
    if tried == LOST:
        raise lost
    if tried is not None:
        return tried.strip('"')
    for attempt in range(CONFLICT_ATTEMPTS):
        try:
            with named_failures(client, "write", uri, meanings):
                return send(marked).strip('"')
        except (Refused, StoreUnavailable) as failure:
            cause = failure.__cause__
            if not condition or not isinstance(cause, ClientError):
                raise
            repeated = _was_repeated(cause) or (first is not None and status_of(cause) == 412)
            if repeated and (mine := _written(client, where, mark)):
                return mine
            if status_of(cause) != 409:
                raise
        time.sleep(random.uniform(0.02, 0.05) * 2**attempt)  # noqa: S311 - keeps writers apart, hides nothing
    if _written(client, where, None):
        raise lost
    raise StoreUnavailable(f"Too many writers met at {uri}: try again in a moment.")


def _written(client: "S3Client", where: tuple[str, str], mark: str | None) -> str | None:
    """ETag of what is there now, if it carries `mark` (None: whatever is there)."""
    bucket, key = where
    try:
        with named_failures(client, "look at", f"s3://{bucket}/{key}"):
            answer = client.head_object(Bucket=bucket, Key=key)
    except Refused:
        return None
    if mark is not None and answer["Metadata"].get(WRITE_MARK) != mark:
        return None
    return answer["ETag"].strip('"')


def _was_repeated(error: ClientError) -> bool:
    return int(error.response.get("ResponseMetadata", {}).get("RetryAttempts", 0)) > 0
