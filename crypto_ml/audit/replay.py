"""An answer computed once more from the bytes that were received, and held against its receipt, stage by stage.

The stages, in the order in which one rests on another: `receipt`, `raw_uploads` (what was delivered, and its bytes),
`cleaned_features` (which rows were accepted, as what), `champion_model` (the approval), `market_history` (the earlier
rows), `trained_model` (the bundle), `features`, `predictions` (the numbers, and the files that were published),
`report`, `prediction_log` (each number once). The first that differs is named; those behind it are not looked at.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, Literal

import pandas as pd

from crypto_ml.audit.differences import Differs, at_stage
from crypto_ml.audit.distance import ulps_apart
from crypto_ml.audit.evidence import Evidence
from crypto_ml.audit.logged import as_logged, logged_as_made
from crypto_ml.audit.retraining import retrained
from crypto_ml.audit.rows_read import CACHE_DIFFERS, FOLDED, cache_note, named_where_damaged, uploads_stand
from crypto_ml.audit.standing import appends_stand, stands
from crypto_ml.digest import sha256_of, sha256_of_file
from crypto_ml.ledger.formats import receipt_v1, report_v1
from crypto_ml.ledger.formats.receipt_v2 import Fingerprints
from crypto_ml.ledger.layout import answered_key, receipt_key
from crypto_ml.ledger.receipts import read_receipt
from crypto_ml.ledger.registry import Registry
from crypto_ml.ledger.reports import read_report_of, report_key_of
from crypto_ml.ledger.settlements import is_settled
from crypto_ml.ledger.software import software
from crypto_ml.stages.cleaned_features import REFUSED, Cleaned, KnownCoins, clean_into
from crypto_ml.stages.delivery_scoring import PREDICTED_PARQUET, Scored, score_delivery
from crypto_ml.stages.logged_predictions import road_of
from crypto_ml.stages.publication import refused_rows_file
from crypto_ml.stages.series_by_name import Series
from crypto_ml.storage.objects import ObjectStore

AT_ONCE: Final = 8
PART_STAGES: Final = {
    "delivery": "raw_uploads",
    "received": "raw_uploads",
    "cleaned": "cleaned_features",
    "accepted": "cleaned_features",
    "refused": "cleaned_features",
    "champion": "champion_model",
    "bundle": "trained_model",
}

NOT_SETTLED: Final = (
    "its rows are not in prediction_log yet: they come within seconds, or where its process died with the next sweep"
)

Outcome = Literal["IDENTICAL", "EQUAL", "DIFFERS"]


@dataclass(frozen=True)
class ReplayVerdict:
    """What a replay found. ulp: the largest difference in units in the last place of a float32, where EQUAL. model: how
    far the model is from what it is when it is trained again, where that is asked and is not to the last bit."""

    answer_id: str
    outcome: Outcome
    stage: str | None = None
    why: str | None = None
    ulp: int | None = None
    note: str | None = None
    model: str | None = None

    def __str__(self) -> str:
        if self.outcome == "DIFFERS":
            return f"DIFFERS AT {self.stage}: {self.why}"
        answer = f"EQUAL WITHIN {self.ulp} ulp" if self.outcome == "EQUAL" else "IDENTICAL"
        return f"{answer}; its model, trained again, EQUAL WITHIN ROUNDING" if self.model else answer


def replay(answer_id: str, store: ObjectStore, *, retrain: bool = False, full: bool = False) -> ReplayVerdict:
    """Compute an answer again; with `retrain`, the model behind it as well.

    full: read every row of the history that anything of it rests on, and every object up to the version that was read
    (see `rows_read`); an answer of a release before 0.4 always is.
    Damage is a verdict, and so is a receipt that is not there. Raises StoreUnavailable where the store does not answer,
    NoTrainingSet where a model that was trained elsewhere is to be trained again.
    """
    model = None
    try:
        with TemporaryDirectory(prefix="crypto_ml-replay-") as name:
            evidence = at_stage("receipt", lambda: Evidence.of(answer_id, store, Path(name)))
            ulp, *notes = _replayed(evidence, full=full or not evidence.receipt.inputs.earlier)
            if retrain:
                model = retrained(evidence.bundle, evidence.history)
    except Differs as found:
        return ReplayVerdict(answer_id, "DIFFERS", found.stage, found.why)
    note = "; ".join(filter(None, [_software_note(evidence), *notes, model])) or None
    return ReplayVerdict(answer_id, "EQUAL" if ulp else "IDENTICAL", ulp=ulp or None, note=note, model=model)


def _replayed(evidence: Evidence, *, full: bool) -> tuple[int, str | None, str | None]:
    """How far the numbers are from those published, in ulp, 0 where every byte is the same; and what there is to say of
    what was read, and of the log. Raises Differs."""
    _evidence_stands(evidence)
    _raw_bytes_stand(evidence)
    receipt = evidence.receipt
    directory = evidence.directory / "again"
    directory.mkdir()
    cleaned = at_stage("cleaned_features", lambda: _clean(evidence, directory))
    refused = None
    if "rejected_rows" in receipt.published:
        refused = refused_rows_file(evidence.file, directory / REFUSED, directory)
        if sha256_of_file(refused) != receipt.published["rejected_rows"].sha256:
            raise Differs("cleaned_features", "other rows are refused, or for other reasons")
    _history_stands(evidence, full=full)
    bundle = at_stage("trained_model", lambda: evidence.bundle)
    if bundle.sha256 != receipt.model.sha256:
        raise Differs("trained_model", f"the bundle {bundle.version} is not the one the receipt names")
    ulp, note = 0, None
    if receipt.rows.accepted:
        made, note = _scored(evidence, cleaned, directory, full=full)
        _fingerprints_agree(receipt.fingerprints, made.fingerprints)
        if "predictions" in receipt.published and sha256_of_file(made.path) != receipt.published["predictions"].sha256:
            ulp = _distance(evidence, made.path)
    published_stands(evidence)
    _outcome_stands(evidence)
    return ulp, note, _log_stands(evidence, directory, exactly=not ulp)


def _evidence_stands(evidence: Evidence) -> None:
    """Every stored object that the receipt names is still what it was."""
    receipt, store = evidence.receipt, evidence.store

    def look(part: str) -> None:
        vouched = receipt.evidence[part]
        stands(PART_STAGES[part], vouched.key, vouched.sha256, store)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        for looked in [pool.submit(look, part) for part in PART_STAGES if part in receipt.evidence]:
            looked.result()
    registry = Registry(evidence.bucket, evidence.settings.environment)
    pointed = at_stage("champion_model", lambda: registry.entry(receipt.inputs.champion_pointer))
    if not pointed.is_repeated_by(receipt.champion):
        raise Differs("champion_model", "the entry of the pointer is not the one the receipt repeats")


def _raw_bytes_stand(evidence: Evidence) -> None:
    """The bytes of the delivery's files, which are cleaned together, are those that were received."""
    received, store = evidence.received, evidence.store
    own = evidence.receipt.inputs.upload_sha256
    objects: dict[str, str] = {}
    for number, file in enumerate(received.files):
        kept = received.kept(number)
        if kept and not file.outcome:
            objects[kept.key] = str(file.sha256 if kept.begin is None else received.together)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        found = [pool.submit(stands, "raw_uploads", key, sha256, store) for key, sha256 in sorted(objects.items())]
        for looked in found:
            looked.result()
    if own and own not in {file.sha256 for file in evidence.received.files}:
        raise Differs("raw_uploads", "the record of what was received does not have the upload's bytes")


