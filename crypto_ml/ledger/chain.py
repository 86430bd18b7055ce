"""The chain of evidence: numbered links, each with the hashes of the records that came since, and of the link before.

What belongs here: which stored objects are records of evidence, and the links as they stand. What makes a new link is
in `crypto_ml.stages.evidence_chain`; what holds the chain against the store, in `crypto_ml.audit.verify`.

A record is a document that is written once (an outcome that was given up may be replaced by its answer, once). The data
that records vouch for by its hash is no record: the bytes of uploads, accepted rows, the files of the tables, of model
bundles, and what is published.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Final

from crypto_ml.digest import sha256_of
from crypto_ml.forecasting.ahead import ahead
from crypto_ml.ledger.formats.chain_v1 import FORMAT, Link, Record
from crypto_ml.ledger.formats.outcomes_v1 import may_be_replaced
from crypto_ml.ledger.formats.reading import RecordDamaged, read_record, too_new
from crypto_ml.ledger.layout import ANSWERED, CHAIN, MODELS, RAW, TRAINING_SETS, TUNINGS
from crypto_ml.ledger.log import AppendOnlyLog
from crypto_ml.storage.failures import AlreadyExists
from crypto_ml.storage.objects import ObjectStore, StoredObject, rendered
from crypto_ml.storage.probe import PROBES

AT_ONCE: Final = 16
RECORDED_BELOW: Final = (
    "receipts/",
    f"{RAW}received/",
    f"{RAW}cleaned/",
    f"{RAW}appends/",
    f"{RAW}compactions/",
    f"{MODELS}bundles/",
    f"{MODELS}champion/",
    TRAINING_SETS,
    TUNINGS,
)
"""Below these stand all records, and nothing else but what `is_record` leaves out."""

NO_RECORDS: Final = (CHAIN, PROBES)
"""The chain itself, and what a process writes and removes again to see whether the store keeps claims."""


def is_record(key: str) -> bool:
    """Whether what stands under a key is a record, and not what a record vouches for."""
    if key.startswith(NO_RECORDS) or not key.startswith(RECORDED_BELOW):
        return False
    if key.startswith(f"{RAW}cleaned/"):
        return key.endswith(".json")
    return not key.startswith(f"{MODELS}bundles/") or key.endswith("/bundle.json")


def records_listed(store: ObjectStore, after: Mapping[str, str] | None = None) -> Iterator[StoredObject]:
    """The records that there are now; after: prefix → where its listing begins, of those prefixes alone."""
    beginnings = dict.fromkeys(RECORDED_BELOW, "") if after is None else after
    for prefix, begin in beginnings.items():
        for found in store.list(prefix, start_after=begin or None):
            if is_record(found.key):
                yield found


def record_of(listed: StoredObject, content: bytes) -> Record:
    """A record as it is listed and read."""
    return Record(
        listed.key, sha256_of(content), len(content), listed.etag, moment(listed.last_modified),
        open=listed.key.startswith(ANSWERED) and may_be_replaced(content),
    )  # fmt: skip


def moment(time: datetime) -> str:
    """A time as records have it; of two, the later one is greater as text."""
    return time.astimezone(UTC).isoformat(timespec="seconds")


@dataclass(frozen=True)
class Stored:
    """A link as it stands: the sha256 of its bytes, by which the next one names it, and what S3 says of its time."""

    link: Link
    sha256: str
    written: datetime


@dataclass(frozen=True)
class Head:
    """The last link of a chain, by which the whole of it is named."""

    number: int
    sha256: str
    at: str


class EvidenceChain:
    """The links of a store. Raises what ObjectStore raises."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._log = AppendOnlyLog(store, CHAIN)

    def key(self, number: int) -> str:
        """The key of a link."""
        return self._log.key(number)

    def listed(self, after: int = 0) -> list[StoredObject]:
        """The objects of the links behind a number, in order."""
        return list(self._store.list(CHAIN, start_after=self.key(after) if after else None))

    def read(self, listed: StoredObject) -> Stored:
        """A link as it was listed. Raises RecordDamaged, RecordTooNew."""
        return self.parsed(listed, self._store.read_pinned(listed))

    def sha256_at(self, listed: StoredObject) -> str:
        """The sha256 of a link's bytes as they stand."""
        return sha256_of(self._store.read_pinned(listed))

    def parsed(self, listed: StoredObject, content: bytes) -> Stored:
        """A link from its bytes. Raises RecordDamaged, RecordTooNew."""
        where = self._store.uri(listed.key)
        try:
            document = json.loads(content)
        except ValueError as error:
            raise RecordDamaged(f"{where} is not as it was written; restore it") from error
        found = document.get("format") if isinstance(document, dict) else None
        if isinstance(found, int) and found > FORMAT:
            raise too_new("link of the chain of evidence", where, found, FORMAT)
        return Stored(read_record(Link, document, where), sha256_of(content), listed.last_modified)

    def contents(self, listed: Iterable[StoredObject]) -> Iterator[tuple[StoredObject, bytes]]:
        """Links as they were listed, with their bytes, in order."""
        with ThreadPoolExecutor(AT_ONCE) as pool:
            yield from ahead(lambda one: (one, self._store.read_pinned(one)), listed, pool, AT_ONCE)

    def head(self) -> Head | None:
        """The last link; None where there is none."""
        listed = self.listed()
        if not listed:
            return None
        stored = self.read(listed[-1])
        return Head(stored.link.number, stored.sha256, stored.link.at)

    @staticmethod
    def sha256_of(link: Link) -> str:
        """The sha256 of a link's bytes as they are stored."""
        return sha256_of(_content(link))

    def append(self, link: Link) -> Head | None:
        """Add a link; None where somebody else has added one of this number, and nothing was written."""
        content = _content(link)
        try:
            self._store.create(self.key(link.number), content, content_type="application/json")
        except AlreadyExists:
            return None
        return Head(link.number, sha256_of(content), link.at)


def _content(link: Link) -> bytes:
    return rendered(asdict(link))
