"""An upload taken back: its rows stay, and count as void from the time of the decision on.

In this order: the decision is recorded, once for each upload whoever comes first; the upload's rows are appended to the
market history once more, as void rows; and beside predictions that answer the upload it is said that it was retracted.
Who comes again, after whatever died in between, goes on with the decision that stands.
"""

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from itertools import chain, count
from typing import Final
from uuid import uuid4

import pyarrow as pa
import pyarrow.compute as pc

from crypto_ml.digest import sha256_of
from crypto_ml.errors import Refused
from crypto_ml.ledger.clock import not_before
from crypto_ml.ledger.deliveries import Delivery, DeliveryLog, delivery_id
from crypto_ml.ledger.formats import retraction_v1
from crypto_ml.ledger.formats.retraction_v1 import Retraction
from crypto_ml.ledger.layout import JSON, UPLOADS, answer_keys, answered_key, append_key
from crypto_ml.ledger.receipts import read_receipt
from crypto_ml.ledger.reports import read_report
from crypto_ml.ledger.retractions import retraction_of, upload_id, write_retraction
from crypto_ml.stages.raw_uploads import read_received
from crypto_ml.storage.caller import caller
from crypto_ml.storage.failures import AlreadyExists, ObjectMissing
from crypto_ml.storage.history import SCHEMA, MarketHistory
from crypto_ml.storage.objects import ObjectStore, rendered

UPLOAD_ID: Final = re.compile(r"([0-9]+)\.([0-9]+)")
OF_A_REQUEST: Final = re.compile(r"[0-9]{18}(\.[0-9]+|-[0-9a-f]{16}(-[0-9]+)?)?|requests/[0-9]{18}/.*", re.DOTALL)
"""What receipts and answers name a request by. A file that is called so is named with `uploads/` before it."""


class UnknownUpload(Refused):
    """A name under which nothing was ever received."""


class NotAnsweredYet(Refused):
    """An upload that is on its way."""


class NothingToRetract(Refused):
    """An upload without rows in the history."""


class WhichUpload(Refused):
    """A key that was received more than once."""


class RetractedBefore(Refused):
    """An upload that another decision has retracted."""


class UnexplainedRetraction(Refused):
    """A retraction without who or why."""


@dataclass(frozen=True)
class Decision:
    """What somebody decided: the upload that is taken back, by whom and why.

    upload: a key, with or without `uploads/`, or an upload's id in the history. everything: every upload that was
    received under the key. id: what tells this decision from any other; decided again under the same id, or by the same
    person for the same reason, it is the same decision.
    """

    upload: str
    by: str
    why: str
    everything: bool = False
    id: str = field(default_factory=lambda: uuid4().hex)

    def of_run(self, run_id: str) -> "Decision":
        """The decision as one run takes it: the same however often the run, or a step of it, is tried again."""
        content = json.dumps([self.upload, self.by, self.why, self.everything])
        return replace(self, id=f"{run_id}-{sha256_of(content.encode())[:16]}")

    def is_in(self, retraction: Retraction) -> bool:
        """Whether a retraction that stands is what was decided here."""
        return retraction.decision == self.id or (retraction.by, retraction.why) == (self.by, self.why)


@dataclass(frozen=True)
class Retracted:
    """An upload that is retracted. versions: the versions of the history that made its rows void. rows: how many rows
    they made void. notice: where it is said beside the predictions; None where what stands answers another upload."""

    retraction: Retraction
    versions: Sequence[int]
    rows: int
    notice: str | None


@dataclass(frozen=True)
class _Received:
    """An upload as it was received."""

    id: str
    delivery: Delivery
    file: int

    @property
    def key(self) -> str:
        return self.delivery.uploads[self.file].key


def retract(decision: Decision, store: ObjectStore, history: MarketHistory, now: datetime) -> list[Retracted]:
    """Carry out a decision, once; one entry for each upload that it takes back.

    Raises UnexplainedRetraction, UnknownUpload, NotAnsweredYet, NothingToRetract, WhichUpload; RetractedBefore with who
    was first and why, where that retraction is carried out too.
    """
    if not decision.by.strip() or not decision.why.strip():
        raise UnexplainedRetraction("a retraction names who decided it and why; give both")
    retracted, others, acted_as = [], [], asdict(caller(store.client))
    for upload in _meant(decision, store, history):
        known_at = read_received(upload.delivery.id, store).at
        entry = upload.delivery.uploads[upload.file]
        at = not_before(now, known_at)
        said = Retraction(upload.id, entry, decision.by, decision.why, at, decision.id, acted_as=acted_as)
        stands = write_retraction(said, store)
        versions = carry_out(stands, history, store)
        if not decision.is_in(stands):
            others.append(stands)
        retracted.append(Retracted(stands, versions, _void_rows(upload.id, history), _say_beside(stands, store)))
    if others:
        raise RetractedBefore(" ".join(map(_before, others)))
    return retracted


def carry_out(retraction: Retraction, history: MarketHistory, store: ObjectStore) -> list[int]:
    """Make void whatever rows the upload has; returns the versions of the history that did so, one in most cases.

    There are more where its delivery was cleaned again afterwards and brought other rows. Done again, it does nothing.
    """
    versions: list[int] = []
    for number in count(1):
        name = f"retraction-{retraction.upload_id}-{number}"
        version = history.appended(name)
        if version is None:
            rows = _void(history.valid_rows(retraction.upload_id), retraction)
            first = next(rows, None)
            if first is None:
                return versions
            version = history.append(
                pa.RecordBatchReader.from_batches(SCHEMA, chain([first], rows)),
                append_id=name,
                known_at=datetime.fromisoformat(retraction.at),
                retracts=retraction.upload_id,
            )
        with suppress(AlreadyExists):
            store.create_json(append_key(name), asdict(history.commit_evidence(version)))
        versions.append(version)
    raise AssertionError  # counting never ends