def _clean(evidence: Evidence, directory: Path) -> Cleaned:
    """The delivery cleaned again. Raises Differs where its files come out otherwise."""
    before = evidence.cleaned
    named_by = before.named_by
    champion = at_stage("trained_model", lambda: Registry(evidence.bucket).load(named_by["champion"]))
    coins = KnownCoins(evidence.history, named_by["history_version"], champion, evidence.receipt.inputs.current)
    cleaned = clean_into(directory, evidence.received, coins, evidence.store, evidence.settings)
    if dict(cleaned.files) != dict(before.files):
        now, then = cleaned.files.get(evidence.file), before.files.get(evidence.file)
        raise Differs("cleaned_features", f"the upload comes out as {now}, and came out as {then}")
    if {name: list(coin) for name, coin in cleaned.renamed.items()} != dict(before.renamed):
        raise Differs("cleaned_features", "the series of the upload are named otherwise")
    return cleaned


def _scored(evidence: Evidence, cleaned: Cleaned, directory: Path, *, full: bool) -> tuple[Scored, str | None]:
    """The upload scored again, and what there is to say of what was read for it. Raises Differs."""
    receipt, store, version = evidence.receipt, evidence.bucket, evidence.receipt.history.read
    names, uploads = {evidence.file: receipt.answer_id}, set[str]()

    def scored(series: Series | None) -> Scored:
        for left in directory.glob("*.csv"):  # of an attempt before
            left.unlink()
        sources = evidence.sources(series)
        return score_delivery(cleaned, names, sources, directory, evidence.file, uploads=uploads)[evidence.file]

    if full or version is None:
        made = at_stage("market_history", lambda: scored(None))
        note = _of_the_cache(evidence, version) if receipt.inputs.earlier and version is not None else None
        return made, note
    made, note = named_where_damaged(lambda: scored(evidence.series), version, store), None
    if made.fingerprints.earlier_rows != receipt.fingerprints.earlier_rows:
        of_the_cache, made = made, named_where_damaged(lambda: scored(None), version, store)
        note = CACHE_DIFFERS if made.fingerprints != of_the_cache.fingerprints else None
    elif made.folded_series:
        note = FOLDED
    uploads_stand(uploads, version, store)
    return made, note


def _of_the_cache(evidence: Evidence, version: int) -> str | None:
    symbols = evidence.accepted()["symbol"].unique().to_pylist()
    return at_stage("market_history", lambda: cache_note(symbols, version, evidence.series, evidence.history))


