"""The receipt of an answer: put together before anything is published."""

from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from functools import cache
from typing import Any, Final

from crypto_ml.digest import sha256_of
from crypto_ml.forecasting.bundle import MANIFEST, NETWORK, SCALER, TRAINING_MANIFEST, ModelBundle
from crypto_ml.forecasting.scaled_by import own_scaled_note
from crypto_ml.forecasting.uploads.read_as import read_as_recorded
from crypto_ml.ledger.clock import not_before
from crypto_ml.ledger.code import code_version
from crypto_ml.ledger.deliveries import delivery_key
from crypto_ml.ledger.formats.receipt_v2 import (
    Fingerprints,
    HistoryVersions,
    Inputs,
    Receipt,
    RowCounts,
    Timings,
    UsedModel,
    Vouched,
)
from crypto_ml.ledger.layout import bundle_prefix, received_key
from crypto_ml.ledger.registry import Registry
from crypto_ml.ledger.reports import Report
from crypto_ml.ledger.requests import delivery_in, is_json, is_request
from crypto_ml.ledger.software import software
from crypto_ml.stages.cleaned_features import Cleaned, CleanedFile
from crypto_ml.stages.delivery_scoring import Scored, Sources
from crypto_ml.stages.market_history import append_id, read_append
from crypto_ml.stages.outcomes import Decided, Situation, Standing
from crypto_ml.stages.raw_uploads import Received, ReceivedFile
from crypto_ml.storage.at_once import at_once
from crypto_ml.storage.failures import ObjectMissing
from crypto_ml.storage.objects import ObjectStore

MOST_SYMBOLS_NAMED: Final = 20


def answer_ids(received: Received, cleaned: Cleaned, sources: Sources) -> dict[int, str]:
    """The name of the answer to each file of the delivery, by its number, at the first attempt."""
    return {number: _inputs(received, cleaned, number, sources).answer_id for number in range(len(received.files))}


def _inputs(received: Received, cleaned: Cleaned, number: int, sources: Sources) -> Inputs:
    file, program = received.files[number], software()
    return Inputs(
        upload_key=file.upload.key,
        upload_sha256=file.sha256,
        delivery=received.delivery,
        accepted_sha256=cleaned.accepted_sha256,
        history_version=sources.history_version,
        model_version=sources.bundle.version,
        bundle_sha256=sources.bundle.sha256,
        champion_pointer=sources.champion.pointer,
        code=code_version("crypto_ml.stages.predictions"),
        recovery=sources.settings.recovery,
        current=sources.current,
        libraries=program.libraries,
        processor=program.processor,
        earlier=sources.earlier,
        interval_level=sources.settings.interval_level if sources.bundle.rule else "",
    )


def receipt_of(
    received: Received,
    cleaned: Cleaned,
    number: int,
    scored: Scored | None,
    sources: Sources,
    *,
    decided: Decided,
    evidence: Mapping[str, Vouched],
    written: int | None,
) -> Receipt:
    """The receipt of one upload, before anything is published."""
    file = received.files[number]
    summary = cleaned.files.get(number)
    return Receipt(
        outcome=decided.outcome,
        reason=decided.reason,
        upload=file.upload,
        inputs=_inputs(received, cleaned, number, sources),
        rows=RowCounts(
            received=summary.received if summary else 0,
            accepted=summary.accepted if summary else 0,
            refused=summary.refused if summary else 0,
            repeated=summary.repeated if summary else 0,
            predicted=scored.predicted if scored else 0,
            seed=scored.seed if scored else 0,
        ),
        fingerprints=scored.fingerprints if scored else Fingerprints(),
        history=HistoryVersions(read=sources.history_version, written=written),
        model=_used(sources.bundle),
        champion=sources.champion.repeated(),
        settings=sources.settings.deciding(),
        software=software(sources.settings.image),
        evidence=evidence,
        run_id=sources.run_id,
        timings=timings_of(received, file, datetime.now(UTC)),
        ignored_columns=list(summary.ignored_columns) if summary else [],
        date_order=summary.date_order if summary else None,
        read_as=_read_as(summary, file.upload.key) if summary and not summary.refusal else None,
        notes=[*_cut_list(summary), *_how_read(summary), *(_notes(cleaned, scored, decided) if scored else [])],
        earlier_answer=decided.repeats,
    )


def situation(
    received: Received,
    cleaned: Cleaned,
    number: int,
    owner: str,
    report: Report | None,
    *,
    moved: Collection[str],
    retracted: Collection[tuple[str, str]],
) -> Situation:
    """What is known of one upload, for `outcomes.decide`.

    report: the one that stands under its answer's name. moved: answers whose predictions do not stand after all.
    retracted: the delivery and key of uploads that were.
    """
    file, summary = received.files[number], cleaned.files.get(number)
    refusal = summary.refusal if summary else "the upload could not be read"
    return Situation(
        delivery=received.delivery,
        upload_key=file.upload.key,
        upload_sha256=file.sha256,
        owner=owner,
        gone=file.reason if file.outcome == "SKIPPED" else None,
        refusal=file.reason if file.outcome == "REJECTED" else refusal,
        standing=_standing(report, moved, retracted) if report else None,
    )


