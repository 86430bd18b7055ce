"""Predictions over REST, beside the same bundle behind the usual servers: latency, throughput, processor time, memory.

`crypto-ml serve` with two workers on an embedded S3, whose history has the days before those that are asked about, and
twelve days of 10,000 symbols that the model does not know. Beside it, in the same run and taken in turns, two workers
each of FastAPI with Keras' `predict`, FastAPI with onnxruntime, MLflow's model server and BentoML's
(`benchmarks/served`), which have the last rows of every coin in memory and record nothing. All are sent the same
records and have to answer the same prices. The store takes part of the same cores; its processor time is told apart.

Then of the service alone: memory over very many recorded requests, a promotion during load, and a worker that is killed
during load, after which every answer that was given must be found.

    python -m benchmarks.service [REQUESTS FOR THE MEMORY]
"""

import asyncio
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final
from urllib.parse import quote

from benchmarks.measure import Missed, end_with_children
from benchmarks.served.load import NO_ANSWER, Answer, Load, Request, send, sending, used_by
from benchmarks.served.market import LARGE, Market
from benchmarks.served.servers import (
    KERAS,
    WORKERS,
    Kind,
    NotServedError,
    Records,
    Server,
    in_bentoml,
    in_fastapi,
    in_mlflow,
    version,
)
from crypto_ml.deployment import Deployment
from crypto_ml.forecasting.bundle import NETWORK, TRAINING_MANIFEST, ModelBundle, make_bundle
from crypto_ml.ledger.deliveries import DeliveryLog
from crypto_ml.settings import Settings, variable
from crypto_ml.stages.road import answer_delivery
from crypto_ml.stages.upkeep import keep_series, keep_tables
from crypto_ml.storage.embedded import EmbeddedS3, ensure_bucket
from crypto_ml.storage.objects import connect

ROUNDS: Final = 3
LATENCIES: Final = 2_000
LATENCIES_OF_OTHERS: Final = 300
AT_ONCE: Final = 32
SECONDS_OF_LOAD: Final = 6.0
LARGE_CALLS: Final = 3
REQUESTS: Final = 10_000
SLICES: Final = 10
UNDER_PROMOTION: Final = 20.0
UNDER_KILL: Final = 8.0
KILLED_AFTER: Final = 3.0

P50, P99, P50_UNRECORDED, LARGE_SECONDS, TIMES = 0.010, 0.050, 0.005, 0.7, 10.0
MOST_GROWTH: Final = 1.1
"""How many times the memory of a worker after a fifth of the requests it may have after all of them."""
REST: Final = 5.0
"""Seconds without requests before memory is looked at: what was answered last is being settled, and held until then."""
SAME: Final = 1e-5
"""Of a price: how far two answers may be apart. Keras and onnxruntime differ by some 1e-6."""

COMMAND: Final = str(Path(sys.executable).with_name("crypto-ml"))
MODEL: Final = Path(__file__).parent / "served" / "model"
"""What all of them serve: a network that can be run by Keras too."""


