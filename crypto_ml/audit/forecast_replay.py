"""A forecast computed once more from what its receipt names, and held against it, stage by stage.

The stages, in the order in which one rests on another: `receipt`, `champion_model` (the approval), `market_history`
(the rows it was made from), `trained_model` (the bundle), `features`, `predictions` (the numbers, who was left out, and
the objects that were published). The first that differs is named; those behind it are not looked at.
"""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from crypto_ml.audit.differences import Differs, at_stage
from crypto_ml.audit.distance import ulps_apart
from crypto_ml.audit.forecast_evidence import ForecastEvidence
from crypto_ml.audit.logged import as_logged, logged_as_made
from crypto_ml.audit.replay import ReplayVerdict
from crypto_ml.audit.retraining import retrained
from crypto_ml.audit.rows_read import CACHE_DIFFERS, FOLDED, cache_note, named_where_damaged, uploads_stand
from crypto_ml.audit.standing import appends_stand, stands
from crypto_ml.digest import sha256_of, sha256_of_file
from crypto_ml.ledger.code import code_version
from crypto_ml.ledger.forecasts import ForecastOrder, standing
from crypto_ml.ledger.formats.forecast_v1 import ForecastReceipt
from crypto_ml.ledger.layout import FORECAST_RECEIPTS
from crypto_ml.ledger.registry import Registry
from crypto_ml.ledger.software import software
from crypto_ml.settings import Settings
from crypto_ml.stages.forecast_publication import write_files
from crypto_ml.stages.forecast_receipts import STAGE
from crypto_ml.stages.logged_forecasts import ROAD
from crypto_ml.stages.next_opens import Forecast, forecast, last_days_of
from crypto_ml.stages.series_by_name import Series
from crypto_ml.storage.failures import ObjectMissing
from crypto_ml.storage.objects import ORDER, ObjectStore

PART_STAGES: Final = {"champion": "champion_model", "bundle": "trained_model"}


def replay(forecast_id: str, store: ObjectStore, *, retrain: bool = False, full: bool = False) -> ReplayVerdict:
    """Compute a forecast again; with `retrain`, the model behind it as well.

    full: read every row of the history that anything of it rests on, and every object up to the version that was read
    (see `rows_read`); a forecast of a release before 0.4 always is.
    Damage is a verdict, and so is a receipt that is not there. Raises StoreUnavailable where the store does not answer,
    NoTrainingSet where a model that was trained elsewhere is to be trained again.
    """
    try:
        with TemporaryDirectory(prefix="crypto_ml-replay-") as name:
            evidence = at_stage("receipt", lambda: ForecastEvidence.of(forecast_id, store))
            ulp, read = _replayed(evidence, Path(name), full=full or not evidence.receipt.inputs.earlier)
            model = retrained(evidence.bundle, evidence.sources().history) if retrain else None
    except Differs as found:
        return ReplayVerdict(forecast_id, "DIFFERS", found.stage, found.why)
    note = "; ".join(filter(None, [_software_note(evidence.receipt), read, model])) or None
    return ReplayVerdict(forecast_id, "EQUAL" if ulp else "IDENTICAL", ulp=ulp or None, note=note, model=model)


def _replayed(evidence: ForecastEvidence, directory: Path, *, full: bool) -> tuple[int, str | None]:
    """How far the numbers are from those published, in ulp, 0 where every byte is the same; and what there is to say of
    what was read. Raises Differs."""
    receipt, store = evidence.receipt, evidence.store
    _approval_stands(receipt, store)
    if full:
        appends_stand(receipt.inputs.history_version, store)
    manifest = receipt.evidence["bundle"]
    stands(PART_STAGES["bundle"], manifest.key, manifest.sha256, store)
    bundle = at_stage("trained_model", lambda: evidence.bundle)
    if bundle.sha256 != receipt.inputs.bundle_sha256:
        raise Differs("trained_model", f"the bundle {bundle.version} is not the one the receipt names")
    made, note = _made_again(evidence, directory, full=full)
    _rows_agree(receipt, made)
    ulp = at_stage("predictions", lambda: _distance(evidence, made, directory))
    at_stage("predictions", lambda: _published_stands(receipt, store))
    rows = made.rows.assign(line=range(1, len(made.rows) + 1), date=made.rows["target_date"])
    logged = as_logged(rows, road=ROAD, model_version=receipt.inputs.model_version, made_at=receipt.timings.made_at)
    if not logged_as_made(receipt.forecast_id, logged, store, exactly=not ulp) and _stands_now(receipt, store):
        raise Differs("prediction_log", f"no prediction of {receipt.forecast_id} is there")
    return ulp, note


def _stands_now(receipt: ForecastReceipt, store: ObjectStore) -> bool:
    """Whether an object of the forecast stands; each number is in the log before one does."""
    return any(standing(one.key, store) == ForecastOrder.of(receipt) for one in receipt.published.values())


