"""raw_uploads: the bytes of a delivery, pinned, hashed and kept.

What is read is the version of the object that the sensor saw; what is kept is named by its sha256 and written once.
Whether the same bytes were answered before is not decided here but when the answer is published: runs may overlap.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from crypto_ml.digest import sha256_of
from crypto_ml.forecasting.uploads.file_kinds import foreign_name
from crypto_ml.ledger.clock import not_before
from crypto_ml.ledger.deliveries import Delivery, Upload
from crypto_ml.ledger.formats.reading import read_record
from crypto_ml.ledger.formats.receipt_v2 import Outcome
from crypto_ml.ledger.layout import UPLOADS, answer_keys, has_table_name, raw_key, received_key
from crypto_ml.storage.failures import AlreadyExists, ObjectChanged, ObjectMissing
from crypto_ml.storage.objects import ObjectStore

AT_ONCE: Final = 8


@dataclass(frozen=True)
class ReceivedFile:
    """One upload of a delivery: its bytes' sha256 (None where they could not be had) and what is known against it.

    outcome: None to go on, `REJECTED` or `SKIPPED` where the file's story ends here, with `reason`.
    """

    upload: Upload
    sha256: str | None = None
    outcome: Outcome | None = None
    reason: str | None = None


@dataclass(frozen=True)
class Received:
    """What was received for a delivery; `at` is ISO 8601, UTC, and the time from which its rows are known."""

    delivery: str
    noticed_at: str
    at: str
    files: Sequence[ReceivedFile]

    @property
    def data_version(self) -> str:
        """The bytes, as one word: the sha256 of each file, or of all of them."""
        known = [file.sha256 or "" for file in self.files]
        return known[0] if len(known) == 1 and known[0] else sha256_of("".join(known).encode())


def receive(delivery: Delivery, store: ObjectStore, now: datetime) -> Received:
    """Read every upload of the delivery and keep its bytes; a delivery received before is not received again."""
    try:
        return read_received(delivery.id, store)
    except ObjectMissing:
        pass
    with TemporaryDirectory(prefix="crypto_ml-raw-") as name, ThreadPoolExecutor(AT_ONCE) as pool:
        directory = Path(name)
        files = list(pool.map(lambda upload: _receive(upload, store, directory), delivery.uploads))
    received = Received(delivery.id, delivery.noticed_at, not_before(now, delivery.noticed_at), files)
    try:
        store.create_json(received_key(delivery.id), asdict(received))
    except AlreadyExists:  # a second run of the same delivery was faster; its record is as good
        return read_received(delivery.id, store)
    return received


def read_received(delivery: str, store: ObjectStore) -> Received:
    """The record of what was received. Raises ObjectMissing."""
    key = received_key(delivery)
    return read_record(Received, store.read_json(key), store.uri(key))


def _receive(upload: Upload, store: ObjectStore, directory: Path) -> ReceivedFile:
    if not has_table_name(upload.key):
        told = foreign_name(upload.key) or "rename the file"
        return ReceivedFile(
            upload, None, "REJECTED", f"the name of an upload must end in .csv, .csv.gz or .parquet; {told}"
        )
    if not answer_keys(upload.key, store.room).fits:
        most = store.room - len(answer_keys(UPLOADS).rejected_rows)
        return ReceivedFile(
            upload,
            None,
            "REJECTED",
            f"its name is too long: with more than {most} bytes behind uploads/ there is no room for the names of its "
            "answer; rename the file",
        )
    path = directory / f"{abs(hash(upload.identity)):x}"
    try:
        sha256 = store.download(upload.stored(), path)
    except ObjectChanged:
        reason = "the object was replaced or deleted before it could be read; a newer version is answered by itself"
        return ReceivedFile(upload, None, "SKIPPED", reason)
    try:
        store.upload_file(path, raw_key(sha256), create_only=True)
    except AlreadyExists:  # named by its content, so it is the same
        pass
    finally:
        path.unlink()
    return ReceivedFile(upload, sha256)
