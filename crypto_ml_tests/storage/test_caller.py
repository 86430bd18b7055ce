"""Who a decision was made by, as those say who check it."""

import os
import pwd
import socket
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime

import boto3
import pytest

from crypto_ml.commands.local_dagster import free_port
from crypto_ml.ledger.registry import Registry
from crypto_ml.stages.promotion import Decision, decide
from crypto_ml.storage.caller import Caller, caller
from crypto_ml.storage.history import MarketHistory
from crypto_ml.storage.objects import ObjectStore
from crypto_ml_tests.dropbox.site import until
from crypto_ml_tests.forecasting.markets import model

PROCESS = Caller("os", f"{pwd.getpwuid(os.geteuid()).pw_name}@{socket.gethostname()}")


def listens(port: int) -> bool:
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def sts() -> Iterator[str]:
    """A server that says whose credentials one has, by its address."""
    port = free_port()
    settings = {
        "GATEWAY_PORT": str(port),
        "BIND_HOST": "127.0.0.1",
        "SERVICES": "sts",
        "DOCKER_HOST": "unix:///nowhere",
    }
    process = subprocess.Popen([sys.executable, "-m", "ministack"], env={**os.environ, **settings})
    try:
        until(lambda: process.poll() is not None or listens(port), "no server listens")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def test_the_user_is_whom_the_process_runs_as_whatever_a_variable_calls_it(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("LOGNAME", "USER", "USERNAME"):
        monkeypatch.setenv(name, "somebody else")
    assert caller(store.client) == PROCESS


def test_a_server_says_whose_the_credentials_are_and_where_none_answers_the_user_counts(
    store: ObjectStore, sts: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", sts)
    found = caller(store.client)
    assert found.kind == "sts"
    assert found.name.startswith("127.0.0.1: arn:aws:"), "what is not AWS is not called so"
    of_aws = boto3.client("s3", endpoint_url="https://s3.us-east-1.amazonaws.com")
    assert caller(of_aws) == PROCESS, "whoever promotes does not choose who says who that is"
    for nobody in (os.environ["AWS_ENDPOINT_URL_S3"], "http://127.0.0.1:9"):
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", nobody)
        assert caller(store.client) == PROCESS


def test_the_pointer_names_who_acted_beside_the_name_that_was_given(store: ObjectStore) -> None:
    registry = Registry(store)
    registry.add(model())
    decision = Decision(model().version, "ann", "a try", override="a test")
    champion = decide(decision, registry, MarketHistory(store), datetime.now(UTC))
    assert champion.by == "ann"
    assert champion.acted_as == {"kind": "os", "name": PROCESS.name}
    assert champion.decided_by == f"ann (run as {PROCESS.name})"
