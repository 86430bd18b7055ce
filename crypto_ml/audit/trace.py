"""The whole chain behind an answer, or behind one predicted number, from S3 alone."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from crypto_ml.audit.evidence import Evidence
from crypto_ml.audit.made_of import MadeOf, made_of, told_made_of
from crypto_ml.audit.references import Reference, UnknownAnswer
from crypto_ml.digest import sha256_of
from crypto_ml.forecasting.bundle import TRAINING_MANIFEST
from crypto_ml.forecasting.folded import FoldedSeries
from crypto_ml.forecasting.scaled_by import BY_MODEL, BY_OWN_ROWS
from crypto_ml.forecasting.schema import LOOK_BACK
from crypto_ml.forecasting.scoring import score_tables
from crypto_ml.forecasting.sorting import RowSorter, as_frame
from crypto_ml.forecasting.uploads.json_records import FIRST_LINE
from crypto_ml.ledger.deliveries import DeliveryLog
from crypto_ml.ledger.formats.receipt_v2 import Receipt
from crypto_ml.ledger.formats.retraction_v1 import Retraction
from crypto_ml.ledger.layout import receipt_key
from crypto_ml.ledger.receipts import document
from crypto_ml.ledger.registry import repeated_champion
from crypto_ml.ledger.reports import read_report_of
from crypto_ml.ledger.requests import addresses_of, asked_name, delivery_in, is_json, is_request, pack_key
from crypto_ml.ledger.retractions import retractions
from crypto_ml.stages.delivery_scoring import add_earlier_rows
from crypto_ml.stages.earlier_rows import current_of
from crypto_ml.stages.raw_uploads import Kept
from crypto_ml.storage.failures import ObjectMissing
from crypto_ml.storage.objects import ObjectStore

MOST_TOLD: Final = LOOK_BACK
"""Earlier rows that people are told of: those of the window, and the one before it."""

OBSERVED = ("open", "high", "low", "close", "market", "volume", "slug")


@dataclass(frozen=True)
class EarlierRow:
    """A row that a prediction was made from: the observation, and the upload, line and time it became known by."""

    date: date
    observed: Mapping[str, Any]
    upload: str
    upload_id: str
    line: int
    known_at: str


@dataclass(frozen=True)
class TracedRow:
    """One predicted number: what stood in the upload, and each earlier row its prediction was made from, oldest first.

    as_received: the line of the upload, byte for byte; of JSON the record, on one line. scaled_by: `model`, `own rows`,
    or nothing where it is a seed. made_of: what the number was made of, where the model has a serving rule.
    """

    prediction_id: str
    symbol: str
    date: date
    line: int
    as_received: str
    pred_open: float
    val_open: float
    status: str
    scaled_by: str
    earlier_rows: Sequence[EarlierRow]
    made_of: MadeOf | None = None


@dataclass(frozen=True)
class Trace:
    """An answer's receipt, what was trained into its model, whether what was published still stands, and one row.

    kept: where the bytes of the upload are, None where they could not be had. retracted: upload id →
    retraction, of the upload and of those that the row's earlier rows came from. pack: the one object in which all of
    this stands where a request was answered, under the keys that the receipt names; None where a file was.
    """

    receipt: Receipt
    published: str
    trained_on: Mapping[str, Any]
    row: TracedRow | None
    kept: Kept | None = None
    retracted: Mapping[str, Retraction] = field(default_factory=dict)
    pack: str | None = None

    def document(self) -> dict[str, Any]:
        """The trace as JSON has it."""
        found: dict[str, Any] = {
            **document(self.receipt),
            "published_now": self.published,
            "trained_on": dict(self.trained_on),
            "row": asdict(self.row) if self.row else None,
            "kept": asdict(self.kept) if self.kept else None,
            "retracted": {upload: asdict(one) for upload, one in self.retracted.items()},
            "pack": self.pack,
        }
        return found


def trace(reference: Reference, store: ObjectStore) -> Trace:
    """Follow a reference. Raises UnknownAnswer, ReceiptDamaged, and what the store raises where evidence is gone."""
    with TemporaryDirectory(prefix="crypto_ml-trace-") as name:
        try:
            evidence = Evidence.of(reference.answer_id, store, Path(name))
        except ObjectMissing as missing:
            raise UnknownAnswer(_no_answer(reference.answer_id, store)) from missing
        row = trace_rows(evidence, [reference])[0] if reference.is_row else None
        trained_on = evidence.bundle.document(TRAINING_MANIFEST)
        had = evidence.receipt.inputs.upload_sha256 is not None
        own = {evidence.upload_id: evidence.receipt.upload.key} if had else {}
        retracted = retracted_of([*own, *(one.upload_id for one in row.earlier_rows)] if row else own, store)
        kept = evidence.kept if had else None
        published, pack = published_now(evidence), pack_key(evidence.receipt.inputs.delivery)
        in_pack = pack if evidence.is_request else None
        return Trace(evidence.receipt, published, trained_on, row, kept, retracted, in_pack)


def _no_answer(answer_id: str, store: ObjectStore) -> str:
    delivery, key = answer_id.partition("-")[0], receipt_key(answer_id)
    if not is_request(delivery):
        return f"there is no answer {answer_id}: no receipt {store.uri(key)}"
    pack = store.uri(pack_key(delivery))
    if store.head(pack_key(delivery)) is None:
        return (
            f"there is no answer {answer_id}: nothing was answered as {pack}; was it asked for without being recorded?"
        )
    return f"there is no answer {answer_id}: the requests that were answered as {pack} have others"


def retracted_of(uploads: Iterable[str], store: ObjectStore) -> dict[str, Retraction]:
    """Upload id → retraction, of those of some uploads that were retracted."""
    asked = set(uploads)
    found = retractions(store, {upload.partition(".")[0] for upload in asked})
    return {upload: one for upload, one in found.items() if upload in asked}


def published_now(evidence: Evidence) -> str:
    """What became of the predictions that the receipt vouches for."""
    receipt, store = evidence.receipt, evidence.store
    published = receipt.published.get("predictions")
    if published is None:
        return "nothing was published"
    try:
        if sha256_of(store.read(published.key)) == published.sha256:
            return "in the answer to the request" if evidence.is_request else "stands unchanged"
    except ObjectMissing:
        return "was deleted"
    report = read_report_of(receipt, store)
    if report and report.document["answer_id"] != receipt.answer_id:
        return f"was replaced by answer {report.document['answer_id']} of delivery {report.delivery}"
    return "was changed from outside"


def trace_rows(evidence: Evidence, references: Sequence[Reference]) -> list[TracedRow]:
    """Rows of one answer, in the order asked for; their series are read and scored once. Raises UnknownAnswer."""
    receipt = evidence.receipt
    if not receipt.rows.accepted:
        raise UnknownAnswer(f"answer {receipt.answer_id} has no rows: {receipt.outcome}, {receipt.reason}")
    named = [_named(evidence, reference) for reference in references]
    own = evidence.accepted({symbol for symbol, _, _ in named})
    scored = {int(row["line"]): row for row in scored_again(evidence, own).to_dict("records")}
    known = known_rows(evidence, own)
    return [_row(evidence, row, scored[row[2]], known[row[0]]) for row in named]


def _row(
    evidence: Evidence, named: tuple[str, date, int], answered: Mapping[Any, Any], known: Sequence[EarlierRow]
) -> TracedRow:
    symbol, day, line = named
    earlier = made_from(known, day, str(answered["scaled_by"]), evidence.bundle.look_back)
    prices, level = [row.observed for row in earlier], evidence.settings.level
    return TracedRow(
        prediction_id=f"{evidence.receipt.answer_id}-{line}",
        symbol=symbol,
        date=day,
        line=line,
        as_received=evidence.raw_line(line),
        pred_open=float(answered["pred_open"]),
        val_open=float(answered["val_open"]),
        status=str(answered["status"]),
        scaled_by=str(answered["scaled_by"]),
        earlier_rows=earlier,
        made_of=made_of(prices, evidence.bundle, level, answered),
    )


def _named(evidence: Evidence, reference: Reference) -> tuple[str, date, int]:
    rows = evidence.accepted(None if reference.symbol is None else {reference.symbol})
    meant = pc.field("line") == reference.line if reference.line is not None else pc.field("date") == reference.day
    found = rows.filter(meant).select(["symbol", "date", "line"]).to_pylist()
    if not found:
        what = f"line {reference.line}" if reference.line is not None else f"{reference.symbol} of {reference.day}"
        raise UnknownAnswer(f"answer {evidence.receipt.answer_id} has no row for {what}; it may have been refused")
    return str(found[0]["symbol"]), found[0]["date"], int(found[0]["line"])


def made_from(known: Sequence[EarlierRow], day: date, scaled_by: str, look_back: int) -> list[EarlierRow]:
    """Of the rows known of a series, those that a prediction for a day was made from, by what scaled it. look_back: of
    the bundle."""
    before = [row for row in known if row.date < day]
    if scaled_by == BY_MODEL:
        return before[-look_back:]
    return before if scaled_by == BY_OWN_ROWS else []


def scored_again(evidence: Evidence, own: pa.Table) -> pd.DataFrame:
    """Series of the upload, scored again: columns of `scoring.scored_by`."""
    sources = evidence.sources(evidence.series)
    with TemporaryDirectory(dir=evidence.directory) as name, RowSorter(Path(name)) as sorter:
        sorter.add(own.append_column("context", pa.repeat(False, own.num_rows)))
        folded = FoldedSeries(Path(name) / "folded")
        add_earlier_rows(sorter, folded, sources)
        chunks = sorter.chunk_tables()
        settings = sources.settings
        scored = score_tables(chunks, sources.bundle, settings.recovery, folded=folded, level=settings.level)
        return as_frame(pa.concat_tables(scored))


def known_rows(evidence: Evidence, own: pa.Table) -> dict[str, list[EarlierRow]]:
    """symbol → every row there was for it, in order of dates; a row of the upload counts before one of history."""
    received, upload_id = evidence.received, evidence.upload_id
    given = own.select(["symbol", "date", *OBSERVED, "line"]).to_pylist()
    known = [{**row, "upload_id": upload_id, "known_at": received.at} for row in given]
    days = {(row["symbol"], row["date"]) for row in known}
    known += [row for row in _history(evidence, own) if (row["symbol"], row["date"]) not in days]
    uploads = _uploads({str(row["upload_id"]) for row in known}, evidence.store)
    found: dict[str, list[EarlierRow]] = {}
    for row in sorted(known, key=lambda row: row["date"]):
        found.setdefault(row["symbol"], []).append(_earlier(row, uploads))
    return found


def _history(evidence: Evidence, own: pa.Table) -> Iterator[dict[str, Any]]:
    version = evidence.receipt.history.read
    if version is None:
        return
    symbols, last = own["symbol"].unique().to_pylist(), pc.max(own["date"]).as_py()
    order = evidence.receipt.inputs.current
    for row in current_of(evidence.series, symbols, last, version, order).to_pylist():
        yield {**row, "known_at": row["known_at"].isoformat()}


def earlier_rows(rows: Iterable[Mapping[str, Any]], store: ObjectStore) -> list[EarlierRow]:
    """Rows of the history as rows that a prediction was made from, with the uploads they came from, in their order."""
    known = [{**row, "known_at": row["known_at"].isoformat()} for row in rows]
    uploads = _uploads({str(row["upload_id"]) for row in known}, store)
    return [_earlier(row, uploads) for row in known]


def _uploads(upload_ids: set[str], store: ObjectStore) -> dict[str, str]:
    """upload id → the key that the upload was dropped under."""
    log = DeliveryLog(store)
    deliveries = {upload_id.partition(".")[0] for upload_id in upload_ids}
    found = {delivery: log.get(int(delivery)).uploads for delivery in sorted(deliveries)}
    parts = {upload_id: upload_id.partition(".") for upload_id in upload_ids}
    return {upload_id: found[delivery][int(file)].key for upload_id, (delivery, _, file) in parts.items()}


def _earlier(row: Mapping[str, Any], uploads: Mapping[str, str]) -> EarlierRow:
    upload_id = str(row["upload_id"])
    observed = {name: row[name] for name in OBSERVED}
    return EarlierRow(row["date"], observed, uploads[upload_id], upload_id, int(row["line"]), str(row["known_at"]))


def told_earlier_rows(rows: Sequence[EarlierRow], scaled_by: str, retracted: Mapping[str, Retraction]) -> Iterator[str]:
    """What a prediction was made from, in lines for people."""
    yield f"  made from     {len(rows)} earlier rows" + (f", scaled by {scaled_by}" if scaled_by else "")
    for earlier in rows[-MOST_TOLD:]:
        prices = " ".join(f"{name} {earlier.observed[name]!r}" for name in OBSERVED[:4])
        since = f", retracted {retracted[earlier.upload_id].at}" if earlier.upload_id in retracted else ""
        upload = f"request {asked_name(earlier.upload)}" if delivery_in(earlier.upload) else earlier.upload
        yield f"    {earlier.date}  {prices}  from line {earlier.line} of {upload}, {earlier.known_at}{since}"
    if len(rows) > MOST_TOLD:
        yield f"    and {len(rows) - MOST_TOLD} before those, which scale it (--json lists them)"


Line = tuple[str, str]
"""A line for people, behind the part of the trace that it shows (see `held`)."""


def _told_upload(found: Trace, store: ObjectStore) -> Iterator[Line]:
    """The file that was answered, and what became of its rows."""
    receipt, timings = found.receipt, found.receipt.timings
    yield (
        "receipt",
        f"upload          {store.uri(receipt.upload.key)}  ETag {receipt.upload.etag}, {receipt.upload.size} bytes",
    )
    for one in found.retracted.values():
        if (one.delivery, one.upload.key) == (receipt.inputs.delivery, receipt.upload.key):
            yield "retraction", f"  retracted     by {one.decided_by} at {one.at}, because: {one.why}"
    yield from _told_rows(found, store)
    times = f"uploaded {timings.uploaded_at}, received {timings.received_at}, answered {timings.answered_at}"
    yield "receipt", f"  delivery      {receipt.inputs.delivery}, {times}"
    written = receipt.history.written
    yield "receipt", f"market history  read at version {receipt.history.read}, these rows in version {written}"


def _told_request(found: Trace, place: ObjectStore) -> Iterator[Line]:
    """The request that was answered; its own id is what whoever asked was given in the header of the answer."""
    receipt, timings = found.receipt, found.receipt.timings
    name = asked_name(receipt.upload.key)
    size = receipt.upload.size
    yield "receipt", f"request         {name}  sha256 {receipt.inputs.upload_sha256}, {size} bytes"
    yield from _told_rows(found, place)
    times = f"received {timings.received_at}, answered {timings.answered_at}"
    yield "receipt", f"  delivery      {receipt.inputs.delivery}, {times}"
    version = receipt.history.read
    yield "receipt", f"market history  read at version {version}; the rows of requests do not become part of it"


def _told_rows(found: Trace, place: ObjectStore) -> Iterator[Line]:
    if found.kept:
        yield "upload", f"  kept as       {found.kept.told(place)}"
    rows = found.receipt.rows
    yield "rows", f"  rows          {rows.received} received, {rows.accepted} accepted, {rows.refused} refused"


def lines(found: Trace, store: ObjectStore) -> Iterator[Line]:
    """A trace in lines for people, from the number back to the approval, each behind the part that it shows."""
    receipt, row = found.receipt, found.row
    place = addresses_of(receipt.inputs.delivery, store)
    if row:
        record = f"record {row.line - FIRST_LINE + 1}, as " if found.pack and is_json(receipt.upload.key) else ""
        said = f"pred_open {row.pred_open!r}, val_open {row.val_open!r} ({row.status})"
        yield "number", f"{row.symbol} {row.date}: {said}"
        yield "number", f"  prediction    {row.prediction_id}"
        yield "upload", f"  as received   {record}line {row.line}: {row.as_received}"
        if row.made_of:
            yield from (("number", line) for line in told_made_of(row.made_of))
        earlier = told_earlier_rows(row.earlier_rows, row.scaled_by, found.retracted)
        yield from (("earlier_rows", line) for line in earlier)
    reason = f", {receipt.reason}" if receipt.reason else ""
    yield "receipt", f"answer          {receipt.answer_id}: {receipt.outcome}{reason}"
    for what, vouched in receipt.published.items():
        yield "published", f"  {what:<13} {place.uri(vouched.key)}  sha256 {vouched.sha256}"
    yield "published", f"  published     {found.published}"
    yield from (_told_request if found.pack else _told_upload)(found, place)
    yield "model", f"model           {receipt.model.version}  sha256 {receipt.model.sha256}"
    trained = found.trained_on
    week = (
        f", week {trained['week']}, version {trained['history_version']}, known by {trained['known_by']}, "
        f"{len(trained['uploads'])} uploads"
        if "week" in trained
        else ""
    )
    yield "model", f"  trained on    {trained.get('source', 'not recorded')}{week}"
    yield from told_approval(receipt.champion)
    software = receipt.software
    code = ", ".join(f"{stage} {version}" for stage, version in software.code.items())
    yield "receipt", f"software        crypto_ml {software.package}, Python {software.python}; code: {code}"
    image, lock = software.image or "not known", software.lock_sha256 or "not known"
    yield "receipt", f"  image         {image}, lock sha256 {lock}"
    yield "receipt", f"run             {receipt.run_id}"


def told_approval(repeated: Mapping[str, Any]) -> Iterator[Line]:
    """Who approved a model, as a receipt repeats it."""
    champion = repeated_champion(repeated)
    yield (
        "approval",
        f"approval        entry {champion.pointer}, {champion.action} by {champion.decided_by}: {champion.why}",
    )
    if champion.override:
        failed = ", ".join(str(gate["name"]) for gate in champion.gates if not gate["passed"])
        yield "approval", f"  overridden    {failed} failed; {champion.override}"
