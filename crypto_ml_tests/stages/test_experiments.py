"""Trainings and the pointer as a real MLflow server sees them; without one nothing of it is there or fails."""

import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread
from typing import Any

import httpx
import numpy as np
import pytest

from crypto_ml.commands.local_dagster import free_port
from crypto_ml.forecasting.bundle import ModelBundle, make_bundle
from crypto_ml.forecasting.verdicts import judge
from crypto_ml.ledger.layout import bundle_prefix
from crypto_ml.ledger.registry import Registry
from crypto_ml.stages.experiments import (
    NAME,
    SHA256_TAG,
    VARIABLE,
    alias_of,
    experiment_of,
    log_training,
    told_of_decision,
    told_of_training,
    without_secrets,
)
from crypto_ml.stages.promotion import Decision, decide
from crypto_ml.storage.history import MarketHistory
from crypto_ml.storage.objects import ObjectStore
from crypto_ml_tests.dropbox.site import until
from crypto_ml_tests.forecasting.markets import model

SERVER = Path(__file__).parents[2] / ".crypto_ml" / "mlflow" / "bin" / "mlflow"
OPENS = np.exp(np.random.default_rng(1).normal(0, 0.1, (3, 90)))
DAYS = np.arange("2018-01-01", "2018-04-01", dtype="datetime64[D]")
JUDGEMENT = judge(DAYS, ["BTC"] * 90, OPENS[0], OPENS[1], OPENS[2], OPENS[2])
METRICS = {
    "holdout": {"overall": {"rows": 120, "network": {"mase": 1.01}}, "by_symbol": {"BTC": {"mase": 3.0}}},
    "loss": {"loss": [0.5, 0.4], "val_loss": [0.6, 0.5]},
    "verdicts": {"last_close": JUDGEMENT.to_dict()},
    "best_epoch": 2,
}


def trained(label: str) -> ModelBundle:
    base = model("gap")
    documents = {
        "metrics.json": json.dumps(METRICS).encode(),
        "training_manifest.json": json.dumps({"week": label, "rows": {"train": 70}, "symbols": 3}).encode(),
        "MODEL_CARD.md": b"# A model\n",
        "pictures/loss.png": b"\x89PNG",
    }
    return make_bundle(
        label=label, target="gap", scaler=base.statistics, slugs={}, network_onnx=base.files["network.onnx"],
        weights_sha256="ab" * 32, about={"plan": {"epochs": 2, "seed": 7}}, documents=documents,
    )  # fmt: skip