def _void(rows: pa.RecordBatchReader, retraction: Retraction) -> Iterator[pa.RecordBatch]:
    known_at = pa.scalar(datetime.fromisoformat(retraction.at), SCHEMA.field("known_at").type)
    for batch in rows:
        if batch.num_rows:
            said = {"known_at": pa.repeat(known_at, batch.num_rows), "void": pa.repeat(True, batch.num_rows)}
            columns = [said.get(name, batch[name]) for name in SCHEMA.names]
            yield pa.RecordBatch.from_arrays(columns, schema=SCHEMA)


def _void_rows(upload: str, history: MarketHistory) -> int:
    return sum(pc.sum(batch["void"]).as_py() or 0 for batch in history.scan(["void"], upload=upload))


def _say_beside(retraction: Retraction, store: ObjectStore) -> str | None:
    """Put the notice beside the predictions, where those that stand answer the upload."""
    report = read_report(retraction.upload.key, store)
    if report is None or report.predictions is None:
        return None
    if (report.delivery, report.upload_key) != (retraction.delivery, retraction.upload.key):
        return None
    key = answer_keys(retraction.upload.key, store.room).retracted
    store.put_newest(key, rendered(retraction_v1.notice(retraction)), retraction.delivery, content_type=JSON)
    return key


def _meant(decision: Decision, store: ObjectStore, history: MarketHistory) -> list[_Received]:
    """The uploads that a decision is about, each answered and with rows."""
    named, by_id = _named(decision.upload, store)
    for upload in named:
        if store.head(answered_key(upload.delivery.id)) is None:
            raise NotAnsweredYet(
                f"{upload.key} (upload {upload.id}) is still to be answered: wait for its report, then retract it; "
                "`crypto-ml doctor` says what it waits for"
            )
    before = {upload.id: found for upload in named if (found := retraction_of(upload.id, store))}
    with_rows = [upload for upload in named if _has_rows(upload.id, history)]
    if not with_rows:
        last = named[-1]
        raise NothingToRetract(
            f"{last.key} (upload {last.id}) has no rows in the market history: {_story(last, store)}"
        )
    fresh = [upload for upload in with_rows if upload.id not in before]
    ours = [upload for upload in with_rows if upload.id in before and decision.is_in(before[upload.id])]
    if by_id or decision.everything:
        return [*ours, *fresh] or with_rows
    if len(fresh) > 1:
        listed = ", ".join(f"{one.id} (uploaded {one.delivery.uploads[one.file].last_modified})" for one in fresh)
        raise WhichUpload(
            f"{fresh[0].key} was received {len(fresh)} times: {listed}; name one of these ids, or give --all (in the "
            "UI: everything) for all of them"
        )
    return ours if ours and any(before[one.id].decision == decision.id for one in ours) else fresh or ours or with_rows


def _named(text: str, store: ObjectStore) -> tuple[list[_Received], bool]:
    """The uploads that a text may mean, oldest first, and whether it is the id of one."""
    log = DeliveryLog(store)
    if OF_A_REQUEST.fullmatch(text.strip()):
        raise NothingToRetract(
            f"{text.strip()} is a request: its rows did not become part of the market history, so there is nothing to "
            "take back; its answer stays on record"
        )
    if found := UPLOAD_ID.fullmatch(text.strip()):
        try:
            delivery = log.get(int(found[1]))
        except ObjectMissing as missing:
            raise UnknownUpload(
                f"there is no delivery {delivery_id(int(found[1]))}, so no upload {found[0]}"
            ) from missing
        if int(found[2]) >= len(delivery.uploads):
            raise UnknownUpload(f"delivery {delivery.id} has {len(delivery.uploads)} uploads, from {delivery.id}.0 on")
        return [_Received(upload_id(delivery.id, int(found[2])), delivery, int(found[2]))], True
    keys = [UPLOADS + name.removeprefix(store.uri("")).removeprefix(UPLOADS) for name in (text, text.strip())]
    for key in dict.fromkeys(keys):  # a key may begin or end with spaces, and so may what somebody pasted
        received = [
            _Received(upload_id(delivery.id, number), delivery, number)
            for delivery in log.deliveries_of(key)
            for number, upload in enumerate(delivery.uploads)
            if upload.key == key
        ]
        if received:
            return received, False
    raise UnknownUpload(f"nothing was ever received under {keys[0]}: name a key below uploads/, or an upload's id")


def _has_rows(upload: str, history: MarketHistory) -> bool:
    return any(batch.num_rows for batch in history.scan(["line"], upload=upload))


def _story(upload: _Received, store: ObjectStore) -> str:
    """What became of an upload, in a few words."""
    outcome = store.read_json(answered_key(upload.delivery.id))[upload.key]
    reason = read_receipt(outcome["answer_id"], store).reason if outcome["answer_id"] else outcome.get("reason")
    return f"it is {outcome['outcome']}" + (f", {reason}" if reason else "")


def _before(retraction: Retraction) -> str:
    return (
        f"{retraction.upload.key} (upload {retraction.upload_id}) was retracted already, by {retraction.decided_by} at "
        f"{retraction.at}, because: {retraction.why}."
    )
