"""A large delivery scored on a cluster of this machine against one process: rows/s, processor time, what parts
cost, what the store took.

The same delivery, cleaned and remembered before, is scored in one piece by a process that has all cores and by one that
has one, in parts in this process, and in parts on one and on two workers of one thread each; every time the same bytes
have to come out. Workers have loaded what they need before, as those of a cluster that stays have. What one process
does alone, however many workers there are, is measured where all parts stand. Where the machine has other work to do,
processor time is what can be compared; seconds then flatter whoever has more processes.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import numpy as np

from benchmarks.large_market import DAYS, FOLDER, market_file
from benchmarks.measure import Missed
from crypto_ml.deployment import Deployment
from crypto_ml.digest import sha256_of, sha256_of_file
from crypto_ml.engine.cluster import Cluster
from crypto_ml.engine.mapping import Engine, Machines, ThisProcess
from crypto_ml.engine.work import function_named, made_by, name_of
from crypto_ml.forecasting.bundle import ModelBundle, make_bundle
from crypto_ml.forecasting.onnx_graph import onnx_bytes, weight_shapes
from crypto_ml.forecasting.shrinkage import shrunk_network
from crypto_ml.ledger.deliveries import DeliveryLog, delivery_id
from crypto_ml.ledger.registry import Champion, Registry
from crypto_ml.settings import Settings
from crypto_ml.stages.cleaned_features import Cleaned, download_named
from crypto_ml.stages.delivery_scoring import Sources, score_delivery
from crypto_ml.stages.road import clean_rows, receive_uploads, remember_rows
from crypto_ml.stages.scored_parts import score_part
from crypto_ml.storage.embedded import EmbeddedS3, ensure_bucket
from crypto_ml.storage.objects import connect

SYMBOLS: Final = 5_000
UNITS: Final = 50
SPAWNED: Final = "distributed.nanny.pre-spawn-environ"
MEMORY_KEPT: Final = {"MALLOC_TRIM_THRESHOLD_": 256 << 20, "MALLOC_MMAP_THRESHOLD_": 32 << 20}
"""What docs/cluster.md says of workers: Dask has them give back every array of 64 kB or more at once."""

BUCKET: Final = "cluster"
LEAST_TIMES: Final = 1.5
MOST_FOR_PARTS: Final = 1.25


def main() -> None:
    """Measure, print, and end with 1 where a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--symbols", type=int, default=SYMBOLS, help=f"of {DAYS} days each")
    parser.add_argument("--model", type=Path, help="the folder of a bundle; model_out/ where none is given")
    parser.add_argument("--network", action="store_true", help="a recurrent network of random weights serves, too")
    arguments = parser.parse_args()
    market = market_file(arguments.symbols)
    with TemporaryDirectory(dir=FOLDER) as folder, EmbeddedS3(Path(folder)) as server:
        os.environ.update(server.environment)
        waiting = _waiting(market, arguments.symbols * DAYS, arguments.model, network=arguments.network)
        store = partial(_processor_of, server.pid)
        one = _told(waiting, "one process, in one piece", partial(_scored, waiting, None), store)
        single = _told(waiting, "one process of one thread, in one piece", partial(_on_one_core, waiting), store)
        parts = _told(waiting, "one process, in parts", partial(_scored, waiting, ThisProcess()), store)
        alone = _told(
            waiting, "one process, all parts stand", partial(_scored, waiting, ThisProcess()), store, stand=True
        )
        found = [one, single, parts, alone]
        for workers in (1, 2):
            with _cluster(workers) as (machines, of_workers):
                scored = partial(_scored, waiting, machines)
                found.append(
                    _told(
                        waiting,
                        f"{workers} {'worker' if workers == 1 else 'workers'} of one thread",
                        scored,
                        store,
                        of_workers,
                    )
                )
    if len({made.digest for made in found}) > 1:
        raise SystemExit("cluster: not all give the same bytes")
    two, worked = found[-1], found[-1].processor - found[-1].here
    more, times = parts.processor / one.processor, single.seconds / two.seconds
    sys.stdout.write(
        f"cluster: parts take {more:.2f} times the processor time of one piece (at most {MOST_FOR_PARTS})\n"
        f"cluster: 2 workers are {times:.2f} times as fast as one process of one thread (target {LEAST_TIMES}), "
        f"{one.seconds / two.seconds:.2f} times as one with all cores, {found[-2].seconds / two.seconds:.2f} times as "
        f"one worker; load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores, which the store and whoever "
        "puts the parts together share\n"
        f"cluster: of {two.processor:.1f} s of processor time {worked:.1f} s are the workers' and grow no shorter than "
        f"{alone.here:.1f} s with more of them, which one process does alone: at most {single.here / alone.here:.1f} "
        "times as fast\n"
    )
    if more > MOST_FOR_PARTS:
        raise Missed(f"{MOST_FOR_PARTS} times the processor time of one piece in parts")
    if times < LEAST_TIMES:
        raise Missed(f"{LEAST_TIMES} times one process of one thread with 2 workers")


@contextmanager
def _cluster(workers: int) -> Iterator[tuple[Cluster, Callable[[], float]]]:
    """A cluster, and the processor time of its workers."""
    from dask import config
    from distributed import Client, LocalCluster

    with (
        # it looks at every worker's stack a hundred times a second, which is dear where a second brings little
        config.set({"distributed.worker.profile.enabled": False, SPAWNED: {**config.get(SPAWNED), **MEMORY_KEPT}}),
        LocalCluster(
            n_workers=workers, threads_per_worker=1, host="127.0.0.1", dashboard_address=":0", memory_limit=0
        ) as local,
        Client(local) as client,
    ):
        client.run(_load)
        yield Cluster(local.scheduler_address), lambda: sum(client.run(time.process_time).values())


