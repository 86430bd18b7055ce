"""What is looked at under `uploads/`, so that a look costs what is new and not what is old.

A look lists at most SWEPT_KEYS keys of the whole prefix and goes on there the next time: small boxes are seen whole in
every look, and a box of any size is seen whole every so many looks, the sweep. In a box that is larger than that, each
look also lists the ends of the folders in which the newest uploads arrived, so that names that grow (dates, counters)
are noticed at once. What only the sweep finds, within one round of it: a name that sorts before older ones of its
folder, and an overwritten key.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Final

from crypto_ml.ledger.deliveries import Identity, Upload
from crypto_ml.ledger.layout import UPLOADS, is_upload
from crypto_ml.storage.objects import ObjectStore, StoredObject

SWEPT_KEYS: Final = 2_000
"""Keys of the sweep that one look lists: two requests."""

GROWING_FOLDERS: Final = 4
REMEMBERED_FOLDERS: Final = 64


@dataclass
class _Folder:
    """What is known of a folder and all below it: its greatest key, and when its newest upload was written."""

    last_key: str
    newest: datetime


class UploadListing:
    """Looks at the uploads of one store, one after another; a look that fails leaves the next one where it was."""

    def __init__(self, store: ObjectStore, swept_keys: int = SWEPT_KEYS) -> None:
        self._store = store
        self._swept_keys = swept_keys
        self._position: str | None = None
        self._folders: dict[str, _Folder] = {}
        self.rounds = 0
        """How often the whole prefix was seen."""

    def learn(self, known: Iterable[Identity]) -> None:
        """Take over what is known of uploads already, so that the ends of folders are right from the first look on."""
        ends: dict[str, tuple[str, str]] = {}  # of each folder, not counting those below: greatest key, newest moment
        for key, _, _, last_modified in known:
            folder = key[: key.rfind("/") + 1]
            last_key, newest = ends.get(folder, ("", ""))
            if key > last_key or last_modified > newest:  # moments are UTC, whose order is that of their texts
                ends[folder] = max(key, last_key), max(last_modified, newest)
        for last_key, newest in ends.values():
            self._note(last_key, datetime.fromisoformat(newest))
        self._forget()

    def look(self) -> list[Upload]:
        """The uploads that this look sees, old ones among them. Raises StoreUnavailable, StoreRefused."""
        swept = self._list(UPLOADS, self._position)
        at_end = len(swept) < self._swept_keys
        ends: list[StoredObject] = []
        if not at_end or self._position is not None:
            for prefix, folder in self._growing():
                ends += self._list(prefix, folder.last_key)
        for found in (*swept, *ends):
            self._note(found.key, found.last_modified)
        self._forget()
        self._position = None if at_end else swept[-1].key
        self.rounds += at_end
        seen = {found.key: found for found in (*swept, *ends) if is_upload(found.key)}
        return [Upload.of(found) for found in seen.values()]

    def _list(self, prefix: str, after: str | None) -> list[StoredObject]:
        return list(islice(self._store.list(prefix, start_after=after), self._swept_keys))

    def _growing(self) -> list[tuple[str, _Folder]]:
        # many are often written within one second; then a folder comes before those in it, whose ends it covers
        newest = sorted(
            self._folders.items(), key=lambda item: (item[1].newest, -item[0].count("/"), item[0]), reverse=True
        )
        return newest[:GROWING_FOLDERS]

    def _note(self, key: str, written: datetime) -> None:
        for prefix in _folders(key):
            folder = self._folders.setdefault(prefix, _Folder(key, written))
            folder.last_key = max(folder.last_key, key)
            folder.newest = max(folder.newest, written)

    def _forget(self) -> None:
        if len(self._folders) > REMEMBERED_FOLDERS:
            newest = sorted(
                self._folders, key=lambda prefix: (self._folders[prefix].newest, -prefix.count("/")), reverse=True
            )
            self._folders = {prefix: self._folders[prefix] for prefix in newest[:REMEMBERED_FOLDERS]}


def _folders(key: str) -> Iterator[str]:
    """Every folder that a key is in, `uploads/` first."""
    at = key.find("/")
    while at >= 0:
        yield key[: at + 1]
        at = key.find("/", at + 1)
