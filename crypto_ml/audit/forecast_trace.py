"""The whole chain behind a forecast, or behind one of its numbers, from S3 alone."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from crypto_ml.audit.forecast_evidence import ForecastEvidence
from crypto_ml.audit.made_of import MadeOf, made_of, told_made_of
from crypto_ml.audit.references import Reference, UnknownAnswer
from crypto_ml.audit.trace import (
    EarlierRow,
    Line,
    earlier_rows,
    made_from,
    retracted_of,
    told_approval,
    told_earlier_rows,
)
from crypto_ml.digest import sha256_of
from crypto_ml.forecasting.bundle import TRAINING_MANIFEST
from crypto_ml.ledger.forecasts import ForecastOrder, document
from crypto_ml.ledger.formats.forecast_v1 import PUBLISHED, ForecastReceipt
from crypto_ml.ledger.formats.retraction_v1 import Retraction
from crypto_ml.ledger.layout import forecast_receipt_key
from crypto_ml.stages.earlier_rows import current_of
from crypto_ml.stages.next_opens import Forecast, forecast, last_days_of
from crypto_ml.storage.failures import ObjectMissing
from crypto_ml.storage.objects import ORDER, ObjectStore

CHANGED: Final = "was changed from outside"
DELETED: Final = "was deleted"


@dataclass(frozen=True)
class TracedForecast:
    """One predicted number, and each earlier row it was made from, oldest first. scaled_by: `model` or `own rows`.
    made_of: what it was made of, where the model has a serving rule."""

    prediction_id: str
    symbol: str
    as_of: date
    target_date: date
    pred_open: float
    scaled_by: str
    earlier_rows: Sequence[EarlierRow]
    made_of: MadeOf | None = None


@dataclass(frozen=True)
class ForecastTrace:
    """A forecast's receipt, what became of its objects (by key), what was trained into its model, and one row.

    retracted: upload id → retraction, of the uploads that the row's earlier rows came from.
    """

    receipt: ForecastReceipt
    published: Mapping[str, str]
    trained_on: Mapping[str, Any]
    row: TracedForecast | None
    retracted: Mapping[str, Retraction] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        """The trace as JSON has it."""
        return {
            **document(self.receipt),
            "published_now": dict(self.published),
            "trained_on": dict(self.trained_on),
            "row": asdict(self.row) if self.row else None,
            "retracted": {upload: asdict(one) for upload, one in self.retracted.items()},
        }


def trace(reference: Reference, store: ObjectStore) -> ForecastTrace:
    """Follow a reference to a forecast. Raises UnknownAnswer, ForecastReceiptDamaged, and what the store raises where
    evidence is gone."""
    try:
        evidence = ForecastEvidence.of(reference.answer_id, store)
    except ObjectMissing as missing:
        key = store.uri(forecast_receipt_key(reference.answer_id))
        raise UnknownAnswer(f"there is no forecast {reference.answer_id}: no receipt {key}") from missing
    row = _row(evidence, reference) if reference.is_row else None
    trained_on = evidence.bundle.document(TRAINING_MANIFEST)
    retracted = retracted_of([one.upload_id for one in row.earlier_rows], store) if row else {}
    return ForecastTrace(evidence.receipt, published_now(evidence.receipt, store), trained_on, row, retracted)


def published_now(receipt: ForecastReceipt, store: ObjectStore) -> dict[str, str]:
    """What became of each object that the receipt vouches for, by its key."""
    return {vouched.key: _now(receipt, what, store) for what, vouched in receipt.published.items()}


def _now(receipt: ForecastReceipt, what: str, store: ObjectStore) -> str:
    vouched = receipt.published[what]
    try:
        stored, content = store.fetch(vouched.key)
    except ObjectMissing:
        return DELETED
    if sha256_of(content) == vouched.sha256:
        return "stands unchanged"
    other = ForecastOrder.read(stored.metadata.get(ORDER, ""))
    if other and str(other) > str(ForecastOrder.of(receipt)):
        return f"was replaced by forecast {other.forecast_id}"
    return CHANGED


def _row(evidence: ForecastEvidence, reference: Reference) -> TracedForecast:
    """One row of a forecast, which is made again for it: the rows' numbers are those of all of them."""
    sources, receipt = evidence.sources(evidence.series), evidence.receipt
    with TemporaryDirectory(prefix="crypto_ml-trace-") as name:
        made = forecast(sources, last_days_of(sources.history, sources.history_version), Path(name))
    number = _number(made, reference)
    row = made.rows.iloc[number - 1]
    history = current_of(evidence.series, [row["symbol"]], made.target_date, sources.history_version, sources.current)
    before = earlier_rows(history.to_pylist(), evidence.store)
    before = made_from(before, made.target_date, str(row["scaled_by"]), evidence.bundle.look_back)
    prices, level = [one.observed for one in before], sources.settings.level
    return TracedForecast(
        prediction_id=f"{receipt.forecast_id}-{number}",
        symbol=str(row["symbol"]),
        as_of=made.newest_day,
        target_date=made.target_date,
        pred_open=float(row["pred_open"]),
        scaled_by=str(row["scaled_by"]),
        earlier_rows=before,
        made_of=made_of(prices, evidence.bundle, level, row.to_dict()),
    )


