"""A candidate serves only past its gates, or with a recorded reason; prod takes only what preprod serves."""

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from crypto_ml.forecasting.bundle import TRAINING_MANIFEST, ModelBundle, make_bundle
from crypto_ml.forecasting.evaluation import FEWEST_HOLDOUT_ROWS
from crypto_ml.forecasting.trained import METRICS
from crypto_ml.forecasting.verdicts import WORDS, Judgement, Word
from crypto_ml.ledger.layout import Environment
from crypto_ml.ledger.registry import Champion, PromotionLost, PromotionRefused, Registry
from crypto_ml.stages.promotion import (
    CHAMPION,
    HOLDOUT,
    LAST_CLOSE,
    Decision,
    champion_gate,
    decide,
    gates,
    last_close_gate,
)
from crypto_ml.stages.scaler import prepare
from crypto_ml.storage.history import MarketHistory
from crypto_ml.storage.objects import ObjectStore
from crypto_ml_tests.forecasting.markets import market, model, relative_model
from crypto_ml_tests.stages.road import Road, upload

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


def judgement(word: Word, mean: float = -0.02) -> Judgement:
    return Judgement(
        word=word, mean=mean, low=mean - 0.01, high=mean + 0.01, p=0.02, days=180, rows=4000, coins=24,
        coins_better=0.7, level=0.05, delta=0.01, against="the last close", first_day="2021-01-01",
        last_day="2021-06-29",
        explanation="On 4,000 rows …",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("word", "shrink", "passed", "what_to_do"),
    [
        ("BEATS", None, True, ""),
        ("TIES", None, True, ""),
        ("WORSE", None, False, "train with the target relative_gap"),
        ("INCONCLUSIVE", None, False, "Retrain when the holdout has more days, 90 of them at least"),
        ("BEATS", 0.3, True, ""),
        ("TIES", 0.3, False, r"λ = 0.3\), which only a model that BEATS it may"),
        ("WORSE", 0.3, False, "train with"),
        ("INCONCLUSIVE", 0.3, False, "the last close is the safer prediction"),
    ],
)
def test_against_the_last_close_a_tie_is_enough_but_a_correction_of_it_has_to_beat_it(
    word: Word, shrink: float | None, passed: bool, what_to_do: str
) -> None:
    gate = last_close_gate(judgement(word), shrink)
    assert (gate.name, gate.passed, gate.numbers["days"]) == (LAST_CLOSE, passed, 180.0)
    assert gate.explanation.startswith(f"{word}: On 4,000 rows …")
    assert re.search(what_to_do, gate.explanation)
    assert gate.explanation.endswith("…") == passed


@pytest.mark.parametrize("word", WORDS)
def test_against_the_champion_a_candidate_has_to_beat_or_to_tie(word: Word) -> None:
    gate = champion_gate(judgement(word))
    assert gate.passed == (word in ("BEATS", "TIES"))
    assert ("Keep the champion" in gate.explanation) == (not gate.passed)
    itself = champion_gate(judgement(word), is_last_close=True)
    assert itself.passed == gate.passed
    assert ("as override: it is the last close itself" in itself.explanation) == (word == "INCONCLUSIVE")


def test_the_word_that_training_left_decides_and_the_last_close_itself_ties_by_what_it_is(store: ObjectStore) -> None:
    metrics = {"checks": GOOD, "verdicts": {"last_close": judgement("WORSE").to_dict()}}
    judged = with_documents({METRICS: json.dumps(metrics).encode()})
    found = {gate.name: gate for gate in gates(judged, None, MarketHistory(store))}
    assert (found[LAST_CLOSE].passed, found[LAST_CLOSE].numbers["mean"]) == (False, -0.02)
    for shrink, word in ((0.0, "TIES"), (0.5, "Its training left no verdict")):
        candidate = relative_model(shrink)
        (gate,) = [gate for gate in gates(candidate, None, MarketHistory(store)) if gate.name == LAST_CLOSE]
        assert (gate.passed, gate.explanation.startswith(word)) == (shrink == 0.0, True)


def test_a_candidate_of_before_is_judged_on_the_rows_that_the_history_has(store: ObjectStore) -> None:
    road = Road(store)
    road.drop(prices=upload(market({"BTC": 420, "ETH": 420, "LTC": 420})))
    road.answer_new()
    at = date(2019, 3, 1)
    prepared = prepare("2019-02-22", at, road.history, store, known_by=datetime.now(UTC), code="test")
    documents = {
        METRICS: json.dumps({"checks": GOOD, "holdout": {"overall": {"rows": 180}}}).encode(),
        TRAINING_MANIFEST: json.dumps(prepared.manifest).encode(),
    }
    one, other = (with_documents(documents, label) for label in ("one", "other"))
    found = {gate.name: gate for gate in gates(one, other, road.history)}
    # its own check says that it was closer; its predictions are random numbers
    assert found[LAST_CLOSE].explanation.startswith("WORSE: On ")
    assert (found[LAST_CLOSE].passed, found[LAST_CLOSE].numbers["coins"]) == (False, 3.0)
    # and are those of the champion, which has the same network
    assert (found[CHAMPION].passed, found[CHAMPION].numbers["mean"]) == (True, 0.0)
    assert "every prediction is that of the champion other-" in found[CHAMPION].explanation


def with_documents(documents: Mapping[str, bytes], label: str = "judged") -> ModelBundle:
    base = model("gap")
    return make_bundle(
        label=label,
        target="gap",
        scaler=base.statistics,
        slugs={},
        network_onnx=base.files["network.onnx"],
        weights_sha256=label,
        about={},
        documents=documents,
    )


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
