"""Ten thousand one-row files at close: from the first PUT to the last report.

Everything runs as in `make demo`: embedded S3, the instance of dagster.yaml, the sensor on, two scoring runs at once.
Each file is one symbol's day, after a file with twelve earlier days of every symbol. One more single file is dropped
behind the burst. The comparison in the same run is the same rows as one file. The store's processor time
is told apart: it is another program, here on the same cores.

Before that, a delivery of a thousand such files goes down the road in this process, without Dagster: its requests are
counted, and its processor time is all ours.

    python -m benchmarks.burst [FILES]
"""

import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import UTC, date, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Lock
from typing import Any, TypeVar
from unittest.mock import patch

import pandas as pd
import psutil

from crypto_ml.commands.local_dagster import LocalDagster, free_port
from crypto_ml.deployment import Deployment
from crypto_ml.forecasting.simulation import simulate_market
from crypto_ml.ledger.deliveries import MOST_FILES, DeliveryLog
from crypto_ml.ledger.layout import DELIVERIES
from crypto_ml.ledger.reports import read_report
from crypto_ml.settings import Settings
from crypto_ml.stages.road import answer_delivery
from crypto_ml.storage.embedded import EmbeddedS3, ensure_bucket
from crypto_ml.storage.objects import ObjectStore, connect

FILES = 10_000
EARLIER_DAYS = 12
LONGEST = 1_800.0
T = TypeVar("T")


def wait_for(store: ObjectStore, key: str) -> float:
    """Seconds until the upload has its report."""
    began = time.monotonic()
    while (report := read_report(key, store)) is None:
        if time.monotonic() - began > LONGEST:
            raise TimeoutError(f"no answer to {key} within {LONGEST:.0f} s")
        time.sleep(0.1)
    assert report.outcome == "PREDICTED", report.document["reason"]
    return time.monotonic() - began


def wait_for_all(store: ObjectStore, files: int) -> None:
    began = time.monotonic()
    while sum(found.key.endswith("_report.json") for found in store.list("predictions/burst/")) < files:
        if time.monotonic() - began > LONGEST:
            raise TimeoutError(f"not all of {files} files were answered within {LONGEST:.0f} s")
        time.sleep(1)


def processor_seconds(pids: Collection[int]) -> float:
    """Processor time that some processes, and those they started that have ended, took so far."""
    return sum(sum(psutil.Process(pid).cpu_times()[:4]) for pid in pids if psutil.pid_exists(pid))


def processes_of(server: EmbeddedS3) -> list[int]:
    assert server.pid
    return [server.pid, *(child.pid for child in psutil.Process(server.pid).children(recursive=True))]


@contextmanager
def counted(store: ObjectStore) -> Iterator[Counter[str]]:
    """The requests that are sent meanwhile, by kind; those that delta-rs sends, some for a delivery, are not seen."""
    counts, lock = Counter[str](), Lock()

    def note(kind: str) -> None:
        with lock:
            counts[kind] += 1

    def sent(request: Any, **_: Any) -> None:
        note(f"{request.method} by the SDK")

    assert store.quick
    quick = store.quick

    def noted(kind: str, ask: Callable[..., T]) -> Callable[..., T]:
        def asked(*about: Any, **how: Any) -> T:
            note(kind)
            return ask(*about, **how)

        return asked

    with (
        patch.object(quick, "get", noted("GET", quick.get)),
        patch.object(quick, "fetch", noted("GET", quick.fetch)),
        patch.object(quick, "put", noted("PUT", quick.put)),
    ):
        store.client.meta.events.register("before-send.s3", sent)
        yield counts
        store.client.meta.events.unregister("before-send.s3", sent)


def drop(store: ObjectStore, bodies: Mapping[str, bytes], folder: str) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda item: store.replace(f"uploads/{folder}/{item[0]}.csv", item[1]), bodies.items()))


