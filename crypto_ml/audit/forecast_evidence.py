"""The stored objects behind a forecast, read as its receipt names them."""

from dataclasses import dataclass
from functools import cached_property

from crypto_ml.forecasting.bundle import ModelBundle
from crypto_ml.ledger.forecasts import read_forecast_receipt
from crypto_ml.ledger.formats.forecast_v1 import ForecastReceipt
from crypto_ml.ledger.registry import Registry, repeated_champion
from crypto_ml.settings import Settings
from crypto_ml.stages.next_opens import ForecastSources
from crypto_ml.stages.series_by_name import Series
from crypto_ml.storage.history import MarketHistory
from crypto_ml.storage.objects import ObjectStore
from crypto_ml.storage.series.cache import SeriesCache


@dataclass(frozen=True)
class ForecastEvidence:
    """One forecast's receipt, and what it names."""

    receipt: ForecastReceipt
    store: ObjectStore

    @classmethod
    def of(cls, forecast_id: str, store: ObjectStore) -> "ForecastEvidence":
        """The evidence behind a forecast. Raises ObjectMissing, ForecastReceiptDamaged, RecordTooNew."""
        return cls(read_forecast_receipt(forecast_id, store), store)

    @cached_property
    def bundle(self) -> ModelBundle:
        return Registry(self.store).load(self.receipt.inputs.model_version)

    @cached_property
    def series(self) -> SeriesCache:
        """The earlier rows of series, found through the cache. It is no evidence: whoever wants to know what the
        history itself gives asks for sources without it."""
        return SeriesCache(self.store, MarketHistory(self.store))

    def sources(self, series: Series | None = None) -> ForecastSources:
        """What the forecast was made from. series: where series are read; None: in the history itself."""
        receipt = self.receipt
        return ForecastSources(
            self.store,
            MarketHistory(self.store),
            receipt.inputs.history_version,
            self.bundle,
            repeated_champion(receipt.champion),
            Settings.recorded(receipt.settings),
            receipt.run_id,
            receipt.inputs.current,
            receipt.inputs.earlier,
            series,
        )