def _number(made: Forecast, reference: Reference) -> int:
    """The number of the row that is meant, from 1 on. Raises UnknownAnswer."""
    named = f"forecast {reference.answer_id}"
    if reference.line is not None:
        if not 1 <= reference.line <= len(made.rows):
            raise UnknownAnswer(f"{named} has no row {reference.line}: it has {len(made.rows)}")
        return reference.line
    if reference.day != made.target_date:
        raise UnknownAnswer(f"{named} is for {made.target_date}, not for {reference.day}")
    rows = made.rows.index[made.rows["symbol"] == reference.symbol]
    if len(rows):
        return int(rows[0]) + 1
    left_out = made.left_out[made.left_out["symbol"] == reference.symbol]
    for last_day, reason in zip(left_out["last_day"], left_out["reason"], strict=True):
        raise UnknownAnswer(f"{named} leaves {reference.symbol} out: {reason} (its last day is {last_day.date()})")
    raise UnknownAnswer(f"{named} knows no symbol {reference.symbol}")


def lines(found: ForecastTrace, store: ObjectStore) -> Iterator[Line]:
    """A trace in lines for people, from the number back to the approval, each behind the part that it shows."""
    receipt, row = found.receipt, found.row
    if row:
        yield "number", f"{row.symbol} {row.target_date}: pred_open {row.pred_open!r}, as of {row.as_of}"
        yield "number", f"  prediction    {row.prediction_id}"
        if row.made_of:
            yield from (("number", line) for line in told_made_of(row.made_of))
        earlier = told_earlier_rows(row.earlier_rows, row.scaled_by, found.retracted)
        yield from (("earlier_rows", line) for line in earlier)
    inputs, symbols = receipt.inputs, receipt.symbols
    yield "receipt", f"forecast        {receipt.forecast_id} for {inputs.target_date}, as of {receipt.newest_day}"
    left_out = (
        f"{symbols.without_newest_day} without a row for the newest day, {symbols.too_few_rows} with too few rows"
    )
    yield "receipt", f"  symbols       {symbols.forecast} forecast; left out: {left_out}"
    for what in PUBLISHED:
        vouched = receipt.published[what]
        now = found.published[vouched.key]
        yield "published", f"  {what:<15} {store.uri(vouched.key)}  sha256 {vouched.sha256}, {now}"
    timings = receipt.timings
    yield "receipt", f"  made          {timings.made_at}, begun {timings.began_at}, attempt {inputs.attempt}"
    yield "receipt", f"market history  read at version {inputs.history_version}"
    yield "model", f"model           {inputs.model_version}  sha256 {inputs.bundle_sha256}"
    yield "model", f"  trained on    {found.trained_on.get('source', 'not recorded')}"
    yield from told_approval(receipt.champion)
    software = receipt.software
    code = ", ".join(f"{stage} {version}" for stage, version in software["code"].items())
    yield "receipt", f"software        crypto_ml {software['package']}, Python {software['python']}; code: {code}"
    image, lock = software["image"] or "not known", software["lock_sha256"] or "not known"
    yield "receipt", f"  image         {image}, lock sha256 {lock}"
    yield "receipt", f"run             {receipt.run_id}"
