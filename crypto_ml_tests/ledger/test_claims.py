"""What only one writer may win: entries of a log, uploads of a delivery, the champion."""

import dataclasses
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crypto_ml.errors import Refused
from crypto_ml.forecasting.bundle import BundleDamaged
from crypto_ml.ledger.code import code_version
from crypto_ml.ledger.deliveries import MOST_BYTES, MOST_FILES, DeliveryLog, Upload, plan
from crypto_ml.ledger.layout import UPLOADS, answer_keys, bundle_prefix
from crypto_ml.ledger.log import AppendOnlyLog
from crypto_ml.ledger.registry import PromotionLost, Registry, UnexplainedPromotion, UnknownModel
from crypto_ml.model_out import first_bundle
from crypto_ml.storage.objects import ObjectStore

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def test_of_ten_writers_of_the_next_entry_exactly_one_wins(store: ObjectStore) -> None:
    log = AppendOnlyLog(store, "receipts/test/")
    with ThreadPoolExecutor(10) as pool:
        written = list(pool.map(lambda n: log.append({"n": n}, after=0), range(10)))
    (winner,) = [entry for entry in written if entry]
    assert log.last() == winner
    assert log.last_number() == 1


uploads = st.builds(
    Upload,
    key=st.integers(0, 3000).map(lambda n: f"{UPLOADS}{n}.csv"),
    etag=st.sampled_from(["a", "b"]),
    size=st.integers(0, 2 * MOST_BYTES),
    last_modified=st.integers(0, 9).map(lambda s: f"2026-01-01T00:00:0{s}+00:00"),
)


@given(listed=st.lists(uploads, unique_by=lambda u: u.identity), known=st.lists(uploads))
def test_a_plan_delivers_each_new_upload_once_and_keeps_its_limits(listed: list[Upload], known: list[Upload]) -> None:
    old = {upload.identity for upload in known}
    planned = plan(listed, old)
    delivered = [upload.identity for uploads in planned for upload in uploads]
    assert sorted(delivered) == sorted({upload.identity for upload in listed} - old)
    for together in planned:
        assert 0 < len(together) <= MOST_FILES
        assert len(together) == 1 or sum(upload.size for upload in together) <= MOST_BYTES


def test_ten_thousand_small_files_are_few_deliveries() -> None:
    listed = [Upload(f"{UPLOADS}{n}.csv", "e", 100, "2026-01-01T00:00:00+00:00") for n in range(10_000)]
    assert [len(together) for together in plan(listed, set())] == [MOST_FILES] * 10


def test_two_daemons_at_once_assign_every_upload_exactly_once(store: ObjectStore) -> None:
    for n in range(20):
        store.replace(f"{UPLOADS}{n}.csv", b"x" * n)
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda _: DeliveryLog(store).assign_new(NOW), range(4)))
    keys = [upload.key for deliveries in made for delivery in deliveries for upload in delivery.uploads]
    assert sorted(keys) == sorted(f"{UPLOADS}{n}.csv" for n in range(20))
    log = DeliveryLog(store)
    assert len(log.catch_up()) == 20


def test_a_replaced_object_is_new_again_and_an_untouched_one_is_not(store: ObjectStore) -> None:
    store.replace(f"{UPLOADS}a.csv", b"1")
    store.replace(f"{UPLOADS}b.csv", b"1")
    log = DeliveryLog(store)
    assert len(log.assign_new(NOW)) == 1
    store.replace(f"{UPLOADS}a.csv", b"2")
    (delivery,) = log.assign_new(NOW)
    assert [upload.key for upload in delivery.uploads] == [f"{UPLOADS}a.csv"]
    assert not log.assign_new(NOW)


@given(st.text(min_size=1).filter(lambda text: not text.endswith("/")))
def test_an_answer_stays_below_predictions_and_never_meets_another_kind(path: str) -> None:
    keys = dataclasses.astuple(answer_keys(UPLOADS + path))
    assert all(key.startswith("predictions/") for key in keys)
    assert len(set(keys)) == 3


@pytest.fixture
def registry(store: ObjectStore) -> Registry:
    found = Registry(store)
    found.champion_or_first(first_bundle, NOW)
    return found


def test_of_promotions_at_once_each_entry_has_one_winner_and_losers_are_told_who(registry: Registry) -> None:
    version = registry.versions()[0]

    def promote(who: int) -> str | None:
        try:
            registry.promote(version, by=f"person {who}", why="a race", at=NOW)
        except PromotionLost as lost:
            return str(lost)
        return None

    with ThreadPoolExecutor(6) as pool:
        told = list(pool.map(promote, range(6)))
    winners = [who for who, sentence in enumerate(told) if sentence is None]
    assert [entry.pointer for entry in registry.champions()] == list(range(1, len(winners) + 2))
    assert all("promoted" in sentence for sentence in told if sentence)


def test_a_fresh_deployment_gets_one_first_champion_however_many_start_it(store: ObjectStore) -> None:
    with ThreadPoolExecutor(5) as pool:
        found = list(pool.map(lambda _: Registry(store).champion_or_first(first_bundle, NOW), range(5)))
    assert len(set(found)) == 1
    assert len(list(Registry(store).champions())) == 1


def test_a_promotion_needs_a_known_whole_model_and_a_reason(registry: Registry, store: ObjectStore) -> None:
    version = registry.versions()[0]
    with pytest.raises(UnknownModel, match="there is no model nope"):
        registry.promote("nope", by="ann", why="x", at=NOW)
    with pytest.raises(UnexplainedPromotion):
        registry.promote(version, by="ann", why=" ", at=NOW)
    store.replace(bundle_prefix(version) + "scaler.json", b"{}")
    with pytest.raises(BundleDamaged, match=r"scaler\.json differs"):
        registry.promote(version, by="ann", why="x", at=NOW)
    assert len(list(registry.champions())) == 1


def test_a_bundle_added_twice_is_there_once(registry: Registry) -> None:
    registry.add(first_bundle())
    assert registry.versions() == [first_bundle().version]
    assert registry.load(first_bundle().version).files == first_bundle().files


def test_stages_have_code_versions_of_their_own() -> None:
    stages = ("raw_uploads", "cleaned_features", "market_history", "predictions", "daily_forecast", "training")
    assert len({code_version(f"crypto_ml.stages.{stage}") for stage in stages}) == len(stages)
    with pytest.raises(ModuleNotFoundError):
        code_version("crypto_ml.stages.nothing")


def test_every_refusal_of_the_registry_is_permanent() -> None:
    assert all(issubclass(kind, Refused) for kind in (UnknownModel, PromotionLost, UnexplainedPromotion, BundleDamaged))
