"""How the answers to a delivery get out: receipts first, then predictions and refused rows, and the reports last.

So whoever sees a report finds what it names. Each object appears as a whole, one of an older delivery never takes the
place of one of a newer delivery, and nothing is published that no receipt vouches for: in whatever order runs come to
their ends, what stands is the same.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

import pandas as pd
import pyarrow.compute as pc
import pyarrow.dataset as ds

from crypto_ml.digest import sha256_of, sha256_of_file
from crypto_ml.forecasting.answers import REJECTED_ROWS, append_csv
from crypto_ml.ledger.formats.outcomes_v1 import answered, may_be_replaced
from crypto_ml.ledger.formats.receipt_v2 import Receipt, Vouched
from crypto_ml.ledger.layout import CSV, JSON, answer_keys, answered_key
from crypto_ml.ledger.receipts import DeliveryReceipts, read_receipt, write_receipt
from crypto_ml.ledger.reports import Report, report_on, write_report
from crypto_ml.stages.outcomes import Publishing
from crypto_ml.storage.failures import AlreadyExists, Conflict, ObjectChanged
from crypto_ml.storage.objects import ORDER, ObjectStore, rendered


@dataclass(frozen=True)
class Answer:
    """An upload's answer on its way out: what its receipt says, and the local files that are to be published.

    repeats: the report whose predictions stand for this upload too.
    """

    receipt: Receipt
    publishing: Publishing
    predictions: Path | None = None
    rejected_rows: Path | None = None
    repeats: Report | None = None

    @cached_property
    def report(self) -> Report:
        """The report that repeats the receipt."""
        return report_on(self.receipt, self.repeats)

    def standing_in(self, key: str) -> "Answer":
        """The answer whose receipt is to stand in an object with others'."""
        return replace(self, receipt=replace(self.receipt, stands_in=key))

    def vouched(self, store: ObjectStore) -> "Answer":
        """The answer with the sha256 of everything that is to be published in its receipt."""
        keys = answer_keys(self.receipt.upload.key, store.room)
        predictions, rejected_rows = (keys.predictions, self.predictions), (keys.rejected_rows, self.rejected_rows)
        files = {"predictions": predictions, "rejected_rows": rejected_rows}
        published = {what: Vouched(key, sha256_of_file(path)) for what, (key, path) in files.items() if path}
        told = replace(self, receipt=replace(self.receipt, published=published))
        if self.publishing != "nothing":
            published = {**published, "report": Vouched(keys.report, sha256_of(told.report.rendered()))}
        return replace(self, receipt=replace(self.receipt, published=published))


Rescore = Callable[[str], Path]
"""Writes the predictions of the same file once more, under another answer's name, and returns where."""


def record(answer: Answer, rescore: Rescore, store: ObjectStore) -> Answer:
    """Write the receipt of the one answer of a delivery. Where one of that name stands, it stands for good: the answer
    is that one if it vouches for the same, and else another attempt, with another name."""
    while True:
        ours = answer.vouched(store)
        standing = write_receipt(ours.receipt, store)
        if standing is ours.receipt or _vouches(replace(ours, receipt=standing), ours.receipt):
            return replace(ours, receipt=standing)
        answer = _another_attempt(answer, rescore)


def record_together(
    answers: Mapping[int, Answer], rescore: Callable[[int, str], Path], delivery: str, store: ObjectStore
) -> dict[int, Answer]:
    """`record` for answers of a delivery of several uploads, whose receipts are written as one object."""
    standing = DeliveryReceipts(delivery, store)
    recorded: dict[int, Answer] = {}
    remaining = dict(answers)
    while remaining:
        ours: dict[int, Answer] = {}
        for number, answer in remaining.items():
            made = answer.standing_in(standing.next_key).vouched(store)
            while made.receipt.answer_id in standing:
                there = standing.read(made.receipt.answer_id)
                if _vouches(replace(made, receipt=there), made.receipt):
                    recorded[number] = replace(made, receipt=there)
                    break
                made = _another_attempt(made, partial(rescore, number)).vouched(store)
            else:
                ours[number] = made
        if not ours or standing.add([made.receipt for made in ours.values()]):
            return recorded | ours
        standing.catch_up()  # another run was first there: what it wrote stands
        remaining = ours
    return recorded


