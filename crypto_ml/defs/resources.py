"""The one resource: the settings, and the storage they lead to.

Its fields are shown in the UI and hold no secret; how S3 is reached is the AWS SDK's own affair.
"""

from dataclasses import asdict
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING, Any

import dagster as dg
from pydantic import PrivateAttr

from crypto_ml.settings import Settings
from crypto_ml.storage.objects import ObjectStore, connect
from crypto_ml.storage.probe import probe_conditional_writes

if TYPE_CHECKING:
    from crypto_ml.ledger.registry import Champion, Registry
    from crypto_ml.storage.history import MarketHistory

CHAMPION_KEY = dg.AssetKey("champion_model")


class Platform(dg.ConfigurableResource):
    """The settings (see `settings.Settings`), as a Dagster resource.

    In a run it also makes sure that a champion exists, and that Dagster's lineage names the one that serves: a
    promotion made outside Dagster, or the first start of a deployment, is reported before anything is answered with it.
    """

    bucket: str = "crypto-ml"
    prefix: str = ""
    recovery: str = "one_step"
    date_order: str | None = None
    max_upload_bytes: int = 20 << 30
    target: str = "gap"
    epochs: int = 10
    environment: str = "dev"

    _champion: Any = PrivateAttr(default=None)

    @classmethod
    def of(cls, settings: Settings) -> "Platform":
        """The resource with these settings."""
        return cls(**asdict(settings))

    def setup_for_execution(self, context: dg.InitResourceContext) -> None:
        if context.run is None or context.instance is None:
            return
        from crypto_ml.model_out import first_bundle

        registry = self.registry()
        self._champion = registry.champion_or_first(first_bundle, datetime.now(UTC))
        report_champion(context.instance, self._champion)

    @property
    def champion(self) -> "Champion":
        """The champion, as the pointer named it when the run began."""
        champion: Champion = self._champion
        return champion

    def settings(self) -> Settings:
        """The settings as the stages take them."""
        settings: Any = {name: getattr(self, name) for name in asdict(Settings())}
        return Settings(**settings)

    def store(self) -> ObjectStore:
        """The bucket, proven once per process to keep claims. Raises StoreNotTrusted and other storage failures."""
        return _trusted_store(self.bucket, self.prefix)

    def history(self) -> "MarketHistory":
        """The market history in that bucket."""
        from crypto_ml.storage.history import MarketHistory

        return MarketHistory(self.store())

    def registry(self) -> "Registry":
        """The models in that bucket."""
        from crypto_ml.ledger.registry import Registry

        return Registry(self.store(), self.settings().environment)


@cache
def _trusted_store(bucket: str, prefix: str) -> ObjectStore:
    store = connect(bucket, prefix)
    probe_conditional_writes(store)
    return store


def report_champion(instance: dg.DagsterInstance, champion: "Champion") -> None:
    """Tell Dagster which model serves, where it does not know yet."""
    from dagster._core.definitions.data_version import DATA_VERSION_TAG, extract_data_version_from_entry

    latest = instance.get_latest_data_version_record(CHAMPION_KEY)
    known = extract_data_version_from_entry(latest.event_log_entry) if latest else None
    if known is None or known.value != champion.sha256:
        instance.report_runless_asset_event(
            dg.AssetMaterialization(
                CHAMPION_KEY, metadata=champion_metadata(champion), tags={DATA_VERSION_TAG: champion.sha256}
            )
        )


def champion_metadata(champion: "Champion") -> dict[str, Any]:
    """An entry of the champion pointer, as the UI shows it."""
    return {
        "model_version": champion.version,
        "bundle_sha256": champion.sha256,
        "pointer": champion.pointer,
        "by": champion.by,
        "why": champion.why,
        "since": champion.at,
        "action": champion.action,
        "gates": dg.MetadataValue.json(list(champion.gates)),
        "override": champion.override or "",
    }