def on_the_road(server: EmbeddedS3, earlier: bytes, whole: bytes, bodies: Mapping[str, bytes]) -> None:
    """One delivery in this process, and the same rows as one file."""
    store = connect("crypto-ml", "alone")
    deployment = Deployment(Settings(prefix="alone"), store=store)

    def answered() -> tuple[float, float]:
        began, store_began = time.process_time(), processor_seconds(processes_of(server))
        for delivery in DeliveryLog(store).assign_new(datetime.now(UTC)):
            answer_delivery(delivery.id, deployment, run_id="burst", now=datetime.now(UTC))
        return time.process_time() - began, processor_seconds(processes_of(server)) - store_began

    for name, content in (("earlier", earlier), ("whole", whole)):
        store.replace(f"uploads/{name}.csv", content)
        ours, _ = answered()
    print(f"the rows as one file, without Dagster: {ours:.2f} s of our processor time")
    drop(store, bodies, "burst")
    with counted(store) as counts:
        ours, its = answered()
    files = len(bodies)
    told = ", ".join(f"{kind} {count:,}" for kind, count in counts.most_common())
    print(
        f"{files:,} files of one row in a delivery, without Dagster: {counts.total() / files:.2f} requests a file "
        f"({told})"
    )
    print(f"    our processor time {1000 * ours / files:.2f} ms a file; the store's own {1000 * its / files:.2f} ms")


def main() -> None:
    files = int(sys.argv[1]) if len(sys.argv) > 1 else FILES
    market = simulate_market(files, EARLIER_DAYS + 1, 1, date(2026, 1, 1))
    market["date"] = pd.to_datetime(market["date"])
    earlier, close = market[market["date"] < market["date"].max()], market[market["date"] == market["date"].max()]
    bodies = {row["symbol"]: pd.DataFrame([row]).to_csv(index=False).encode() for row in close.to_dict("records")}
    with ExitStack() as stack:
        directory = Path(stack.enter_context(TemporaryDirectory()))
        server = stack.enter_context(EmbeddedS3(directory / "s3"))
        os.environ.update(server.environment)
        store = connect("crypto-ml")
        ensure_bucket(store.client, store.bucket)
        some = dict(list(bodies.items())[:MOST_FILES])
        rows = [market[market["symbol"].isin(some)] for market in (earlier, close)]
        on_the_road(server, rows[0].to_csv(index=False).encode(), rows[1].to_csv(index=False).encode(), some)
        instance = Path(__file__).parents[1] / "dagster.yaml"
        dagster = stack.enter_context(LocalDagster(directory / "dagster", server.environment, instance, free_port()))
        store.replace("uploads/earlier.csv", earlier.to_csv(index=False).encode())
        wait_for(store, "uploads/earlier.csv")
        store.replace("uploads/whole.csv", close.to_csv(index=False).encode())
        whole = wait_for(store, "uploads/whole.csv")
        deliveries_before = len(list(store.list(DELIVERIES)))
        began, dropping = time.monotonic(), time.process_time()
        used = processor_seconds(dagster.left()), processor_seconds(processes_of(server))
        drop(store, bodies, "burst")
        dropping = time.process_time() - dropping
        dropped = time.monotonic()
        store.replace("uploads/urgent.csv", close.head(50).to_csv(index=False).encode())
        urgent = wait_for(store, "uploads/urgent.csv")
        wait_for_all(store, len(bodies))
        ended = time.monotonic()
        ours = processor_seconds(dagster.left()) - used[0]
        its = processor_seconds(processes_of(server)) - used[1]
        deliveries = len(list(store.list(DELIVERIES))) - deliveries_before
        print(f"{len(bodies):,} files of one row, dropped in {dropped - began:.0f} s, in {deliveries} deliveries")
        print(
            f"all answered {ended - dropped:.0f} s after the last was dropped ({ended - began:.0f} s after the first)"
        )
        print(
            f"processor time: Dagster with its runs {1000 * ours / files:.1f} ms a file, the store's own "
            f"{1000 * its / files:.1f} ms, dropping {1000 * dropping / files:.1f} ms"
        )
        print(f"a single file dropped behind them was answered after {urgent:.0f} s")
        print(f"the same rows as one file: {whole:.1f} s; the burst takes {(ended - began) / whole:.1f} times as long")


if __name__ == "__main__":
    main()
