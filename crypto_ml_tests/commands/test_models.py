"""What rollback goes back to, and that the pointer's history says who decided what."""

from datetime import UTC, datetime

import pytest

from crypto_ml.forecasting.bundle import NETWORK, TRAINING_MANIFEST, ModelBundle, make_bundle
from crypto_ml.ledger.registry import NothingToRollBackTo, Registry, UnexplainedPromotion, UnknownModel
from crypto_ml.model_out import first_bundle
from crypto_ml.storage.objects import ObjectStore

NOW = datetime(2024, 3, 1, tzinfo=UTC)


def bundle(label: str) -> ModelBundle:
    """The first bundle's network under another label, as another model."""
    first = first_bundle()
    return make_bundle(
        label=label,
        target=first.target,
        scaler=first.scaler,
        rule=first.rule,
        slugs={"SIM001": label},
        network_onnx=first.files[NETWORK],
        weights_sha256=first.manifest["weights_sha256"],
        about={},
        documents={TRAINING_MANIFEST: first.files[TRAINING_MANIFEST]},
    )


@pytest.fixture
def registry(store: ObjectStore) -> Registry:
    """A registry with the models a, b and c, of which none serves."""
    registry = Registry(store)
    for label in ("a", "b", "c"):
        registry.add(bundle(label))
    return registry


def promote(registry: Registry, *labels: str) -> None:
    for label in labels:
        registry.promote(bundle(label).version, by="ann", why="closer", at=NOW)


def test_a_rollback_goes_to_the_champion_before_the_current_one(registry: Registry) -> None:
    promote(registry, "a", "b", "c")
    assert registry.roll_back(by="bob", why="drift", at=NOW).version == bundle("b").version


def test_a_champion_promoted_again_is_not_its_own_predecessor(registry: Registry) -> None:
    promote(registry, "a", "b", "b")
    assert registry.roll_back(by="bob", why="drift", at=NOW).version == bundle("a").version


def test_a_second_rollback_walks_further_back(registry: Registry) -> None:
    promote(registry, "a", "b", "c")
    versions = [registry.roll_back(by="bob", why="drift", at=NOW).version for _ in range(2)]
    assert versions == [bundle("b").version, bundle("a").version]


def test_a_rollback_is_an_entry_that_says_who_and_why(registry: Registry) -> None:
    promote(registry, "a", "b")
    registry.roll_back(by="bob", why="drift", at=NOW)
    assert [(entry.by, entry.why) for entry in registry.champions()] == [("ann", "closer")] * 2 + [("bob", "drift")]


@pytest.mark.parametrize("champions", [(), ("a",), ("a", "a")])
def test_without_another_champion_before_there_is_nothing_to_go_back_to(
    registry: Registry, champions: tuple[str, ...]
) -> None:
    promote(registry, *champions)
    with pytest.raises(NothingToRollBackTo):
        registry.roll_back(by="bob", why="drift", at=NOW)
    assert len(list(registry.champions())) == len(champions)


@pytest.mark.parametrize(("by", "why"), [("", "drift"), ("bob", " ")])
def test_a_promotion_without_who_or_why_changes_nothing(registry: Registry, by: str, why: str) -> None:
    with pytest.raises(UnexplainedPromotion):
        registry.promote(bundle("a").version, by=by, why=why, at=NOW)
    assert registry.champion() is None


def test_a_version_the_registry_does_not_have_never_becomes_champion(registry: Registry) -> None:
    promote(registry, "a")
    with pytest.raises(UnknownModel):
        registry.promote("d-000000000000", by="ann", why="closer", at=NOW)
    champion = registry.champion()
    assert champion is not None
    assert champion.version == bundle("a").version
