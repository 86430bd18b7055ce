"""What a deployment keeps, asks and computes for each row, and what it asks of the store while nothing happens.

Embedded S3 behind a relay that counts requests, whoever's client sends them. A file of 500,000 rows (1,250 symbols ×
400 days) goes down the whole road in a process of its own, then ten days of 10,000 symbols: bytes under each prefix,
requests and processor time. Bytes and requests are the same on any machine. Then a look of the
sensor and a look of the service's worker, when nothing is new.

    python -m benchmarks.kept
"""

import json
import sys
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from benchmarks.counted_requests import CountedRequests
from benchmarks.large_market import DAYS, market_file
from benchmarks.measure import measured_by_child, requests_so_far
from crypto_ml.storage.embedded import EmbeddedS3

SYMBOLS: Final = 1_250
DAILY_SYMBOLS: Final = 10_000
DAILY: Final = 10
LOOKS: Final = 20
PARTS: Final = ("uploads", "raw", "market_history", "predictions", "prediction_log", "receipts", "cache")


def main() -> None:
    """Measure and print."""
    path = market_file(SYMBOLS)
    for what, rows in ((str(path), SYMBOLS * DAYS), ("daily", DAILY * DAILY_SYMBOLS)):
        with (
            TemporaryDirectory() as name,
            EmbeddedS3(Path(name)) as server,
            CountedRequests(server.endpoint) as counted,
        ):
            environment = server.environment | {"AWS_ENDPOINT_URL_S3": counted.endpoint}
            found = measured_by_child(
                "benchmarks.kept", [what], environment, partial("{0.count} {0.dear}".format, counted)
            )
        told = f"{DAILY} daily files of {DAILY_SYMBOLS:,} symbols" if what == "daily" else f"a file of {rows:,} rows"
        print(
            f"{told}: {1e6 * found['processor_seconds'] / rows:.1f} µs of processor time a row, peak "
            f"{found['peak_bytes'] / 1e9:.2f} GB, {found['requests']:,} requests, {found['dear']:,} of them dear"
        )
        kept = {part: found["bytes"].get(part, 0) / rows for part in PARTS}
        print(
            "    bytes a row: "
            + ", ".join(f"{part} {size:.1f}" for part, size in kept.items())
            + f"; all but uploads {sum(kept.values()) - kept['uploads']:.1f}"
        )
        if what == "daily":
            for who, (every, dear) in found["looks"].items():
                print(f"a look of the {who}, nothing new: {every:.1f} requests, {dear:.1f} of them listings or writes")


def _measured(what: str) -> dict[str, Any]:
    import resource
    import time
    from datetime import UTC, date, datetime, timedelta

    import dagster as dg
    import numpy as np

    from crypto_ml.defs.watch import Watch
    from crypto_ml.deployment import Deployment
    from crypto_ml.ledger.deliveries import DeliveryLog
    from crypto_ml.settings import Settings
    from crypto_ml.stages.requests import Serving
    from crypto_ml.stages.road import answer_delivery
    from crypto_ml.storage.embedded import ensure_bucket
    from crypto_ml.storage.objects import connect

    store = connect("crypto-ml")
    ensure_bucket(store.client, store.bucket)
    deployment = Deployment(Settings(), store=store)
    deployment.champion()

    def bodies() -> Any:
        if what != "daily":
            yield Path(what).read_bytes()
            return
        for number in range(DAILY):
            day = date(2026, 1, 1) + timedelta(days=number)
            prices = np.random.default_rng(number).uniform(1, 2, DAILY_SYMBOLS).round(6)
            lines = [
                f"B{at:06d},{day},{p},{p * 1.1:.6f},{p * 0.9:.6f},{p},{p * 1e9:.0f}"
                for at, p in enumerate(prices.tolist())
            ]
            yield "\n".join(["symbol,date,open,high,low,close,market", *lines]).encode()

    taken, first = 0.0, requests_so_far()
    for number, body in enumerate(bodies()):
        store.replace(f"uploads/{number}.csv", body)
        began = time.process_time()
        for delivery in DeliveryLog(store).assign_new(datetime.now(UTC)):
            answers = answer_delivery(delivery.id, deployment, run_id="benchmark", now=datetime.now(UTC))
            assert [report.outcome for report in answers.reports] == ["PREDICTED"]
        taken += time.process_time() - began
    last = requests_so_far()
    sizes: Counter[str] = Counter()
    for found in store.list(""):
        sizes[found.key.partition("/")[0]] += found.size

    looks = {}
    with dg.DagsterInstance.ephemeral() as instance:
        watch, serving = Watch(store), Serving.of(deployment)
        watch.look(datetime.now(UTC))
        watch.review(instance, datetime.now(UTC))
        asked: dict[str, Callable[[], object]] = {
            "sensor": lambda: (watch.look(datetime.now(UTC)), watch.review(instance, datetime.now(UTC))),
            "service's worker": lambda: serving.is_current(deployment),
        }
        for who, look in asked.items():
            look()
            before = requests_so_far()
            for _ in range(LOOKS):
                look()
            after = requests_so_far()
            looks[who] = ((after[0] - before[0]) / LOOKS, (after[1] - before[1]) / LOOKS)
    return {
        "processor_seconds": taken,
        "requests": last[0] - first[0],
        "dear": last[1] - first[1],
        "bytes": sizes,
        "looks": looks,
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024),
    }


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        sys.stdout.write(json.dumps(_measured(sys.argv[2])) + "\n")
    else:
        main()
