"""champion_model through Dagster: a decision that is tried again is still one decision."""

from datetime import UTC, datetime
from typing import Any

import dagster as dg
import pytest

from crypto_ml.defs.assets.models import Promotion
from crypto_ml.forecasting.bundle import ModelBundle
from crypto_ml.ledger.registry import Registry
from crypto_ml.storage.failures import StoreUnavailable
from crypto_ml_tests.forecasting.markets import model
from crypto_ml_tests.in_process_dagster import InProcessDagster

NOW = datetime(2024, 3, 1, tzinfo=UTC)
ONE, OTHER, THIRD = (model("gap", label=label) for label in ("one", "other", "third"))
ROLLBACK: dict[str, Any] = {"ops": {"champion_model": {"config": {"rollback": True, "by": "bob", "why": "drift"}}}}


@pytest.fixture
def registry(dagster: InProcessDagster) -> Registry:
    """OTHER serves, and ONE served before it."""
    made = Registry(dagster.store)
    for bundle in (ONE, OTHER):
        made.add(bundle)
        made.promote(bundle.version, by="ann", why="closer", at=NOW)
    return made


def champions(registry: Registry) -> list[str]:
    return [entry.version for entry in registry.champions()]


def shown(result: dg.ExecuteInProcessResult) -> Any:
    return result.asset_materializations_for_node("champion_model")[-1].metadata


def test_a_rollback_whose_bundle_cannot_be_read_afterwards_does_not_undo_itself(
    dagster: InProcessDagster, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("crypto_ml.defs.failures.SECONDS_BETWEEN", 0)
    load = Registry.load

    def away_once_decided(asked: Registry, version: str) -> ModelBundle:
        if len(champions(asked)) > 2:
            raise StoreUnavailable("the store went away")
        return load(asked, version)

    monkeypatch.setattr(Registry, "load", away_once_decided)
    result = dagster.run("promote_model", config=ROLLBACK)
    assert champions(registry) == [ONE.version, OTHER.version, ONE.version]
    assert shown(result)["model_version"].value == ONE.version
    assert "the store went away" in str(shown(result)["holdout"].value)


def test_a_step_that_dies_after_the_pointer_was_written_finds_its_decision_carried_out(
    dagster: InProcessDagster, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("crypto_ml.defs.failures.SECONDS_BETWEEN", 0)
    point = Registry._point
    deaths: list[Any] = []

    def dies_once(asked: Registry, *args: Any, **named: Any) -> Any:
        entry = point(asked, *args, **named)
        if not deaths:
            deaths.append(entry)
            raise StoreUnavailable("the answer was lost")
        return entry

    monkeypatch.setattr(Registry, "_point", dies_once)
    result = dagster.run("promote_model", config=ROLLBACK)
    assert deaths
    assert champions(registry) == [ONE.version, OTHER.version, ONE.version]
    assert shown(result)["pointer"].value == 3


def test_a_run_launched_anew_is_another_decision_and_walks_further_back(
    dagster: InProcessDagster, registry: Registry
) -> None:
    registry.add(THIRD)
    registry.promote(THIRD.version, by="ann", why="closer", at=NOW)
    for _ in range(2):
        dagster.run("promote_model", config=ROLLBACK)
    line = [ONE.version, OTHER.version, THIRD.version, OTHER.version, ONE.version]
    assert champions(registry) == line
    refused = dagster.run("promote_model", config=ROLLBACK, raises=False)
    assert not refused.success
    assert champions(registry) == line


def test_a_launch_without_a_decision_says_so_and_changes_nothing(dagster: InProcessDagster, registry: Registry) -> None:
    untouched = dagster.run("promote_model")
    told = str(shown(untouched)["decided"].value)
    assert told.startswith("nothing was decided")
    assert all(version in told for version in (ONE.version, OTHER.version))
    half = {"ops": {"champion_model": {"config": {"by": "bob", "why": "drift"}}}}
    assert not dagster.run("promote_model", config=half, raises=False).success
    assert champions(registry) == [ONE.version, OTHER.version]


def test_the_launchpad_shows_all_that_a_decision_can_have() -> None:
    assert {name for name, field in Promotion.to_fields_dict().items() if field.default_value is not None} == set(
        Promotion.model_fields
    )


def test_a_version_left_empty_as_the_launchpad_shows_it_is_none(dagster: InProcessDagster, registry: Registry) -> None:
    filled = ROLLBACK["ops"]["champion_model"]["config"] | {"version": "", "override": ""}
    assert dagster.run("promote_model", config={"ops": {"champion_model": {"config": filled}}}).success
    assert champions(registry) == [ONE.version, OTHER.version, ONE.version]


def test_a_run_executed_again_after_another_decision_shows_the_model_that_serves(
    dagster: InProcessDagster, registry: Registry
) -> None:
    first = dagster.run("promote_model", config=ROLLBACK)
    registry.promote(OTHER.version, by="ann", why="not so", at=NOW)
    job = dagster.definitions.resolve_job_def("promote_model")
    group = {"dagster/root_run_id": first.run_id, "dagster/parent_run_id": first.run_id}
    again = job.execute_in_process(run_config=ROLLBACK, instance=dagster.instance, tags=group)
    assert champions(registry) == [ONE.version, OTHER.version, ONE.version, OTHER.version]
    assert shown(again)["model_version"].value == OTHER.version
