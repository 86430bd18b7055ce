"""What has to stand where answers are published: the objects of the newest answer to an upload, or of one under way."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from crypto_ml.audit.vouching import Published, Said
from crypto_ml.digest import sha256_of
from crypto_ml.ledger.formats.reading import RecordDamaged
from crypto_ml.ledger.layout import answered_key
from crypto_ml.ledger.receipts import read_receipt
from crypto_ml.stages.forecast_publication import EMPTY_LIST
from crypto_ml.storage.failures import ObjectMissing
from crypto_ml.storage.objects import ObjectStore


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
    """What may stand, as far as receipts and outcomes were read. before: what was known from earlier looks; stood: the
    sha256 of what stood then, by key. over: what was to be published before this moment is, or never will be."""

    def __init__(
        self, before: Mapping[str, Sequence[Stands]], stood: Mapping[str, str], store: ObjectStore, over: datetime
    ) -> None:
        self._by_key: dict[str, list[Stands]] = {key: list(found) for key, found in before.items()}
        self._keys_of: dict[str, list[str]] = {}
        for key, some in self._by_key.items():
            for one in some:
                self._keys_of.setdefault(one.answer, []).append(key)
        self._outcomes: dict[str, str] = {}
        self._answers: dict[str, Published] = {}
        self._store = store
        self._stood = stood
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


def _newest(found: Sequence[Stands]) -> Sequence[Stands]:
    newest = max((one.delivery for one in found if one.closed), default=0)
    return [one for one in found if one.delivery >= newest]
