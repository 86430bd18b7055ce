"""Time in the ledger never goes backwards, and no wait is shorter than nothing, whatever the clocks say."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from uuid import uuid4

from hypothesis import given
from hypothesis import strategies as st

from crypto_ml.ledger.clock import not_before, waited
from crypto_ml.ledger.deliveries import Delivery, DeliveryLog, Upload
from crypto_ml.ledger.formats.receipt_v2 import Receipt
from crypto_ml.ledger.metrics import answer_metrics, measure
from crypto_ml.stages.answer_receipts import timings_of
from crypto_ml.stages.raw_uploads import Received, ReceivedFile, receive
from crypto_ml.storage.objects import ObjectStore
from crypto_ml_tests.stages.road import Road

NOON = datetime(2018, 3, 26, 12, tzinfo=UTC)
CLOCKS = st.tuples(st.integers(-90_000, 90_000), st.integers(-12, 12)).map(
    lambda clock: (NOON + timedelta(seconds=clock[0])).astimezone(timezone(timedelta(hours=clock[1])))
)


def room(store: ObjectStore) -> ObjectStore:
    """A store of its own for each example."""
    return ObjectStore(store.client, store.bucket, f"{store.prefix}{uuid4().hex}")


@given(clocks=st.lists(CLOCKS, min_size=1, max_size=6))
def test_the_deliveries_of_daemons_with_any_clocks_were_noticed_in_their_order(
    store: ObjectStore, clocks: list[datetime]
) -> None:
    box = room(store)
    daemons = [DeliveryLog(box), DeliveryLog(box)]
    for number, clock in enumerate(clocks):
        box.replace(f"uploads/{number}.csv", b"x")
        assert daemons[number % 2].assign_new(clock)
    noticed = [datetime.fromisoformat(DeliveryLog(box).get(number + 1).noticed_at) for number in range(len(clocks))]
    assert noticed == [max(clocks[: number + 1]) for number in range(len(clocks))]


def test_a_daemon_that_starts_behind_a_whole_segment_goes_on_from_its_last_delivery(store: ObjectStore) -> None:
    first = DeliveryLog(store)
    for number in range(100):
        upload = Upload(f"uploads/{number}.csv", "a", 1, NOON.isoformat())
        first.assign_new(NOON, [upload])
    late = Upload("uploads/late.csv", "a", 1, NOON.isoformat())
    (made,) = DeliveryLog(store).assign_new(NOON - timedelta(hours=1), [late])
    assert made.noticed_at == NOON.isoformat()


@given(noticed=CLOCKS, received=CLOCKS, answered=CLOCKS, uploaded=CLOCKS)
def test_nothing_in_a_receipt_happens_before_what_had_to_come_first(
    noticed: datetime, received: datetime, answered: datetime, uploaded: datetime
) -> None:
    file = ReceivedFile(Upload("uploads/a.csv", "e", 1, uploaded.isoformat()))
    timings = timings_of(Received("00000001", noticed.isoformat(), received.isoformat(), [file]), file, answered)
    moments = [timings.noticed_at, timings.received_at, timings.answered_at]
    assert list(map(datetime.fromisoformat, moments)) == sorted(map(datetime.fromisoformat, moments))
    assert timings.uploaded_at == file.upload.last_modified


@given(noticed=CLOCKS, now=CLOCKS)
def test_a_delivery_is_received_no_earlier_than_it_was_noticed(
    store: ObjectStore, noticed: datetime, now: datetime
) -> None:
    received = receive(Delivery(1, [], noticed.isoformat()), room(store), now)
    assert datetime.fromisoformat(received.at) == max(noticed, now)


@given(one=CLOCKS, other=CLOCKS)
def test_a_wait_is_never_negative(one: datetime, other: datetime) -> None:
    seconds = waited(one.isoformat(), other.isoformat())
    assert seconds == max((other - one).total_seconds(), 0.0)
    assert waited(one.isoformat(), not_before(other, one.isoformat())) == seconds


def test_a_store_whose_clock_is_ahead_gives_no_negative_lag(store: ObjectStore) -> None:
    road = Road(store)
    road.drop(bad=b"not,a,market\n")
    assert measure(store, datetime.now(UTC) - timedelta(hours=1)).lag_seconds == 0.0
    (answers,) = road.answer_new()
    ahead = [_uploaded_at(receipt, datetime.now(UTC) + timedelta(hours=1)) for receipt in answers.receipts]
    assert answer_metrics(ahead)["lag_seconds"] == 0.0


def _uploaded_at(receipt: Receipt, time: datetime) -> Receipt:
    return replace(receipt, timings=replace(receipt.timings, uploaded_at=time.isoformat()))