def _load() -> None:
    made_by(name_of(score_part))
    function_named(name_of(score_part))


@dataclass(frozen=True)
class _Waiting:
    """A delivery that waits to be scored."""

    rows: int
    cleaned: Cleaned
    champion: Champion


def _waiting(market: Path, rows: int, model: Path | None, *, network: bool = False) -> _Waiting:
    ensure_bucket(connect(BUCKET).client, BUCKET)
    deployment = Deployment(Settings(bucket=BUCKET))
    store, now = deployment.store, datetime.now(UTC)

    def first() -> ModelBundle:
        bundle = ModelBundle.load(model) if model else deployment.first_bundle()
        return _with_network(bundle) if network else bundle

    champion = Registry(store).champion_or_first(first, now)
    store.upload_file(market, "uploads/market.csv", create_only=True)
    (delivery,) = DeliveryLog(store).assign_new(now)
    began = time.perf_counter()
    received = receive_uploads(delivery_id(delivery.number), deployment, now)
    cleaned = clean_rows(received, deployment, champion)
    cleaned_at = time.perf_counter()
    remember_rows(received, cleaned, deployment)
    sys.stdout.write(
        f"cluster: {rows:,} rows received and cleaned in {cleaned_at - began:.1f} s, remembered in "
        f"{time.perf_counter() - cleaned_at:.1f} s; these are done in one process\n"
    )
    return _Waiting(rows, cleaned, champion)


def _with_network(bundle: ModelBundle) -> ModelBundle:
    """The same bundle, a network of the usual size in it that serves: what it takes does not depend on its weights."""
    random = np.random.default_rng(0)
    shapes = weight_shapes(UNITS, 20, 10, len(bundle.features))
    weights = {name: np.abs(0.2 * random.normal(size=shape)).astype(np.float32) for name, shape in shapes.items()}
    if bundle.rule is None:
        raise SystemExit("cluster: --network is for a model with a serving rule")
    rule = replace(bundle.rule, shrink=0.5)
    return make_bundle(
        label="network",
        target=bundle.target,
        scaler=bundle.scaler,
        slugs=bundle.slugs,
        network_onnx=shrunk_network(onnx_bytes(weights), rule.shrink, rule.cap),
        weights_sha256="random",
        about={"origin": "random numbers"},
        documents={},
        rule=rule,
    )


@dataclass(frozen=True)
class _Made:
    """What scoring took, here and in all (processor: in seconds), and the bytes that came of it."""

    seconds: float
    here: float
    size: int
    digest: str
    processor: float = 0.0


def _told(
    waiting: _Waiting,
    how: str,
    scored: Callable[[], _Made],
    of_store: Callable[[], float],
    of_workers: Callable[[], float] | None = None,
    *,
    stand: bool = False,
) -> _Made:
    """Score it, and say what it took. stand: with the parts that stand."""
    store = connect(BUCKET)
    for found in [] if stand else list(store.list("cache/shards/")):
        store.client.delete_object(Bucket=BUCKET, Key=store.physical(found.key))
    stored, worked = of_store(), of_workers() if of_workers else 0.0
    made = scored()
    stored, worked = of_store() - stored, of_workers() - worked if of_workers else 0.0
    kept = [found.size for found in store.list("cache/shards/")]
    parts = f"; {len(kept)} parts, {sum(kept) / 1e6:,.0f} MB in the store" if kept else ""
    beside = f" beside {worked:.1f} s in the workers" if of_workers else ""
    sys.stdout.write(
        f"cluster: {how}: {waiting.rows:,} rows in {made.seconds:.1f} s = {waiting.rows / made.seconds:,.0f} rows/s; "
        f"{made.here:.1f} s of processor time{beside}, and {stored:.1f} s in the store; {made.size / 1e6:,.0f} MB of "
        f"predictions{parts}\n"
    )
    sys.stdout.flush()
    return _Made(made.seconds, made.here, made.size, made.digest, made.here + worked)


def _scored(waiting: _Waiting, machines: Machines | None) -> _Made:
    deployment = Deployment(Settings(bucket=BUCKET))
    sources = Sources(
        deployment.store,
        deployment.history,
        deployment.history.version(),
        deployment.bundle(waiting.champion.version),
        waiting.champion,
        deployment.settings,
        "benchmark",
        series=deployment.series,
        engine=None if machines is None else Engine(deployment, machines),
    )
    with TemporaryDirectory(dir=FOLDER) as folder:
        directory = Path(folder)
        download_named(waiting.cleaned.accepted_key, directory / "accepted.parquet", deployment.store)
        began, processor = time.perf_counter(), time.process_time()
        made = score_delivery(waiting.cleaned, {0: "00000001-benchmark"}, sources, directory)[0]
        seconds, here = time.perf_counter() - began, time.process_time() - processor
        digest = sha256_of((sha256_of_file(made.path) + repr(made.fingerprints)).encode())
        return _Made(seconds, here, made.path.stat().st_size, digest)


def _on_one_core(waiting: _Waiting) -> _Made:
    """In a process that has one core, where the system lets it be told so; elsewhere Arrow alone has one thread."""
    with ProcessPoolExecutor(1, get_context("spawn"), initializer=_take_one_core) as pool:
        return pool.submit(_scored, waiting, None).result()


def _take_one_core() -> None:
    import pyarrow as pa

    pa.set_cpu_count(1)
    if sys.platform == "linux":
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


def _processor_of(process: int | None) -> float:
    """The processor time of a process and those it started."""
    import psutil

    whole = psutil.Process(process)
    times = [one.cpu_times() for one in (whole, *whole.children(recursive=True))]
    return float(sum(time.user + time.system for time in times))


if __name__ == "__main__":
    main()
