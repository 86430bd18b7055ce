"""The receipt of a forecast: put together before anything is published."""

from dataclasses import asdict
from datetime import UTC, date, datetime
from typing import Final

from crypto_ml.digest import sha256_of
from crypto_ml.forecasting.bundle import MANIFEST
from crypto_ml.ledger.clock import not_before
from crypto_ml.ledger.code import code_version
from crypto_ml.ledger.formats.forecast_v1 import ForecastReceipt, Inputs, Timings, Vouched
from crypto_ml.ledger.layout import bundle_prefix
from crypto_ml.ledger.registry import Registry
from crypto_ml.ledger.software import software
from crypto_ml.stages.next_opens import Forecast, ForecastSources
from crypto_ml.storage.objects import ObjectStore

STAGE: Final = "crypto_ml.stages.daily_forecast"


def inputs_of(sources: ForecastSources, target: date, attempt: int) -> Inputs:
    """What decides the bytes of the forecast for a day."""
    program = software()
    return Inputs(
        target_date=target.isoformat(),
        history_version=sources.history_version,
        current=sources.current,
        model_version=sources.bundle.version,
        bundle_sha256=sources.bundle.sha256,
        environment=sources.settings.environment,
        champion_pointer=sources.champion.pointer,
        code=code_version(STAGE),
        libraries=program.libraries,
        processor=program.processor,
        attempt=attempt,
        earlier=sources.earlier,
        interval_level=sources.settings.interval_level if sources.bundle.rule else "",
    )


def receipt_of(sources: ForecastSources, made: Forecast, attempt: int, began: datetime) -> ForecastReceipt:
    """The receipt of a forecast, but for what is to be published of it."""
    store, inputs = sources.store, inputs_of(sources, made.target_date, attempt)
    pointer = Registry(store, sources.settings.environment).pointer_key(sources.champion.pointer)
    manifest = bundle_prefix(sources.bundle.version) + MANIFEST
    return ForecastReceipt(
        inputs=inputs,
        newest_day=made.newest_day.isoformat(),
        symbols=made.counts,
        fingerprints=made.fingerprints,
        champion=sources.champion.repeated(),
        settings=sources.settings.deciding(),
        software={**asdict(software(sources.settings.image)), "code": {"daily_forecast": inputs.code}},
        evidence={"champion": _vouched(pointer, store), "bundle": _vouched(manifest, store)},
        published={},
        run_id=sources.run_id,
        timings=Timings(began.isoformat(), not_before(datetime.now(UTC), began.isoformat())),
    )


def _vouched(key: str, store: ObjectStore) -> Vouched:
    return Vouched(key, sha256_of(store.read(key)))