def _another_attempt(answer: Answer, rescore: Rescore) -> Answer:
    """The same answer under another name, as the receipt that stands under this one vouches for other bytes."""
    inputs = answer.receipt.inputs
    receipt = replace(answer.receipt, inputs=replace(inputs, attempt=inputs.attempt + 1), published={})
    return replace(answer, receipt=receipt, predictions=rescore(receipt.answer_id) if answer.predictions else None)


def publish_files(answer: Answer, store: ObjectStore) -> Answer:
    """Put predictions and refused rows; where those of a newer delivery are there, they stay and this is SKIPPED."""
    keys, order = answer_keys(answer.receipt.upload.key, store.room), answer.receipt.inputs.delivery
    if answer.predictions and not store.put_newest(keys.predictions, answer.predictions, order, content_type=CSV):
        reason = "a newer delivery published its answer at the same moment; that one stays"
        skipped = replace(answer.receipt, outcome="SKIPPED", reason=reason)
        return replace(answer, receipt=skipped, publishing="nothing")
    if answer.rejected_rows:
        store.put_newest(keys.rejected_rows, answer.rejected_rows, order, content_type=CSV)
    return answer


def publish_report(answer: Answer, store: ObjectStore) -> None:
    """Put the report, unless there is to be none or one of a newer delivery is there."""
    if answer.publishing != "nothing" and "report" in answer.receipt.published:
        write_report(answer.report, store)


def put_again(answer: Answer, directory: Path, store: ObjectStore) -> bool:
    """Put the predictions that stand and answer the same bytes already once more, as this delivery's.

    So that one in between cannot take their place. False where they do not stand, or not any more.
    """
    earlier_id = str(answer.receipt.earlier_answer)
    key = answer_keys(answer.receipt.upload.key, store.room).predictions
    order, path = answer.receipt.inputs.delivery, directory / f"{earlier_id}.csv"
    standing = store.head(key)
    known = read_receipt(earlier_id, store).published.get("predictions")
    try:
        if standing is None or known is None or standing.metadata.get(ORDER, "") > order:
            return False
        if store.download(standing, path) != known.sha256:
            return False
        said = {ORDER: order}
        store.upload_file(path, key, create_only=False, if_match=standing.etag, content_type=CSV, metadata=said)
    except (ObjectChanged, Conflict):
        return False
    finally:
        path.unlink(missing_ok=True)
    return True


def close(delivery: str, receipts: Sequence[Receipt], store: ObjectStore) -> None:
    """Write down what became of each upload of a delivery. The first outcomes stand, but for those that gave up."""
    key = answered_key(delivery)
    outcomes = {receipt.upload.key: answered(receipt.outcome, receipt.answer_id) for receipt in receipts}
    try:
        store.create_json(key, outcomes)
    except AlreadyExists:  # answered before; this time with another model, or by a run that was retried
        found, content = store.fetch(key)
        if may_be_replaced(content):
            with suppress(Conflict):
                store.replace(key, rendered(outcomes), if_match=found.etag, content_type=JSON)


def refused_rows_file(number: int, refused: Path, directory: Path) -> Path:
    """The refused rows of one file as they are published; with none, a header that replaces an earlier answer's."""
    path = directory / f"{number}_rejected_rows.csv"
    append_csv(path, REJECTED_ROWS, pd.DataFrame(columns=REJECTED_ROWS.names))
    for batch in ds.dataset(refused).to_batches(filter=pc.field("file") == number):
        append_csv(path, REJECTED_ROWS, batch.to_pandas())
    return path


def _vouches(answer: Answer, ours: Receipt) -> bool:
    """Whether the receipt that stands says of an answer what ours would, but for when it was given and by which run."""
    then, now = answer.receipt.published, ours.published
    same = all(then.get(what) == now.get(what) for what in ("predictions", "rejected_rows"))
    told = "report" not in then or then["report"].sha256 == sha256_of(answer.report.rendered())
    return answer.receipt.outcome == ours.outcome and then.keys() == now.keys() and same and told
