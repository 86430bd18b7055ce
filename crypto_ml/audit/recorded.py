"""The records held against what the chain has of them: each there, with those bytes, and in a link.

Belongs here: which records have to be read, and whether they are those that were taken in. Does not belong here:
whether what they say can be, which is in `agreement`.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta

from crypto_ml.audit.verified import Findings, counted
from crypto_ml.audit.vouching import Said, said_by
from crypto_ml.audit.walk import Chained
from crypto_ml.digest import sha256_of
from crypto_ml.errors import Unavailable
from crypto_ml.forecasting.ahead import ahead
from crypto_ml.forecasting.progress import Progress, Tell
from crypto_ml.ledger.chain import AT_ONCE, moment
from crypto_ml.ledger.formats.chain_v1 import Record
from crypto_ml.ledger.formats.outcomes_v1 import may_be_replaced
from crypto_ml.ledger.layout import ANSWERED
from crypto_ml.storage.failures import ObjectChanged
from crypto_ml.storage.objects import ObjectStore, StoredObject


class Recorded:
    """The records that there are, by their keys, and what became of them. bytes_read: of those that are right."""

    def __init__(
        self, there: Mapping[str, StoredObject], chained: Chained, findings: Findings, store: ObjectStore
    ) -> None:
        self.bytes_read = 0
        self._there = there
        self._chained = chained
        self._findings = findings
        self._store = store
        self._rewritten: list[str] = []

    @property
    def note(self) -> str | None:
        """Which records were written again; None where none was."""
        if not self._rewritten:
            return None
        return (
            f"{counted(len(self._rewritten), 'record')} written again since, with the same bytes: "
            f"{self._rewritten[0]}, as a copy or a restored backup is"
        )

    def to_read(self, verified: Mapping[str, Record], first: int | None) -> list[str]:
        """The records that have to be read; those that are gone are noted. verified: as they were found right before;
        first: the link from which on it is asked."""
        asked = []
        for key, record in self._chained.records.items():
            if key in self._findings.keys or (first is not None and self._chained.links[key] < first):
                continue
            found = self._there.get(key)
            if found is None:
                self._findings.add("missing", key, "it is gone")
                continue
            same = (found.etag, moment(found.last_modified)) == (record.etag, record.written)
            if not same or verified.get(key) != record:
                asked.append(key)
        return asked

    def waiting(self, late: timedelta) -> dict[str, StoredObject]:
        """The records that no link names: those that came since, and noted, those that nobody took in. late: how much
        later than it was written one may come to be listed."""
        complete = self._chained.complete
        until = datetime.fromisoformat(complete) - late if complete else None
        waiting = {}
        for key, found in self._there.items():
            if key in self._chained.records:
                continue
            if until is not None and found.last_modified < until:
                what = f"no link names it, although it was written {moment(found.last_modified)}"
                self._findings.add("extra", key, what)
            else:
                waiting[key] = found
        return waiting

    def read(self, keys: Sequence[str], tell: Tell) -> dict[str, Said]:
        """What records say, of those that are as the chain has them."""
        said: dict[str, Said] = {}
        with ThreadPoolExecutor(AT_ONCE) as pool:
            for done, (key, content) in enumerate(ahead(self._content, keys, pool, AT_ONCE * 2), 1):
                tell(Progress("records", done, len(keys), "records"))
                if one := self._held(key, content):
                    said[key] = one
        return said

    def _content(self, key: str) -> tuple[str, bytes | None]:
        try:
            return key, self._store.read_pinned(self._there[key])
        except ObjectChanged:
            return key, None

    def _held(self, key: str, content: bytes | None) -> Said | None:
        """What a record says, held against its link; None where it is not right."""
        record, written = self._chained.records[key], moment(self._there[key].last_modified)
        if content is None or sha256_of(content) != record.sha256:
            # S3 tells whole seconds, and an answer may come within the one in which an upload was given up
            if not record.open or written < record.written:  # else answered since then, and not in the chain yet
                what = f"its bytes are not those that were taken in; S3 says that it was written {written}"
                self._findings.add("changed", key, what)
            return None
        self.bytes_read += len(content)
        if record.open != (key.startswith(ANSWERED) and may_be_replaced(content)):
            self._findings.add("chain", key, "its link says otherwise than its bytes whether it may be replaced")
        if written != record.written:
            self._rewritten.append(key)
        try:
            return said_by(key, content, self._store.uri(key))
        except Unavailable:
            raise
        except Exception as error:  # noqa: BLE001 - whatever is in a record, the look goes on
            self._findings.add("damaged", key, f"it does not say what such a record says ({error})")
        return None
