"""A Dask cluster that somebody runs: shards are sent to its workers one at a time, and what they say comes back.

The scheduler's address is a setting; certificates are Dask's own affair (`DASK_DISTRIBUTED__COMM__TLS__…`), as the
way to S3 is the AWS SDK's. Whoever reaches the port of a scheduler or worker can run any code there, and so can a
worker here, because Dask reads what they send by unpickling it: so without TLS, by which both sides show a certificate,
no address but this machine's is taken unless a setting says that nobody else reaches the network.

Workers die: Dask gives what they had to others, and after as many deaths as the scheduler allows says so, which is a
reason that names the shard. As no worker has more than one shard for each of its threads, none is blamed for another's.
A scheduler that is gone, or has no workers for a while, is a cluster that is lost: worth another try, for which
everything stands that was computed.
"""

import asyncio
import ipaddress
import logging
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from threading import Event
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit
from uuid import uuid4

from crypto_ml.deployment import Deployment
from crypto_ml.digest import sha256_of
from crypto_ml.engine.computing import Outcome, OutcomeOf, compute_message, message, outcome
from crypto_ml.engine.work import Shard, Work
from crypto_ml.errors import Blocked, Refused, Unavailable
from crypto_ml.extras import require_cluster
from crypto_ml.visible import visible

if TYPE_CHECKING:
    from distributed import Client

log: Final = logging.getLogger(__name__)

RESULTS_AHEAD: Final = 2
SECONDS_TO_CONNECT: Final = 20.0
SECONDS_WITHOUT_WORKERS: Final = 60.0
SECONDS_BETWEEN_LOOKS: Final = 1.0


class BadClusterAddress(Blocked):
    """An address that is none, or at which anybody on the network could run code."""


class ClusterLost(Unavailable):
    """A cluster that cannot be reached, is gone, or has no workers."""


class ShardEndsWorkers(Refused):
    """A shard on which one worker after the other died."""


def compute_on_worker(asked: dict[str, Any]) -> dict[str, Any]:
    """What is run on a worker of the cluster. Arrow gets as many threads as the worker has: more are others'."""
    import pyarrow as pa
    from distributed import get_worker

    worker = get_worker()
    pa.set_cpu_count(worker.state.nthreads)
    return compute_message(asked, str(worker.address))


def checked_address(address: str, *, unencrypted: bool) -> str:
    """The address, where it may be used. Raises BadClusterAddress."""
    try:
        parts = urlsplit(address)
        whole = parts.scheme in ("tls", "tcp") and parts.hostname and parts.port
        named = "@" in parts.netloc
    except ValueError:
        whole, named = None, False
    if named:  # which Dask has no use for, and logs would show
        raise BadClusterAddress(
            "CRYPTO_ML_CLUSTER has a name or a password before its host: who may join is said by certificates "
            "(docs/cluster.md); give the address alone, like tls://HOST:8786"
        )
    if not whole:
        raise BadClusterAddress(
            f"CRYPTO_ML_CLUSTER is {visible(address)}; it must be the address of a scheduler, like tls://HOST:8786"
        )
    if parts.scheme == "tcp" and not unencrypted and not _is_here(str(parts.hostname)):
        raise BadClusterAddress(
            f"CRYPTO_ML_CLUSTER is {visible(address)}, where whoever reaches the port could run any code: use "
            "tls://, with certificates (docs/cluster.md), or set CRYPTO_ML_CLUSTER_UNENCRYPTED=true where nobody else "
            "can reach that network"
        )
    return address


