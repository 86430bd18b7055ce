"""Deliveries that are requests: how they are named, and the one object that each leaves.

A request is answered as an uploaded file is, but for two things: its rows do not become part of the market history (a
request is a question), and everything that is written of it stands in one object, its pack. Requests that came at the
same moment are one delivery, as files are. Its name needs no look at any other: the milliseconds since 1970, and five
digits by chance; those of files count from 1 and are shorter.
"""

import json
import re
import secrets
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Final

from crypto_ml.digest import sha256_of
from crypto_ml.errors import Refused
from crypto_ml.ledger.formats.reading import too_new
from crypto_ml.ledger.layout import ASKED, CLAIMS, REQUESTS
from crypto_ml.storage.failures import AlreadyExists
from crypto_ml.storage.objects import ObjectStore
from crypto_ml.storage.packed import PackedStore

DIGITS: Final = 18
BY_CHANCE: Final = 5
ZIP: Final = "application/zip"
CLAIM_FORMAT: Final = 1
ABANDONED: Final = timedelta(minutes=10)
"""Time after which a claim that has no answer never gets one from who made it. Less than what a sweep leaves alone."""

IN_A_KEY: Final = re.compile(r"(?:predictions/)?requests/(\d{18})/")


class KeyTaken(Refused):
    """An idempotency key that came with another body before."""


def new_delivery(now: datetime) -> str:
    """A name that no other delivery has."""
    return f"{int(now.timestamp() * 1000):0{DIGITS - BY_CHANCE}d}{secrets.randbelow(10**BY_CHANCE):0{BY_CHANCE}d}"


def is_request(delivery: str) -> bool:
    """Whether the requests of a moment were delivered, and no files."""
    return len(delivery) == DIGITS and delivery.isdecimal()


def delivery_in(key: str) -> str | None:
    """The delivery of requests that a key is of, which stands in its pack: the body of a request, or its answer."""
    found = IN_A_KEY.match(key)
    return found[1] if found else None


def first_of(moment: datetime) -> str:
    """The least name of a moment."""
    return f"{int(moment.timestamp() * 1000):0{DIGITS - BY_CHANCE}d}{0:0{BY_CHANCE}d}"


def time_of(name: str) -> datetime:
    """The moment of a name."""
    return datetime.fromtimestamp(int(name[: DIGITS - BY_CHANCE]) / 1000, UTC)


def pack_key(delivery: str) -> str:
    """Where everything stands that was written of the requests of a delivery."""
    return f"{REQUESTS}{delivery}.zip"


def asked_name(key: str) -> str:
    """What an asker knows of the key of a request: its own id, and whether it was CSV or JSON."""
    return key.rpartition("/")[2].partition("-")[2]


def asked_key(delivery: str, number: int, name: str, ending: str) -> str:
    """What a request's body is called where a file's key stands. name: the request's own id."""
    return f"{ASKED}{delivery}/{number}-{name}.{ending}"


def is_json(key: str) -> bool:
    """Whether what is called so is records in JSON; else it is CSV."""
    return key.endswith(".json")


def predicted_key(delivery: str) -> str:
    """Where in its pack a delivery has the predicted rows that go into the prediction log."""
    return f"raw/predicted/{delivery}.parquet"


def seen_with(delivery: str, store: ObjectStore) -> ObjectStore:
    """The store with what was written of a delivery under the keys that it was written to.

    Raises ObjectMissing where there are no such requests, PackDamaged.
    """
    return PackedStore.opened(store, delivery, pack_key(delivery)) if is_request(delivery) else store


def addresses_of(delivery: str, store: ObjectStore) -> ObjectStore:
    """Where what was written of a delivery is, for people (`uri`); nothing is read."""
    return PackedStore(store, delivery, key=pack_key(delivery)) if is_request(delivery) else store


def claim_key(asker: str, key: str, attempt: int = 1) -> str:
    """Where it is recorded which delivery answers the requests that an asker sends with one idempotency key."""
    name = sha256_of(json.dumps([asker, key]).encode())
    return f"{CLAIMS}{name}.json" if attempt == 1 else f"{CLAIMS}{name}-{attempt}.json"


def claim(asker: str, key: str, body: bytes, now: datetime, store: ObjectStore) -> str:
    """The delivery that answers whatever an asker sends with an idempotency key: named by whoever is first.

    It stands for ever once it is answered. Where it never was, because whoever claimed it died, it is claimed anew
    after ABANDONED: nobody would look for the pack of a name that old (see `settled_requests`). Raises KeyTaken where
    the key came with another body before.
    """
    body_sha256 = sha256_of(body)
    for attempt in count(1):
        where = claim_key(asker, key, attempt)
        document = {"format": CLAIM_FORMAT, "body_sha256": body_sha256, "delivery": new_delivery(now)}
        try:
            store.create_json(where, document)
            return str(document["delivery"])
        except AlreadyExists:
            document = store.read_json(where)
        if document["format"] > CLAIM_FORMAT:
            raise too_new("claim", store.uri(where), document["format"], CLAIM_FORMAT)
        if document["body_sha256"] != body_sha256:
            raise KeyTaken("this idempotency key came with another body before; send another key with this one")
        delivery = str(document["delivery"])
        if now - time_of(delivery) < ABANDONED or store.head(pack_key(delivery)):
            return delivery
    raise AssertionError  # counting never ends
