"""The application, asked as a client would: over HTTP, with everything below it real."""

import json
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, partial
from threading import Thread
from typing import Any

import httpx
import pandas as pd
import uvicorn

from crypto_ml.deployment import Deployment
from crypto_ml.forecasting.bundle import ModelBundle, make_bundle
from crypto_ml.forecasting.onnx_graph import onnx_bytes
from crypto_ml.service.application import create_app
from crypto_ml.service.config import ServiceConfig
from crypto_ml.service.draining import Draining
from crypto_ml.service.gate import Gate
from crypto_ml.service.handling import Service
from crypto_ml.service.running import listen
from crypto_ml.settings import Settings
from crypto_ml.storage.objects import ObjectStore
from crypto_ml_tests.dropbox.site import until
from crypto_ml_tests.forecasting.markets import statistics
from crypto_ml_tests.forecasting.networks import random_weights
from crypto_ml_tests.stages.road import COLUMNS, Road

KNOWN = tuple(f"K{number:03}" for number in range(100))
"""The series that the model knows: enough for every example of a property to have its own."""

OPEN = ServiceConfig(unrecorded=True)


@cache
def model(label: str = "served", seed: int = 0) -> ModelBundle:
    """A model of random numbers that knows KNOWN."""
    return make_bundle(
        label=label,
        target="gap",
        scaler=statistics(KNOWN),
        slugs={},
        network_onnx=onnx_bytes(random_weights(seed)),
        weights_sha256=f"random {seed}",
        about={"origin": "random numbers"},
        documents={},
    )


@dataclass
class Asking:
    """A client, and the file road of the same deployment."""

    client: httpx.Client
    road: Road
    made: int = field(default=0)

    @classmethod
    @contextmanager
    def on(
        cls,
        store: ObjectStore,
        config: ServiceConfig = OPEN,
        prepare: Callable[[Service], None] = lambda _: None,
        bundle: ModelBundle | None = None,
    ) -> Iterator["Asking"]:
        """Ask about a store, from when the service is ready until it has ended. prepare: is given the service first.
        bundle: what serves from the start."""
        road = Road(store, bundle or model())
        road.serving()
        service = Service.of(Deployment(Settings(), store=store), config)
        prepare(service)
        with served(create_app(service)) as address, httpx.Client(base_url=address, timeout=60) as client:
            until(lambda: client.get("/readyz").status_code == 200, "the service is not ready")
            yield cls(client, road)

    def predict(self, body: Any, **headers: str) -> httpx.Response:
        """Send records (anything but text and bytes, as JSON) or CSV."""
        if not isinstance(body, str | bytes):
            return self.post(json.dumps(body), "application/json", **headers)
        return self.post(body, "text/csv", **headers)

    def post(self, body: str | bytes, content_type: str, *, query: str = "", **headers: str) -> httpx.Response:
        """Send any body."""
        sent = {"content-type": content_type, **{name.replace("_", "-"): value for name, value in headers.items()}}
        return self.client.post(f"/v1/predictions{query}", content=body, headers=sent)

    def drop(self, **files: bytes) -> None:
        """Have files answered down their road, and wait until the service sees the history with their rows."""
        self.road.drop(**files)
        self.road.answer_new()
        version = self.road.history.version()
        until(lambda: self.get("/v1/model")["history_version"] == version, "the new history is not seen")

    def get(self, path: str, **headers: str) -> Any:
        """A document that is there."""
        response = self.client.get(path, headers=headers)
        assert response.status_code == 200, response.text
        return response.json()


@contextmanager
def served(app: Gate) -> Iterator[str]:
    """The address of an application that is served by a thread of this process; ended as a signal ends it."""
    with served_until_told(app) as (address, _):
        yield address


@contextmanager
def served_until_told(app: Any) -> Iterator[tuple[str, Callable[[], None]]]:
    """The same, and what tells it to end."""
    server = uvicorn.Server(
        uvicorn.Config(app, http=Draining, ws="none", lifespan="auto", log_config=None, access_log=False)
    )
    with listen("127.0.0.1", 0) as listening:
        thread = Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}", partial(setattr, server, "should_exit", True)
        finally:
            server.should_exit = True
            thread.join()


def records(rows: pd.DataFrame, columns: Sequence[str] = COLUMNS) -> list[dict[str, Any]]:
    """Rows of a market as records in JSON, numbers as a file of them has them."""
    found = rows[list(columns)].assign(date=rows["date"].dt.strftime("%Y-%m-%d"))
    return [{str(name): value for name, value in row.items()} for row in found.to_dict("records")]


def numbers(predictions: Sequence[Mapping[str, Any]]) -> list[tuple[Any, ...]]:
    """What is predicted, without the names of the answer."""
    names = ("symbol", "index", "date", "pred_open", "val_open", "status")
    return [tuple(row[name] for name in names) for row in predictions]


def told_to(address: tuple[str, int], *pieces: bytes) -> bytes:
    """All that is answered to some bytes until the connection is closed; at most what fits before that is sent."""
    with socket.create_connection(address, timeout=30) as connection:
        answer = b""
        try:
            for piece in pieces:
                connection.sendall(piece)
            while some := connection.recv(1 << 16):
                answer += some
        except (BrokenPipeError, ConnectionResetError):
            pass
        return answer
