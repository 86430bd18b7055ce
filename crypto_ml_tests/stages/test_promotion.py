"""A candidate serves only past its gates, or with a recorded reason; prod takes only what preprod serves."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from crypto_ml.forecasting.bundle import ModelBundle, make_bundle
from crypto_ml.forecasting.evaluation import FEWEST_HOLDOUT_ROWS
from crypto_ml.forecasting.trained import METRICS
from crypto_ml.ledger.layout import Environment
from crypto_ml.ledger.registry import Champion, PromotionLost, PromotionRefused, Registry
from crypto_ml.stages.promotion import HOLDOUT, Decision, decide, gates
from crypto_ml.storage.history import MarketHistory
from crypto_ml.storage.objects import ObjectStore
from crypto_ml_tests.forecasting.markets import model

NOW = datetime(2024, 3, 1, tzinfo=UTC)
GOOD = {
    "onnx_equals_keras": {"passed": True, "explanation": "Equal.", "numbers": {"largest_difference": 1e-8}},
    "no_worse_than_last_close": {"passed": True, "explanation": "Closer.", "numbers": {"network_mre": 0.1}},
}


def bundle(label: str, rows: int = FEWEST_HOLDOUT_ROWS, **failing: bool) -> ModelBundle:
    """A model of random numbers whose training left these verdicts, on a holdout of so many rows."""
    base = model("gap", label=label)
    checks = {name: {**check, "passed": not failing.get(name, False)} for name, check in GOOD.items()}
    return make_bundle(
        label=label,
        target="gap",
        scaler=base.statistics,
        slugs={"BTC": label},
        network_onnx=base.files["network.onnx"],
        weights_sha256=base.manifest["weights_sha256"],
        about={},
        documents={METRICS: json.dumps({"checks": checks, "holdout": {"overall": {"rows": rows}}}).encode()},
    )


def registry(store: ObjectStore, *bundles: ModelBundle, environment: Environment = "dev") -> Registry:
    made = Registry(store, environment)
    for one in bundles:
        made.add(one)
    return made


def promote(made: Registry, one: ModelBundle, **changed: Any) -> Champion:
    decision = replace(Decision(one.version, "ann", "closer"), **changed)
    return decide(decision, made, MarketHistory(made.store), NOW)


@pytest.mark.parametrize("check", list(GOOD))
def test_a_candidate_with_a_failed_check_is_refused_unless_a_reason_is_given_and_the_reason_is_kept(
    store: ObjectStore, check: str
) -> None:
    candidate = bundle("bad", **{check: True})
    made = registry(store, candidate)
    with pytest.raises(PromotionRefused, match="give the reason as override"):
        promote(made, candidate)
    with pytest.raises(PromotionRefused):
        promote(made, candidate, override="  ")
    assert made.champion() is None
    promote(made, candidate, override="the market moved")
    kept = made.champion()
    assert kept is not None
    assert kept.override == "the market moved"
    assert [gate["name"] for gate in kept.gates if not gate["passed"]] == [check]
    assert {gate["name"]: gate["numbers"] for gate in kept.gates}[check] == GOOD[check]["numbers"]


def test_a_candidate_whose_holdout_is_a_handful_of_rows_is_refused_unless_a_reason_is_given(store: ObjectStore) -> None:
    candidate = bundle("few", rows=14)
    made = registry(store, candidate)
    with pytest.raises(
        PromotionRefused, match="The holdout has 14 rows that could be predicted, and a comparison needs"
    ):
        promote(made, candidate)
    assert promote(made, candidate, override="it is the first").override == "it is the first"


def test_a_candidate_that_passes_needs_no_reason_and_keeps_none(store: ObjectStore) -> None:
    candidate = bundle("good")
    assert promote(registry(store, candidate), candidate, override="not needed").override is None


def test_a_model_that_was_never_evaluated_is_not_shown_to_be_fit(store: ObjectStore) -> None:
    candidate = model("gap", label="handed over")
    made = registry(store, candidate)
    with pytest.raises(PromotionRefused, match="left no verdict onnx_equals_keras"):
        promote(made, candidate)


def test_a_candidate_that_cannot_be_compared_with_the_champion_is_refused(store: ObjectStore) -> None:
    champion, candidate = bundle("one"), bundle("two")
    made = registry(store, champion, candidate)
    promote(made, champion)
    with pytest.raises(PromotionRefused, match=f"cannot be compared with the champion {champion.version}"):
        promote(made, candidate)
    # the champion itself has nobody to be compared with
    assert [gate.name for gate in gates(champion, None, MarketHistory(store))] == [*GOOD, HOLDOUT]
    assert promote(made, champion).pointer == 2


def test_a_rollback_asks_no_gate(store: ObjectStore) -> None:
    bad, good = bundle("bad", onnx_equals_keras=True), bundle("good")
    made = registry(store, bad, good)
    promote(made, bad, override="needed now")
    promote(made, good, override="cannot be compared")
    back = decide(Decision(None, "bob", "drift"), made, MarketHistory(store), NOW)
    assert (back.version, back.action, back.by, list(back.gates)) == (bad.version, "rollback", "bob", [])


def test_environments_have_champions_of_their_own_and_prod_takes_only_what_preprod_serves(store: ObjectStore) -> None:
    one, two = bundle("one"), bundle("two")
    environments: tuple[Environment, ...] = ("dev", "preprod", "prod")
    dev, preprod, prod = (registry(store, one, two, environment=name) for name in environments)
    promote(dev, one)
    assert preprod.champion() is prod.champion() is None
    with pytest.raises(PromotionRefused, match="prod takes only what preprod serves, and preprod serves nothing yet"):
        promote(prod, one)
    promote(preprod, one)
    with pytest.raises(PromotionRefused, match=f"preprod serves {one.version}; promote it in preprod first"):
        promote(prod, two, override="it is urgent")
    assert promote(prod, one).version == one.version
    promote(preprod, two, override="cannot be compared")
    promote(prod, two, override="cannot be compared")
    assert decide(Decision(None, "bob", "drift"), prod, MarketHistory(store), NOW).version == one.version
    assert [entry.version for entry in preprod.champions()] == [one.version, two.version]


def test_of_two_decisions_at_once_the_other_is_told_who_was_first(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = bundle("one"), bundle("two")
    made, other = registry(store, one, two), Registry(store)
    load = made.load

    def overtaken(version: str) -> ModelBundle:
        """Between the look at the pointer and the write, somebody else decides."""
        if other.champion() is None:
            other.promote(two.version, by="bob", why="faster", at=NOW)
        return load(version)

    after = made.champion()
    assert after is None
    monkeypatch.setattr(made, "load", overtaken)
    with pytest.raises(PromotionLost, match=rf"bob promoted {two.version} first \(faster\)"):
        made.promote(one.version, by="ann", why="closer", at=NOW)
    assert [entry.by for entry in made.champions()] == ["bob"]


def test_who_was_champion_is_known_for_any_time(store: ObjectStore) -> None:
    one, two = bundle("one"), bundle("two")
    made = registry(store, one, two)
    made.promote(one.version, by="ann", why="first", at=NOW)
    made.promote(two.version, by="ann", why="second", at=NOW + timedelta(days=7))
    made.roll_back(by="ann", why="drift", at=NOW + timedelta(days=9))
    served = [made.champion_at(NOW + timedelta(days=day)) for day in (-1, 0, 6, 7, 8, 9, 400)]
    assert [entry and entry.version for entry in served] == [
        None, one.version, one.version, two.version, two.version, one.version, one.version,
    ]  # fmt: skip
