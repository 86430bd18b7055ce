"""What there is in the store, listed once for all that look at it, and with its versions where nothing is replaced.

Belongs here: which places are written once, and what is listed of any. Does not belong here: what versions say, which
is in `versions`.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import datetime
from typing import Final

from crypto_ml.audit.versions import Versions
from crypto_ml.ledger.layout import MODELS, RAW
from crypto_ml.storage.objects import ObjectStore, StoredObject
from crypto_ml.storage.probe import PROBES

RECORDED_IN: Final = ("receipts/", RAW, MODELS)
WRITTEN_ONCE_IN: Final = (*RECORDED_IN, "market_history/")
"""Where nothing is ever replaced or deleted, but for what `_is_written_once` leaves out."""

COMMITS: Final = ("market_history/_delta_log/0", ".json")
"""Prefix and ending."""


class Listing:
    """The listings of a store. versions: what S3 has kept, as far as it was listed."""

    def __init__(self, store: ObjectStore) -> None:
        self.versions = Versions(store)
        self._store = store
        self._there: dict[str, StoredObject] = {}
        self._places: set[str] = set()

    def of(self, keys: Iterable[str], *, anew: bool = False) -> Mapping[str, StoredObject]:
        """What there is in the places of some keys, and what was listed before. anew: of these places, as it is now."""
        for place in sorted({key[: key.find("/") + 1] for key in keys}):
            if anew or place not in self._places:
                self._places.add(place)
                for key in [key for key in self._there if key.startswith(place)]:
                    del self._there[key]
                once = place in WRITTEN_ONCE_IN
                self._there |= (
                    self.versions.listed(place) if once else {found.key: found for found in self._store.list(place)}
                )
        return self._there

    def knows_what_is_gone(self, prefix: str) -> bool:
        """Whether S3 has kept anything below a prefix that is not there any more."""
        self.of([prefix])
        return self.versions.of_what_is_gone(prefix)

    def replaced(self, vouched: Collection[str], since: datetime | None) -> Iterator[tuple[str, str]]:
        """Keys of what is written once and was replaced or deleted, as far as S3 has kept that, with what it has of it.
        vouched: the objects that records vouch for. since: only where anything of that came since then."""
        self.of(WRITTEN_ONCE_IN)
        return self.versions.wrong(lambda key: _is_written_once(key, vouched), since)


def _is_written_once(key: str, vouched: Collection[str]) -> bool:
    if key.startswith(PROBES):
        return False
    if key.startswith(RECORDED_IN) or key in vouched:
        return True
    begin, ending = COMMITS
    return key.startswith(begin) and key.endswith(ending)
