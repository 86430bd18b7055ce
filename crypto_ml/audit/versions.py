"""What S3 kept of the versions of objects, where the bucket keeps any: evidence is written once, and so has one.

Who replaces an object and puts the first bytes back, or deletes it and writes it again, leaves that behind, and no hash
tells it. One listing has both, what there is now and what there was, so that looking at versions costs no request more.
What belongs here: what a listing says of versions, and which of it cannot be. What is written once, and what else is
listed, is in `listing`.
"""

from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime
from typing import Final

from crypto_ml.ledger.chain import moment
from crypto_ml.ledger.formats.outcomes_v1 import may_be_replaced
from crypto_ml.ledger.layout import ANSWERED
from crypto_ml.storage.failures import ObjectChanged, VersionsNotListed
from crypto_ml.storage.objects import ObjectStore, StoredObject, StoredVersion

MOST_NAMED: Final = 6


class Versions:
    """The listings of a store, and what they say besides what there is now."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._several: dict[str, list[StoredVersion]] = {}
        self._not_listed: str | None = None
        self._first_kept: datetime | None = None
        self._newest_unkept: StoredVersion | None = None

    def listed(self, place: str) -> dict[str, StoredObject]:
        """What there is below a prefix now, by its keys. Raises what the store raises."""
        if self._not_listed is None:
            try:
                there, several = self._listing(place)
            except VersionsNotListed as error:
                self._not_listed = str(error)
            else:
                if there or several:
                    self._several |= several
                    return there
        there = {found.key: found for found in self._store.list(place)}
        if there and self._not_listed is None:  # what asks for versions was not understood, and answered all the same
            self._not_listed = f"The store lists no versions below {self._store.uri(place)}, although there are objects"
        return there

    def _listing(self, place: str) -> tuple[dict[str, StoredObject], dict[str, list[StoredVersion]]]:
        there: dict[str, StoredObject] = {}
        only: dict[str, StoredVersion] = {}
        several: dict[str, list[StoredVersion]] = {}
        for found in self._store.versions(place):
            self._note(found)
            if found.latest and found.etag is not None:
                there[found.key] = StoredObject(found.key, found.size, found.etag, found.last_modified)
                only[found.key] = found
            else:
                several.setdefault(found.key, []).append(found)
        for key, some in several.items():
            if key in only:
                some.append(only[key])
            some.sort(key=lambda one: (one.last_modified, one.latest))
        return there, several

    def _note(self, found: StoredVersion) -> None:
        """From when on the bucket has kept versions, and what it kept none of since."""
        if found.version_id is not None:
            self._first_kept = min(self._first_kept or found.last_modified, found.last_modified)
        elif self._newest_unkept is None or found.last_modified > self._newest_unkept.last_modified:
            self._newest_unkept = found

    @property
    def compared(self) -> bool:
        """Whether the bucket keeps versions, and they were seen."""
        return self._not_listed is None and self._first_kept is not None

    @property
    def note(self) -> str | None:
        """Why versions were not compared, or not all; None where they were."""
        if self._not_listed is not None:
            return f"versions were not compared: {self._not_listed}"
        if self._first_kept is None:
            return "versions were not compared: the bucket keeps none, so that what was put back is not seen"
        unkept = self._newest_unkept
        if unkept is not None and unkept.last_modified > self._first_kept:
            return (
                f"the bucket has kept versions since {moment(self._first_kept)}, but none of {unkept.key}, written "
                f"{moment(unkept.last_modified)}: versioning was suspended, and what was replaced meanwhile is not seen"
            )
        return None

    def of_what_is_gone(self, prefix: str) -> bool:
        """Whether there are versions below a prefix of what was deleted or replaced."""
        return any(key.startswith(prefix) for key in self._several)

    def wrong(self, is_written_once: Callable[[str], bool], since: datetime | None) -> Iterator[tuple[str, str]]:
        """Keys of what is written once and was deleted or written again, with what S3 has of it. since: only where
        anything of that came since then."""
        for key, some in sorted(self._several.items()):
            if is_written_once(key) and (since is None or some[-1].last_modified >= since):
                if key.startswith(ANSWERED) and self._gave_way(some):
                    continue
                shown = [_said(one) for one in some]
                if len(shown) > MOST_NAMED:
                    half = MOST_NAMED // 2
                    shown = [*shown[:half], f"{len(shown) - MOST_NAMED} more", *shown[-half:]]
                yield key, f"it is written once, and S3 knows that it was {', '.join(shown)}"

    def _gave_way(self, some: list[StoredVersion]) -> bool:
        """Whether each version of a delivery's outcomes but the last is one that an answer may take the place of."""
        return all(one.etag is not None for one in some) and all(self._is_open(one) for one in some[:-1])

    def _is_open(self, one: StoredVersion) -> bool:
        found = StoredObject(one.key, one.size, str(one.etag), one.last_modified, one.version_id)
        with suppress(ObjectChanged):  # removed since it was listed: whoever did that has an answer to give
            return may_be_replaced(self._store.read_pinned(found))
        return False


def _said(one: StoredVersion) -> str:
    version = f"version {one.version_id}" if one.version_id else "no version"
    return f"{'deleted' if one.etag is None else 'written'} {moment(one.last_modified)} ({version})"
