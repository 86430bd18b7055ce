"""Which past answers, forecasts and models had used some rows of the history that count no more.

An answer or a forecast used a row where it stood among the earlier rows of one of its predictions; a model, where it
stood in its training set. Of answers to requests there may be any number: the log of predictions tells which were about
these series, and the first MOST_REQUESTS of them are looked at, oldest first.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from crypto_ml.audit.evidence import Evidence
from crypto_ml.audit.forecast_evidence import ForecastEvidence
from crypto_ml.audit.trace import OBSERVED, EarlierRow, earlier_rows, known_rows, made_from, scored_again
from crypto_ml.forecasting.bundle import TRAINING_MANIFEST
from crypto_ml.ledger.deliveries import DeliveryLog
from crypto_ml.ledger.formats.receipt_v2 import Receipt
from crypto_ml.ledger.formats.training_manifest_v2 import order_of
from crypto_ml.ledger.layout import FORECAST_RECEIPTS
from crypto_ml.ledger.receipts import receipts_of
from crypto_ml.ledger.registry import Registry
from crypto_ml.ledger.requests import asked_name, delivery_in
from crypto_ml.stages.earlier_rows import current_of
from crypto_ml.stages.logged_predictions import REQUEST_ROAD
from crypto_ml.stages.next_opens import forecast, last_days_of
from crypto_ml.stages.scaler import SOURCE
from crypto_ml.storage.history import MarketHistory
from crypto_ml.storage.objects import ObjectStore
from crypto_ml.storage.prediction_log import PredictionLog

MOST_REQUESTS: Final = 1_000
"""Answers to requests that are looked at: each is read, and made once more."""


@dataclass(frozen=True)
class UsedBy:
    """A past answer (to which upload or request) or a forecast, with the predictions that were made from the rows, or a
    model with the days it was trained on."""

    name: str
    upload: str | None
    used: tuple[str, ...]


@dataclass(frozen=True)
class Rows:
    """The rows that are asked about. first: the first day of each series that has any. is_one: whether a row that was
    current once is one of them, by its series, day, upload and values. until: the version of the history from which on
    they count no more, None where that is not known. since: when the first of them became known; None where that is
    not known either."""

    first: Mapping[str, date]
    is_one: Callable[[str, date, str, Mapping[str, Any]], bool]
    until: int | None = None
    since: datetime | None = None

    def counted_at(self, version: int | None) -> bool:
        """Whether they may have been read from a version of the history."""
        return version is not None and (self.until is None or version < self.until)

    def among(self, symbol: str, earlier: Iterable[EarlierRow]) -> bool:
        """Whether one of them is among the rows that a prediction was made from."""
        return any(self.is_one(symbol, row.date, row.upload_id, row.observed) for row in earlier)


@dataclass(frozen=True)
class Used:
    """What had used some rows. requests_not_looked_at: how many answers to requests there are beyond MOST_REQUESTS."""

    answers: tuple[UsedBy, ...] = ()
    forecasts: tuple[UsedBy, ...] = ()
    models: tuple[UsedBy, ...] = ()
    requests_not_looked_at: int = 0


def used_by(rows: Rows, store: ObjectStore) -> Used:
    """Everything that had used the rows: answers and forecasts are computed again, from what they were made from."""
    with TemporaryDirectory(prefix="crypto_ml-used-") as name:
        directory = Path(name)
        requests = _requests_about(rows, store)
        return Used(
            (
                *_answers_that_used(rows, store, directory),
                *_requests_that_used(requests[:MOST_REQUESTS], rows, store, directory),
            ),
            tuple(_forecasts_that_used(rows, store, directory)),
            tuple(_models_that_used(rows, store)),
            max(len(requests) - MOST_REQUESTS, 0),
        )


def _answers_that_used(rows: Rows, store: ObjectStore, directory: Path) -> Iterator[UsedBy]:
    """Answers, oldest first, to uploads with later rows of the same series. directory: for what is downloaded."""
    table = MarketHistory(store).scan(["symbol", "date", "upload_id"], symbols=set(rows.first)).read_all()
    last_days = table.group_by(["symbol", "upload_id"]).aggregate([("date", "max")]).to_pylist()
    uploads = {row["upload_id"] for row in last_days if row["date_max"] > rows.first[row["symbol"]]}
    log = DeliveryLog(store)
    receipts: dict[str, list[Receipt]] = {}  # of the delivery at hand, whose uploads come one after the other
    for upload_id in sorted(uploads, key=_number):
        delivery, _, file = upload_id.partition(".")
        key = log.get(int(delivery)).uploads[int(file)].key
        if delivery not in receipts:
            receipts = {delivery: list(receipts_of(delivery, store))}
        for receipt in receipts[delivery]:
            if receipt.upload.key == key and receipt.outcome == "PREDICTED" and rows.counted_at(receipt.history.read):
                room = directory / receipt.answer_id
                room.mkdir()
                used = tuple(_predictions_from(Evidence(receipt, store, store, room), rows))
                if used:
                    yield UsedBy(receipt.answer_id, key, used)


def _requests_about(rows: Rows, store: ObjectStore) -> list[str]:
    """Answers to requests, oldest first, with later rows of the same series, as far as they are settled."""
    about = PredictionLog(store).answers_about(REQUEST_ROAD, rows.first, rows.since).to_pylist()
    return list(dict.fromkeys(one["answer_id"] for one in about if one["date"] > rows.first[one["symbol"]]))


def _requests_that_used(answers: Iterable[str], rows: Rows, store: ObjectStore, directory: Path) -> Iterator[UsedBy]:
    """Those of some answers to requests that were made from the rows."""
    for answer_id in answers:
        room = directory / answer_id
        room.mkdir()
        evidence = Evidence.of(answer_id, store, room)
        if rows.counted_at(evidence.receipt.history.read):
            used = tuple(_predictions_from(evidence, rows))
            if used:
                yield UsedBy(answer_id, evidence.receipt.upload.key, used)


def _predictions_from(evidence: Evidence, rows: Rows) -> Iterator[str]:
    """The prediction ids of an answer that were made from the rows."""
    receipt = evidence.receipt
    own = evidence.accepted(set(rows.first))
    known, look_back = known_rows(evidence, own), evidence.bundle.look_back
    scaled_by = {int(row["line"]): row["scaled_by"] for row in scored_again(evidence, own).to_dict("records")}
    for row in own.select(["symbol", "date", "line"]).to_pylist():
        if rows.among(row["symbol"], made_from(known[row["symbol"]], row["date"], scaled_by[row["line"]], look_back)):
            yield f"{receipt.answer_id}-{row['line']}"


def _forecasts_that_used(rows: Rows, store: ObjectStore, directory: Path) -> Iterator[UsedBy]:
    """Forecasts, in order of the days they are for."""
    for found in store.list(FORECAST_RECEIPTS):
        evidence = ForecastEvidence.of(found.key.removeprefix(FORECAST_RECEIPTS).removesuffix(".json"), store)
        receipt = evidence.receipt
        if rows.counted_at(receipt.inputs.history_version):
            used = tuple(_forecast_from(evidence, rows, directory))
            if used:
                yield UsedBy(receipt.forecast_id, None, used)


def _forecast_from(evidence: ForecastEvidence, rows: Rows, directory: Path) -> Iterator[str]:
    """The prediction ids of a forecast, which is made again for their numbers, that were made from the rows."""
    sources = evidence.sources(evidence.series)
    made = forecast(sources, last_days_of(sources.history, sources.history_version), directory)
    numbered = made.rows.reset_index(names="number")
    for symbol, number, scaled_by in numbered[["symbol", "number", "scaled_by"]].itertuples(index=False, name=None):
        if symbol not in rows.first:
            continue
        known = current_of(evidence.series, [symbol], made.target_date, sources.history_version, sources.current)
        before = earlier_rows(known.to_pylist(), evidence.store)
        if rows.among(symbol, made_from(before, made.target_date, scaled_by, evidence.bundle.look_back)):
            yield f"{evidence.receipt.forecast_id}-{number + 1}"


def _models_that_used(rows: Rows, store: ObjectStore) -> Iterator[UsedBy]:
    """Bundles of the registry."""
    registry, history = Registry(store), MarketHistory(store)
    for version in registry.versions():
        manifest = registry.load(version).document(TRAINING_MANIFEST)
        if manifest.get("source") == SOURCE and rows.counted_at(manifest["history_version"]):
            used = tuple(_trained_on(manifest, rows, history))
            if used:
                yield UsedBy(version, None, used)


def _trained_on(manifest: Mapping[str, Any], rows: Rows, history: MarketHistory) -> Iterator[str]:
    """The series and days of a training set whose row was one of them."""
    current = history.current_rows(
        symbols=set(rows.first),
        before=date.fromisoformat(manifest["as_of"]),
        version=manifest["history_version"],
        known_by=datetime.fromisoformat(manifest["known_by"]),
        order=order_of(manifest),
    )
    for row in current.to_pylist():
        if rows.is_one(row["symbol"], row["date"], row["upload_id"], {name: row[name] for name in OBSERVED}):
            yield f"{row['symbol']} {row['date']}"


def _counted(used: tuple[UsedBy, ...], what: str) -> str:
    return f"1 {what} was" if len(used) == 1 else f"{len(used)} {what}s were"


def _number(upload_id: str) -> tuple[int, int]:
    delivery, _, file = upload_id.partition(".")
    return int(delivery), int(file)


def told_of(found: Used) -> Iterator[str]:
    """What had used some rows, in lines for people."""
    yield f"{_counted(found.answers, 'past answer')} made from them"
    for used in found.answers:
        to = f"request {asked_name(used.upload)}" if used.upload and delivery_in(used.upload) else used.upload
        yield f"  {used.name} to {to}: {len(used.used)} predictions, {', '.join(used.used[:3])}"
    if found.requests_not_looked_at:
        yield f"  {found.requests_not_looked_at:,} later answers to requests about these series were not looked at"
    yield f"{_counted(found.forecasts, 'forecast')} made from them"
    for used in found.forecasts:
        yield f"  {used.name}: {len(used.used)} predictions, {', '.join(used.used[:3])}"
    yield f"{_counted(found.models, 'model')} trained on them"
    for used in found.models:
        yield f"  {used.name}: {len(used.used)} days, {', '.join(used.used[:3])}"
