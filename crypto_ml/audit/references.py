"""How an auditor names an answer or one of its rows."""

import csv
import io
import re
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from typing import Any, Final

from crypto_ml.errors import Refused
from crypto_ml.ledger.forecasts import ForecastOrder
from crypto_ml.ledger.formats import report_v1
from crypto_ml.ledger.layout import ASKED, FORECASTS, PREDICTIONS, UPLOADS, answer_keys
from crypto_ml.ledger.requests import delivery_in, seen_with
from crypto_ml.storage.failures import ObjectMissing
from crypto_ml.storage.objects import ORDER, ObjectStore

ANSWER_ID: Final = re.compile(r"(\d{8,}-[0-9a-f]{16})(?:-(\d+))?")
FORECAST_ID: Final = re.compile(r"(\d{4}-\d\d-\d\d-[0-9a-f]{16})(?:-(\d+))?")
ENDINGS: Final = ("preds.csv", "report.json", "rejected_rows.csv")
MARKS: Final = ("_", ".", "~")


class UnknownAnswer(Refused):
    """A name under which nothing was answered."""


@dataclass(frozen=True)
class Reference:
    """An answer, and where one of its rows is meant: its line in the upload, or its symbol and date.

    A forecast is an answer too; the line of its row is the row's number, the date the day whose open it predicts.
    """

    answer_id: str
    line: int | None = None
    symbol: str | None = None
    day: date | None = None

    @property
    def is_row(self) -> bool:
        return self.line is not None or self.symbol is not None

    @property
    def is_forecast(self) -> bool:
        return FORECAST_ID.fullmatch(self.answer_id) is not None


def resolve(text: str, store: ObjectStore, *, symbol: str | None = None, day: date | None = None) -> Reference:
    """What a text names: a prediction id, the id of an answer or forecast, or a key or s3:// address below uploads/,
    predictions/ or forecasts/; of a request also the key that its receipt or report names.

    A key names the answer that stands there now. Raises UnknownAnswer.
    """
    if (symbol is None) != (day is None):
        raise UnknownAnswer("a row is named by its symbol and its date; give both")
    named = ANSWER_ID.fullmatch(text.strip()) or FORECAST_ID.fullmatch(text.strip())
    if named:
        return Reference(named[1], int(named[2]) if named[2] else None, symbol, day)
    key = text.strip().removeprefix(f"s3://{store.bucket}/")
    if key != text.strip():
        key = key.removeprefix(store.prefix)
    if key.startswith(FORECASTS):
        return Reference(_forecast_at(key, store), None, symbol, day)
    report = _report(key, store)
    if report is None:
        report_key = _report_keys(key, store.room)[0]
        raise UnknownAnswer(f"there is no report {store.uri(report_key)}, so {text} was not answered")
    if report["answer_id"] is None:
        raise UnknownAnswer(f"{text} has no answer: {report['outcome']}, {report['reason']}")
    return Reference(str(report["answer_id"]), None, symbol, day)


def _forecast_at(key: str, store: ObjectStore) -> str:
    """The id of the forecast that stands under a key: as the object says, or where a copy lost that, its first row."""
    try:
        stored, content = store.fetch(key)
    except ObjectMissing as missing:
        raise UnknownAnswer(f"there is no forecast {store.uri(key)}") from missing
    if order := ForecastOrder.read(stored.metadata.get(ORDER, "")):
        return order.forecast_id
    rows = csv.DictReader(io.StringIO(content.decode(errors="replace")))
    if "prediction_id" not in (rows.fieldnames or ()):
        raise UnknownAnswer(
            f"{store.uri(key)} was published before forecasts had receipts: it names its model, and its earlier rows "
            "are those of the market history; the next forecast can be traced"
        )
    named = FORECAST_ID.fullmatch(str(next(rows, {}).get("prediction_id")))
    if named is None:
        raise UnknownAnswer(f"{store.uri(key)} does not say which forecast it is")
    return named[1]


def _report(key: str, store: ObjectStore) -> dict[str, Any] | None:
    for report_key in _report_keys(key, store.room):
        with suppress(ObjectMissing):
            report: dict[str, Any] = store.read_json(report_key)
            if not key.startswith(UPLOADS) or report["upload"]["key"] == key:
                return report
    if delivery := delivery_in(key):
        with suppress(ObjectMissing):
            of_request: dict[str, Any] = seen_with(delivery, store).read_json(_report_keys(key, store.room)[0])
            return of_request
    return None


def _report_keys(key: str, room: int) -> list[str]:
    """Where the report may be that a key leads to: where it is put today, and where 0.1 put it."""
    if key.startswith(UPLOADS):
        return [answer_keys(key, room).report, report_v1.report_key(key)]
    if key.startswith(ASKED) and delivery_in(key):
        return [answer_keys(key, room).report]
    if key.startswith(PREDICTIONS):
        for ending in ENDINGS:
            if key.endswith(tuple(mark + ending for mark in MARKS)):
                return [f"{key.removesuffix(ending)}report.json"]
    raise UnknownAnswer(
        f"{key} names no answer: give a prediction id, an answer id, or a key such as predictions/prices_preds.csv or "
        "forecasts/latest.csv"
    )
