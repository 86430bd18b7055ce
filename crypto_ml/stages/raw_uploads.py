"""raw_uploads: the bytes of a delivery, pinned, hashed and kept.

What is read is the version of the object that the sensor saw; what is kept is named by its sha256 and written once. The
small uploads of a delivery are kept together, one behind the other, as one object. Whether the same bytes were answered
before is not decided here but when the answer is published: runs may overlap.
"""

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from crypto_ml.digest import sha256_of
from crypto_ml.forecasting.uploads.file_kinds import foreign_name
from crypto_ml.ledger.clock import not_before
from crypto_ml.ledger.deliveries import Delivery, Upload
from crypto_ml.ledger.formats.reading import RecordDamaged, read_record, too_new
from crypto_ml.ledger.formats.receipt_v2 import Outcome
from crypto_ml.ledger.layout import UPLOADS, answer_keys, has_table_name, raw_key, received_key, together_key
from crypto_ml.storage.failures import AlreadyExists, ObjectChanged, ObjectMissing
from crypto_ml.storage.objects import ObjectStore

AT_ONCE: Final = 8
SMALL: Final = 1 << 20
"""Bytes up to which uploads of a delivery are kept together."""

FORMAT: Final = 2
"""Of what was received: since 0.4, where uploads may be kept together. Those before do not say."""


@dataclass(frozen=True)
class ReceivedFile:
    """One upload of a delivery: its bytes' sha256 (None where they could not be had) and what is known against it.

    outcome: None to go on, `REJECTED` or `SKIPPED` where the file's story ends here, with `reason`. begin: where its
    bytes begin in the object that they are kept in together with others'; None where they have an object of their own.
    """

    upload: Upload
    sha256: str | None = None
    outcome: Outcome | None = None
    reason: str | None = None
    begin: int | None = None


@dataclass(frozen=True)
class Kept:
    """Where the bytes of an upload are kept: a part of an object, or all of it where `begin` is None."""

    key: str
    begin: int | None
    size: int

    def read(self, store: ObjectStore) -> bytes:
        """The bytes, in memory. Raises ObjectMissing."""
        return store.read(self.key) if self.begin is None else store.read_part(self.key, self.begin, self.size)

    def told(self, store: ObjectStore) -> str:
        """Where that is, for people."""
        part = "" if self.begin is None else f", {self.size} bytes from byte {self.begin} on"
        return store.uri(self.key) + part


@dataclass(frozen=True)
class Received:
    """What was received for a delivery; `at` is ISO 8601, UTC, and the time from which its rows are known.

    together: the object in which uploads are kept together, named by the sha256 of its bytes; None where none are.
    """

    delivery: str
    noticed_at: str
    at: str
    files: Sequence[ReceivedFile]
    together: str | None = None
    format: int = 1

    def kept(self, number: int) -> Kept | None:
        """Where the bytes of a file are kept; None where they could not be had."""
        file = self.files[number]
        if file.sha256 is None:
            return None
        if self.together is None or file.begin is None:
            return Kept(raw_key(file.sha256), None, file.upload.size)
        return Kept(together_key(self.delivery, self.together), file.begin, file.upload.size)

    @property
    def kept_keys(self) -> list[str]:
        """The objects that the bytes are kept in."""
        kept = (self.kept(number) for number in range(len(self.files)))
        return list(dict.fromkeys(one.key for one in kept if one))

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
    small = {number for number, upload in enumerate(delivery.uploads) if upload.size <= SMALL}
    with TemporaryDirectory(prefix="crypto_ml-raw-") as name, ThreadPoolExecutor(AT_ONCE) as pool:
        directory = Path(name)

        def read(number: int) -> tuple[ReceivedFile, bytes | None]:
            upload = delivery.uploads[number]
            if len(small) > 1 and number in small:
                return _read(upload, store)
            return _receive(upload, store, directory), None

        found = list(pool.map(read, range(len(delivery.uploads))))
    files, together = _keep_together(delivery.id, found, store)
    at = not_before(now, delivery.noticed_at)
    received = Received(delivery.id, delivery.noticed_at, at, files, together, FORMAT if together else 1)
    try:
        store.create_json(received_key(delivery.id), asdict(received))
    except AlreadyExists:  # a second run of the same delivery was faster; its record is as good
        return read_received(delivery.id, store)
    return received


def read_received(delivery: str, store: ObjectStore) -> Received:
    """The record of what was received. Raises ObjectMissing."""
    key = received_key(delivery)
    return received_in(store.read(key), store.uri(key))


def received_in(content: bytes, where: str) -> Received:
    """The record of what was received, from its bytes. Raises RecordDamaged, RecordTooNew."""
    try:
        document = json.loads(content)
    except ValueError as error:
        raise RecordDamaged(f"{where} is not as it was written; restore it") from error
    received = read_record(Received, document, where)
    if received.format > FORMAT:
        raise too_new("record of what was received", where, received.format, FORMAT)
    return received


def _read(upload: Upload, store: ObjectStore) -> tuple[ReceivedFile, bytes | None]:
    """A small upload and its bytes, which are not kept yet; None where its story ends here."""
    if refused := _refused(upload, store):
        return refused, None
    try:
        content = store.read_pinned(upload.stored())
    except ObjectChanged:
        return _changed(upload), None
    return ReceivedFile(upload, sha256_of(content)), content


def _keep_together(
    delivery: str, found: Sequence[tuple[ReceivedFile, bytes | None]], store: ObjectStore
) -> tuple[list[ReceivedFile], str | None]:
    """Write the bytes that are not kept yet, those of equal files once; returns the files with where they begin, and
    the sha256 of all of them."""
    begins: dict[str, int] = {}
    pieces: list[bytes] = []
    files, end = [], 0
    for file, content in found:
        known = file.sha256
        if content is None or known is None:
            files.append(file)
            continue
        if known not in begins:
            begins[known], end = end, end + len(content)
            pieces.append(content)
        files.append(replace(file, begin=begins[known]))
    if not pieces:
        return files, None
    everything = b"".join(pieces)
    sha256 = sha256_of(everything)
    with suppress(AlreadyExists):  # named by its content, so it is the same
        store.create(together_key(delivery, sha256), everything)
    return files, sha256


def _receive(upload: Upload, store: ObjectStore, directory: Path) -> ReceivedFile:
    """An upload whose bytes are kept in an object of their own."""
    if refused := _refused(upload, store):
        return refused
    path = directory / f"{abs(hash(upload.identity)):x}"
    try:
        sha256 = store.download(upload.stored(), path)
    except ObjectChanged:
        return _changed(upload)
    try:
        store.upload_file(path, raw_key(sha256), create_only=True)
    except AlreadyExists:  # named by its content, so it is the same
        pass
    finally:
        path.unlink()
    return ReceivedFile(upload, sha256)


def _changed(upload: Upload) -> ReceivedFile:
    reason = "the object was replaced or deleted before it could be read; a newer version is answered by itself"
    return ReceivedFile(upload, None, "SKIPPED", reason)


def _refused(upload: Upload, store: ObjectStore) -> ReceivedFile | None:
    """The refusal of an upload for its name; None where that is as it should be."""
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
    return None
