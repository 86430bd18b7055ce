"""Which uploads were handed to which delivery.

A delivery is what the sensor found in one tick: normally one file, or many small ones. The log of deliveries in S3 is
the truth about which uploads are known; whoever appends an entry first has assigned its uploads, so two daemons never
assign the same one twice.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Final

from crypto_ml.forecasting.uploads.limits import MOST_EXPANSION
from crypto_ml.ledger.clock import not_before
from crypto_ml.ledger.layout import ANSWERED, DELIVERIES, KNOWN, PARQUET_ENDING, UPLOADS, answered_key, is_upload
from crypto_ml.ledger.log import AppendOnlyLog, Entry
from crypto_ml.storage.objects import ObjectStore, StoredObject

MOST_FILES: Final = 1_000
MOST_BYTES: Final = 64 << 20
"""A delivery takes files together up to this many bytes (see `weight`); a larger file is a delivery of its own."""

SEGMENT: Final = 100
"""Deliveries whose uploads are written together once more."""

SEGMENTS_AT_ONCE: Final = 2
"""Segments that are held while they are read: each tells of up to SEGMENT * MOST_FILES uploads."""

NAME: Final = re.compile("[0-9]{8,18}")

Identity = tuple[str, str, int, str]


@dataclass(frozen=True)
class Upload:
    """One version of an object under `uploads/`, as listed; `last_modified` is ISO 8601, UTC."""

    key: str
    etag: str
    size: int
    last_modified: str

    @property
    def identity(self) -> Identity:
        """What tells this version of the object from any other."""
        return self.key, self.etag, self.size, self.last_modified

    def stored(self) -> StoredObject:
        """The object to read, pinned to this version."""
        return StoredObject(self.key, self.size, self.etag, datetime.fromisoformat(self.last_modified))

    @classmethod
    def of(cls, listed: StoredObject) -> "Upload":
        return cls(listed.key, listed.etag, listed.size, listed.last_modified.astimezone(UTC).isoformat())


@dataclass(frozen=True)
class Delivery:
    """Uploads that are answered together; `id` is its partition in Dagster."""

    number: int
    uploads: Sequence[Upload]
    noticed_at: str

    @property
    def id(self) -> str:
        return delivery_id(self.number)


def delivery_key(delivery: str) -> str:
    """The key of a delivery's entry in the log."""
    return f"{DELIVERIES}{delivery}.json"


def delivery_id(number: int) -> str:
    """The name of a delivery."""
    return f"{number:08d}"


def number_in(key: str) -> int:
    """The number of the delivery that is recorded under a key; 0 where none can be."""
    name = key.removeprefix(DELIVERIES).removesuffix(".json")
    return int(name) if name.isdecimal() else 0


def weight(upload: Upload) -> int:
    """The bytes an upload may come to: of gzip, as many as it may expand to before it is refused. From about 330 kB of
    gzip on a file is alone, and some hundred files of 1 kB still go together."""
    return upload.size * MOST_EXPANSION if upload.key.lower().endswith((".gz", PARQUET_ENDING)) else upload.size


def plan(listed: Iterable[Upload], known: set[Identity]) -> list[list[Upload]]:
    """Group uploads that are not known yet into deliveries, oldest first.

    At most MOST_FILES files or MOST_BYTES bytes go together, so that a burst delays an urgent file by one delivery at
    the most and a large file delays nobody else's answer.
    """
    new = sorted((upload for upload in listed if upload.identity not in known), key=lambda u: (u.last_modified, u.key))
    deliveries: list[list[Upload]] = []
    room_files, room_bytes = 0, 0
    for upload in new:
        if room_files < 1 or room_bytes < weight(upload):
            deliveries.append([])
            room_files, room_bytes = MOST_FILES, MOST_BYTES
        deliveries[-1].append(upload)
        room_files, room_bytes = room_files - 1, room_bytes - weight(upload)
    return deliveries


