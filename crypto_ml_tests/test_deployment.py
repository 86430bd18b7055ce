"""A deployment: opened when it is used, proven where it claims, and one loaded model for all who ask."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from crypto_ml.deployment import MOST_BUNDLES, Deployment, NothingServes
from crypto_ml.forecasting.bundle import BundleDamaged, ModelBundle
from crypto_ml.ledger.layout import bundle_prefix
from crypto_ml.ledger.registry import Registry, UnknownModel
from crypto_ml.model_out import NoFirstBundle, first_bundle
from crypto_ml.settings import Settings
from crypto_ml.storage.failures import StoreNotTrusted, StoreUnavailable
from crypto_ml.storage.objects import ObjectStore
from crypto_ml_tests.forecasting.markets import model


@pytest.fixture
def settings(store: ObjectStore) -> Settings:
    return Settings(bucket=store.bucket, prefix=store.prefix)


@pytest.fixture
def probes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The stores that were asked for a proof, which all give."""
    asked: list[str] = []
    monkeypatch.setattr("crypto_ml.storage.probe.probe_conditional_writes", lambda store: asked.append(store.prefix))
    return asked


def test_nothing_is_opened_before_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    assert Deployment(Settings()).first_bundle().version == first_bundle().version


def test_a_store_is_proven_once_for_all_who_use_it(settings: Settings, store: ObjectStore, probes: list[str]) -> None:
    deployment = Deployment(settings)
    with ThreadPoolExecutor(8) as pool:
        opened = list(pool.map(lambda _: deployment.store, range(16)))
    assert {id(one) for one in opened} == {id(opened[0])}
    assert probes == [store.prefix]


def test_opening_to_read_writes_nothing_and_asks_for_no_proof(
    settings: Settings, store: ObjectStore, probes: list[str]
) -> None:
    deployment = Deployment.reading(settings)
    assert deployment.history.version() is None
    assert deployment.registry.versions() == []
    with pytest.raises(NothingServes):
        deployment.champion()
    assert probes == []
    assert list(store.list()) == []


def test_a_store_that_fails_its_proof_is_not_handed_out_and_is_asked_again(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: ObjectStore) -> None:
        raise StoreNotTrusted("it ignores If-None-Match")

    deployment = Deployment(settings)
    with monkeypatch.context() as patch:
        patch.setattr("crypto_ml.storage.probe.probe_conditional_writes", refuse)
        for _ in range(2):
            with pytest.raises(StoreNotTrusted):
                _ = deployment.history
    assert list(deployment.store.list()) == []


def test_a_store_out_of_reach_is_passing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(StoreUnavailable):
        _ = Deployment(Settings()).store


@pytest.mark.parametrize("prefix", ["", "team/a", "/team/a", "team/a/", "/team/a//"])
def test_slashes_at_the_ends_of_a_prefix_do_not_matter(prefix: str) -> None:
    store = Deployment.reading(Settings(prefix=prefix)).store
    assert store.physical("uploads/a.csv") == ("team/a/" if prefix else "") + "uploads/a.csv"


def test_a_fresh_deployment_begins_with_the_model_of_its_setting(
    settings: Settings, store: ObjectStore, tmp_path: Path
) -> None:
    other = model(seed=7)
    other.write(tmp_path)
    deployment = Deployment(settings.model_copy(update={"model_out": tmp_path, "environment": "preprod"}))
    assert deployment.champion().version == other.version
    assert Registry(store, "preprod").champion() == deployment.champion()
    assert Registry(store, "dev").champion() is None


def test_a_folder_without_a_model_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(NoFirstBundle, match="CRYPTO_ML_MODEL_OUT"):
        Deployment(Settings(model_out=tmp_path)).first_bundle()


def test_a_model_is_loaded_once_also_where_many_ask_at_the_same_time(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployment = Deployment(settings)
    version = deployment.champion().version
    loads: list[str] = []
    load = Registry.load

    def counted(registry: Registry, version: str) -> ModelBundle:
        loads.append(version)
        return load(registry, version)

    monkeypatch.setattr(Registry, "load", counted)
    together = threading.Barrier(8)

    def ask(_: int) -> ModelBundle:
        together.wait()
        return deployment.bundle(version)

    with ThreadPoolExecutor(8) as pool:
        bundles = list(pool.map(ask, range(8)))
    assert {id(bundle) for bundle in bundles} == {id(bundles[0])}
    assert {id(bundle.network) for bundle in bundles} == {id(bundles[0].network)}
    assert loads == [version]


def test_the_models_used_last_are_kept_and_no_more(settings: Settings) -> None:
    deployment = Deployment(settings)
    models = [model(seed=seed) for seed in range(MOST_BUNDLES + 1)]
    for one in models:
        deployment.registry.add(one)
    first, second, *others = [deployment.bundle(one.version) for one in models[:-1]]
    assert deployment.bundle(first.version) is first  # so that the second is the one that was not used for longest
    deployment.bundle(models[-1].version)
    assert [deployment.bundle(one.version) is one for one in (first, *others)] == [True] * len([first, *others])
    assert deployment.bundle(second.version) is not second


def test_a_model_that_is_not_there_or_not_whole_is_not_kept(settings: Settings) -> None:
    deployment = Deployment(settings)
    with pytest.raises(UnknownModel):
        deployment.bundle("2018-03-25-0123456789ab")
    version = deployment.champion().version
    key = bundle_prefix(version) + "network.onnx"
    whole = deployment.store.read(key)
    deployment.store.replace(key, b"other bytes")
    with pytest.raises(BundleDamaged):
        deployment.bundle(version)
    deployment.store.replace(key, whole)
    assert deployment.bundle(version).version == version