def _approval_stands(receipt: ForecastReceipt, store: ObjectStore) -> None:
    """The entry of the pointer is what it was, and what the receipt repeats."""
    entry = receipt.evidence["champion"]
    stands(PART_STAGES["champion"], entry.key, entry.sha256, store)
    registry = Registry(store, Settings.recorded(receipt.settings).environment)
    pointed = at_stage("champion_model", lambda: registry.entry(receipt.inputs.champion_pointer))
    if not pointed.is_repeated_by(receipt.champion):
        raise Differs("champion_model", "the entry of the pointer is not the one the receipt repeats")
    if (pointed.version, pointed.sha256) != (receipt.inputs.model_version, receipt.inputs.bundle_sha256):
        raise Differs("champion_model", "the entry of the pointer names another model")


def _made_again(evidence: ForecastEvidence, directory: Path, *, full: bool) -> tuple[Forecast, str | None]:
    """The forecast, and what there is to say of what was read for it. Raises Differs."""
    receipt, store, version = evidence.receipt, evidence.store, evidence.receipt.inputs.history_version
    uploads = set[str]()

    def made(series: Series | None) -> Forecast:
        sources = evidence.sources(series)
        return forecast(sources, last_days_of(sources.history, version), directory, uploads)

    if full:
        found = at_stage("market_history", lambda: made(None))
        history = evidence.sources().history
        symbols = found.rows["symbol"].tolist()
        if not receipt.inputs.earlier:
            return found, None
        return found, at_stage("market_history", lambda: cache_note(symbols, version, evidence.series, history))
    found, note = named_where_damaged(lambda: made(evidence.series), version, store), None
    if found.fingerprints.earlier_rows != receipt.fingerprints.earlier_rows:
        of_the_cache, found = found, named_where_damaged(lambda: made(None), version, store)
        note = CACHE_DIFFERS if found.fingerprints != of_the_cache.fingerprints else None
    elif found.folded_series:
        note = FOLDED
    uploads_stand(uploads, version, store)
    return found, note


def _rows_agree(receipt: ForecastReceipt, made: Forecast) -> None:
    if made.newest_day.isoformat() != receipt.newest_day or made.target_date.isoformat() != receipt.inputs.target_date:
        raise Differs("market_history", f"the newest day of the history is {made.newest_day}")
    if made.fingerprints.earlier_rows != receipt.fingerprints.earlier_rows:
        raise Differs("market_history", "the history gives other earlier rows")
    if made.fingerprints.feature_block != receipt.fingerprints.feature_block:
        raise Differs("features", "the same rows give other features")


def _distance(evidence: ForecastEvidence, made: Forecast, directory: Path) -> int:
    """The largest difference to the numbers that were published, in float32 ulp."""
    receipt = evidence.receipt
    again = write_files(made, receipt.forecast_id, directory)
    if sha256_of_file(again["left_out"]) != receipt.published["left_out"].sha256:
        raise Differs("predictions", "other symbols are left out, or for other reasons")
    if sha256_of_file(again["forecast"]) == receipt.published["forecast"].sha256:
        return 0
    for what in ("forecast", "latest"):
        vouched = receipt.published[what]
        content = evidence.store.read(vouched.key)
        if sha256_of(content) == vouched.sha256:
            return ulps_apart(again[what].read_text("utf-8"), content.decode())
    why = "the numbers differ, and how far cannot be told: the file that was published is not there any more"
    raise Differs("predictions", why)


def _published_stands(receipt: ForecastReceipt, store: ObjectStore) -> None:
    """What was published is what is there, unless a newer forecast took its place, whatever became of that since."""
    ours, target = str(ForecastOrder.of(receipt)), receipt.inputs.target_date
    later_days = any(store.list(FORECAST_RECEIPTS, start_after=f"{FORECAST_RECEIPTS}{target}~"))
    for what, vouched in receipt.published.items():
        try:
            stored, content = store.fetch(vouched.key)
        except ObjectMissing as missing:
            raise Differs("predictions", f"{store.uri(vouched.key)} is gone") from missing
        order = ForecastOrder.read(stored.metadata.get(ORDER, ""))
        newer = str(order) > ours if order else later_days and what.startswith("latest")
        if sha256_of(content) != vouched.sha256 and not newer:
            why = f"{store.uri(vouched.key)}: the published {what} is not what was published"
            raise Differs("predictions", why)


def _software_note(receipt: ForecastReceipt) -> str | None:
    now, inputs = software(), receipt.inputs
    changed = ["daily_forecast"] if code_version(STAGE) != inputs.code else []
    changed += [name for name, version in now.libraries.items() if inputs.libraries.get(name) != version]
    return f"although {', '.join(changed)} changed since" if changed else None