class DeliveryLog:
    """The deliveries there are. Keeps what it has read, so that a later look costs only what is new.

    Every SEGMENT deliveries, their uploads are written once more as one object, so that whoever starts anew reads few.
    """

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._log = AppendOnlyLog(store, DELIVERIES)
        self._segments = AppendOnlyLog(store, KNOWN)
        self._known: set[Identity] = set()
        self._since_segment: list[Identity] = []
        self._read_to = 0
        self._last: Delivery | None = None

    @property
    def last_number(self) -> int:
        """The number of the last delivery read so far."""
        return self._read_to

    def listed_uploads(self) -> Iterator[Upload]:
        """Every upload visible now."""
        return (Upload.of(found) for found in self._store.list(UPLOADS) if is_upload(found.key))

    def catch_up(self) -> set[Identity]:
        """Read the deliveries that were added since the last call; returns the identities of all known uploads."""
        if not self._read_to:
            for segment in self._segments.entries(at_once=SEGMENTS_AT_ONCE):
                self._known.update(_identity(upload) for upload in segment.document["uploads"])
                self._read_to += SEGMENT
        for entry in self._log.entries(self._read_to):
            self._note(entry)
        return self._known

    def get(self, number: int) -> Delivery:
        """One delivery. Raises ObjectMissing."""
        return _delivery(self._log.read(number))

    def deliveries_of(self, key: str) -> list[Delivery]:
        """The deliveries with an upload under a key, in order."""
        found: list[Delivery] = []
        read_to = 0
        for segment in self._segments.entries():
            if any(_identity(upload)[0] == key for upload in segment.document["uploads"]):
                found += [self.get(number) for number in range(read_to + 1, read_to + SEGMENT + 1)]
            read_to += SEGMENT
        found += [_delivery(entry) for entry in self._log.entries(read_to)]
        return [delivery for delivery in found if any(upload.key == key for upload in delivery.uploads)]

    def has(self, delivery: str) -> bool:
        """Whether this is the name of a delivery."""
        is_name = bool(NAME.fullmatch(delivery)) and delivery_id(int(delivery)) == delivery
        return is_name and self._store.head(delivery_key(delivery)) is not None

    def assign_new(self, noticed_at: datetime, listed: Iterable[Upload] | None = None) -> list[Delivery]:
        """Assign every upload (of those listed, else of all) that no delivery has yet, and return the deliveries made.

        Where another daemon appends first, what it took is left out and the rest planned anew. No delivery is noticed
        before the one it follows, whatever the clocks of the daemons say.
        """
        made: list[Delivery] = []
        found = list(self.listed_uploads() if listed is None else listed)
        known = self.catch_up()
        while planned := plan(found, known):
            for uploads in planned:
                noticed = not_before(noticed_at, *self._last_noticed())
                document = {"noticed_at": noticed, "uploads": [asdict(upload) for upload in uploads]}
                entry = self._log.append(document, after=self._read_to)
                if entry is None:
                    break
                self._note(entry)
                made.append(_delivery(entry))
            known = self.catch_up()
        return made

    def unanswered(self) -> list[int]:
        """The numbers of all deliveries that have no answer yet."""
        answered = {found.key for found in self._store.list(ANSWERED)}
        return [number for number in range(1, self._read_to + 1) if answered_key(delivery_id(number)) not in answered]

    def _last_noticed(self) -> list[str]:
        """When the last delivery was noticed; nothing where there is none."""
        if self._read_to and (self._last is None or self._last.number != self._read_to):  # known from a segment only
            self._last = self.get(self._read_to)
        return [self._last.noticed_at] if self._last else []

    def _note(self, entry: Entry) -> None:
        self._last = _delivery(entry)
        found = [upload.identity for upload in self._last.uploads]
        since = self._since_segment + found
        if entry.number % SEGMENT == 0:
            # before anything further is read, so that no segment is ever left out; the first to write it is as good
            self._segments.append({"uploads": since}, after=entry.number // SEGMENT - 1)
            since = []
        self._since_segment = since
        self._known.update(found)
        self._read_to = entry.number


def _identity(parts: Sequence[Any]) -> Identity:
    key, etag, size, last_modified = parts
    return str(key), str(etag), int(size), str(last_modified)


def _delivery(entry: Entry) -> Delivery:
    found: Sequence[Mapping[str, Any]] = entry.document["uploads"]
    return Delivery(entry.number, tuple(Upload(**upload) for upload in found), entry.document["noticed_at"])