def deliveries_behind(report: Report) -> set[str]:
    """The delivery of the upload that a report is on, and of the one that the answer it names was given to."""
    return {report.delivery, *([report.answer_id.partition("-")[0]] if report.answer_id else [])}


def _standing(report: Report, moved: Collection[str], retracted: Collection[tuple[str, str]]) -> Standing:
    stands = report.predictions is not None and report.answer_id not in moved
    return Standing(
        report.delivery,
        report.upload_key,
        report.upload_sha256,
        report.outcome,
        report.answer_id if stands else None,
        any((delivery, report.upload_key) in retracted for delivery in deliveries_behind(report)),
    )


def timings_of(received: Received, file: ReceivedFile, answered: datetime) -> Timings:
    """When what happened to a file: nothing before what had to come first, whatever the clocks say.

    When it was written is the store's word, which may be ahead of everybody else's.
    """
    received_at = not_before(datetime.fromisoformat(received.at), received.noticed_at)
    return Timings(
        uploaded_at=file.upload.last_modified,
        noticed_at=received.noticed_at,
        received_at=received_at,
        answered_at=not_before(answered, received_at),
    )


def evidence_of(received: Received, cleaned: Cleaned, sources: Sources) -> dict[str, Vouched]:
    """The stored objects that every answer of the delivery rests on (see `receipts.EVIDENCE`), as they are stored."""
    registry = Registry(sources.store, sources.settings.environment)
    keys = {
        "delivery": delivery_key(received.delivery),
        "received": received_key(received.delivery),
        "cleaned": cleaned.record_key,
        "refused": cleaned.refused_key,
        "champion": registry.pointer_key(sources.champion.pointer),
        "bundle": bundle_prefix(sources.bundle.version) + MANIFEST,
    }
    with at_once(len(keys), sources.store) as pool:
        hashes = pool.map(lambda key: sha256_of(sources.store.read(key)), keys.values())
    found = {part: Vouched(key, sha256) for (part, key), sha256 in zip(keys.items(), hashes, strict=True)}
    return {**found, "accepted": Vouched(cleaned.accepted_key, cleaned.accepted_sha256)}


def version_written(cleaned: Cleaned, store: ObjectStore) -> int | None:
    """The version of the history that the delivery's rows stand in; None where it brought none, as requests do."""
    if not cleaned.accepted_rows or is_request(cleaned.delivery):
        return None
    try:
        return read_append(cleaned, store).version
    except ObjectMissing as missing:
        raise ObjectMissing(
            f"the rows of delivery {cleaned.delivery} are not in the market history yet (append "
            f"{append_id(cleaned)}); materialise market_history for it first"
        ) from missing


def _cut_list(summary: CleanedFile | None) -> list[str]:
    if summary is None or summary.listed is None:
        return []
    return [f"{summary.listed:,} of {summary.refused:,} refused rows are listed, the first ones"]


def _read_as(summary: CleanedFile, key: str) -> Mapping[str, Any]:
    if delivery_in(key) and is_json(key):  # what was cleaned is the same records as CSV
        return _plain("json") if summary.read_as is None else _recorded({**summary.read_as, "format": "json"})
    return _plain("csv") if summary.read_as is None else _recorded(summary.read_as)


def _recorded(recorded: Mapping[str, Any]) -> Mapping[str, Any]:
    return read_as_recorded(recorded).document()


@cache
def _plain(kind: str) -> Mapping[str, Any]:
    return _recorded({"format": kind})


def _how_read(summary: CleanedFile | None) -> list[str]:
    if summary is None or summary.refusal or summary.read_as is None:  # of plain CSV there is nothing to note
        return []
    return read_as_recorded(summary.read_as).notes()


def _notes(cleaned: Cleaned, scored: Scored, decided: Decided) -> list[str]:
    notes = []
    if decided.replaces:
        notes.append(f"replaces answer {decided.replaces}; `crypto-ml corrections` lists what used it")
    if scored.own_scaled:
        notes.append(own_scaled_note(scored.own_scaled, scored.own_scaled_series))
    if scored.seed:
        rows = "1 row has" if scored.seed == 1 else f"{scored.seed:,} rows have"
        notes.append(f"{rows} too few earlier rows to predict from: pred_open is open there")
    notes += [*scored.look_alikes, *scored.unit_changes, *scored.spacing]
    for name, (symbol, slug) in list(cleaned.renamed.items())[:MOST_SYMBOLS_NAMED]:
        notes.append(f"{symbol} is another coin's symbol already, so the series of {slug} is named {name}")
    return notes


def _used(bundle: ModelBundle) -> UsedModel:
    files: Mapping[str, str] = bundle.manifest["files"]
    return UsedModel(bundle.version, bundle.sha256, files[NETWORK], files[SCALER], files.get(TRAINING_MANIFEST))