@dataclass(eq=False)
class Way:
    """One way to have predictions, and what was measured of it.

    stores: whether the store has part in it. seconds: of single requests. alone: of each round of these, processor
    seconds of a request. per_second, processor, store: of each round with many at once, requests answered in a second,
    and processor seconds of a request, of the server and of the store. large: seconds of calls with very many records.
    """

    name: str
    server: Server
    ask: Callable[[Records], Request]
    latencies: int
    stores: bool = False
    seconds: list[float] = field(default_factory=list)
    alone: list[float] = field(default_factory=list)
    per_second: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)
    store: list[float] = field(default_factory=list)
    large: list[float] = field(default_factory=list)

    def measure(self, market: Market, store: int) -> None:
        """One round. store: the process of the store."""
        ones = (self.ask([record]) for record in market.ones())
        before = used_by(self.server.pid).processor_seconds
        one_by_one = self.sent(islice(ones, self.latencies // ROUNDS)).answers
        between, store_before = used_by(self.server.pid).processor_seconds, used_by(store).processor_seconds
        load = self.sent(ones, concurrency=AT_ONCE, seconds=SECONDS_OF_LOAD)
        after, store_after = used_by(self.server.pid).processor_seconds, used_by(store).processor_seconds
        self.seconds += [answer.seconds for answer in one_by_one]
        self.alone.append((between - before) / len(one_by_one))
        self.per_second.append(load.per_second)
        self.processor.append((after - between) / len(load.answers))
        self.store.append((store_after - store_before) / len(load.answers))
        calls = self.sent([self.ask(market.records)] * LARGE_CALLS)
        self.large += [answer.seconds for answer in calls.answers]

    def sent(self, requests: "Iterator[Request] | Sequence[Request]", **how: Any) -> Load:
        """Requests sent to it, all of which are to be answered."""
        load = send(self.server.port, requests, **how)
        if load.failed:
            raise SystemExit(f"{self.name} failed {len(load.failed)} requests, the first with {told(load.failed[0])}")
        return load

    @property
    def p50(self) -> float:
        """Median seconds of a single request."""
        return statistics.median(self.seconds)

    @property
    def p99(self) -> float:
        """Seconds that one in a hundred takes longer than."""
        return sorted(self.seconds)[max(0, -(-len(self.seconds) * 99 // 100) - 1)]

    @property
    def in_words(self) -> str:
        """What was measured, as a line."""
        alone, each, of_store = (1000 * statistics.median(of) for of in (self.alone, self.processor, self.store))
        beside = f" and {of_store:.1f} of the store" if self.stores else ""
        memory, many = used_by(self.server.pid).bytes, statistics.median(self.per_second)
        return (
            f"{self.name}: one record p50 {1000 * self.p50:.1f} ms, p99 {1000 * self.p99:.1f} ms, {alone:.1f} ms of "
            f"processor time; {AT_ONCE} at once {many:.0f}/s, {each:.1f} ms of processor time each{beside}; "
            f"{LARGE:,} records {statistics.median(self.large):.2f} s; {memory / 1e9:.2f} GB"
        )


def told(answer: Answer) -> str:
    """A failed answer, in short."""
    return f"{answer.status} {answer.body[:300].decode(errors='replace')}"


def served() -> Kind:
    """`crypto-ml serve`, on the store that this process's variables lead to."""
    return Kind(
        "crypto-ml serve",
        lambda port: [COMMAND, "serve", "--port", str(port), "--workers", str(WORKERS)],
        {variable("serve_unrecorded"): "true"},
        Request("GET", "/readyz"),
        lambda records: Request("POST", "/v1/predictions", json.dumps(records).encode()),
        lambda answer: answer["predictions"],
    )


def unrecorded(records: Records) -> Request:
    """The request of which nothing is kept."""
    return Request("POST", "/v1/predictions?record=false", json.dumps(records).encode())


def filled(market: Market) -> Deployment:
    """A deployment whose history has what was there before: dropped, and answered as uploads are."""
    store = connect("crypto-ml")
    ensure_bucket(store.client, store.bucket)
    deployment = Deployment(Settings(model_out=MODEL), store=store)
    for name, rows in (("known", market.history), ("unknown", market.earlier_of_unknown)):
        store.replace(f"uploads/{name}.csv", rows.to_csv(index=False).encode())
    now = datetime.now(UTC)
    for delivery in DeliveryLog(store).assign_new(now):
        answer_delivery(delivery.id, deployment, run_id="benchmark", now=now)
    keep_tables(store)
    keep_series(deployment)
    return deployment


def others(directory: Path, market: Market) -> Iterator[Kind]:
    """The usual ways that can be had here; of the others it is said why not."""
    history = directory / "earlier.csv"
    market.history.to_csv(history, index=False)
    yield in_fastapi("keras", MODEL, history)
    yield in_fastapi("onnxruntime", MODEL, history)
    for package, made in (("mlflow", in_mlflow), ("bentoml", in_bentoml)):
        try:
            yield made(MODEL, history)
        except NotServedError as error:
            print(error)
        else:
            print(f"{package} {version(package)}", flush=True)


def require_same(kind: Kind, answer: Answer, expected: Mapping[tuple[str, str], float]) -> None:
    """Raises SystemExit where a server predicts something else than another one did."""
    assert answer.status == 200, told(answer)
    found = prices(kind, answer)
    off = max(abs(found[row] - price) / abs(price) for row, price in expected.items())
    if off > SAME or found.keys() != expected.keys():
        raise SystemExit(f"{kind.name} answers other prices: up to {off:.1e} of them apart")


def prices(kind: Kind, answer: Answer) -> dict[tuple[str, str], float]:
    """The predicted open of each symbol and day of an answer."""
    return {(row["symbol"], str(row["date"])): row["pred_open"] for row in kind.read(json.loads(answer.body))}


def memory(way: Way, market: Market, requests: int) -> tuple[str, float]:
    """What the service's processes hold over very many requests; and how many times as much in the end as soon after
    the start, of the process that grew most."""
    ones = (way.ask([record]) for record in market.ones())
    held, began = [], used_by(way.server.pid)
    for _ in range(SLICES):
        way.sent(islice(ones, requests // SLICES), concurrency=AT_ONCE, keep=False)
        time.sleep(REST)
        held.append(used_by(way.server.pid))
    each = (held[-1].processor_seconds - began.processor_seconds) / requests
    early, late = held[SLICES // 5 - 1].resident, held[-1].resident
    growth = max(late[pid] / early[pid] for pid in early.keys() & late.keys())
    course = ", ".join(f"{used.bytes / 1e6:.0f}" for used in held)
    return f"{requests:,} recorded requests: {course} MB, {1000 * each:.2f} ms of processor time each", growth


def successor(bundle: ModelBundle) -> ModelBundle:
    """A bundle that predicts the same, and is another one."""
    documents = {name: content for name, content in bundle.files.items() if name in bundle.manifest["files"]}
    trained = json.dumps({**bundle.document(TRAINING_MANIFEST), "again": True}).encode()
    return make_bundle(
        label="again",
        target=bundle.target,
        scaler=bundle.statistics,
        slugs=bundle.slugs,
        network_onnx=bundle.files[NETWORK],
        weights_sha256=bundle.manifest["weights_sha256"],
        about=bundle.manifest["about"],
        documents=documents | {TRAINING_MANIFEST: trained},
    )


async def promoted(way: Way, market: Market, candidate: str) -> tuple[Load, float]:
    """A load during which another model is promoted, and when that was done (time.monotonic)."""
    ones = (way.ask([record]) for record in market.ones())
    load = asyncio.create_task(sending(way.server.port, ones, concurrency=8, seconds=UNDER_PROMOTION))
    decision = ("--by", "the benchmark", "--why", "to see it served", "--override", "it is the same network")
    command = await asyncio.create_subprocess_exec(
        *(COMMAND, "promote", candidate, *decision), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    assert await command.wait() == 0
    done = time.monotonic()
    return await load, done


async def killed(way: Way, market: Market) -> tuple[Load, float]:
    """A load during which a worker is killed, and when that was (time.monotonic)."""
    ones = (way.ask([record]) for record in market.ones())
    load = asyncio.create_task(sending(way.server.port, ones, concurrency=AT_ONCE, seconds=UNDER_KILL))
    await asyncio.sleep(KILLED_AFTER)
    held = used_by(way.server.pid).resident
    os.kill(max((pid for pid in held if pid != way.server.pid), key=held.__getitem__), signal.SIGKILL)
    at = time.monotonic()
    return await load, at


def under_promotion(way: Way, market: Market, deployment: Deployment) -> list[str]:
    """Promote another model during load, and say what came of it; returns the targets that were missed."""
    candidate = successor(deployment.bundle(deployment.champion().version))
    deployment.registry.add(candidate)
    load, done = asyncio.run(promoted(way, market, candidate.version))
    by = [(answer.at, json.loads(answer.body)["model_version"]) for answer in load.answers if answer.status == 200]
    late = max((at - done for at, model in by if model != candidate.version and at > done), default=0.0)
    new = sum(model == candidate.version for _, model in by)
    print(
        f"a promotion during {len(load.answers):,} requests: {len(load.failed)} failed; the last answer of the model "
        f"before came {late:.1f} s after it, {new:,} are of the new one",
        flush=True,
    )
    if load.failed:
        print(f"    {told(load.failed[0])}")
    return ["no request fails during a promotion"] if load.failed or not new else []


def under_kill(way: Way, market: Market) -> list[str]:
    """Kill a worker during load, and look for every answer that was given; returns the targets that were missed."""
    load, at = asyncio.run(killed(way, market))
    given = [json.loads(answer.body)["answer_id"] for answer in load.answers if answer.status == 200]
    found = send(way.server.port, [Request("GET", f"/v1/predictions/{quote(one)}") for one in given], concurrency=8)
    broken = sum(answer.status == NO_ANSWER for answer in load.failed)
    after = sum(answer.status == 200 and answer.at > at for answer in load.answers)
    print(
        f"kill -9 of a worker during {len(load.answers):,} requests: {broken} connections broke, "
        f"{len(load.failed) - broken} failed otherwise, {after:,} were answered after it; "
        f"of {len(given):,} answers given {len(found.failed)} are not found",
        flush=True,
    )
    if found.failed:
        print(f"    {told(found.failed[0])}")
    return ["no answer given is lost where a worker is killed"] if found.failed or not after else []


def beside(
    directory: Path, market: Market, expected: Mapping[tuple[str, str], float], stack: ExitStack
) -> Iterator[Way]:
    """The usual servers that start here, each once it has answered what is expected."""
    for kind in others(directory, market):
        try:
            server = stack.enter_context(Server(kind, directory))
        except NotServedError as error:
            print(error)
            continue
        require_same(kind, send(server.port, [kind.ask(market.records)]).answers[0], expected)
        yield Way(kind.name, server, kind.ask, LATENCIES_OF_OTHERS)


def side_by_side(ways: Sequence[Way], market: Market, store: int) -> None:
    """Measure all of them, taken in turns, and print it. store: its process."""
    for way in ways:
        way.sent(islice((way.ask([record]) for record in market.ones()), 50), concurrency=AT_ONCE)
    for number in range(ROUNDS):
        for way in ways:
            way.measure(market, store)
        print(f"round {number + 1} of {ROUNDS} is done", flush=True)
    print(f"{WORKERS} workers each, {ROUNDS} rounds in turns, load average {os.getloadavg()[1]:.1f}:")
    for way in ways:
        print(f"  {way.in_words}", flush=True)


def compared(recorded: Way, unrecorded: Way, usual: Sequence[Way], market: Market) -> list[str]:
    """Print how the service stands beside the usual servers; returns the targets that were missed."""
    many = statistics.median(recorded.per_second)
    times = {way.name: many / statistics.median(way.per_second) for way in usual}
    print("  recorded, times the throughput of " + ", ".join(f"{name} {ratio:.1f}" for name, ratio in times.items()))
    calls = recorded.sent([recorded.ask(market.close)] * (LARGE_CALLS + 1)).answers[1:]
    close = statistics.median(answer.seconds for answer in calls)
    print(f"  {LARGE:,} symbols that the model does not know, a day of each: {close:.2f} s", flush=True)
    targets = (
        (f"one record recorded: p50 {1000 * P50:.0f} ms", recorded.p50 <= P50),
        (f"one record recorded: p99 {1000 * P99:.0f} ms", recorded.p99 <= P99),
        (f"one record unrecorded: p50 {1000 * P50_UNRECORDED:.0f} ms", unrecorded.p50 <= P50_UNRECORDED),
        (f"{LARGE:,} records: {LARGE_SECONDS} s", statistics.median(recorded.large) <= LARGE_SECONDS),
        (f"{LARGE:,} symbols: {LARGE_SECONDS} s", close <= LARGE_SECONDS),
        (f"{TIMES:.0f} times the throughput of {KERAS}", times.get(KERAS, 0) >= TIMES),
    )
    return [what for what, holds in targets if not holds]


def main() -> None:
    """Measure, print, and end with 1 where a target is missed."""
    end_with_children()
    requests = int(sys.argv[1]) if len(sys.argv) > 1 else REQUESTS
    market = Market.simulated()
    with ExitStack() as stack:
        directory = Path(stack.enter_context(TemporaryDirectory(prefix="crypto_ml-service-")))
        store = stack.enter_context(EmbeddedS3(directory / "s3"))
        os.environ.update(store.environment | {variable("model_out"): str(MODEL)})
        deployment, kind = filled(market), served()
        server = stack.enter_context(Server(kind, directory))
        recorded = Way("recorded", server, kind.ask, LATENCIES, stores=True)
        kept_nothing = Way("unrecorded", server, unrecorded, LATENCIES, stores=True)
        expected = prices(kind, recorded.sent([kind.ask(market.records)]).answers[0])
        assert store.pid
        with ExitStack() as usual_servers:
            usual = list(beside(directory, market, expected, usual_servers))
            side_by_side([recorded, kept_nothing, *usual], market, store.pid)
            missed = compared(recorded, kept_nothing, usual, market)
        words, growth = memory(recorded, market, requests)
        print(f"{words}; {growth:.2f} times the memory after a fifth of them", flush=True)
        missed += [f"{MOST_GROWTH} times the memory"] if growth > MOST_GROWTH else []
        missed += under_promotion(recorded, market, deployment)
        missed += under_kill(recorded, market)
    if missed:
        raise Missed("; ".join(missed))


if __name__ == "__main__":
    main()
