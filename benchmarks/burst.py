"""Ten thousand one-row files at close: from the first PUT to the last report.

Everything runs as in `make demo`: embedded S3, Dagster's stock launcher, the sensor on, two scoring runs at once. Each
file is one symbol's day, after a file with twelve earlier days of every symbol. One more single file is dropped behind
the burst. The comparison in the same run is the same rows as one file.

    python -m benchmarks.burst [FILES]
"""

import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd

from crypto_ml.commands.local_dagster import LocalDagster, free_port
from crypto_ml.forecasting.simulation import simulate_market
from crypto_ml.ledger.layout import DELIVERIES
from crypto_ml.ledger.reports import read_report
from crypto_ml.storage.embedded import EmbeddedS3, ensure_bucket
from crypto_ml.storage.objects import ObjectStore, connect

FILES = 10_000
EARLIER_DAYS = 12
LONGEST = 1_800.0


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
        instance = Path(__file__).parents[1] / "dagster.yaml"
        stack.enter_context(LocalDagster(directory / "dagster", server.environment, instance, free_port()))
        store.replace("uploads/earlier.csv", earlier.to_csv(index=False).encode())
        wait_for(store, "uploads/earlier.csv")
        store.replace("uploads/whole.csv", close.to_csv(index=False).encode())
        whole = wait_for(store, "uploads/whole.csv")
        before = len(list(store.list(DELIVERIES)))
        began = time.monotonic()
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda item: store.replace(f"uploads/burst/{item[0]}.csv", item[1]), bodies.items()))
        dropped = time.monotonic()
        store.replace("uploads/urgent.csv", close.head(50).to_csv(index=False).encode())
        urgent = wait_for(store, "uploads/urgent.csv")
        wait_for_all(store, len(bodies))
        ended = time.monotonic()
        deliveries = len(list(store.list(DELIVERIES))) - before
        print(f"{len(bodies):,} files of one row, dropped in {dropped - began:.0f} s, in {deliveries} deliveries")
        print(
            f"all answered {ended - dropped:.0f} s after the last was dropped ({ended - began:.0f} s after the first)"
        )
        print(f"a single file dropped behind them was answered after {urgent:.0f} s")
        print(f"the same rows as one file: {whole:.1f} s; the burst takes {(ended - began) / whole:.1f} times as long")


if __name__ == "__main__":
    main()
