"""How an auditor names an answer or one of its rows."""

import re
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from typing import Any, Final

from crypto_ml.errors import Refused
from crypto_ml.ledger.formats import receipt_v1
from crypto_ml.ledger.layout import PREDICTIONS, UPLOADS, answer_keys
from crypto_ml.storage.failures import ObjectMissing
from crypto_ml.storage.objects import ObjectStore

ANSWER_ID: Final = re.compile(r"(\d{8,}-[0-9a-f]{16})(?:-(\d+))?")
ENDINGS: Final = ("preds.csv", "report.json", "rejected_rows.csv")
MARKS: Final = ("_", ".", "~")


class UnknownAnswer(Refused):
    """A name under which nothing was answered."""


@dataclass(frozen=True)
class Reference:
    """An answer, and where one of its rows is meant: its line in the upload, or its symbol and date."""

    answer_id: str
    line: int | None = None
    symbol: str | None = None
    day: date | None = None

    @property
    def is_row(self) -> bool:
        return self.line is not None or self.symbol is not None


def resolve(text: str, store: ObjectStore, *, symbol: str | None = None, day: date | None = None) -> Reference:
    """What a text names: a prediction id, an answer id, or a key or s3:// address below uploads/ or predictions/.

    A key names the answer that stands there now. Raises UnknownAnswer.
    """
    if (symbol is None) != (day is None):
        raise UnknownAnswer("a row is named by its symbol and its date; give both")
    named = ANSWER_ID.fullmatch(text.strip())
    if named:
        return Reference(named[1], int(named[2]) if named[2] else None, symbol, day)
    key = text.strip().removeprefix(f"s3://{store.bucket}/")
    if key != text.strip():
        key = key.removeprefix(store.prefix)
    report = _report(key, store)
    if report is None:
        report_key = _report_keys(key, store.room)[0]
        raise UnknownAnswer(f"there is no report {store.uri(report_key)}, so {text} was not answered")
    if report["answer_id"] is None:
        raise UnknownAnswer(f"{text} has no answer: {report['outcome']}, {report['reason']}")
    return Reference(str(report["answer_id"]), None, symbol, day)


def _report(key: str, store: ObjectStore) -> dict[str, Any] | None:
    for report_key in _report_keys(key, store.room):
        with suppress(ObjectMissing):
            report: dict[str, Any] = store.read_json(report_key)
            if not key.startswith(UPLOADS) or report["upload"]["key"] == key:
                return report
    return None


def _report_keys(key: str, room: int) -> list[str]:
    """Where the report may be that a key leads to: where it is put today, and where 0.1 put it."""
    if key.startswith(UPLOADS):
        return [answer_keys(key, room).report, receipt_v1.report_key(key)]
    if key.startswith(PREDICTIONS):
        for ending in ENDINGS:
            if key.endswith(tuple(mark + ending for mark in MARKS)):
                return [f"{key.removesuffix(ending)}report.json"]
    raise UnknownAnswer(
        f"{key} names no answer: give a prediction id, an answer id, or a key such as predictions/prices_preds.csv"
    )
