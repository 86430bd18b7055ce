"""What every test may ask for: a real S3 over HTTP, a store and a Dagster of its own on it, the shared real data."""

import gc
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from hypothesis import HealthCheck, settings

from crypto_ml.defs.warm.records import write_at_once
from crypto_ml.settings import Settings
from crypto_ml.storage.embedded import EmbeddedS3, ensure_bucket
from crypto_ml.storage.objects import ObjectStore, connect
from crypto_ml_tests.in_process_dagster import InProcessDagster
from crypto_ml_tests.longest_first import in_order

settings.register_profile(
    "default", deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
settings.register_profile("nightly", settings.get_profile("default"), max_examples=1000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))

# child processes of the tests start several times faster with byte code
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# looking for garbage among all that Dagster and TensorFlow have loaded took a twelfth of the suite
gc.set_threshold(20_000, 10, 20)

# as in the product's own processes; no test reads what a Dagster recorded before a power cut
write_at_once()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Where several processes share the tests, begin with the files that take longest."""
    if hasattr(config, "workerinput"):
        items[:] = in_order(items)


@pytest.fixture(scope="session")
def s3_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The AWS variables that lead to the S3 under test, set for the whole session.

    Where the caller has set AWS_ENDPOINT_URL_S3 that is the one, else an embedded server per test process.
    """
    if "AWS_ENDPOINT_URL_S3" in os.environ:
        yield {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
        return
    with EmbeddedS3(tmp_path_factory.mktemp("s3")) as server, pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment.items():
            patch.setenv(name, value)
        yield server.environment


@pytest.fixture(scope="session")
def bucket(s3_environment: dict[str, str]) -> str:
    """CRYPTO_ML_BUCKET, or a bucket for tests; created if it is not there."""
    name = os.environ.get("CRYPTO_ML_BUCKET", "crypto-ml-tests")
    ensure_bucket(connect(name).client, name)
    return name


@pytest.fixture(scope="session")
def whole_bucket(bucket: str) -> ObjectStore:
    """The bucket through the one client that most tests share: to make one takes longer than many a test."""
    return connect(bucket)


@pytest.fixture
def store(whole_bucket: ObjectStore) -> ObjectStore:
    """An empty store: a fresh random prefix of the bucket."""
    return whole_bucket.below(f"tests/{uuid.uuid4().hex}")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with the real market and the handed-over objects; a test that needs it is skipped where it is not."""
    folder = os.environ.get("CRYPTO_ML_SHARED")
    if not folder:
        pytest.skip("CRYPTO_ML_SHARED is not set: it names the folder with the real market data")
    if not Path(folder).is_dir():
        pytest.fail(f"CRYPTO_ML_SHARED is {folder}, and there is no such folder")
    return Path(folder)


@pytest.fixture
def dagster(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> Iterator[InProcessDagster]:
    """A Dagster on a deployment that nothing has happened to yet; its sensor does not wait for uploads, and what it
    trains takes no time."""
    monkeypatch.setattr("crypto_ml.defs.sensors.LONGEST_WAIT", 0.0)
    chosen = Settings(bucket=store.bucket, prefix=store.prefix, epochs=1, learners="last_close")
    with dg.DagsterInstance.ephemeral() as instance:
        yield InProcessDagster.of(chosen, instance)
