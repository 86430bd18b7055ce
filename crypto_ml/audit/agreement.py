"""What records say, held against when S3 says that they were written, against each other and against the chain.

Belongs here: where what two records say cannot be true together, and where what one names is not there. Does not belong
here: what a record says (`vouching`), and the bytes of objects that it vouches for (`vouched`).
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from crypto_ml.audit.tolerance import Tolerance
from crypto_ml.audit.verified import Findings, counted
from crypto_ml.audit.vouching import Published, Said, repeated_otherwise, said_by
from crypto_ml.audit.walk import Chained
from crypto_ml.ledger.deliveries import delivery_id, delivery_key
from crypto_ml.ledger.formats.reading import RecordDamaged
from crypto_ml.ledger.layout import ANSWERS, answered_key
from crypto_ml.ledger.receipts import read_receipt
from crypto_ml.storage.failures import ObjectMissing
from crypto_ml.storage.objects import ObjectStore, StoredObject


class Agreement:
    """What records say, by their keys, those that were read. there: all records that there are."""

    def __init__(
        self, said: Mapping[str, Said], there: Mapping[str, StoredObject], chained: Chained, findings: Findings,
        store: ObjectStore,
    ) -> None:  # fmt: skip
        self._said = said
        self._there = there
        self._chained = chained
        self._findings = findings
        self._store = store

    def hold(self, tolerance: Tolerance) -> str | None:
        """Note what cannot be; returns what is no fault, and worth knowing."""
        answers = {answer for one in self._said.values() for answer in one.answers}
        entries: dict[str, Any] = {}
        for key, one in self._said.items():
            self._hold_times(key, one, tolerance)
            self._hold_named(key, one, answers)
            self._hold_repeated(key, one, entries)
        return self._hold_receipts_against_outcomes()

    def _hold_times(self, key: str, one: Said, tolerance: Tolerance) -> None:
        copied = self._chained.links[key] <= self._chained.first_look
        written = self._chained.first_written.get(key, self._chained.records[key].written)
        for claim in one.claims:
            if wrong := tolerance.refuted(claim, datetime.fromisoformat(written), copied=copied):
                self._findings.add("backdated", key, wrong)

    def _hold_named(self, key: str, one: Said, answers: set[str]) -> None:
        """Records and answers that a record names are there. answers: those whose receipts were read."""
        for vouched, sha256 in one.records.items():
            known = self._chained.records.get(vouched)
            if known is None and vouched not in self._there:
                self._findings.add("missing", vouched, f"{key} names it, and it is not there")
            elif known is not None and known.sha256 != sha256:
                self._findings.add("inconsistent", key, f"it names another {vouched} than the chain has")
        for answer, _ in one.answered.values():
            if answer and answer not in answers and not self._has_receipt(answer):
                self._findings.add("missing", key, f"it names answer {answer}, of which there is no receipt")

    def _has_receipt(self, answer: str) -> bool:
        try:
            read_receipt(answer, self._store)
        except (ObjectMissing, RecordDamaged):
            return False
        return True

    def _hold_repeated(self, key: str, one: Said, entries: dict[str, Any]) -> None:
        """A record says nothing twice, and not otherwise. entries: of the champion pointer, those read before."""
        try:
            for wrong in (*one.contradicts, *repeated_otherwise(one, self._store, entries)):
                self._findings.add("inconsistent", key, wrong)
        except (ObjectMissing, RecordDamaged) as error:
            self._findings.add("inconsistent", key, f"the entry of the champion pointer that it repeats: {error}")

    def _hold_receipts_against_outcomes(self) -> str | None:
        """Every receipt of a file is of a delivery that there was; those that its outcomes do not name are told."""
        outcomes = {one.delivery: one for one in self._said.values() if one.delivery}
        unnamed = []
        for key, one in self._said.items():
            for published in one.published if key.startswith(ANSWERS) else ():
                entry = delivery_key(delivery_id(published.delivery))
                if entry not in self._there and entry not in self._chained.records:
                    what = f"it answers an upload of delivery {published.delivery}, and there was none"
                    self._findings.add("extra", key, what)
                elif not self._is_named(published, outcomes):
                    unnamed.append(key)
        if not unnamed:
            return None
        return (
            f"{counted(len(unnamed), 'receipt')} that no outcome names, as of a run that died, or of a delivery "
            f"that was answered again: {unnamed[0]}; `crypto-ml replay` says whether its numbers come out"
        )

    def _is_named(self, published: Published, outcomes: dict[int, Said]) -> bool:
        """Whether the outcomes of its delivery name an answer, or are not there, or wrong. outcomes: those read."""
        number = published.delivery
        closed = answered_key(delivery_id(number))
        if closed not in self._there or closed in self._findings.keys:
            return True
        if number not in outcomes:
            outcomes[number] = said_by(closed, self._store.read(closed), self._store.uri(closed))
        answered = outcomes[number].answered.get(published.upload)
        return answered is not None and answered[0] == published.answer
