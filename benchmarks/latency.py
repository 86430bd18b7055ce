"""Dropped → published: from the moment a PUT has returned to the moment the predictions can be read.

Everything runs as in `make demo`: embedded S3, the instance of dagster.yaml, the sensor on. The file is the real market
of 30,000 rows where CRYPTO_ML_SHARED names its folder, else a simulated one of that size; each drop is other bytes
under another key, at a random moment after the answer to the one before. Two comparisons in the same run: an ordinary
Dagster project of the same graph (`benchmarks/ordinary`), with all of Dagster's defaults, and `crypto-ml score` on the
same file: the same computation in one process, without Dagster and without S3.

    python -m benchmarks.latency [DROPS] [DROPS OF THE ORDINARY PROJECT]
"""

import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory

import dagster as dg
import psutil

from benchmarks.measure import Missed, end_with_children
from crypto_ml.commands.local_dagster import MODULE, LocalDagster, free_port
from crypto_ml.ledger.layout import CSV
from crypto_ml.ledger.reports import read_report
from crypto_ml.storage.embedded import EmbeddedS3, ensure_bucket
from crypto_ml.storage.objects import ObjectStore, connect

DROPS = 30
ORDINARY_DROPS = 6
LONGEST = 300.0
SEED = 20260401
PAUSE = (3.0, 9.0)
"""Seconds between an answer and the next drop, drawn evenly: longer and shorter than a round of the sensor daemon."""

P50, P95, TIMES = 1.5, 3.0, 10.0
ORDINARY = "benchmarks.ordinary.definitions"
REPOSITORY = Path(__file__).resolve().parents[1]


def upload() -> tuple[str, bytes]:
    """What is dropped: its description and its bytes."""
    if shared := os.environ.get("CRYPTO_ML_SHARED"):
        return "the real market, 29,999 rows", (Path(shared) / "market" / "crypto_markets.csv").read_bytes()
    from crypto_ml.forecasting.simulation import simulate_market

    rows = simulate_market(60, 700, 1, date(2022, 1, 1)).head(30_000)
    return f"a simulated market, {len(rows):,} rows", rows.to_csv(index=False).encode()


def answered(store: ObjectStore, key: str) -> bool:
    """Whether crypto_ml has answered an upload."""
    report = read_report(key, store)
    assert report is None or report.outcome == "PREDICTED", report.document["reason"]
    return report is not None


def answered_plainly(store: ObjectStore, key: str) -> bool:
    """Whether the ordinary project has."""
    return store.head(f"ordinary/predictions/{Path(key).stem}_preds.csv") is not None


def seconds_to_answer(store: ObjectStore, key: str, body: bytes, there: Callable[[ObjectStore, str], bool]) -> float:
    store.replace(key, body, content_type=CSV)
    began = time.monotonic()
    while not there(store, key):
        if time.monotonic() - began > LONGEST:
            raise TimeoutError(f"no answer to {key} within {LONGEST:.0f} s")
        time.sleep(0.03)
    return time.monotonic() - began


@dataclass(frozen=True)
class Measured:
    """Of each drop the seconds, and the processor seconds of all of Dagster's processes while it was answered; of each
    part of an answer the median seconds, where its run says them."""

    seconds: Sequence[float]
    processor: Sequence[float]
    parts: Mapping[str, float]

    @property
    def in_words(self) -> str:
        least, most = min(self.seconds), max(self.seconds)
        return (
            f"p50 {statistics.median(self.seconds):.2f} s, p95 {p95(self.seconds):.2f} s, {least:.2f} to {most:.2f} s; "
            f"{statistics.median(self.processor):.2f} s of processor time (median)"
        )


def processor_seconds(dagster: LocalDagster) -> float:
    """Of all processes that a Dagster has started, those that have ended included."""
    spent = 0.0
    for pid in dagster.left():
        with suppress(psutil.NoSuchProcess):  # ended since, and counted with those whose child it was
            one = psutil.Process(pid).cpu_times()
            spent += one.user + one.system + one.children_user + one.children_system
    return spent


