"""Dropped → published: from the moment a PUT has returned to the moment the predictions can be read.

Everything runs as in `make demo`: embedded S3, Dagster's stock launcher, the sensor on. The file is the real market of
30,000 rows where CRYPTO_ML_SHARED names its folder, else a simulated one of that size; each drop is other bytes under
another key. The comparison in the same run is `crypto-ml score` on the same file: the same computation in one process,
without Dagster and without S3.

    python -m benchmarks.latency [DROPS]
"""

import os
import statistics
import subprocess
import sys
import time
from contextlib import ExitStack
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory

from crypto_ml.commands.local_dagster import LocalDagster, free_port
from crypto_ml.ledger.layout import CSV
from crypto_ml.ledger.reports import read_report
from crypto_ml.storage.embedded import EmbeddedS3, ensure_bucket
from crypto_ml.storage.objects import ObjectStore, connect

DROPS = 10
LONGEST = 120.0


def upload() -> tuple[str, bytes]:
    """What is dropped: its description and its bytes."""
    if shared := os.environ.get("CRYPTO_ML_SHARED"):
        return "the real market, 29,999 rows", (Path(shared) / "market" / "crypto_markets.csv").read_bytes()
    from crypto_ml.forecasting.simulation import simulate_market

    rows = simulate_market(60, 700, 1, date(2022, 1, 1)).head(30_000)
    return f"a simulated market, {len(rows):,} rows", rows.to_csv(index=False).encode()


def seconds_to_answer(store: ObjectStore, key: str, body: bytes) -> float:
    store.replace(key, body, content_type=CSV)
    began = time.monotonic()
    while (report := read_report(key, store)) is None:
        if time.monotonic() - began > LONGEST:
            raise TimeoutError(f"no answer to {key} within {LONGEST:.0f} s")
        time.sleep(0.05)
    assert report.outcome == "PREDICTED", report.document["reason"]
    return time.monotonic() - began


def seconds_to_score(body: bytes, directory: Path) -> float:
    path = directory / "upload.csv"
    path.write_bytes(body)
    began = time.monotonic()
    command = [str(Path(sys.executable).with_name("crypto-ml")), "score", str(path), "-o", str(directory / "out.csv")]
    subprocess.run(command, check=True, capture_output=True)
    return time.monotonic() - began


def main(drops: int) -> None:
    """Measure and print."""
    what, body = upload()
    with ExitStack() as stack:
        directory = Path(stack.enter_context(TemporaryDirectory(prefix="crypto_ml-latency-")))
        server = stack.enter_context(EmbeddedS3(directory / "s3"))
        os.environ.update(server.environment)
        store = connect("crypto-ml")
        ensure_bucket(store.client, "crypto-ml")
        instance = Path(__file__).resolve().parents[1] / "dagster.yaml"
        dagster = stack.enter_context(LocalDagster(directory, server.environment, instance, free_port()))
        dagster.wait_until_watching()
        first = seconds_to_answer(store, "uploads/first.csv", body)
        answered = [seconds_to_answer(store, f"uploads/{n}.csv", body + b"\n" * (n + 1)) for n in range(drops)]
        scored = [seconds_to_score(body, directory) for _ in range(3)]
    median, alone = statistics.median(answered), statistics.median(scored)
    print(f"dropped → published, {what}, {drops} drops after the first ({first:.1f} s):")
    print(f"  p50 {median:.2f} s, least {min(answered):.2f} s, most {max(answered):.2f} s")
    print(f"  crypto-ml score on the same file: {alone:.2f} s; dropping takes {median / alone:.1f} times as long")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else DROPS)