def test_without_a_server_named_nothing_of_mlflow_is_imported_and_nothing_is_told(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setitem(sys.modules, "mlflow", None)  # an import of it would fail
    bundle = trained("2018-03-18")
    registry = Registry(store)
    registry.add(bundle)
    assert told_of_training(bundle, store) == {}
    champion = decide(Decision(bundle.version, "ann", "first", "a test"), registry, MarketHistory(store), _now())
    assert told_of_decision(champion, registry) == {}


def test_a_server_that_is_away_fails_nothing_and_no_secret_is_told(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, f"http://ann:geheim@127.0.0.1:{free_port()}/some?token=geheim")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    told = told_of_training(trained("2018-03-18"), store)["mlflow_run"]
    assert told.startswith("not logged: MLflow at http://127.0.0.1:")
    assert "geheim" not in told
    assert experiment_of(trained("2018-03-18").version, store) is None


class Nonsense(BaseHTTPRequestHandler):
    """Answers every request with what its server was given."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.server.said)  # type: ignore[attr-defined]

    do_POST = do_GET  # noqa: N815 - as the library calls it

    def log_message(self, *_: object) -> None:
        """Nothing is printed."""


@pytest.mark.parametrize("said", [b"", b"[]", b"null", b"<html>", b'{"experiment": 3}', b'{"experiment": {}}', b"\xff"])
def test_a_server_that_answers_nonsense_fails_nothing(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch, said: bytes
) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Nonsense) as server:
        server.said = said  # type: ignore[attr-defined]
        Thread(target=server.serve_forever).start()
        try:
            monkeypatch.setenv(VARIABLE, f"http://127.0.0.1:{server.server_port}")
            assert told_of_training(trained("2018-03-18"), store)["mlflow_run"].startswith("not logged: MLflow at http")
        finally:
            server.shutdown()
    assert experiment_of(trained("2018-03-18").version, store) is None


@pytest.mark.parametrize(
    "uri", ["http://ann:geheim@127.0.0.1:port/", "http://ann:geheim@[::1/", "http://ann:geheim@127.0.0.1:99999999"]
)
def test_an_address_that_is_none_fails_nothing_and_no_secret_of_it_is_told(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch, uri: str
) -> None:
    monkeypatch.setenv(VARIABLE, uri)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    told = told_of_training(trained("2018-03-18"), store)["mlflow_run"]
    assert told.startswith("not logged: MLflow at an address that is none (MLFLOW_TRACKING_URI)")
    assert "geheim" not in told


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("http://ann:secret@[::1]:5000/base", "http://[::1]:5000/base"),
        ("https://ann:secret@models.example.org/base?token=1#x", "https://models.example.org/base"),
        ("http://127.0.0.1:5000", "http://127.0.0.1:5000"),
        ("databricks", "databricks"),
    ],
)
def test_an_address_is_shown_without_what_lets_in(uri: str, shown: str) -> None:
    assert without_secrets(uri) == shown


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    if not SERVER.exists():
        pytest.fail(f"there is no MLflow server at {SERVER}; `make experiments` installs one and runs these tests")
    port = free_port()
    with TemporaryDirectory(prefix="crypto_ml-mlflow-") as folder:
        command: list[str | Path] = [
            SERVER, "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
            "--backend-store-uri", f"sqlite:///{folder}/runs.db", "--artifacts-destination", f"{folder}/artifacts",
        ]  # fmt: skip
        with (Path(folder) / "log").open("wb") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder)
        try:
            health = f"http://127.0.0.1:{port}/health"
            until(lambda: _answers(health, process), "an MLflow server that answers", pause=0.2)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(60)


def _answers(url: str, process: "subprocess.Popen[bytes]") -> bool:
    assert process.poll() is None, "the MLflow server ended"
    try:
        return httpx.get(url, timeout=5).status_code == httpx.codes.OK
    except httpx.HTTPError:
        return False


@pytest.mark.experiments
def test_a_training_is_a_run_with_its_numbers_its_bundle_and_a_model_version_whose_alias_follows_the_pointer(
    server: str, store: ObjectStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from mlflow import MlflowClient

    monkeypatch.setenv(VARIABLE, server)
    client: Any = MlflowClient(server)
    registry, history = Registry(store), MarketHistory(store)
    one, other = trained("2018-03-18"), trained("2018-03-25")
    for bundle in (one, other):
        registry.add(bundle)

    told = told_of_training(one, store, "run-1")["mlflow_run"]
    found = experiment_of(one.version, store)
    assert found is not None and told == found.link and found.run_id in told
    run = client.get_run(found.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.tags[SHA256_TAG] == one.sha256
    assert run.data.tags["crypto_ml.bundle"] == store.uri(bundle_prefix(one.version))
    assert run.data.tags["dagster.run_id"] == "run-1"
    assert run.data.params["plan.epochs"] == "2"
    assert run.data.params["training_set.train"] == "70"
    assert run.data.metrics["holdout.overall.network.mase"] == 1.01
    assert run.data.metrics["verdicts.last_close.low"] == JUDGEMENT.low
    assert [one.value for one in client.get_metric_history(found.run_id, "val_loss")] == [0.6, 0.5]
    assert not any("BTC" in name for name in run.data.metrics)
    back = ModelBundle.load(Path(client.download_artifacts(found.run_id, "bundle", str(tmp_path))))
    assert dict(back.files) == dict(one.files)

    assert log_training(one, store).run_id == found.run_id, "the same bundle is one run"

    def serving() -> str:
        version = client.get_model_version_by_alias(NAME, alias_of("dev"))
        return str(version.tags["crypto_ml.version"])

    def decided(version: str | None) -> None:
        champion = decide(Decision(version, "ann", "why not", "a test"), registry, history, _now())
        assert server in told_of_decision(champion, registry)["mlflow_run"]

    decided(one.version)
    assert serving() == one.version
    decided(other.version)  # which was not logged at its training
    assert serving() == other.version
    decided(None)
    assert serving() == one.version


def _now() -> datetime:
    return datetime.now(UTC)
