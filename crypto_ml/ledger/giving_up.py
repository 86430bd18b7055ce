"""The end of a delivery whose runs came to none: every upload still unanswered is rejected, and told so.

A report says it to whoever dropped the file, and the delivery's list of outcomes closes it. What was given up may be
asked for again (see `retries`); given up again, it says so with the number of that request.
"""

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeVar

from crypto_ml.digest import sha256_of
from crypto_ml.errors import what_was_unavailable
from crypto_ml.ledger.deliveries import Delivery, Upload
from crypto_ml.ledger.formats import report_v2
from crypto_ml.ledger.formats.outcomes_v1 import Outcome, answered, given_up, overtaken, was_given_up
from crypto_ml.ledger.formats.receipt_v2 import Receipt
from crypto_ml.ledger.layout import JSON, answered_key
from crypto_ml.ledger.receipts import DeliveryReceipts
from crypto_ml.ledger.reports import Report, read_report, report_on, write_report
from crypto_ml.storage.failures import AlreadyExists, Conflict, ObjectMissing
from crypto_ml.storage.objects import ObjectStore, rendered

AT_ONCE: Final = 16
T = TypeVar("T")
log: Final = logging.getLogger(__name__)


@dataclass(frozen=True)
class _End:
    """Of which delivery, for which reason and after which run and request (see `give_up`)."""

    delivery: Delivery
    reason: str
    run_id: str
    retry: int

    def outcome(self, more: str = "") -> Outcome:
        return given_up(self.reason + more, self.retry)


def give_up(delivery: Delivery, reason: str, run_id: str, store: ObjectStore, *, retry: int = 0) -> dict[str, Outcome]:
    """Close a delivery: upload key → its outcome. An upload that the runs did answer keeps its answer.

    retry: the last request that it was tried for, 0 where nobody asked. Every upload fails alone: where its report
    cannot be written, its outcome stands all the same. Raises what is unavailable to all of them.
    """
    end, receipts = _End(delivery, reason, run_id, retry), _receipts_of(delivery, store)

    def outcome(upload: Upload) -> Outcome:
        try:
            return _outcome(end, upload, receipts.get(upload.key, ()), store)
        except Exception as error:
            if what_was_unavailable(error):
                raise
            log.exception("delivery %s: no report on %s could be written", delivery.id, upload.key)
            return end.outcome(f" (and no report could be written: {error})")

    with ThreadPoolExecutor(AT_ONCE) as pool:
        outcomes = dict(
            zip([upload.key for upload in delivery.uploads], pool.map(outcome, delivery.uploads), strict=True)
        )
    try:
        store.create_json(answered_key(delivery.id), outcomes)
    except AlreadyExists:  # a run came to life again and was faster, or it was given up before
        found, content = store.fetch(answered_key(delivery.id))
        if retry and was_given_up(json.loads(content)):
            with suppress(Conflict):
                store.replace(answered_key(delivery.id), rendered(outcomes), if_match=found.etag, content_type=JSON)
    return outcomes


def _receipts_of(delivery: Delivery, store: ObjectStore) -> Mapping[str, Sequence[Receipt]]:
    """Upload key → the receipts that its runs had written; one that cannot be read vouches for nothing."""
    found: dict[str, list[Receipt]] = {}

    def tried(read: Callable[[], T]) -> T | None:
        try:
            return read()
        except Exception as error:
            if what_was_unavailable(error):
                raise
            log.warning("delivery %s: %s", delivery.id, error)
            return None

    standing = tried(lambda: DeliveryReceipts(delivery.id, store))
    for answer_id in standing or ():
        receipt = tried(partial(standing.read, answer_id)) if standing else None
        if receipt:
            found.setdefault(receipt.upload.key, []).append(receipt)
    return found


def _outcome(end: _End, upload: Upload, receipts: Sequence[Receipt], store: ObjectStore) -> Outcome:
    report = read_report(upload.key, store)
    if report and report.delivery == end.delivery.id and report.document["answer_id"] is not None:
        return answered(report.outcome, report.document["answer_id"])
    # a newer version that was rejected, or given up itself, has no predictions that could stand for this one's
    if report and int(report.delivery) > end.delivery.number and report.predictions is not None:
        newer = f"a newer version of the file was answered in delivery {report.delivery}"
        return overtaken(newer)
    for receipt in receipts:
        if receipt.upload == upload and _stands(receipt, store):
            write_report(report_on(receipt, None), store)
            return answered(receipt.outcome, receipt.answer_id)
    write_report(Report(report_v2.given_up(end.delivery, upload, end.reason, end.run_id)), store)
    return end.outcome()


def _stands(receipt: Receipt, store: ObjectStore) -> bool:
    """Whether a run that died had published the predictions of this receipt, and only the report was missing."""
    published = receipt.published.get("predictions")
    try:
        return published is not None and sha256_of(store.read(published.key)) == published.sha256
    except ObjectMissing:
        return False
