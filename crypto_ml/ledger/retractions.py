"""Which uploads were retracted: one record for each, written once by whoever decides first.

That an upload is retracted is one decision for ever. What undoes it is the file dropped again, which is another upload.
"""

from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from crypto_ml.ledger.formats.reading import RecordDamaged, read_record, too_new
from crypto_ml.ledger.formats.retraction_v1 import FORMAT, KIND, Retraction
from crypto_ml.ledger.layout import RETRACTIONS, retraction_key
from crypto_ml.ledger.receipts import SEAL, sealed
from crypto_ml.storage.failures import AlreadyExists, ObjectMissing
from crypto_ml.storage.objects import ObjectStore

AT_ONCE: Final = 8


def upload_id(delivery: str, file: int) -> str:
    """The name of one upload in the history: its delivery and its number there."""
    return f"{delivery}.{file}"


def write_retraction(retraction: Retraction, store: ObjectStore) -> Retraction:
    """Record a retraction; where the upload was retracted before, by whomever, that one stands and comes back."""
    try:
        store.create_json(retraction_key(retraction.upload_id), sealed(retraction.said()))
    except AlreadyExists:
        return read_retraction(retraction.upload_id, store)
    return retraction


def read_retraction(upload: str, store: ObjectStore) -> Retraction:
    """The retraction of an upload (by its id). Raises ObjectMissing, RecordDamaged, RecordTooNew."""
    key = retraction_key(upload)
    where, recorded = store.uri(key), store.read_json(key)
    if not isinstance(recorded, dict) or recorded.get("kind") != KIND:
        raise RecordDamaged(f"{where} is not as it was written; restore it")
    if isinstance(recorded.get("format"), int) and recorded["format"] > FORMAT:
        raise too_new("retraction", where, recorded["format"], FORMAT)
    if recorded.get(SEAL) != sealed(recorded)[SEAL] or recorded.get("upload_id") != upload:
        raise RecordDamaged(f"{where} is not as it was written; restore it")
    return read_record(Retraction, recorded, where)


def retraction_of(upload: str, store: ObjectStore) -> Retraction | None:
    """The retraction of an upload (by its id); None where it was not retracted."""
    try:
        return read_retraction(upload, store)
    except ObjectMissing:
        return None


def retracted_ids(store: ObjectStore, delivery: str = "") -> list[str]:
    """The ids of the uploads (of a delivery) that were retracted, in their order. One listing."""
    begin = f"{RETRACTIONS}{delivery}." if delivery else RETRACTIONS
    return [found.key.removeprefix(RETRACTIONS).removesuffix(".json") for found in store.list(begin)]


def retractions(store: ObjectStore, deliveries: Collection[str] | None = None) -> dict[str, Retraction]:
    """Upload id → retraction, of all uploads or of those of some deliveries."""
    found = retracted_ids(store)
    ids = [one for one in found if deliveries is None or one.partition(".")[0] in deliveries]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return dict(zip(ids, pool.map(lambda one: read_retraction(one, store), ids), strict=True))
