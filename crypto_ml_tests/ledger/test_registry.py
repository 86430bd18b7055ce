"""Bundles are kept once, and one pointer decides which of them serves."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from threading import Barrier

import pytest

from crypto_ml.errors import Refused
from crypto_ml.forecasting.bundle import MANIFEST, BundleDamaged, ModelBundle
from crypto_ml.ledger.layout import bundle_prefix
from crypto_ml.ledger.registry import (
    Action,
    Champion,
    NothingToRollBackTo,
    PromotionLost,
    Registry,
    UnexplainedPromotion,
    UnknownModel,
    succession,
)
from crypto_ml.storage.objects import ObjectStore
from crypto_ml_tests.forecasting.markets import model

NOW = datetime(2018, 3, 26, tzinfo=UTC)
ONE, OTHER = model("gap", label="one"), model("change", label="other")


@pytest.fixture
def registry(store: ObjectStore) -> Registry:
    made = Registry(store)
    made.add(ONE)
    made.add(OTHER)
    return made


def test_a_bundle_comes_back_as_it_was_added(registry: Registry) -> None:
    assert dict(registry.load(ONE.version).files) == dict(ONE.files)
    assert registry.versions() == sorted([ONE.version, OTHER.version])


def test_adding_a_bundle_again_changes_nothing(registry: Registry, store: ObjectStore) -> None:
    before = list(store.list())
    registry.add(ONE)
    assert list(store.list()) == before


def test_a_bundle_left_half_stored_is_unknown_until_it_is_added_again(store: ObjectStore) -> None:
    registry = Registry(store)
    for name in sorted(ONE.files)[1:]:
        store.create(bundle_prefix(ONE.version) + name, ONE.files[name])
    assert min(ONE.files) == MANIFEST
    assert registry.versions() == []
    with pytest.raises(UnknownModel):
        registry.load(ONE.version)
    registry.add(ONE)
    assert registry.load(ONE.version).sha256 == ONE.sha256


def test_the_first_manifest_of_a_version_stands(registry: Registry) -> None:
    again = ModelBundle({**ONE.manifest, "about": {}}, {**ONE.files, MANIFEST: b"made later"})
    registry.add(again)
    assert registry.load(ONE.version).files[MANIFEST] == ONE.files[MANIFEST]


def test_a_bundle_that_was_changed_in_the_store_is_not_served(registry: Registry, store: ObjectStore) -> None:
    store.replace(f"{bundle_prefix(ONE.version)}scaler.json", b"{}")
    with pytest.raises(BundleDamaged, match=r"scaler\.json"):
        registry.promote(ONE.version, by="ann", why="looks good", at=NOW)
    assert registry.champion() is None


@pytest.mark.parametrize("version", ["nobody", "", "../one", "one"])
def test_an_unknown_version_is_not_promoted(registry: Registry, version: str) -> None:
    with pytest.raises(UnknownModel, match=f"there are {ONE.version}, {OTHER.version} "):
        registry.promote(version, by="ann", why="looks good", at=NOW)
    assert registry.champion() is None


@pytest.mark.parametrize(("by", "why"), [("", "why"), ("ann", " ")])
def test_nobody_is_promoted_without_a_name_and_a_reason(registry: Registry, by: str, why: str) -> None:
    with pytest.raises(UnexplainedPromotion):
        registry.promote(ONE.version, by=by, why=why, at=NOW)


def test_the_pointer_tells_who_decided_what_and_why(registry: Registry) -> None:
    registry.promote(ONE.version, by="ann", why="first", at=NOW)
    second = registry.promote(OTHER.version, by="bob", why="better", at=NOW)
    assert registry.champion() == second
    assert (second.pointer, second.version, second.sha256) == (2, OTHER.version, OTHER.sha256)
    decided = [(entry.by, entry.why, entry.at) for entry in registry.champions()]
    assert decided == [("ann", "first", NOW.isoformat()), ("bob", "better", NOW.isoformat())]


def test_a_rollback_is_a_promotion_of_what_served_before(registry: Registry) -> None:
    with pytest.raises(NothingToRollBackTo, match="nothing has served here yet"):
        registry.roll_back(by="ann", why="problem", at=NOW)
    registry.promote(ONE.version, by="ann", why="first", at=NOW)
    with pytest.raises(NothingToRollBackTo, match="no other model has served"):
        registry.roll_back(by="ann", why="problem", at=NOW)
    registry.promote(OTHER.version, by="ann", why="better", at=NOW)
    assert registry.roll_back(by="ann", why="worse", at=NOW).version == ONE.version
    with pytest.raises(
        NothingToRollBackTo, match=f"{OTHER.version} served as well, and was rolled back from; to have it"
    ):
        registry.roll_back(by="bob", why="worse", at=NOW)
    registry.promote(OTHER.version, by="ann", why="mended", at=NOW)
    assert registry.roll_back(by="ann", why="not so", at=NOW).version == ONE.version
    assert [entry.pointer for entry in registry.champions()] == [1, 2, 3, 4, 5]


def entries(*story: str) -> list[Champion]:
    """`+A`: A was promoted. `-A`: a rollback named A."""
    actions: dict[str, Action] = {"+": "promotion", "-": "rollback"}
    return [
        Champion(number, word[1:], "", "ann", "see", NOW.isoformat(), actions[word[0]])
        for number, word in enumerate(story, start=1)
    ]


@pytest.mark.parametrize(
    ("story", "walked"),
    [
        ("+A +B +C", "A B C"),
        ("+A +B +C -B", "A B"),
        ("+A +B +C -B -A", "A"),
        ("+A +B +C -B +D", "A B D"),
        ("+A +B +A", "B A"),
        ("+A +A", "A"),
        ("+A +B -A -B", "A B"),  # as releases before 0.3 rolled back twice
        ("+A +B +C -B -C", "A B C"),
        ("", ""),
    ],
)
def test_a_rollback_walks_back_along_what_was_not_rolled_back_from(story: str, walked: str) -> None:
    assert succession(entries(*story.split())) == walked.split()


def test_promotions_at_once_leave_one_line_of_champions(registry: Registry) -> None:
    barrier = Barrier(6)

    def promote(who: int) -> str | None:
        barrier.wait()
        try:
            return registry.promote((ONE, OTHER)[who % 2].version, by=f"p{who}", why="race", at=NOW).by
        except PromotionLost as lost:
            assert "first (race); look at it and try again" in str(lost)
            return None

    with ThreadPoolExecutor(6) as pool:
        won = [by for by in pool.map(promote, range(6)) if by]
    assert won
    assert sorted(entry.by for entry in registry.champions()) == sorted(won)


def test_a_fresh_deployment_starts_with_the_bundle_it_comes_with(store: ObjectStore) -> None:
    barrier = Barrier(4)

    def start(_: int) -> str:
        barrier.wait()
        return Registry(store).champion_or_first(lambda: ONE, NOW).version

    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(start, range(4))) == {ONE.version}
    assert len(list(Registry(store).champions())) == 1


def test_a_running_deployment_never_asks_for_its_first_bundle(registry: Registry) -> None:
    promoted = registry.promote(OTHER.version, by="ann", why="first", at=NOW)

    def first() -> ModelBundle:
        raise AssertionError

    assert registry.champion_or_first(first, NOW) == promoted


@pytest.mark.parametrize(
    "failure", [UnknownModel, PromotionLost, BundleDamaged, UnexplainedPromotion, NothingToRollBackTo]
)
def test_a_refusal_of_the_registry_is_permanent(failure: type[Exception]) -> None:
    assert issubclass(failure, Refused)