def measured(
    directory: Path, instance: str, drops: int, there: Callable[[ObjectStore, str], bool], module: str = MODULE
) -> Measured:
    """So many drops at random moments on a store and a Dagster of their own, after one that warms what there is."""
    directory.mkdir()
    (directory / "instance.yaml").write_text(instance)
    with EmbeddedS3(directory / "s3") as server:
        os.environ.update(server.environment)
        store = connect("crypto-ml")
        ensure_bucket(store.client, "crypto-ml")
        variables = {**server.environment, "PYTHONPATH": str(REPOSITORY)}
        dagster = LocalDagster(directory, variables, directory / "instance.yaml", free_port(), module=module)
        with dagster:
            dagster.wait_until_watching()
            body, seconds, processor = upload()[1], [], []
            moments = random.Random(SEED)  # noqa: S311 - moments of a benchmark
            seconds_to_answer(store, "uploads/first.csv", body, there)
            for number in range(drops):
                time.sleep(moments.uniform(*PAUSE))
                before = processor_seconds(dagster)
                dropped = body + b"\n" * (number + 1)
                seconds.append(seconds_to_answer(store, f"uploads/{number}.csv", dropped, there))
                processor.append(processor_seconds(dagster) - before)
            return Measured(seconds, processor, parts(dagster.home))


def parts(home: Path) -> Mapping[str, float]:
    """The median seconds of each part of an answer, as `predictions` shows them."""
    with dg.DagsterInstance.from_config(str(home)) as instance:
        asked = dg.AssetRecordsFilter(dg.AssetKey("predictions"))
        found = [record.asset_materialization for record in instance.fetch_materializations(asked, limit=100).records]
    shown = [one.metadata["spent"] for one in found if one and "spent" in one.metadata]
    rows = [{str(row.data["part"]): float(row.data["seconds"]) for row in table.records} for table in shown]  # type: ignore[attr-defined]
    return {name: statistics.median(row[name] for row in rows) for name in (rows[0] if rows else ())}


def seconds_to_score(body: bytes, directory: Path) -> float:
    path = directory / "upload.csv"
    path.write_bytes(body)
    began = time.monotonic()
    command = [str(Path(sys.executable).with_name("crypto-ml")), "score", str(path), "-o", str(directory / "out.csv")]
    subprocess.run(command, check=True, capture_output=True)
    return time.monotonic() - began


def p95(values: Sequence[float]) -> float:
    """The value that one in twenty is above."""
    return sorted(values)[max(0, -(-len(values) * 95 // 100) - 1)]


def main(drops: int, ordinary_drops: int) -> None:
    """Measure and print."""
    end_with_children()
    what, body = upload()
    with ExitStack() as stack:
        directory = Path(stack.enter_context(TemporaryDirectory(prefix="crypto_ml-latency-")))
        ours = measured(directory / "ours", (REPOSITORY / "dagster.yaml").read_text(), drops, answered)
        print(f"dropped → published, {what}, {drops} drops at random moments (load average {os.getloadavg()[1]:.1f}):")
        print(f"  {ours.in_words}")
        print("  " + ", ".join(f"{name} {seconds:.2f}" for name, seconds in ours.parts.items()), flush=True)
        alone = statistics.median(seconds_to_score(body, directory) for _ in range(3))
        print(f"  crypto-ml score on the same file: {alone:.2f} s")
        plain = "telemetry: {enabled: false}\n"
        theirs = measured(directory / "ordinary", plain, ordinary_drops, answered_plainly, module=ORDINARY)
    times = statistics.median(theirs.seconds) / statistics.median(ours.seconds)
    print(f"an ordinary Dagster project of the same graph, {ordinary_drops} drops at random moments:")
    print(f"  {theirs.in_words}")
    print(f"  {times:.1f} times as long (load average {os.getloadavg()[1]:.1f})")
    if statistics.median(ours.seconds) > P50 or p95(ours.seconds) > P95 or times < TIMES:
        raise Missed(f"p50 at most {P50} s, p95 at most {P95} s, {TIMES:.0f} times as fast as the ordinary project")


if __name__ == "__main__":
    given = [int(argument) for argument in sys.argv[1:3]]
    main(*given, *(DROPS, ORDINARY_DROPS)[len(given) :])