def _is_here(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class Cluster:
    """The cluster at an address. Raises BadClusterAddress, NotInstalled."""

    def __init__(self, address: str, *, unencrypted: bool = False) -> None:
        require_cluster("A cluster")
        self.address = checked_address(address, unencrypted=unencrypted)
        self.dashboard: str | None = None
        self.ahead = RESULTS_AHEAD

    @contextmanager
    def computing(
        self, work: Work, shards: Sequence[Shard], deployment: Deployment, done: Callable[[], None]
    ) -> Iterator[OutcomeOf]:
        """See `Machines`. Whatever is still being computed when the context is left comes to its end, and stands."""
        if not shards:
            yield _nothing
            return
        made = {work.key(shard): Future[Outcome]() for shard in shards}
        stop = Event()
        client = self._connected()
        self.dashboard = client.dashboard_link
        feeding = _Feeding(client, work, deployment, made, done, stop)
        try:
            with ThreadPoolExecutor(1, "crypto_ml-cluster") as beside:
                fed = beside.submit(feeding.feed, shards)
                try:
                    yield lambda shard: made[work.key(shard)].result()
                finally:
                    stop.set()
                    fed.result()
        finally:
            with suppress(Exception):  # a scheduler that is gone cannot be told good-bye
                client.close(timeout=5)

    def threads(self) -> int:
        """How many shards it computes at once, now. Raises ClusterLost."""
        client = self._connected()
        try:
            return sum(client.nthreads().values())
        finally:
            client.close(timeout=5)

    def _connected(self) -> "Client":
        from distributed import Client

        try:
            # a client that does not get through is left half open, and is waited for when the process ends
            with ThreadPoolExecutor(1) as beside:
                beside.submit(asyncio.run, _in_time(_answers(self.address))).result()
            return Client(self.address, timeout=SECONDS_TO_CONNECT, set_as_default=False, name="crypto_ml")
        except Exception as error:
            raise ClusterLost(
                f"the cluster at {visible(self.address)} cannot be reached ({type(error).__name__}: "
                f"{visible(str(error))}): start its scheduler, or look at address and certificates (docs/cluster.md)"
            ) from error


async def _in_time(answers: Coroutine[Any, Any, None]) -> None:
    await asyncio.wait_for(answers, SECONDS_TO_CONNECT)  # Dask waits for ever for the first words of who took the call


async def _answers(address: str) -> None:
    """Returns when a scheduler says who it is. Raises what keeps it from that."""
    from distributed.comm import connect
    from distributed.security import Security

    security = Security().get_connection_args("client")
    if address.startswith("tls:") and security["ssl_context"] is None:
        raise ValueError("there are no certificates: set DASK_DISTRIBUTED__COMM__TLS__…")
    comm = await connect(address, timeout=SECONDS_TO_CONNECT, **security)
    try:
        await comm.write({"op": "identity", "reply": True})
        await comm.read()
    finally:
        comm.abort()


def _nothing(shard: Shard) -> Outcome:
    raise KeyError(shard.told)


@dataclass
class _Feeding:
    """Gives a cluster one shard for each thread that it has, and another where one is through. made: gets what came of
    each shard, by its key; done: called for each that stands; stop: set when nobody waits any more."""

    client: "Client"
    work: Work
    deployment: Deployment
    made: Mapping[str, Future[Outcome]]
    done: Callable[[], None]
    stop: Event
    run: str = field(default_factory=lambda: uuid4().hex[:8])
    stood: int = 0
    woken: Event = field(default_factory=Event)

    def feed(self, shards: Sequence[Shard]) -> None:
        """Until all stand, one of them cannot, or nobody waits any more. What went wrong is what every shard that does
        not stand raises."""
        try:
            self._fed(list(shards))
        except Exception as error:  # noqa: BLE001 - whoever waits for a shard raises it
            for waiting in self.made.values():
                if not waiting.done():
                    waiting.set_exception(error)
        for waiting in self.made.values():  # nobody waits any more, but for who fetches ahead
            waiting.cancel()

    def _fed(self, waiting: list[Shard]) -> None:
        running: dict[Any, Shard] = {}
        seen = time.monotonic()
        while (waiting or running) and not self.stop.is_set():
            threads = self._threads()
            seen = time.monotonic() if threads else seen
            if time.monotonic() - seen > SECONDS_WITHOUT_WORKERS:
                raise self._lost(f"has had no workers for {SECONDS_WITHOUT_WORKERS:.0f} s")
            while waiting and len(running) < threads:
                shard = waiting.pop(0)
                running[self._sent(shard)] = shard
            for future in self._finished(running):
                self._take(future, running.pop(future))
        for future in running:
            with suppress(Exception):
                future.release()

    def _threads(self) -> int:
        if self.client.status != "running":  # it would be looked for for half a minute
            raise self._lost("is gone")
        try:
            return sum(self.client.nthreads().values())
        except Exception as error:
            raise self._lost(f"does not answer any more ({type(error).__name__})") from error

    def _sent(self, shard: Shard) -> Any:
        asked = message(self.work, shard, self.deployment)
        # what stands before the hyphen is what the dashboard puts together
        key = f"{self.work.function.partition(':')[2]}-{self.run}-{sha256_of(asked['key'].encode())[:16]}"
        future = self.client.submit(compute_on_worker, asked, key=key, pure=False)
        future.add_done_callback(lambda _: self.woken.set())
        return future

    def _finished(self, running: Mapping[Any, Shard]) -> list[Any]:
        """Those that are through, after a while at the latest."""
        self.woken.wait(SECONDS_BETWEEN_LOOKS)
        self.woken.clear()
        return [future for future in running if future.status != "pending"]

    def _take(self, future: Any, shard: Shard) -> None:
        from distributed import KilledWorker

        if future.status in ("cancelled", "lost"):
            raise self._lost("is gone")
        if future.status == "error":
            error = future.exception()
            if isinstance(error, KilledWorker):
                raise ShardEndsWorkers(
                    f"{self.work.told}: {error.allowed_failures + 1} workers died one after the other on "
                    f"{shard.told}, the last at {error.last_worker.address}; their logs say why, and most often it is "
                    "memory: give workers more of it. What was computed stands"
                )
            raise RuntimeError(f"{self.work.told}, {shard.told}: {type(error).__name__}: {error}")
        made = outcome(future.result(), self.work, shard)
        self.stood += 1
        self.made[self.work.key(shard)].set_result(made)
        self.done()

    def _lost(self, how: str) -> ClusterLost:
        return ClusterLost(
            f"the cluster for {self.work.told} {how}; {self.stood} of {len(self.made)} shards were computed before "
            "and stand, and the next run goes on from there"
        )
