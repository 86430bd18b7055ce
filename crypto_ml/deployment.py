"""What any caller needs to work on one deployment: its settings, and the storage, history and models they lead to.

Belongs here: how things are opened, once in a process, and kept for the next who asks. Does not belong here: what is
done with them, and anything of Dagster, which only has a resource around this.
"""

from collections import OrderedDict
from datetime import UTC, datetime
from threading import Lock
from typing import TYPE_CHECKING, Final

from crypto_ml.errors import Refused
from crypto_ml.settings import Settings

if TYPE_CHECKING:
    from crypto_ml.forecasting.bundle import ModelBundle
    from crypto_ml.ledger.registry import Champion, Registry
    from crypto_ml.storage.hints import Hints
    from crypto_ml.storage.history import MarketHistory
    from crypto_ml.storage.objects import ObjectStore
    from crypto_ml.storage.series.cache import SeriesCache

MOST_BUNDLES: Final = 4
"""Loaded bundles that are kept: the champion, the one before it, and two that somebody compares them with."""


class NothingServes(Refused):
    """A deployment that has not started yet."""


class Deployment:
    """One deployment, opened when it is first used and safe to share between threads.

    Before it hands out its store, the store is asked once to prove that it keeps claims, which writes an object and
    removes it again: what claims deliveries, answers and models relies on that. One opened for `reading` asks for no
    proof and needs no permission to write; it must claim nothing. `store`: one that is open and proven already.
    """

    def __init__(self, settings: Settings, *, probe: bool = True, store: "ObjectStore | None" = None) -> None:
        self.settings = settings
        self._probe = probe
        self._opening = Lock()
        self._store = store
        self._loading = Lock()
        self._bundles: OrderedDict[str, ModelBundle] = OrderedDict()
        self._series: SeriesCache | None = None
        self._hints: Hints | None = None

    @classmethod
    def reading(cls, settings: Settings) -> "Deployment":
        """A deployment for what reads, or writes without a claim: nothing is written to it by opening it."""
        return cls(settings, probe=False)

    @property
    def store(self) -> "ObjectStore":
        """The bucket below the prefix. Raises StoreNotTrusted, StoreRefused, StoreUnavailable, each time anew."""
        from crypto_ml.storage.objects import connect
        from crypto_ml.storage.probe import probe_conditional_writes

        with self._opening:
            if self._store is None:
                store = connect(self.settings.bucket, self.settings.prefix)
                if self._probe:
                    probe_conditional_writes(store)
                self._store = store
            return self._store

    @property
    def hints(self) -> "Hints | None":
        """When to look for uploads, where a queue was named that tells; None where none was. Raises NoHints."""
        if not self.settings.uploads_queue:
            return None
        from crypto_ml.storage.hints import listen

        with self._opening:
            if self._hints is None:
                self._hints = listen(self.settings.uploads_queue)
            return self._hints

    @property
    def history(self) -> "MarketHistory":
        """Every accepted observation ever received."""
        from crypto_ml.storage.history import MarketHistory

        return MarketHistory(self.store)

    @property
    def series(self) -> "SeriesCache":
        """The earlier rows of any series of the history; one for the process, because it remembers what it has read."""
        from crypto_ml.storage.series.cache import SeriesCache

        history = self.history
        with self._opening:
            if self._series is None:
                self._series = SeriesCache(history.store, history)
            return self._series

    @property
    def registry(self) -> "Registry":
        """The models, and the pointer of this deployment's environment."""
        from crypto_ml.ledger.registry import Registry

        return Registry(self.store, self.settings.environment)

    def champion(self) -> "Champion":
        """Who serves now; on a fresh deployment that becomes the first bundle.

        Raises NothingServes where the deployment is fresh and opened for reading.
        """
        if self._probe:
            return self.registry.champion_or_first(self.first_bundle, datetime.now(UTC))
        champion = self.registry.champion()
        if champion is None:
            raise NothingServes("nothing has served here yet; the first run makes the model of model_out/ the champion")
        return champion

    def bundle(self, version: str) -> "ModelBundle":
        """A model of the registry, loaded and checked once and its network kept ready, as long as it is in use.

        Raises UnknownModel, BundleDamaged.
        """
        with self._loading:
            found = self._bundles.get(version)
            if found is None:
                found = self._bundles[version] = self.registry.load(version)
            self._bundles.move_to_end(version)
            while len(self._bundles) > MOST_BUNDLES:
                self._bundles.popitem(last=False)
            return found

    def first_bundle(self) -> "ModelBundle":
        """The bundle that a fresh deployment serves with. Raises NoFirstBundle, BundleDamaged."""
        from crypto_ml.model_out import first_bundle

        return first_bundle(self.settings.model_out)
