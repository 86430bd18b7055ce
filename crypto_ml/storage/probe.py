"""What a store shows of itself: its clock, and that it keeps conditional writes, on which claims, receipts and model
bundles rest.

Most servers that call themselves S3-compatible answer 200 to `If-None-Match: *` whoever asks, so this is tried, once at
start, on objects of its own.
"""

import logging
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from email.utils import parsedate_to_datetime
from threading import Barrier
from typing import Final

from botocore.exceptions import BotoCoreError, ClientError

from crypto_ml.errors import CryptoMLError
from crypto_ml.storage.failures import AlreadyExists, Conflict, StoreNotTrusted, code_of, named_failures
from crypto_ml.storage.objects import ObjectStore

PROBES: Final = "receipts/.probe/"
"""Below it stands, for a moment, what is written and removed again to see what the store does."""

RACERS: Final = 6
"""Writers that create one object at once; on Ceph, of twelve in a bucket with versions, all won in 29 of 30 races."""

log = logging.getLogger(__name__)

ADVICE = (
    "use Amazon S3, Ceph RGW from version 20, or another store that keeps conditional writes, and set "
    "AWS_ENDPOINT_URL_S3 to it"
)


def probe_conditional_writes(store: ObjectStore) -> None:
    """Return if the bucket is there and writable, and conditional writes are kept; raise otherwise.

    Writes two objects with random names under `PROBES`, one of them in a race, and deletes them again.
    Raises: StoreNotTrusted, StoreRefused, StoreUnavailable.
    """
    key = f"{PROBES}{uuid.uuid4().hex}"
    try:
        etag = store.create(key, b"first")
        if not etag:
            raise StoreNotTrusted(
                f"{store.uri('')} gives its objects no ETag, so nothing read can be pinned: {ADVICE}."
            )
        if _ignored(lambda: store.create(key, b"second"), AlreadyExists) or store.read(key) != b"first":
            raise StoreNotTrusted(
                f"{store.uri('')} ignores If-None-Match: a second writer was told 200, so claims and receipts would be "
                f"overwritten; {ADVICE}."
            )
        other = "0" * 32
        if _ignored(lambda: store.replace(key, b"third", if_match=other), Conflict) or store.read(key) != b"first":
            raise StoreNotTrusted(
                f"{store.uri('')} ignores If-Match: two promotions at once could both be told that they won; {ADVICE}."
            )
        if (winners := _winners_of_a_race(store, f"{key}-at-once")) > 1:
            raise StoreNotTrusted(
                f"{store.uri('')} told {winners} of {RACERS} writers that began at once that each was the first, so "
                f"claims would be given twice (Ceph does that in a bucket with versions: take one without); {ADVICE}."
            )
    finally:
        _remove(store, key)


def clock_of(store: ObjectStore) -> datetime | None:
    """What time the store says it is; None where it says nothing."""
    with named_failures(store.client, "list", store.uri("")):
        answer = store.client.list_objects_v2(Bucket=store.bucket, MaxKeys=1)
    said = answer["ResponseMetadata"]["HTTPHeaders"].get("date")
    return parsedate_to_datetime(said) if said else None


def _ignored(write: Callable[[], str], refusal: type[CryptoMLError]) -> bool:
    try:
        write()
    except refusal:
        return False
    return True


def _winners_of_a_race(store: ObjectStore, key: str) -> int:
    """How many of some writers that create the same object at once are told that they did."""
    start = Barrier(RACERS)

    def create(number: int) -> bool:
        start.wait()
        return _ignored(lambda: store.create(key, f"racer {number}".encode()), AlreadyExists)

    try:
        with ThreadPoolExecutor(RACERS) as pool:
            return sum(pool.map(create, range(RACERS)))
    finally:
        _remove(store, key)


def _remove(store: ObjectStore, key: str) -> None:
    try:
        store.client.delete_object(Bucket=store.bucket, Key=store.physical(key))
    except (BotoCoreError, ClientError) as e:
        log.info("probe object %s stays: %s", store.uri(key), code_of(e))
