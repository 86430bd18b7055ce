"""What an upload corrected, and which past answers and models had used the values before.

A correction is a row for a series and day that was known before with other values. An answer used the old value where
it stood among the earlier rows of one of its predictions; a model, where it stood in its training set.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from crypto_ml.audit.evidence import Evidence
from crypto_ml.audit.trace import OBSERVED, EarlierRow, known_rows, made_from, scored_again
from crypto_ml.forecasting.bundle import TRAINING_MANIFEST
from crypto_ml.forecasting.current import rank
from crypto_ml.ledger.deliveries import DeliveryLog
from crypto_ml.ledger.formats.training_manifest_v2 import order_of
from crypto_ml.ledger.receipts import receipts_of
from crypto_ml.ledger.registry import Registry
from crypto_ml.stages.scaler import SOURCE
from crypto_ml.storage.history import MarketHistory
from crypto_ml.storage.objects import ObjectStore

Day = tuple[str, date]


@dataclass(frozen=True)
class Correction:
    """A value that was known (from which upload, since when), and the one that took its place."""

    symbol: str
    date: date
    before: Mapping[str, Any]
    before_upload: str
    before_known_at: datetime
    now: Mapping[str, Any]
    known_at: datetime


@dataclass(frozen=True)
class UsedBy:
    """A past answer with the predictions made from a corrected value, or a model with the days it was trained on."""

    name: str
    upload: str | None
    used: Sequence[str]


@dataclass(frozen=True)
class Corrections:
    """What one upload corrected, and what had used the values before."""

    upload: str
    corrections: Sequence[Correction]
    answers: Sequence[UsedBy]
    models: Sequence[UsedBy]


def corrections(answer_id: str, store: ObjectStore) -> Corrections:
    """What the upload behind an answer corrected. Raises ObjectMissing, ReceiptDamaged."""
    with TemporaryDirectory(prefix="crypto_ml-corrections-") as name:
        evidence = Evidence.of(answer_id, store, Path(name))
        found = list(_corrected(evidence))
        days: dict[Day, Correction] = {(one.symbol, one.date): one for one in found}
        answers = list(_answers(evidence, days, Path(name))) if found else []
        models = list(_models(Registry(store), MarketHistory(store), days)) if found else []
        return Corrections(evidence.receipt.upload.key, found, answers, models)


def _corrected(evidence: Evidence) -> Iterator[Correction]:
    """The upload's rows, each held against the one that was current when it came."""
    symbols = set(evidence.accepted()["symbol"].unique().to_pylist()) if evidence.receipt.rows.accepted else set()
    upload_id = f"{evidence.receipt.inputs.delivery}.{evidence.file}"
    by_day: dict[Day, list[dict[str, Any]]] = {}
    if symbols:
        for row in (
            evidence.history.scan(symbols=symbols, version=evidence.receipt.history.written).read_all().to_pylist()
        ):
            by_day.setdefault((row["symbol"], row["date"]), []).append(row)
    for (symbol, day), rows in sorted(by_day.items()):
        rows.sort(key=lambda row: rank(row, evidence.receipt.inputs.current))
        own, before = rows[-1], [row for row in rows if row["upload_id"] != upload_id]
        if own["upload_id"] == upload_id and before and _values(before[-1]) != _values(own):
            last = before[-1]
            yield Correction(
                symbol, day, _values(last), last["upload_id"], last["known_at"], _values(own), own["known_at"]
            )


def _answers(evidence: Evidence, days: Mapping[Day, Correction], directory: Path) -> Iterator[UsedBy]:
    """Answers, oldest first, to uploads with later rows of a corrected series."""
    store = evidence.store
    first = {symbol: min(day for other, day in days if other == symbol) for symbol, _ in days}
    rows = evidence.history.scan(["symbol", "date", "upload_id"], symbols=set(first)).read_all().to_pylist()
    uploads = sorted({row["upload_id"] for row in rows if row["date"] > first[row["symbol"]]})
    log = DeliveryLog(store)
    for upload_id in uploads:
        delivery, _, file = upload_id.partition(".")
        key = log.get(int(delivery)).uploads[int(file)].key
        for receipt in receipts_of(delivery, store):
            if receipt.upload.key == key and receipt.outcome == "PREDICTED":
                room = directory / receipt.answer_id
                room.mkdir()
                used = list(_predictions_from(Evidence(receipt, store, room), days))
                if used:
                    yield UsedBy(receipt.answer_id, key, used)


def _predictions_from(evidence: Evidence, days: Mapping[Day, Correction]) -> Iterator[str]:
    """The prediction ids of an answer that were made from a value which was corrected later."""
    receipt = evidence.receipt
    own = evidence.accepted({symbol for symbol, _ in days})
    known = known_rows(evidence, own)
    scaled_by = {int(row["line"]): row["scaled_by"] for row in scored_again(evidence, own).to_dict("records")}
    for row in own.select(["symbol", "date", "line"]).to_pylist():
        symbol = row["symbol"]
        before = made_from(known[symbol], row["date"], scaled_by[row["line"]])
        if any(_is_old(earlier, days.get((symbol, earlier.date))) for earlier in before):
            yield f"{receipt.answer_id}-{row['line']}"


def _is_old(row: EarlierRow, correction: Correction | None) -> bool:
    return correction is not None and dict(row.observed) != dict(correction.now)


def _models(registry: Registry, history: MarketHistory, days: Mapping[Day, Correction]) -> Iterator[UsedBy]:
    """Bundles whose training set held a value that was corrected later."""
    symbols = {symbol for symbol, _ in days}
    for version in registry.versions():
        manifest = registry.load(version).document(TRAINING_MANIFEST)
        if manifest.get("source") != SOURCE:
            continue
        rows = history.current_rows(
            symbols=symbols,
            before=date.fromisoformat(manifest["as_of"]),
            version=manifest["history_version"],
            known_by=datetime.fromisoformat(manifest["known_by"]),
            order=order_of(manifest),
        )
        used = [
            f"{row['symbol']} {row['date']}"
            for row in rows.to_pylist()
            if (found := days.get((row["symbol"], row["date"]))) and _values(row) != dict(found.now)
        ]
        if used:
            yield UsedBy(version, None, used)


def _values(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: row[name] for name in OBSERVED}


def told(found: Corrections) -> Iterator[str]:
    """Corrections in lines for people."""
    yield f"{found.upload} corrected {len(found.corrections)} rows that were known before"
    for one in found.corrections:
        changed = [name for name in OBSERVED if one.before[name] != one.now[name]]
        values = ", ".join(f"{name} {one.before[name]!r} → {one.now[name]!r}" for name in changed)
        yield f"  {one.symbol} {one.date}: {values} (before: upload {one.before_upload}, {one.before_known_at})"
    yield f"{len(found.answers)} past answers were made from the values before"
    for used in found.answers:
        yield f"  {used.name} to {used.upload}: {len(used.used)} predictions, {', '.join(used.used[:3])}"
    yield f"{len(found.models)} models were trained on them"
    for used in found.models:
        yield f"  {used.name}: {', '.join(used.used[:3])}"
