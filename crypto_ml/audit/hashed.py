"""Objects read for their hashes, many at once.

Belongs here: reading, told and counted. Does not belong here: which objects, and what their hashes have to be
(`vouched`, `published`). Records are read where they are held against the chain (`recorded`), for what they say.
"""

import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from crypto_ml.forecasting.ahead import ahead
from crypto_ml.forecasting.progress import Progress, Tell
from crypto_ml.ledger.chain import AT_ONCE
from crypto_ml.storage.failures import ObjectChanged
from crypto_ml.storage.objects import ObjectStore, StoredObject


class Hashes:
    """The hashes of a store's objects. bytes_read: for all that were asked for."""

    def __init__(self, store: ObjectStore, tell: Tell) -> None:
        self.bytes_read = 0
        self._store = store
        self._tell = tell

    def of(self, asked: Sequence[StoredObject], what: str) -> Iterator[tuple[StoredObject, str]]:
        """Each object, in order, with the sha256 of its bytes; an empty one where it was replaced since it was listed.
        what: the work, as it is told."""
        with ThreadPoolExecutor(AT_ONCE) as pool:
            for done, (found, sha256, size) in enumerate(ahead(self._hashed, asked, pool, AT_ONCE * 2), 1):
                self._tell(Progress(what, done, len(asked), "objects"))
                self.bytes_read += size
                yield found, sha256

    def _hashed(self, found: StoredObject) -> tuple[StoredObject, str, int]:
        digest, size = hashlib.sha256(), 0
        try:
            for piece in self._store.chunks(found):
                digest.update(piece)
                size += len(piece)
        except ObjectChanged:
            return found, "", 0
        return found, digest.hexdigest(), size
