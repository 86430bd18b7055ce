"""predictions: the answers to a delivery, scored, decided about, recorded and published beside the uploads.

For the whole delivery in this order: gather what stands, decide about each upload (`outcomes`), write (`publication`).
Where what stands changed before it could be written, the uploads it concerns are gathered and decided about again.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

import pyarrow as pa

from crypto_ml.digest import sha256_of
from crypto_ml.errors import CryptoMLError, Unavailable
from crypto_ml.forecasting.answers import PREDICTIONS
from crypto_ml.forecasting.looked_at import LookedAt
from crypto_ml.ledger.formats.receipt_v2 import Receipt, Vouched
from crypto_ml.ledger.layout import answer_keys
from crypto_ml.ledger.reports import Report, read_reports
from crypto_ml.ledger.retractions import retractions
from crypto_ml.stages.answer_receipts import (
    answer_ids,
    deliveries_behind,
    evidence_of,
    receipt_of,
    situation,
    version_written,
)
from crypto_ml.stages.cleaned_features import REFUSED, Cleaned, download_named
from crypto_ml.stages.delivery_scoring import PREDICTED_PARQUET, PREVIEW_ROWS, Scored, Sources, score_delivery
from crypto_ml.stages.logged_predictions import log_predictions
from crypto_ml.stages.outcomes import Decided, Situation, decide
from crypto_ml.stages.publication import (
    Answer,
    close,
    publish_files,
    publish_report,
    put_again,
    record,
    record_together,
    refused_rows_file,
)
from crypto_ml.stages.raw_uploads import Received
from crypto_ml.storage.at_once import at_once
from crypto_ml.storage.objects import ObjectStore

T = TypeVar("T")


@dataclass(frozen=True)
class Answers:
    """The receipts and reports of a delivery, one of each for each upload, and what of its rows there is to look at."""

    receipts: Sequence[Receipt]
    reports: Sequence[Report]
    preview: pa.Table
    looked_at: LookedAt

    @property
    def published(self) -> list[str]:
        """The keys of everything that was published."""
        return [entry.key for entry in self._published()]

    @property
    def data_version(self) -> str:
        """The published bytes, as one word."""
        return sha256_of("".join(entry.sha256 for entry in self._published()).encode())

    def _published(self) -> Iterator[Vouched]:
        for receipt in self.receipts:
            yield from (entry for what, entry in receipt.published.items() if what != "report")


@dataclass(frozen=True)
class _Delivery:
    """Everything the answers of a delivery are made of, on local disk and in hand."""

    received: Received
    cleaned: Cleaned
    sources: Sources
    directory: Path
    scored: Mapping[int, Scored]
    evidence: Mapping[str, Vouched]
    written: int | None
    looked_at: LookedAt

    @property
    def store(self) -> ObjectStore:
        return self.sources.store


def answer(
    received: Received,
    cleaned: Cleaned,
    sources: Sources,
    *,
    accepted: Sequence[pa.Table] | None = None,
    directory: Path | None = None,
) -> Answers:
    """Score every accepted row of the delivery and publish an answer to each of its uploads.

    accepted: these rows, where they are at hand, and directory: the one that the delivery was cleaned in, where it is
    still there (see `cleaned_features.clean`). Where the answer to one of the uploads cannot be published the others
    have theirs, and what kept it is raised in the end.
    """
    with TemporaryDirectory(prefix="crypto_ml-answer-") if directory is None else nullcontext(directory) as name:
        delivery = _scored(received, cleaned, sources, Path(name), accepted)
        written: dict[int, Answer] = {}
        moved: set[str] = set()
        failed: dict[int, CryptoMLError] = {}
        while remaining := set(range(len(received.files))) - written.keys() - failed.keys():
            standing = read_reports([received.files[number].upload.key for number in remaining], sources.store)
            situations = _situations(delivery, remaining, standing, moved, _retracted(standing, sources.store))
            decided = {number: decide(found) for number, found in situations.items()}
            written |= _write(delivery, decided, standing, failed)
            moved |= {str(one.repeats) for number, one in decided.items() if one.repeats and number not in written}
        if failed:
            passing = (number for number, error in failed.items() if isinstance(error, Unavailable))
            raise failed[min(passing, default=min(failed))]
        answers = [written[number] for number in sorted(written)]
        close(received.delivery, [one.receipt for one in answers], sources.store)
        previews = [rows for file in list(delivery.scored.values())[:PREVIEW_ROWS] for rows in file.preview]
        return Answers(
            [one.receipt for one in answers],
            [one.report for one in answers],
            pa.concat_tables(previews) if previews else PREDICTIONS.empty_table(),
            delivery.looked_at,
        )


def _scored(
    received: Received,
    cleaned: Cleaned,
    sources: Sources,
    directory: Path,
    accepted: Sequence[pa.Table] | None,
) -> _Delivery:
    looked_at, names = LookedAt(), answer_ids(received, cleaned, sources)
    scored = score_delivery(cleaned, names, sources, directory, looked_at=looked_at, accepted=accepted)
    evidence, written = evidence_of(received, cleaned, sources), version_written(cleaned, sources.store)
    return _Delivery(received, cleaned, sources, directory, scored, evidence, written, looked_at)


def _situations(
    delivery: _Delivery,
    numbers: Collection[int],
    standing: Mapping[str, Report],
    moved: Collection[str],
    retracted: Collection[tuple[str, str]],
) -> dict[int, Situation]:
    """What is known of some uploads. An answer's name that two of the delivery have belongs to the last of them that is
    to be predicted. moved: answers that a report names and whose predictions do not stand after all. retracted: the
    delivery and key of uploads that were."""
    received, cleaned = delivery.received, delivery.cleaned
    readable = [n for n, file in enumerate(received.files) if n in cleaned.files and not cleaned.files[n].refusal]
    in_order = [*(number for number in range(len(received.files)) if number not in readable), *readable]
    uploads = {number: received.files[number].upload.key for number in in_order}
    names = {key: answer_keys(key, delivery.store.room) for key in uploads.values()}
    owners = {names[key]: key for key in uploads.values()}
    return {
        number: situation(
            received,
            cleaned,
            number,
            owners[names[uploads[number]]],
            standing.get(uploads[number]),
            moved=moved,
            retracted=retracted,
        )
        for number in numbers
    }


def _retracted(standing: Mapping[str, Report], store: ObjectStore) -> set[tuple[str, str]]:
    """The delivery and key of each upload that was retracted, of those that reports and their answers are about."""
    deliveries = {delivery for report in standing.values() for delivery in deliveries_behind(report)}
    found = retractions(store, deliveries) if deliveries else {}
    return {(one.delivery, one.upload.key) for one in found.values()}


def _write(
    delivery: _Delivery,
    decided: Mapping[int, Decided],
    standing: Mapping[str, Report],
    failed: dict[int, CryptoMLError],
) -> dict[int, Answer]:
    """Write what was decided: every receipt, every file, the log of predictions, every report. Returns the answers that
    are out; one is neither among them nor has `failed` where what stood is not there any more."""
    store = delivery.store
    prepared = {number: _prepared(delivery, number, one, standing) for number, one in decided.items()}

    repeats = [number for number, one in prepared.items() if one.publishing == "repeat"]
    stand = _each(repeats, lambda number: put_again(prepared[number], delivery.directory, store), failed, store)
    going = {number: one for number, one in prepared.items() if number not in repeats or stand.get(number)}
    known = _recorded(delivery, going, failed)
    out = _each(known, lambda number: publish_files(known[number], store), failed, store)
    log_predictions({number: known[number].receipt for number in out}, delivery.directory / PREDICTED_PARQUET, store)
    _each(out, lambda number: publish_report(out[number], store), failed, store)
    return {number: one for number, one in out.items() if number not in failed}


def _recorded(
    delivery: _Delivery, prepared: Mapping[int, Answer], failed: dict[int, CryptoMLError]
) -> dict[int, Answer]:
    """The answers with their receipts, which stand by now: those of a delivery of several uploads as one object."""
    rescored, store = partial(_rescored, delivery), delivery.store
    if len(delivery.received.files) == 1:
        return _each(prepared, lambda number: record(prepared[number], partial(rescored, number), store), failed, store)
    try:
        return record_together(prepared, rescored, delivery.received.delivery, store) if prepared else {}
    except CryptoMLError as error:
        failed.update(dict.fromkeys(prepared, error))
        return {}


def _prepared(delivery: _Delivery, number: int, decided: Decided, standing: Mapping[str, Report]) -> Answer:
    """An answer as it was decided, with its files on local disk."""
    scored = delivery.scored.get(number)
    receipt = receipt_of(
        delivery.received,
        delivery.cleaned,
        number,
        scored,
        delivery.sources,
        decided=decided,
        evidence=delivery.evidence,
        written=delivery.written,
    )
    earlier, rejected = standing.get(receipt.upload.key), None
    replaced = decided.publishing == "answer" and earlier is not None and earlier.rejected_rows is not None
    if decided.publishing in ("answer", "report") and (receipt.rows.refused or replaced):
        rejected = refused_rows_file(number, _refused(delivery), delivery.directory)
    return Answer(
        receipt,
        decided.publishing,
        predictions=scored.path if scored and decided.publishing == "answer" else None,
        rejected_rows=rejected,
        repeats=earlier if decided.publishing == "repeat" else None,
    )


def _refused(delivery: _Delivery) -> Path:
    """The refused rows of the whole delivery, of which most have none."""
    path = delivery.directory / REFUSED
    if not path.exists():
        download_named(delivery.cleaned.refused_key, path, delivery.store)
    return path


def _rescored(delivery: _Delivery, number: int, answer_id: str) -> Path:
    """The predictions of one file under another answer's name."""
    directory = delivery.directory / answer_id
    directory.mkdir()
    return score_delivery(delivery.cleaned, {number: answer_id}, delivery.sources, directory, number)[number].path


def _each(
    numbers: Collection[int], work: Callable[[int], T], failed: dict[int, CryptoMLError], store: ObjectStore
) -> dict[int, T]:
    """Do something for each of some uploads; one that fails is noted and keeps no other from its own."""
    done: dict[int, T] = {}
    with at_once(len(numbers), store) as pool:
        working = {number: pool.submit(work, number) for number in numbers}
        for number, result in working.items():
            try:
                done[number] = result.result()
            except CryptoMLError as error:
                failed[number] = error
    return done
