"""The same answers from histories of different lengths: requests, processor time, memory and seconds of each.

A file of one symbol, a daily file of 10,000 symbols and the real market of 29,999 rows (where CRYPTO_ML_SHARED leads
to it) are dropped into deployments whose history is of 10, 365 and 3,650 daily deliveries of 10,000 symbols, and of
20,000 deliveries of 3 rows, once upkeep has been there; `answer_delivery` takes each down the whole road. Every kind of
file has a process of its own, which has answered one such file before, as one that stays has. What is compared with is
the shortest history.

    python -m benchmarks.history_growth [DELIVERIESxROWS …]     (10x10000 365x10000 3650x10000 20000x3)

The histories are made once and kept under .crypto_ml/bench; the longest takes 2 GB, and as much again for its cache.
"""

import json
import os
import statistics
import sys
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from benchmarks.counted_requests import CountedRequests
from benchmarks.grown_histories import BUCKET, Grown, fill
from benchmarks.measure import Missed, measured_by_child, requests_so_far
from crypto_ml.storage.embedded import EmbeddedS3

HISTORIES: Final = (Grown(10, 10_000), Grown(365, 10_000), Grown(3_650, 10_000), Grown(20_000, 3))
KINDS: Final = ("one symbol", "10,000 symbols", "the real market")
REPEATS: Final = 3
MOST_TIMES: Final = 1.3
MOST_BYTES: Final = 1e9


@dataclass(frozen=True)
class Answered:
    """Medians of one answer: wall-clock and processor seconds of the process, requests; and the process's peak."""

    seconds: float
    processor_seconds: float
    requests: float
    peak_bytes: int


def main() -> None:
    """Measure, print, and end with 1 where a target is missed."""
    asked = [Grown(*map(int, name.split("x"))) for name in sys.argv[1:]] or list(HISTORIES)
    kinds = KINDS if "CRYPTO_ML_SHARED" in os.environ else KINDS[:2]
    measured: dict[str, dict[str, Answered]] = {}
    for grown in asked:
        with EmbeddedS3(grown.folder / "s3") as server:
            fill(grown, server.environment)
            built = _child("build", grown, server.environment)
            sys.stdout.write(
                f"{grown.name()}: upkeep, with everything to do, took {built['seconds']:.0f} s, "
                f"{built['processor_seconds']:.0f} s of processor time, peak {built['peak_bytes'] / 1e9:.2f} GB\n"
            )
            for kind in kinds:
                with CountedRequests(server.endpoint) as counted:
                    environment = server.environment | {"AWS_ENDPOINT_URL_S3": counted.endpoint}
                    found = _child(kind, grown, environment, counted)
                answered = Answered(**found)
                measured.setdefault(kind, {})[grown.name()] = answered
                sys.stdout.write(
                    f"{grown.name()}, {kind}: {answered.seconds:.2f} s, {answered.processor_seconds:.2f} s of "
                    f"processor time, {answered.requests:.0f} requests, peak {answered.peak_bytes / 1e9:.2f} GB\n"
                )
                sys.stdout.flush()
    _compare(measured)


def _compare(measured: dict[str, dict[str, Answered]]) -> None:
    missed = []
    for kind, by_history in measured.items():
        (_, shortest), *others = by_history.items()
        for name, answered in others:
            ratios = {what: value / max(asdict(shortest)[what], 1e-9) for what, value in asdict(answered).items()}
            told = ", ".join(f"{what} {ratio:.2f}" for what, ratio in ratios.items())
            sys.stdout.write(f"{name}, {kind}: times those of the shortest: {told}\n")
            missed += [f"{name}, {kind}: {what}" for what, ratio in ratios.items() if ratio > MOST_TIMES]
        missed += [f"{name}: 1 GB" for name, answered in by_history.items() if answered.peak_bytes > MOST_BYTES]
    if missed:
        raise Missed(f"at most {MOST_TIMES} times the shortest: {'; '.join(missed)}")


def _child(kind: str, grown: Grown, environment: dict[str, str], counted: CountedRequests | None = None) -> Any:
    """What a process of its own measured of itself."""
    words, variables = [kind, f"{grown.deliveries}x{grown.rows}"], {**environment, "CRYPTO_ML_BUCKET": BUCKET}
    return measured_by_child(
        "benchmarks.history_growth", words, variables, lambda: str(counted.count if counted else 0)
    )


def _requests() -> int:
    (count,) = requests_so_far()
    return count


def _measured(kind: str, grown: Grown) -> dict[str, float]:
    import resource
    import time

    from crypto_ml.deployment import Deployment
    from crypto_ml.settings import Settings
    from crypto_ml.stages.upkeep import keep_series, keep_tables

    deployment = Deployment(Settings.from_environment())
    seconds, processor, requests = [], [], []
    version = deployment.history.version()
    assert version is not None
    if kind == "build":
        began, used = time.perf_counter(), time.process_time()
        keep_tables(deployment.store)
        keep_series(deployment)
        seconds, processor, requests = [time.perf_counter() - began], [time.process_time() - used], [0]
    for number in range(REPEATS + 1 if kind != "build" else 0):
        delivery = _dropped(kind, grown, deployment)
        counted, began, used = _requests(), time.perf_counter(), time.process_time()
        _answer(delivery, deployment)
        now = time.perf_counter(), time.process_time()
        if number:
            seconds.append(now[0] - began)
            processor.append(now[1] - used)
            requests.append(_requests() - counted)
        version = deployment.history.version() or version
        if deployment.series.due(version):
            deployment.series.refresh(version)
    return {
        "seconds": statistics.median(seconds),
        "processor_seconds": statistics.median(processor),
        "requests": statistics.median(requests),
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024),
    }


def _dropped(kind: str, grown: Grown, deployment: Any) -> str:
    """Put one more file of a kind into the watched prefix; returns its delivery."""
    import uuid
    from datetime import UTC, datetime

    import numpy as np

    from crypto_ml.ledger.deliveries import DeliveryLog, delivery_id

    if kind == "the real market":
        market = Path(os.environ["CRYPTO_ML_SHARED"]) / "market" / "crypto_markets.csv"
        body = market.read_bytes() + b"\n" * (1 + datetime.now(UTC).microsecond)
    else:
        days = deployment.history.days()
        assert days
        day = max(grown.last_day, days[1]) + timedelta(days=1)
        names = ["B000123"] if kind == "one symbol" else [f"B{number:06d}" for number in range(grown.symbols)]
        prices = np.random.default_rng().uniform(1, 2, len(names))
        lines = [f"{name},{day},{p},{p * 1.1},{p * 0.9},{p},1e9" for name, p in zip(names, prices, strict=True)]
        body = "\n".join(["symbol,date,open,high,low,close,market", *lines]).encode()
    deployment.store.create(f"uploads/{uuid.uuid4().hex}.csv", body)
    (delivery,) = DeliveryLog(deployment.store).assign_new(datetime.now(UTC))
    return delivery_id(delivery.number)


def _answer(delivery: str, deployment: Any) -> None:
    from datetime import UTC, datetime

    from crypto_ml.stages.road import answer_delivery

    answers = answer_delivery(delivery, deployment, run_id="benchmark", now=datetime.now(UTC))
    outcomes = [report.outcome for report in answers.reports]
    assert outcomes == ["PREDICTED"], outcomes


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        sys.stdout.write(json.dumps(_measured(sys.argv[2], Grown(*map(int, sys.argv[3].split("x"))))) + "\n")
    else:
        main()
