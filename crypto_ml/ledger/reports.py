"""What stands beside the predictions for the person who dropped the file: its receipt, in their words."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

from pydantic_core import to_json

from crypto_ml.ledger.formats import receipt_v1, report_v1, report_v2
from crypto_ml.ledger.formats.receipt_v2 import Outcome, Receipt
from crypto_ml.ledger.layout import JSON, PREDICTIONS, answer_keys
from crypto_ml.storage.at_once import at_once
from crypto_ml.storage.failures import ObjectMissing
from crypto_ml.storage.objects import ObjectStore

FEW: Final = 20
LISTED_FOR_EACH: Final = 5
"""Listed keys that cost no more than a question for one: a thousand are one request."""


@dataclass(frozen=True)
class Report:
    """What stands beside the predictions for the person who dropped the file."""

    document: Mapping[str, Any]

    @property
    def outcome(self) -> Outcome:
        found: Outcome = self.document["outcome"]
        return found

    @property
    def delivery(self) -> str:
        return str(self.document["delivery"])

    @property
    def upload_key(self) -> str:
        return str(self.document["upload"]["key"])

    @property
    def rejected_rows(self) -> str | None:
        found: str | None = self.document["rejected_rows"]
        return found

    @property
    def upload_sha256(self) -> str | None:
        found: str | None = self.document["upload"]["sha256"]
        return found

    @property
    def answer_id(self) -> str | None:
        found: str | None = self.document["answer_id"]
        return found

    @property
    def predictions(self) -> str | None:
        """The key of the predictions that it names; None where there are none."""
        found: str | None = self.document["predictions"]
        return found

    def rendered(self) -> bytes:
        """The report as it is stored."""
        return to_json(dict(self.document), indent=2) + b"\n"


def read_report(key: str, store: ObjectStore) -> Report | None:
    """The report for the upload under `key`, None where there is none yet."""
    return _read(answer_keys(key, store.room).report, store)


def report_key_of(receipt: Receipt, store: ObjectStore) -> str:
    """Where the report that repeats a receipt was put."""
    if receipt.format == receipt_v1.FORMAT:
        return report_v1.report_key(receipt.upload.key)
    return answer_keys(receipt.upload.key, store.room).report


def read_report_of(receipt: Receipt, store: ObjectStore) -> Report | None:
    """The report that stands where the one that repeats a receipt was put; None where there is none."""
    return _read(report_key_of(receipt, store), store)


def _read(key: str, store: ObjectStore) -> Report | None:
    try:
        return Report(store.read_json(key))
    except ObjectMissing:
        return None


def read_reports(keys: Sequence[str], store: ObjectStore) -> dict[str, Report]:
    """Upload key → report, for those of `keys` that have one; of many uploads a listing tells which to ask for."""
    asked = list(keys)
    if len(asked) > FEW:
        there = _listed([answer_keys(key, store.room).report for key in asked], store)
        asked = [key for key in asked if there is None or answer_keys(key, store.room).report in there]
    with at_once(len(asked), store) as pool:
        found = zip(asked, pool.map(lambda key: read_report(key, store), asked), strict=True)
        return {key: report for key, report in found if report}


def _listed(keys: Sequence[str], store: ObjectStore) -> set[str] | None:
    """Which of the keys there are; None where too much else lies between them for a listing to be cheaper."""
    first, last = min(keys), max(keys)
    most = LISTED_FOR_EACH * len(keys)
    there = [found.key for found in islice(store.list(PREDICTIONS, start_after=first[:-1]), most)]
    complete = len(there) < most or there[-1] >= last
    return set(there) if complete else None


def report_on(receipt: Receipt, earlier: Report | None) -> Report:
    """The report that repeats a receipt; where the upload was skipped, what its earlier answer published stands.

    The receipt vouches for its bytes.
    """
    return Report(report_v2.document(receipt, earlier.document if earlier else None))


def write_report(report: Report, store: ObjectStore) -> bool:
    """Put a report beside the predictions unless one of a newer delivery is there; True if it was put."""
    key = answer_keys(report.upload_key, store.room).report
    return store.put_newest(key, report.rendered(), report.delivery, content_type=JSON)
