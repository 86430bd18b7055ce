"""The objects that records vouch for by their hashes, held against those; and what nothing vouches for.

Belongs here: the bytes of what is no record: of uploads, rows, tables and bundles. Does not belong here: what is
published, which an answer takes the place of (`published`).
"""

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import Final

from crypto_ml.audit.hashed import Hashes
from crypto_ml.audit.listing import COMMITS, Listing
from crypto_ml.audit.published import Standing
from crypto_ml.audit.verified import Findings
from crypto_ml.audit.vouching import Said
from crypto_ml.audit.walk import Chained
from crypto_ml.ledger.chain import moment
from crypto_ml.ledger.layout import FORECASTS, MODELS, PREDICTIONS

VOUCHED_ONLY: Final = (
    COMMITS,
    (COMMITS[0], ".checkpoint.parquet"),
    (f"{MODELS}bundles/", ""),
    (PREDICTIONS, ".csv"),
    (FORECASTS, ".csv"),
)
"""What nothing writes before a record vouches for it, or soon after: prefix and ending. Runs that died leave other
objects behind, such as data files that no commit names."""


class Vouched:
    """The objects that records vouch for. right: key → sha256, ETag and LastModified of those that were read, in this
    look or before, and have the hash that they have to have."""

    def __init__(
        self, right: Mapping[str, tuple[str, str, str]], listing: Listing, chained: Chained, findings: Findings
    ) -> None:
        self.right = dict(right)
        self._listing = listing
        self._chained = chained
        self._findings = findings

    def hold(self, said: Mapping[str, Said], hashes: Hashes) -> int:
        """Every object that a record vouches for, read where it was not since it was written; how many were."""
        wanted = {key: sha256 for key, (sha256, _, _) in self.right.items()}
        by: dict[str, str] = {}
        for key, one in said.items():
            for name, sha256 in one.objects.items():
                if wanted.get(name, sha256) != sha256:
                    what = f"it vouches for another {name} than a record before it does"
                    self._findings.add("inconsistent", key, what)
                wanted[name] = sha256
                by[name] = key
        there = self._listing.of(wanted)
        asked = []
        for key, sha256 in wanted.items():
            found = there.get(key)
            if found is None:
                self._wrong("missing", key, f"it is gone, and {by.get(key, 'a record')} vouches for it", by)
            elif self.right.get(key) != (sha256, found.etag, moment(found.last_modified)):
                asked.append(found)
        for found, sha256 in hashes.of(asked, "objects"):
            written = moment(found.last_modified)
            if sha256 == wanted[found.key]:
                self.right[found.key] = (sha256, found.etag, written)
            else:
                what = f"its bytes are not those that {by.get(found.key, 'a record')} vouches for"
                self._wrong("changed", found.key, f"{what}; S3 says that it was written {written}", by)
        return len(asked)

    def _wrong(self, kind: str, key: str, what: str, by: Mapping[str, str]) -> None:
        """Note it with the link of the record that vouches for it."""
        self._findings.add(kind, key, what, self._chained.links.get(by.get(key, "")))

    def unvouched(self, standing: Standing, late: timedelta) -> Iterator[tuple[str, str]]:
        """Keys of what was written since the chain began where nothing stands that no record vouches for, and when.
        standing: what may stand where answers are published. late: how much later than it was written an object may
        come to be listed."""
        if self._chained.began_with is None or self._chained.complete is None:
            return
        begin = datetime.fromisoformat(self._chained.began_with)
        until = datetime.fromisoformat(self._chained.complete) - late
        vouched = (self._chained.records, self.right, standing.expected(), self._findings.keys)
        for prefix, ending in VOUCHED_ONLY:
            for found in self._listing.of([prefix]).values():
                if not found.key.startswith(prefix):
                    continue
                known = any(found.key in some for some in vouched)
                if found.key.endswith(ending) and not known and begin < found.last_modified < until:
                    written = moment(found.last_modified)
                    yield found.key, f"nothing vouches for it, and S3 says that it was written {written}"
