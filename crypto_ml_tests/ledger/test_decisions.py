"""A decision is carried out once, whatever dies and whoever tries it again, and time in the pointer never goes back."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from threading import Barrier
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from crypto_ml.ledger.registry import Champion, NothingToRollBackTo, PromotionLost, Registry
from crypto_ml.storage.failures import StoreUnavailable
from crypto_ml.storage.objects import ObjectStore
from crypto_ml_tests.forecasting.markets import model

NOW = datetime(2018, 3, 26, tzinfo=UTC)
BUNDLES = {bundle.version: bundle for bundle in (model("gap", label=label) for label in ("one", "two", "three"))}
CLOCKS = st.integers(-1000, 1000).map(lambda minutes: NOW + timedelta(minutes=minutes))
DEATHS = st.sampled_from([None, None, "before", "after"])


@pytest.fixture
def registry(store: ObjectStore) -> Registry:
    made = Registry(store)
    for bundle in BUNDLES.values():
        made.add(bundle)
    return made


@contextmanager
def dying(registry: Registry, when: str) -> Iterator[None]:
    """The process dies at the write of the pointer: `before` it, or `after` it and before anybody is told."""
    create = registry.store.create_json

    def dies(key: str, document: Any) -> str:
        if when == "after":
            create(key, document)
        raise StoreUnavailable("dead")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry.store, "create_json", dies)
        yield


class Decisions(RuleBasedStateMachine):
    """Promotions and rollbacks by many hands, held against a list of versions."""

    store: ObjectStore

    @initialize()
    def begin(self) -> None:
        prefix = f"{type(self).store.prefix}{uuid4().hex}"
        self.registry = Registry(ObjectStore(type(self).store.client, type(self).store.bucket, prefix))
        for bundle in BUNDLES.values():
            self.registry.add(bundle)
        self.expected: list[tuple[str, str]] = []  # version and decision, in order
        self.decisions: dict[str, str | None] = {}

    def decide(self, decision: str, version: str | None, clock: datetime) -> Champion:
        how: dict[str, Any] = {"by": "ann", "why": "see", "at": clock, "decision": decision}
        return self.registry.promote(version, **how) if version else self.registry.roll_back(**how)

    def before(self) -> str | None:
        """Of the versions promoted before the champion was, and not rolled back from since, the one promoted last."""
        promoted: dict[str, int] = {}
        champion = None
        for place, (version, decision) in enumerate(self.expected):
            if self.decisions[decision]:
                promoted[version] = place
            elif champion:
                del promoted[champion]
            champion = version
        left = [version for version in promoted if version != champion and promoted[version] < promoted[str(champion)]]
        return max(left, key=promoted.__getitem__, default=None)

    @rule(version=st.sampled_from([*BUNDLES, None]), clock=CLOCKS, death=DEATHS)
    def a_decision(self, version: str | None, clock: datetime, death: str | None) -> None:
        decision = f"d{len(self.decisions)}"
        to = version or self.before()
        if to is None:
            with pytest.raises(NothingToRollBackTo):
                self.decide(decision, version, clock)
            return
        self.decisions[decision] = version
        if death:
            with dying(self.registry, death), pytest.raises(StoreUnavailable):
                self.decide(decision, version, clock)
        else:
            assert self.decide(decision, version, clock).version == to
        if death != "before":
            self.expected.append((to, decision))

    @precondition(lambda self: self.decisions)
    @rule(data=st.data(), clock=CLOCKS)
    def the_same_decision_again(self, data: st.DataObject, clock: datetime) -> None:
        decision = data.draw(st.sampled_from(sorted(self.decisions)))
        if decision not in {carried_out for _, carried_out in self.expected}:
            to = self.decisions[decision] or self.before()
            if to is None:  # others have rolled back all the way since
                with pytest.raises(NothingToRollBackTo):
                    self.decide(decision, None, clock)
                return
            self.expected.append((to, decision))
        entry = self.decide(decision, self.decisions[decision], clock)
        assert self.expected[entry.pointer - 1] == (entry.version, decision)

    @invariant()
    def the_pointer_holds_each_decision_once_in_order_and_its_dates_never_go_back(self) -> None:
        if not hasattr(self, "registry"):
            return
        entries = list(self.registry.champions())
        assert [(entry.version, entry.decision) for entry in entries] == self.expected
        dates = [entry.at for entry in entries]
        assert dates == sorted(dates)


def test_any_sequence_of_decisions_deaths_and_repetitions_leaves_each_decision_once(store: ObjectStore) -> None:
    Decisions.store = store
    run_state_machine_as_test(Decisions, settings=settings(max_examples=15, stateful_step_count=12))


def test_tries_of_one_decision_at_once_are_one_entry(registry: Registry) -> None:
    one, two, _ = BUNDLES
    for version in (one, two):
        registry.promote(version, by="ann", why="first", at=NOW)
    barrier = Barrier(6)

    def roll_back(_: int) -> Champion:
        barrier.wait()
        return Registry(registry.store).roll_back(by="bob", why="drift", at=NOW, decision="d1")

    with ThreadPoolExecutor(6) as pool:
        assert {entry.pointer for entry in pool.map(roll_back, range(6))} == {3}
    assert [entry.version for entry in registry.champions()] == [one, two, one]


def test_a_promotion_meant_to_follow_an_entry_follows_no_other(registry: Registry) -> None:
    one, two, three = BUNDLES
    registry.promote(one, by="ann", why="first", at=NOW)
    registry.promote(two, by="bob", why="faster", at=NOW)
    with pytest.raises(PromotionLost, match="bob promoted"):
        registry.promote(three, by="ann", why="better than the first", at=NOW, after=1)
    assert [entry.version for entry in registry.champions()] == [one, two]


@given(minutes=st.lists(st.integers(0, 60), min_size=1, max_size=8), asked=st.integers(-5, 65))
def test_who_served_is_told_by_the_order_of_the_pointer_under_any_clocks(
    store: ObjectStore, minutes: list[int], asked: int
) -> None:
    registry = Registry(ObjectStore(store.client, store.bucket, f"{store.prefix}{uuid4().hex}"))
    bundle = next(iter(BUNDLES.values()))
    for number, minute in enumerate(minutes, 1):  # as 0.1 wrote them, each with its own clock
        at = (NOW + timedelta(minutes=minute)).isoformat()
        said = {"version": bundle.version, "sha256": bundle.sha256, "by": "ann", "why": "w", "action": "promotion"}
        registry.store.create_json(registry.pointer_key(number), {**said, "at": at})
    served = [number for number in range(1, len(minutes) + 1) if max(minutes[:number]) <= asked]
    found = registry.champion_at(NOW + timedelta(minutes=asked))
    assert (found.pointer if found else None) == (served[-1] if served else None)


@given(clocks=st.lists(CLOCKS, min_size=1, max_size=5), behind=CLOCKS)
def test_a_new_entry_is_never_dated_before_an_older_one(
    store: ObjectStore, clocks: list[datetime], behind: datetime
) -> None:
    registry = Registry(ObjectStore(store.client, store.bucket, f"{store.prefix}{uuid4().hex}"))
    bundle = next(iter(BUNDLES.values()))
    registry.add(bundle)
    for number, clock in enumerate(clocks, 1):
        said = {"version": bundle.version, "sha256": bundle.sha256, "by": "ann", "why": "w", "action": "promotion"}
        registry.store.create_json(registry.pointer_key(number), {**said, "at": clock.isoformat()})
    entry = registry.promote(bundle.version, by="ann", why="again", at=behind)
    assert datetime.fromisoformat(entry.at) == max([*clocks, behind])
