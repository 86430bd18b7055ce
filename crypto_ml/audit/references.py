"""How an auditor names an answer or one of its rows."""

import re
from dataclasses import dataclass
from datetime import date
from typing import Final

from crypto_ml.errors import Refused
from crypto_ml.ledger.layout import PREDICTIONS, UPLOADS, answer_keys
from crypto_ml.storage.failures import ObjectMissing
from crypto_ml.storage.objects import ObjectStore

ANSWER_ID: Final = re.compile(r"(\d{8,}-[0-9a-f]{16})(?:-(\d+))?")
ENDINGS: Final = ("_preds.csv", "_report.json", "_rejected_rows.csv")


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
    report_key = _report_key(key)
    try:
        report = store.read_json(report_key)
    except ObjectMissing as missing:
        raise UnknownAnswer(f"there is no report {store.uri(report_key)}, so {text} was not answered") from missing
    if report["answer_id"] is None:
        raise UnknownAnswer(f"{text} has no answer: {report['outcome']}, {report['reason']}")
    return Reference(str(report["answer_id"]), None, symbol, day)


def _report_key(key: str) -> str:
    if key.startswith(UPLOADS):
        return answer_keys(key).report
    if key.startswith(PREDICTIONS):
        for ending in ENDINGS:
            if key.endswith(ending):
                return f"{key.removesuffix(ending)}_report.json"
    raise UnknownAnswer(
        f"{key} names no answer: give a prediction id, an answer id, or a key such as predictions/prices_preds.csv"
    )
