"""Work done shard by shard, here or on a cluster, and its results in the order of the shards.

A result that stands is not computed again: a run that died, or lost its cluster, leaves to the next what it did not get
to, and nothing else.
"""

import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, Protocol

import pyarrow as pa

from crypto_ml.deployment import Deployment
from crypto_ml.engine.computing import Outcome, OutcomeOf, compute, compute_tables
from crypto_ml.engine.results import ShardDamaged, keep, keep_instead, read_tables, write_tables
from crypto_ml.engine.work import Shard, Work
from crypto_ml.forecasting.progress import Progress, Tell, tell_nobody
from crypto_ml.storage.failures import ObjectMissing

log: Final = logging.getLogger(__name__)


class Machines(Protocol):
    """Where shards are computed."""

    @property
    def dashboard(self) -> str | None:
        """Where one can look on; None where there is nothing to look at."""

    @property
    def ahead(self) -> int:
        """So many results are fetched while another is used."""

    def computing(
        self, work: Work, shards: Sequence[Shard], deployment: Deployment, done: Callable[[], None]
    ) -> AbstractContextManager[OutcomeOf]:
        """Compute some shards, as long as the context is open. done: called for each that stands."""


class ThisProcess:
    """Shards computed one after the other, each while it is read, and kept while the next one is."""

    dashboard: str | None = None
    ahead: int = 0

    @contextmanager
    def computing(
        self, work: Work, shards: Sequence[Shard], deployment: Deployment, done: Callable[[], None]
    ) -> Iterator[OutcomeOf]:
        """See `Machines`."""
        del shards
        begun: list[Path] = []
        keeping: list[tuple[Path, Future[int]]] = []
        with TemporaryDirectory(prefix="crypto_ml-computed-") as name, ThreadPoolExecutor(1) as beside:

            def kept() -> None:
                if keeping:
                    path, sent = keeping.pop()
                    sent.result()
                    path.unlink()
                    done()

            def computed(shard: Shard) -> Outcome:
                key, path = work.key(shard), Path(name) / f"{len(begun)}"
                begun.append(path)

                def keep_it() -> None:
                    kept()
                    keeping.append((path, beside.submit(keep, path, key, deployment.store)))

                return compute(work, shard, deployment, path, keep_it)

            yield computed
            kept()


@dataclass
class Ran:
    """What some work took. stood: shards that were there before. seconds: of each worker; computed: its shards."""

    shards: int = 0
    stood: int = 0
    bytes: int = 0
    dashboard: str | None = None
    computed: dict[str, int] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def note(self, made: Outcome) -> None:
        """Count a shard."""
        self.bytes += made.size
        self.computed[made.worker] = self.computed.get(made.worker, 0) + 1
        self.seconds[made.worker] = self.seconds.get(made.worker, 0.0) + made.seconds

    def __str__(self) -> str:
        by = ", ".join(
            f"{worker}: {count} in {self.seconds[worker]:.1f} s" for worker, count in sorted(self.computed.items())
        )
        shards = "1 shard" if self.shards == 1 else f"{self.shards:,} shards"
        stood = f"{self.stood:,} of {shards} stood already" if self.stood else shards
        return "; ".join([stood, *([f"computed by {by}"] if by else [])])


class Engine:
    """Does work on some machines, for one deployment. Safe to keep for as long as the deployment."""

    def __init__(self, deployment: Deployment, machines: Machines | None = None) -> None:
        self._deployment = deployment
        self._machines = machines or ThisProcess()

    @classmethod
    def of(cls, deployment: Deployment) -> "Engine":
        """On the cluster that the settings name; without one, in this process. Raises BadClusterAddress."""
        settings = deployment.settings
        if not settings.cluster:
            return cls(deployment)
        from crypto_ml.engine.cluster import Cluster

        return cls(deployment, Cluster(settings.cluster, unencrypted=settings.cluster_unencrypted))

    @classmethod
    def for_rows(cls, deployment: Deployment, rows: int) -> "Engine | None":
        """`of` for work that may as well be done in one piece: None without a cluster, and for so few rows that they
        are no work for one."""
        settings = deployment.settings
        return cls.of(deployment) if settings.cluster and rows >= settings.cluster_from_rows else None

    def results(
        self, work: Work, *, ran: Ran | None = None, tell: Tell = tell_nobody
    ) -> Iterator[tuple[Shard, Iterator[pa.Table]]]:
        """The tables of each shard, in the order of the shards; those of one are gone when the next is asked for.

        ran: gets what it took. Raises ClusterLost (Unavailable), and what the function raises.
        """
        store, ran, machines = self._deployment.store, ran or Ran(), self._machines
        standing = {found.key for found in store.list(work.prefix)}
        missing = [shard for shard in work.shards if work.key(shard) not in standing]
        ran.shards, ran.stood = len(work.shards), len(work.shards) - len(missing)
        counted = ran.stood

        def done() -> None:
            nonlocal counted
            counted += 1
            tell(Progress(work.told, counted, len(work.shards), "shards"))

        lacking = {work.key(shard) for shard in missing}
        with (
            TemporaryDirectory(prefix="crypto_ml-shards-") as name,
            ThreadPoolExecutor(1, "crypto_ml-shards") as beside,  # ended behind what it may wait for
            machines.computing(work, missing, self._deployment, done) as outcome_of,
        ):
            ran.dashboard = machines.dashboard
            if missing and ran.dashboard:
                log.info("%s: %d shards on the cluster, %s", work.told, len(missing), ran.dashboard)

            def fetched(number: int) -> _Fetched:
                key = work.key(work.shards[number])
                made = outcome_of(work.shards[number]) if key in lacking else None
                if made and made.tables:
                    return _Fetched(made.tables, made)
                path = Path(name) / str(number)
                try:
                    store.download_whole(key, path)
                    return _Fetched(read_tables(path, store.uri(key)), made, path)
                except (ShardDamaged, ObjectMissing) as error:
                    log.warning("%s; it is computed again, in this process", error)
                write_tables(compute_tables(work, work.shards[number], self._deployment), path)
                keep_instead(path, key, store)
                return _Fetched(read_tables(path, store.uri(key)), made, path)

            for shard, found in zip(
                work.shards, _ahead(fetched, len(work.shards), machines.ahead, beside), strict=True
            ):
                yield shard, found.tables
                deque(found.tables, maxlen=0)  # what nobody asked for is computed and kept, too
                if found.made:
                    ran.note(found.made)
                if found.path:
                    found.path.unlink()
        log.info("%s: %s", work.told, ran)


@dataclass(frozen=True)
class _Fetched:
    """A result. made: what it takes; None where it stood before. path: the local file that it is in, where it was
    fetched."""

    tables: Iterator[pa.Table]
    made: Outcome | None
    path: Path | None = None


def _ahead(
    fetched: Callable[[int], _Fetched], count: int, ahead: int, beside: ThreadPoolExecutor
) -> Iterator[_Fetched]:
    """Every result in order, some of them fetched before they are asked for."""
    if not ahead:
        yield from map(fetched, range(count))
        return
    coming: deque[Future[_Fetched]] = deque()
    for number in range(count):
        while len(coming) <= ahead and number + len(coming) < count:
            coming.append(beside.submit(fetched, number + len(coming)))
        yield coming.popleft().result()