def _history_stands(evidence: Evidence, *, full: bool) -> None:
    """Every append up to the version that was read is still what was written; or else the delivery's own, where it has
    one: the rows of requests are in no version."""
    version, store = evidence.receipt.history.read, evidence.bucket
    if version is None:
        return
    own = [] if evidence.is_request else [evidence.receipt.inputs.delivery]
    recorded = appends_stand(version, store) if full else uploads_stand(own, version, store)
    written = evidence.receipt.history.written
    if written is not None and written not in recorded:
        raise Differs("market_history", f"what version {written} wrote is not recorded any more")


def _fingerprints_agree(then: Fingerprints, now: Fingerprints) -> None:
    if now.accepted_rows != then.accepted_rows:
        raise Differs("cleaned_features", "the same bytes give other accepted rows")
    if now.earlier_rows != then.earlier_rows:
        raise Differs("market_history", "the history gives other earlier rows for these series")
    if now.feature_block != then.feature_block:
        raise Differs("features", "the same rows give other features")


def _distance(evidence: Evidence, made: Path) -> int:
    """The largest difference to the numbers that were published, in float32 ulp. Raises Differs beyond MOST_ULP."""
    vouched = evidence.receipt.published["predictions"]
    content = at_stage("predictions", lambda: evidence.store.read(vouched.key))
    if sha256_of(content) != vouched.sha256:
        why = "the numbers differ, and how far cannot be told: the file that was published is not there any more"
        raise Differs("predictions", why)
    return ulps_apart(made.read_text("utf-8"), content.decode())


def published_stands(evidence: Evidence) -> None:
    """What was published is what is there, unless a newer answer took its place. Raises Differs."""
    receipt, store = evidence.receipt, evidence.store
    report = at_stage("report", lambda: read_report_of(receipt, store))
    if receipt.outcome == "SKIPPED" or report is None or report.document["answer_id"] != receipt.answer_id:
        if report is None:
            raise Differs("report", f"{store.uri(report_key_of(receipt, store))} is gone")
        return
    for what, vouched in receipt.published.items():
        if what == "report" and report.delivery != receipt.inputs.delivery:
            continue  # a later delivery of the same bytes reported that this answer is theirs too
        stage, told = ("report", "report is") if what == "report" else ("predictions", f"{what} are")
        stands(stage, vouched.key, vouched.sha256, store, f"the published {told} not what was published")
    if "report" not in receipt.published and report.outcome != "SKIPPED":
        expected = report_v1.report(receipt.recorded or {}, receipt.answer_id, receipt_key(receipt.answer_id))
        if report.document != expected:
            raise Differs("report", "the report does not repeat its receipt")


def _outcome_stands(evidence: Evidence) -> None:
    """The delivery's list of outcomes names an answer to the upload, and its outcome."""
    receipt, store = evidence.receipt, evidence.store
    delivery = receipt.inputs.delivery

    def named() -> bool:
        outcome = store.read_json(answered_key(delivery))[receipt.upload.key]
        if outcome["answer_id"] is None:  # its first runs died and were given up on; this answer came afterwards
            return str(outcome["outcome"]) in ("REJECTED", "SKIPPED")
        other = read_receipt(outcome["answer_id"], store)
        # an answer that was overtaken while it was published counts as skipped
        return other.upload == receipt.upload and outcome["outcome"] in (other.outcome, "SKIPPED")

    if not at_stage("predictions", named):
        raise Differs("predictions", f"the outcomes of delivery {delivery} do not name this answer")


def _log_stands(evidence: Evidence, directory: Path, *, exactly: bool) -> str | None:
    """The log of predictions holds what comes out; what there is to say where it holds nothing. Raises Differs."""
    receipt, store = evidence.receipt, evidence.store
    if receipt.outcome != "PREDICTED" or not receipt.rows.predicted:
        return None
    made = as_logged(
        pd.read_parquet(directory / PREDICTED_PARQUET),
        road=road_of(receipt.inputs.delivery),
        model_version=receipt.model.version,
        made_at=receipt.timings.answered_at,
    )
    if logged_as_made(receipt.answer_id, made, evidence.bucket, exactly=exactly):
        return None
    if evidence.is_request and not is_settled(receipt.inputs.delivery, evidence.bucket, datetime.now(UTC)):
        return NOT_SETTLED
    if (receipt.recorded or {}).get("format") == receipt_v1.FORMAT:
        return "it has no rows in prediction_log, which 0.1 did not have"
    report = read_report_of(receipt, store)
    outcome = store.read_json(answered_key(receipt.inputs.delivery))[receipt.upload.key]
    if receipt.answer_id in (outcome["answer_id"], report.answer_id if report else None):
        raise Differs("prediction_log", f"no prediction of {receipt.answer_id} is there")
    return "it has no rows in prediction_log: its run ended before it was published"


def _software_note(evidence: Evidence) -> str | None:
    then, now = evidence.receipt.software, software()
    changed = [stage for stage, version in now.code.items() if then.code.get(stage) != version]
    changed += [name for name, version in now.libraries.items() if then.libraries.get(name) != version]
    return f"although {', '.join(changed)} changed since" if changed else None
