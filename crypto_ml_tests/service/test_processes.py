"""Real processes: workers that are killed, promoted under, and told to end, while somebody asks."""

import os
import signal
import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path
from threading import Event, Thread
from typing import Any

import httpx
import psutil
import pytest

from crypto_ml.commands.local_dagster import free_port
from crypto_ml.ledger.layout import CLAIMS
from crypto_ml.service.tokens import new_token
from crypto_ml.storage.objects import connect
from crypto_ml.storage.prediction_log import PredictionLog
from crypto_ml_tests.dropbox.site import until
from crypto_ml_tests.forecasting.markets import market
from crypto_ml_tests.service.asking import model, records, served_until_told
from crypto_ml_tests.stages.road import Road, upload

COMMAND = [sys.executable, "-c", "from crypto_ml.cli import main; main()", "serve"]
ASKERS = 4


@dataclass
class Site:
    """`crypto-ml serve` with two workers."""

    road: Road
    log: Path
    token: str
    client: httpx.Client
    process: "subprocess.Popen[bytes]"

    def workers(self) -> set[int]:
        """The processes that answer; what multiprocessing starts beside them is none, nor is what has died."""
        found = set()
        for child in psutil.Process(self.process.pid).children():
            with suppress(psutil.NoSuchProcess):
                if "spawn_main" in " ".join(child.cmdline()):
                    found.add(child.pid)
        return found

    def model(self) -> Any:
        return self.client.get("/v1/model").json()["model_version"]


@dataclass
class Load:
    """What askers were answered, until they are told to stop: model versions, ids, and the connections they lost."""

    versions: list[str] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    lost: int = 0


@contextmanager
def load(site: Site) -> Iterator[Load]:
    """Ask all the time, each asker over connections of its own."""
    seen, stop = Load(), Event()
    body = records(market({"K001": 1}))

    def ask() -> None:
        with httpx.Client(base_url=site.client.base_url, headers=site.client.headers, timeout=60) as client:
            while not stop.is_set():
                try:
                    answer = client.post("/v1/predictions", json=body)
                except httpx.TransportError:
                    seen.lost += 1
                    continue
                if answer.status_code != 200:
                    seen.refused.append(answer.text)
                    continue
                seen.versions.append(answer.json()["model_version"])
                seen.ids.append(answer.json()["answer_id"])

    askers = [Thread(target=ask) for _ in range(ASKERS)]
    for asker in askers:
        asker.start()
    try:
        yield seen
    finally:
        stop.set()
        for asker in askers:
            asker.join()


def test_a_request_that_is_on_its_way_when_a_worker_is_told_to_end_is_answered() -> None:
    async def application(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})

    with served_until_told(application) as (address, tell_to_end):
        connection = HTTPConnection(*address.removeprefix("http://").split(":"))  # type: ignore[arg-type]
        kept = []
        for _ in range(3):
            connection.request("GET", "/")
            connection.auto_open = 0  # one connection is what this is about
            answer = connection.getresponse()
            assert answer.read() == b"ok"
            kept.append(answer.headers["connection"])
            if kept[-1] == "close":
                break
            tell_to_end()
            until(lambda: not accepts(address), "it takes connections still")
        assert kept == [None, "close"]


def accepts(address: str) -> bool:
    """Whether somebody listens there."""
    url = httpx.URL(address)
    try:
        socket.create_connection((url.host, url.port)).close()
    except OSError:
        return False
    return True


@pytest.fixture(scope="module")
def site(bucket: str, tmp_path_factory: pytest.TempPathFactory, s3_environment: dict[str, str]) -> Iterator[Site]:
    store, directory = connect(bucket, f"tests/{uuid.uuid4().hex}"), tmp_path_factory.mktemp("serve")
    road = Road(store, model())
    road.serving()
    token, line = new_token("tester", ["predict", "read"])
    (directory / "tokens").write_text(line)
    settings = {
        "CRYPTO_ML_BUCKET": store.bucket,
        "CRYPTO_ML_PREFIX": store.prefix,
        "CRYPTO_ML_SERVE_TOKENS_FILE": str(directory / "tokens"),
    }
    port, log = free_port(), directory / "log"
    address = f"http://127.0.0.1:{port}"
    headers = {"authorization": f"Bearer {token}"}
    with (
        log.open("wb") as out,
        subprocess.Popen(
            [*COMMAND, "--port", str(port), "--workers", "2"],
            env=os.environ | s3_environment | settings,
            stdout=out,
            stderr=out,
            start_new_session=True,
        ) as process,
        httpx.Client(base_url=address, headers=headers, timeout=60) as client,
    ):
        made = Site(road, log, token, client, process)
        try:
            until(lambda: log.read_text().count("Answers are made with") == 2, "the workers are not ready")
            yield made
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


def test_a_promotion_during_load_fails_no_request_and_every_worker_serves_it_soon(site: Site) -> None:
    other = model("promoted", 1)
    site.road.registry.add(other)
    with load(site) as seen:
        until(lambda: len(seen.ids) > 4, "nothing is answered")
        site.road.registry.promote(other.version, by="a test", why="it is another", at=site.road.now)
        serving = f'crypto_ml_workers_serving{{model_version="{other.version}"}} 2.0'
        until(lambda: serving in site.client.get("/metrics").text, "not every worker serves the new model")
        answered = len(seen.ids)
        until(lambda: len(seen.ids) > answered + ASKERS, "nothing is answered any more")
    assert (seen.refused, seen.lost) == ([], 0)
    assert set(seen.versions[:4]) == {model().version}
    assert seen.versions[-1] == other.version


def test_a_worker_that_is_killed_loses_no_answer_it_gave_and_another_takes_its_place(site: Site) -> None:
    before = site.workers()
    killed, ready = min(before), site.log.read_text().count("Answers are made with")
    with load(site) as seen:
        until(lambda: len(seen.ids) > 4, "nothing is answered")
        os.kill(killed, signal.SIGKILL)
        answered = len(seen.ids)
        until(lambda: len(seen.ids) > answered + 2 * ASKERS, "nothing is answered any more")
    assert seen.refused == []
    with ThreadPoolExecutor(4) as pool:
        read = pool.map(lambda answer: site.client.get(f"/v1/predictions/{answer}").status_code, seen.ids)
        assert set(read) == {200}
    until(lambda: len(site.workers() - before) == 1, "no other worker came")
    until(lambda: site.log.read_text().count("Answers are made with") == ready + 1, "it is not ready")


def test_what_was_accepted_is_answered_and_settled_before_the_end_and_nothing_secret_is_in_the_log(site: Site) -> None:
    rows = market({"K002": 2_500, "K003": 2_500, "K004": 2_500})
    private = "a-key-that-nobody-else-should-see"
    headers = {"content-type": "text/csv", "idempotency-key": private}
    assert site.client.get(f"/healthz?password={private}").status_code == 200
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(site.client.post, "/v1/predictions", content=upload(rows), headers=headers)
        until(lambda: list(site.road.store.list(CLAIMS)), "the large request has not come")
        site.process.send_signal(signal.SIGTERM)
        answer = asked.result()
    assert answer.status_code == 200, answer.text
    assert len(answer.json()["predictions"]) == len(rows)
    assert site.process.wait(60) == 0
    assert PredictionLog(site.road.store).predictions(answer.json()["answer_id"]).num_rows == len(rows) - 3
    log = site.log.read_text()
    assert "stopped; what was accepted is answered" in log
    assert not [word for word in (site.token, private, "Bearer", "SECRET") if word in log]
    assert answer.headers["x-request-id"] in log
