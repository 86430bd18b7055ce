"""The one resource: a deployment, as Dagster hands it to what it runs.

Its settings come from the environment of the process alone: they are no fields, so that no run's config has them and
no launchpad offers them. A run that is launched again has the settings of today.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar, Final

import dagster as dg
from pydantic import PrivateAttr

from crypto_ml.defs.presentation import records
from crypto_ml.deployment import Deployment
from crypto_ml.errors import Blocked, CryptoMLError, Refused
from crypto_ml.settings import Settings
from crypto_ml.stages.spent import Spent
from crypto_ml.visible import visible

if TYPE_CHECKING:
    from crypto_ml.ledger.registry import Champion

CHAMPION_KEY = dg.AssetKey("champion_model")
MOST_DEPLOYMENTS: Final = 4
"""A process has one; tests have one after another."""


class NoChampion(Blocked):
    """The pointer, or the model it names, is not as it was written; no file can be answered before it is mended."""


class Platform(dg.ConfigurableResource):
    """The deployment that a graph works on.

    In a run it also makes sure that a champion exists, and that Dagster's lineage names the one that serves: a
    promotion made outside Dagster, or the first start of a deployment, is reported before anything is answered with it.
    """

    settings: ClassVar[Settings] = Settings()
    _instance: Any = PrivateAttr(default=None)
    _champion: Any = PrivateAttr(default=None)
    _spent: Any = PrivateAttr(default=None)

    @staticmethod
    def of(settings: Settings) -> "Platform":
        """The resource with these settings. They are its class's: Dagster makes another instance for each run."""
        given = settings

        class WithSettings(Platform):
            settings: ClassVar[Settings] = given

        return WithSettings()

    def setup_for_execution(self, context: dg.InitResourceContext) -> None:
        if context.run is None or context.instance is None:
            return
        self._instance = context.instance
        # the step that needs it says what is wrong: a step is tried again, and noted for what it was
        with suppress(CryptoMLError):
            self._read_champion()

    @property
    def deployment(self) -> Deployment:
        """The deployment with these settings, the same one throughout a process."""
        return opened(self.settings)

    @contextmanager
    def working(self, part: str) -> Iterator[Spent]:
        """Count the time of what is done here, as this part of the run; gives what the run has spent so far."""
        self._spent = self._spent or Spent()
        with self._spent.counted(part):
            yield self._spent

    @property
    def champion(self) -> "Champion":
        """The champion, as the pointer named it when the run began. Raises NoChampion."""
        if self._champion is None:
            self._read_champion()
        champion: Champion = self._champion
        return champion

    def _read_champion(self) -> None:
        try:
            champion = self.deployment.champion()
        except Refused as refused:
            raise NoChampion(f"no model can serve: {refused}") from refused
        report_champion(self._instance, champion)
        self._champion = champion


@lru_cache(maxsize=MOST_DEPLOYMENTS)
def opened(settings: Settings) -> Deployment:
    """The deployment with these settings, one for each process."""
    return Deployment(settings)


def report_champion(instance: dg.DagsterInstance, champion: "Champion") -> None:
    """Tell Dagster which model serves, where it does not know yet."""
    from crypto_ml.defs.dagster_internals import DATA_VERSION_TAG, extract_data_version_from_entry

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
    gates = [
        {"gate": gate["name"], "passed": "yes" if gate["passed"] else "no", "why": gate["explanation"]}
        for gate in champion.gates
    ]
    return {
        "model_version": champion.version,
        "pointer": champion.pointer,
        "action": champion.action,
        "by": visible(champion.by),
        **({"acted_as": visible(champion.acted_as["name"])} if champion.acted_as else {}),
        "why": visible(champion.why),
        "since": champion.at,
        **({"gates": records(gates)} if gates else {}),
        **({"override": visible(champion.override)} if champion.override else {}),
        **({"decision": champion.decision} if champion.decision else {}),
        "bundle_sha256": champion.sha256[:16],
    }
