"""A large delivery scored on a cluster of this machine against one process: rows/s, what parts cost, what the store
took.

The same delivery, cleaned and remembered before, is scored in one piece, in parts in this process, and in parts on one
and on two workers, each of one thread and in a process of its own; every time the same bytes have to come out.
"""

import argparse
import os
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from benchmarks.large_market import DAYS, FOLDER, market_file
from benchmarks.measure import Missed
from crypto_ml.deployment import Deployment
from crypto_ml.digest import sha256_of_file
from crypto_ml.engine.cluster import Cluster
from crypto_ml.engine.mapping import Engine, Machines, ThisProcess
from crypto_ml.forecasting.bundle import ModelBundle
from crypto_ml.ledger.deliveries import DeliveryLog, delivery_id
from crypto_ml.ledger.registry import Registry
from crypto_ml.settings import Settings
from crypto_ml.stages.cleaned_features import download_named
from crypto_ml.stages.delivery_scoring import Sources, score_delivery
from crypto_ml.stages.road import clean_rows, receive_uploads, remember_rows
from crypto_ml.storage.embedded import EmbeddedS3, ensure_bucket
from crypto_ml.storage.objects import connect

SYMBOLS: Final = 5_000
BUCKET: Final = "cluster"
LEAST_TIMES: Final = 1.5


def main() -> None:
    """Measure, print, and end with 1 where a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--symbols", type=int, default=SYMBOLS, help=f"of {DAYS} days each")
    parser.add_argument("--model", type=Path, help="the folder of a bundle; model_out/ where none is given")
    arguments = parser.parse_args()
    market = market_file(arguments.symbols)
    with TemporaryDirectory(dir=FOLDER) as folder, EmbeddedS3(Path(folder)) as server:
        os.environ.update(server.environment)
        measured = _Measured(market, arguments.symbols * DAYS, arguments.model)
        one = measured.scored("one process, in one piece", None)
        measured.scored("one process, in parts", ThisProcess())
        rates = {}
        for workers in (1, 2):
            with _cluster(workers) as machines:
                rates[workers] = measured.scored(f"{workers} workers", machines)
    times = rates[2] / one
    sys.stdout.write(
        f"cluster: 2 workers {times:.2f} times one process (target {LEAST_TIMES}), {rates[2] / rates[1]:.2f} times one "
        f"worker; load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores, which the store and whoever puts "
        "the parts together share\n"
    )
    if times < LEAST_TIMES:
        raise Missed(f"{LEAST_TIMES} times one process with 2 workers")


@contextmanager
def _cluster(workers: int) -> Iterator[Cluster]:
    from distributed import LocalCluster

    with LocalCluster(
        n_workers=workers, threads_per_worker=1, host="127.0.0.1", dashboard_address=":0", memory_limit=0
    ) as local:
        yield Cluster(local.scheduler_address)


class _Measured:
    """A delivery that waits to be scored."""

    def __init__(self, market: Path, rows: int, model: Path | None) -> None:
        ensure_bucket(connect(BUCKET).client, BUCKET)
        store = connect(BUCKET)
        self.rows = rows
        self.deployment = Deployment(Settings(bucket=BUCKET), store=store)
        now = datetime.now(UTC)
        champion = Registry(store).champion_or_first(
            (lambda: ModelBundle.load(model)) if model else self.deployment.first_bundle, now
        )
        store.upload_file(market, "uploads/market.csv", create_only=True)
        (delivery,) = DeliveryLog(store).assign_new(now)
        began = time.perf_counter()
        received = receive_uploads(delivery_id(delivery.number), self.deployment, now)
        self.cleaned = clean_rows(received, self.deployment, champion)
        cleaned = time.perf_counter()
        remember_rows(received, self.cleaned, self.deployment)
        self.champion = champion
        self.sha256: str | None = None
        sys.stdout.write(
            f"cluster: {rows:,} rows received and cleaned in {cleaned - began:.1f} s, remembered in "
            f"{time.perf_counter() - cleaned:.1f} s; these are done in one process\n"
        )

    def scored(self, how: str, machines: Machines | None) -> float:
        """Score it, and look that the same bytes come out. Returns rows/s."""
        deployment = self.deployment
        self._forget_shards()
        engine = None if machines is None else Engine(deployment, machines)
        sources = Sources(
            deployment.store,
            deployment.history,
            deployment.history.version(),
            deployment.bundle(self.champion.version),
            self.champion,
            deployment.settings,
            "benchmark",
            series=deployment.series,
            engine=engine,
        )
        with TemporaryDirectory(dir=FOLDER) as folder:
            directory = Path(folder)
            download_named(self.cleaned.accepted_key, directory / "accepted.parquet", deployment.store)
            began, processor = time.perf_counter(), _processor()
            made = score_delivery(self.cleaned, {0: "00000001-benchmark"}, sources, directory)[0]
            seconds, processor = time.perf_counter() - began, _processor() - processor
            digest = sha256_of_file(made.path) + repr(made.fingerprints)
            size = made.path.stat().st_size
        if self.sha256 not in (None, digest):
            raise SystemExit(f"cluster: {how} gives other bytes")
        self.sha256 = digest
        kept = [found.size for found in deployment.store.list("cache/shards/")]
        parts = f"; {len(kept)} parts, {sum(kept) / 1e6:,.0f} MB in the store" if kept else ""
        sys.stdout.write(
            f"cluster: {how}: {self.rows:,} rows in {seconds:.1f} s = {self.rows / seconds:,.0f} rows/s; "
            f"{processor:.1f} s of processor time in this process, {size / 1e6:,.0f} MB of predictions{parts}\n"
        )
        sys.stdout.flush()
        return self.rows / seconds

    def _forget_shards(self) -> None:
        store = self.deployment.store
        for found in list(store.list("cache/shards/")):
            store.client.delete_object(Bucket=BUCKET, Key=store.physical(found.key))


def _processor() -> float:
    used: Any = resource.getrusage(resource.RUSAGE_SELF)
    return float(used.ru_utime + used.ru_stime)


if __name__ == "__main__":
    main()
