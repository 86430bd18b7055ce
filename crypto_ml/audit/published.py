"""What stands where answers are published, held against what may: the objects of the newest answer to an upload, or of
one under way.

Belongs here: what replaces what there. Does not belong here: the notices beside predictions (`notices`), and what an
answer says that it published (`vouching`).
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from crypto_ml.audit.hashed import Hashes
from crypto_ml.audit.listing import Listing
from crypto_ml.audit.vouching import Published, Said, said_by
from crypto_ml.digest import sha256_of
from crypto_ml.errors import Unavailable
from crypto_ml.forecasting.ahead import ahead
from crypto_ml.ledger.chain import AT_ONCE, moment, records_listed
from crypto_ml.ledger.formats.chain_v1 import Record
from crypto_ml.ledger.formats.reading import RecordDamaged
from crypto_ml.ledger.layout import ANSWERED, ANSWERS, FORECAST_RECEIPTS, answered_key
from crypto_ml.ledger.receipts import read_receipt
from crypto_ml.stages.forecast_publication import EMPTY_LIST
from crypto_ml.storage.failures import ObjectMissing
from crypto_ml.storage.objects import ObjectStore, StoredObject


@dataclass(frozen=True)
class Stands:
    """An object that may stand under a key. delivery: of the answer that published it, of a forecast its place among
    all. answer: its id. closed: the outcomes of the delivery name it, so that nothing of an older delivery stands there
    any more. at: when a forecast was made, which no outcome names: it is closed once it was seen to stand, or when the
    longest run is over."""

    delivery: int
    answer: str
    sha256: str
    closed: bool = False
    at: str = ""


class Standing:
    """What may stand, as far as receipts and outcomes were read. before: what was known from earlier looks; stood: what
    stood then, with its sha256 first. over: what was to be published before this moment is, or never will be."""

    def __init__(
        self,
        before: Mapping[str, Sequence[Stands]],
        stood: Mapping[str, tuple[str, str, str]],
        store: ObjectStore,
        over: datetime,
    ) -> None:
        self._by_key: dict[str, list[Stands]] = {key: list(found) for key, found in before.items()}
        self._keys_of: dict[str, list[str]] = {}
        for key, some in self._by_key.items():
            for one in some:
                self._keys_of.setdefault(one.answer, []).append(key)
        self._outcomes: dict[str, str] = {}
        self._answers: dict[str, Published] = {}
        self._store = store
        self._stood = {key: sha256 for key, (sha256, _, _) in stood.items()}
        self._over = over

    def add(self, said: Said) -> None:
        """Take in what a record says."""
        for one in said.published:
            self._answers[one.answer] = one
        for answer, outcome in said.answered.values():
            if answer:
                self._outcomes[answer] = outcome
        forecast_id, place, at = said.forecast
        for key, sha256 in said.forecasts.items():
            self._note(key, Stands(place, forecast_id, sha256, at=at))
            if "left_out" in key:
                self._note(key, Stands(place, forecast_id, sha256_of(EMPTY_LIST), at=at))

    def expected(self) -> dict[str, set[str]]:
        """Key → the sha256 of what may stand there."""
        for one in self._answers.values():
            for key, sha256 in self._objects(one):
                self._note(key, Stands(one.delivery, one.answer, sha256))
        for answer, outcome in self._outcomes.items():
            known = self._answers.get(answer)
            if known and known.outcome != outcome:
                continue  # overtaken while it was published: a newer answer was there before
            for key in self._keys_of.get(answer, ()):
                self._by_key[key] = [
                    replace(one, closed=True) if one.answer == answer else one for one in self._by_key[key]
                ]
        self._outcomes = {}
        for key, some in self._by_key.items():
            self._by_key[key] = [replace(one, closed=one.closed or self._is_out(key, one)) for one in some]
        return {key: {one.sha256 for one in _newest(found)} for key, found in self._by_key.items()}

    def _is_out(self, key: str, one: Stands) -> bool:
        """Whether a forecast has been published, so that no older one stands there any more."""
        return bool(one.at) and (self._stood.get(key) == one.sha256 or datetime.fromisoformat(one.at) < self._over)

    def kept(self) -> dict[str, list[Stands]]:
        """What a later look has to know."""
        return {key: list(_newest(found)) for key, found in self._by_key.items()}

    def explains(self, key: str, content: bytes) -> bool:
        """Whether what stands under a key is the report on an upload that was given up, as its outcome says."""
        try:
            document: dict[str, Any] = json.loads(content)
            if document["answer_id"] is not None:
                return False
            outcomes = self._store.read_json(answered_key(document["delivery"]))
            given_up = outcomes[document["upload"]["key"]]["answer_id"] is None
            newest = max((one.delivery for one in self._by_key[key] if one.closed), default=0)
            return bool(given_up) and int(document["delivery"]) >= newest
        except (ValueError, KeyError, TypeError, ObjectMissing):
            return False

    def _note(self, key: str, stands: Stands) -> None:
        known = self._by_key.setdefault(key, [])
        if not any((one.answer, one.sha256) == (stands.answer, stands.sha256) for one in known):
            known.append(stands)
            self._keys_of.setdefault(stands.answer, []).append(key)

    def _objects(self, one: Published) -> Iterator[tuple[str, str]]:
        """What stands where an answer stands: its own, and the predictions of the one that it repeats."""
        yield from one.objects.values()
        if one.earlier:
            earlier = self._answer(one.earlier)
            for what in ("predictions", "rejected_rows"):
                if earlier and what in earlier and what not in one.objects:
                    yield earlier[what]

    def _answer(self, answer: str) -> Mapping[str, tuple[str, str]] | None:
        if answer in self._answers:
            return self._answers[answer].objects
        try:
            receipt = read_receipt(answer, self._store)
        except (ObjectMissing, RecordDamaged):
            return None
        return {what: (vouched.key, vouched.sha256) for what, vouched in receipt.published.items()}


class Stood:
    """What stands where answers are published. seen: key → sha256, ETag and LastModified of what was seen to stand as
    it may, in this look or before."""

    def __init__(
        self, seen: Mapping[str, tuple[str, str, str]], standing: Standing, listing: Listing, store: ObjectStore
    ) -> None:
        self.seen = dict(seen)
        self._standing = standing
        self._listing = listing
        self._store = store

    def wrong(self, waiting: Mapping[str, StoredObject], known: Mapping[str, Record], hashes: Hashes) -> dict[str, str]:
        """Keys of what is not what the newest answer published there, in a link or not yet, and what is wrong with it.
        waiting: the records that no link names; known: those that one does."""
        self._add_waiting(waiting)
        wrong = self._not_as_expected(hashes)
        if wrong:  # perhaps an answer came while this looked: its receipt stands before what it publishes
            listed = {found.key: found for found in records_listed(self._store) if found.key not in known}
            self._add_waiting({key: found for key, found in listed.items() if key not in waiting})
            wrong = self._not_as_expected(hashes)
        return wrong

    def _add_waiting(self, waiting: Mapping[str, StoredObject]) -> None:
        """Take in what records say of what they published that are in no link yet."""
        told = [found for key, found in waiting.items() if key.startswith((ANSWERS, ANSWERED, FORECAST_RECEIPTS))]
        with ThreadPoolExecutor(AT_ONCE) as pool:
            for one in ahead(self._said, told, pool, AT_ONCE * 2):
                self._standing.add(one)

    def _said(self, found: StoredObject) -> Said:
        try:
            return said_by(found.key, self._store.read_pinned(found), self._store.uri(found.key))
        except Unavailable:
            raise
        except Exception:  # noqa: BLE001 - it is looked at when it is in a link
            return Said()

    def _not_as_expected(self, hashes: Hashes) -> dict[str, str]:
        expected = self._standing.expected()
        there = self._listing.of(expected, anew=True)
        wrong: dict[str, str] = {}
        asked = []
        for key, may_stand in expected.items():
            found, before = there.get(key), self.seen.get(key, ("", "", ""))
            if found is None:
                wrong[key] = "it is gone, and an answer says that it was published"
            elif before[0] not in may_stand or before[1:] != (found.etag, moment(found.last_modified)):
                asked.append(found)
        for found, sha256 in hashes.of(asked, "published"):
            written = moment(found.last_modified)
            if sha256 in expected[found.key] or self._is_explained(found):
                self.seen[found.key] = (sha256, found.etag, written)
            else:
                wrong[found.key] = f"it is not what the newest answer published; S3 says that it was written {written}"
        return wrong

    def _is_explained(self, found: StoredObject) -> bool:
        try:
            return self._standing.explains(found.key, self._store.read(found.key))
        except ObjectMissing:
            return False


def _newest(found: Sequence[Stands]) -> Sequence[Stands]:
    newest = max((one.delivery for one in found if one.closed), default=0)
    return [one for one in found if one.delivery >= newest]
