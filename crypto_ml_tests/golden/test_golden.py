"""What earlier releases wrote is traced, replayed and served by this one."""

import uuid
from dataclasses import dataclass
from datetime import UTC, datetime

import pytest

from crypto_ml.audit import forecast_replay, forecast_trace
from crypto_ml.audit.references import Reference, resolve
from crypto_ml.audit.replay import replay
from crypto_ml.audit.tolerance import RESTORED
from crypto_ml.audit.trace import trace
from crypto_ml.audit.verify import verify
from crypto_ml.ledger.registry import Registry
from crypto_ml.sample import sample_upload
from crypto_ml.stages.evidence_chain import extend
from crypto_ml.storage.history import MarketHistory
from crypto_ml.storage.objects import ObjectStore
from crypto_ml_tests.golden.evidence import Golden, releases, restore
from crypto_ml_tests.golden.make import RETRACTED
from crypto_ml_tests.stages.road import Road


@dataclass(frozen=True)
class Left:
    """What a release left, and what is known of it."""

    golden: Golden
    store: ObjectStore


@pytest.fixture(scope="module", params=releases())
def left(request: pytest.FixtureRequest, whole_bucket: ObjectStore) -> Left:
    """A store as a release left it; the last test alone adds to it."""
    store = whole_bucket.below(f"tests/{uuid.uuid4().hex}")
    return Left(restore(request.param, store), store)


@pytest.fixture
def golden(left: Left) -> Golden:
    """What is known of the release."""
    return left.golden


@pytest.fixture
def store(left: Left) -> ObjectStore:
    """The store as the release left it."""
    return left.store


def test_every_answer_is_traced_and_comes_out_again(golden: Golden, store: ObjectStore) -> None:
    assert {answer["outcome"] for answer in golden.answers.values()} == {"PREDICTED", "REJECTED", "SKIPPED"}
    for answer, known in golden.answers.items():
        found = trace(Reference(answer), store)
        assert (found.receipt.outcome, found.receipt.upload.key) == (known["outcome"], known["upload"])
        verdict = replay(answer, store)
        assert str(verdict) == "IDENTICAL", answer
        without_log = golden.release == "0.1.0" and found.receipt.rows.predicted and known["outcome"] == "PREDICTED"
        assert ("no rows in prediction_log" in str(verdict.note)) == bool(without_log), answer


def test_every_row_of_a_published_answer_leads_back_to_its_line(golden: Golden, store: ObjectStore) -> None:
    rows = store.read("predictions/daily/three_preds.csv").decode().splitlines()[1:]
    assert rows
    for row in rows:
        symbol, _, day, predicted, _, _, prediction_id, *_ = row.split(",")
        found = trace(resolve(prediction_id, store), store).row
        assert found is not None
        assert (found.symbol, found.date.isoformat(), found.pred_open) == (symbol, day, float(predicted))
        assert found.as_received.startswith(symbol)


def test_every_forecast_that_has_a_receipt_is_traced_and_comes_out_again(golden: Golden, store: ObjectStore) -> None:
    forecasts = [found.key.rpartition("/")[2].removesuffix(".json") for found in store.list("receipts/forecasts/")]
    assert bool(forecasts) == (golden.release != "0.1.0")
    for forecast in forecasts:
        assert str(forecast_replay.replay(forecast, store)) == "IDENTICAL", forecast
    if forecasts:
        (row, *_) = store.read("forecasts/latest.csv").decode().splitlines()[1:]
        symbol, _, target, predicted, _, forecast_row, *_ = row.split(",")
        found = forecast_trace.trace(resolve(forecast_row, store), store).row
        assert found is not None
        assert (found.symbol, str(found.target_date), found.pred_open) == (
            symbol,
            target,
            float(predicted),
        )


def test_what_was_taken_back_stays_void_and_its_answer_comes_out_again(golden: Golden, store: ObjectStore) -> None:
    answers = [answer for answer, known in golden.answers.items() if known["upload"] == "uploads/wrong.csv"]
    assert bool(answers) == (golden.release not in {"0.1.0", "0.2.0"})
    for answer in answers:
        history = MarketHistory(store)
        assert history.scan(["symbol"], symbols=[RETRACTED]).read_all().num_rows > 0
        assert history.current_rows(["symbol"], symbols=[RETRACTED]).num_rows == 0
        (retraction,) = trace(Reference(answer), store).retracted.values()
        assert (retraction.by, retraction.why) == ("data team", "a coin that there is not")


def test_the_champion_and_the_history_go_on_serving_and_the_evidence_is_chained_and_whole(
    golden: Golden, store: ObjectStore
) -> None:
    extend(store, datetime.now(UTC))
    verified = verify(store, tolerance=RESTORED)
    assert verified.findings == ()
    assert verified.objects > 50
    assert tuple(entry.version for entry in Registry(store).champions()) == golden.champions
    road = Road(store, Registry(store).load(golden.champions[-1]), now=datetime.now(UTC))
    before = road.history.count()
    lines = sample_upload().decode().splitlines()
    newest = max(line.split(",")[3] for line in lines[1:])
    lines = lines[:1] + [line for line in lines[1:] if newest in line]
    road.drop(five="\n".join(lines).encode())
    (answers,) = road.answer_new()
    (receipt,) = answers.receipts
    assert receipt.model.version == golden.champions[-1]
    assert (receipt.outcome, receipt.rows.predicted) == ("PREDICTED", len(lines) - 1)
    assert road.history.count() == before + len(lines) - 1
    assert str(replay(receipt.answer_id, store)) == "IDENTICAL"
    extend(store, datetime.now(UTC))
    assert verify(store, state=verified.state, tolerance=RESTORED).findings == ()
