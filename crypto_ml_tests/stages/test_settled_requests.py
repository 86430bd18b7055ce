"""What was answered is in the log once, whatever fails or dies in between, and whoever sweeps at the same moment."""

from datetime import UTC, datetime, timedelta

import pytest

from crypto_ml.ledger.requests import first_of, is_request, new_delivery, pack_key, time_of
from crypto_ml.ledger.settlements import LATE, Settlement, is_settled, last_sweep, record_settlement, settlements
from crypto_ml.stages import settled_requests
from crypto_ml.stages.requests import Reply, read_replies
from crypto_ml.stages.settled_requests import Settling, sweep, unsettled
from crypto_ml.storage.failures import StoreUnavailable
from crypto_ml.storage.objects import ObjectStore
from crypto_ml.storage.prediction_log import PredictionLog
from crypto_ml_tests.forecasting.markets import market
from crypto_ml_tests.stages.asking import ask, csv, settle
from crypto_ml_tests.stages.road import Road, upload

BODY = upload(market({"BTC": 9}))
NOW = datetime(2026, 11, 1, 12, 0, 30, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


@pytest.fixture
def road(store: ObjectStore) -> Road:
    return Road(store)


def at(road: Road, moment: datetime) -> list[Reply]:
    """What is asked and answered at a moment."""
    return ask(road, csv(BODY), now=moment)


def logged(road: Road) -> list[str]:
    """The answers of the log, each once for each time that it was written there whole."""
    rows = PredictionLog(road.store).table.at()
    found = [] if rows is None else rows.dataset.to_table(columns=["answer_id", "line"]).to_pylist()
    return sorted(row["answer_id"] for row in found if row["line"] == 9)


def told(road: Road) -> list[str]:
    return sorted(one.delivery for settled in settlements(road.store) for one in settled.deliveries)


def test_what_a_killed_process_left_is_swept_up_once_however_far_it_came_and_whoever_sweeps(
    road: Road, monkeypatch: pytest.MonkeyPatch
) -> None:
    unsettled_before, half, done, new = (at(road, NOW - ago) for ago in (30 * MINUTE, 29 * MINUTE, 28 * MINUTE, MINUTE))
    settle(road, done, now=NOW - 28 * MINUTE)

    def killed(*_: object) -> None:
        raise StoreUnavailable("killed before it was written down")

    with monkeypatch.context() as patch, pytest.raises(StoreUnavailable):
        patch.setattr(settled_requests, "record_settlement", killed)
        settle(road, half, now=NOW - 29 * MINUTE)
    old = [one[0].delivery for one in (unsettled_before, half)]
    assert unsettled(road.store, None, NOW - LATE) == old
    assert sweep(road.store, NOW) == 2
    assert sweep(road.store, NOW) == sweep(road.store, NOW - 10 * MINUTE) == 0
    answers = sorted(one[0].answer_id for one in (unsettled_before, half, done))
    assert logged(road) == answers
    assert told(road) == sorted([*old, done[0].delivery])
    assert is_settled(old[0], road.store, NOW)
    assert not is_settled(new[0].delivery, road.store, NOW)
    assert last_sweep(road.store, NOW) == (NOW - LATE).replace(second=0)
    assert last_sweep(road.store, NOW + timedelta(days=400)) == (NOW - LATE).replace(second=0)
    assert sweep(road.store, NOW + 16 * MINUTE) == 1
    assert logged(road) == sorted([*answers, new[0].answer_id])


def test_two_sweeps_at_the_same_moment_write_the_same_once(road: Road, monkeypatch: pytest.MonkeyPatch) -> None:
    left = [at(road, NOW - ago)[0] for ago in (30 * MINUTE, 30 * MINUTE, 20 * MINUTE)]
    answers = PredictionLog.answers
    raced: list[bool] = []

    def meanwhile(log: PredictionLog, of: set[str]) -> set[str]:
        """Between the look into the log and the append another process sweeps."""
        known = answers(log, of)
        if not raced:
            raced.append(True)
            sweep(road.store, NOW + 2 * MINUTE)
        return known

    monkeypatch.setattr(PredictionLog, "answers", meanwhile)
    sweep(road.store, NOW)
    assert logged(road) == sorted(one.answer_id for one in left)
    doubled = [one for one in settlements(road.store) if left[0].delivery in {each.delivery for each in one.deliveries}]
    assert len(doubled) == 2
    assert doubled[0].repeats(doubled[1])
    assert doubled[0].name[13:] == doubled[1].name[13:]


def test_an_attempt_that_failed_is_made_again_as_it_was_and_what_stood_before_is_its_writers_to_settle(
    road: Road, monkeypatch: pytest.MonkeyPatch
) -> None:
    settling = Settling(road.deployment)
    first, second, third = at(road, NOW), at(road, NOW), at(road, NOW)
    settling.note([*first, *second])

    def lost(settlement: Settlement, store: ObjectStore) -> None:
        """It is written, and whoever wrote it never hears of that."""
        record_settlement(settlement, store)
        raise StoreUnavailable("no answer")

    with monkeypatch.context() as patch, pytest.raises(StoreUnavailable):
        patch.setattr(settled_requests, "record_settlement", lost)
        settling.settle(NOW)
    settling.note(third)
    settling.note(read_replies(first[0].delivery, road.store))
    assert settling.waiting == 3
    assert settling.settle(NOW + MINUTE) == 3
    assert logged(road) == sorted(one[0].answer_id for one in (first, second, third))
    alone, *found = sorted(settlements(road.store), key=lambda one: len(one.deliveries))
    assert [len(one.deliveries) for one in (alone, *found)] == [1, 2, 2]
    assert found[0].repeats(found[1])
    other = Settling(road.deployment)  # of a process whose caller came again with the same key
    other.note(read_replies(first[0].delivery, road.store))
    other.note(ask(road, csv(BODY), delivery=first[0].delivery))
    other.note(ask(road, csv(BODY), record=False))
    assert other.waiting == 0
    late = at(road, NOW - 10 * MINUTE)
    other.note(late)
    assert (other.settle(NOW), other.waiting) == (0, 0)  # left to the sweeps
    assert sweep(road.store, NOW + 6 * MINUTE) == 1


def test_a_sweep_goes_on_beside_a_damaged_pack_and_bounded_where_it_left_off(
    road: Road, monkeypatch: pytest.MonkeyPatch
) -> None:
    packs = [at(road, NOW - ago)[0] for ago in (40 * MINUTE, 30 * MINUTE, 20 * MINUTE)]
    road.store.replace(pack_key(packs[0].delivery), b"no pack")
    monkeypatch.setattr(settled_requests, "MOST_SWEPT", 1)
    assert [sweep(road.store, NOW) for _ in range(4)] == [1, 1, 0, 0]
    assert logged(road) == sorted(one.answer_id for one in packs[1:])


def test_names_are_moments_and_settlements_are_read_in_their_order(store: ObjectStore) -> None:
    name = new_delivery(NOW)
    assert is_request(name)
    assert time_of(name) == NOW
    assert first_of(NOW) <= name < first_of(NOW + timedelta(milliseconds=1))
    for moment in (NOW + MINUTE, NOW, NOW - MINUTE):
        record_settlement(Settlement.of([], moment), store)
    found = [time_of(one.name) for one in settlements(store)]
    assert found == [NOW - MINUTE, NOW, NOW + MINUTE]
    assert [time_of(one.name) for one in settlements(store, first_of(NOW))] == found[1:]
