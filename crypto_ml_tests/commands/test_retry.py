"""crypto-ml retry, against a real store and no Dagster: what it asks for is a request that the sensor sees."""

import threading

import pytest
from click.testing import CliRunner, Result

from crypto_ml.cli import main
from crypto_ml.ledger.deliveries import Delivery, DeliveryLog
from crypto_ml.ledger.giving_up import give_up
from crypto_ml.ledger.retries import Request, RetryLog
from crypto_ml.storage.objects import ObjectStore
from crypto_ml_tests.dropbox.site import until
from crypto_ml_tests.forecasting.markets import market
from crypto_ml_tests.stages.road import Road, upload


@pytest.fixture
def road(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> Road:
    """The environment leads to its store, and to no Dagster."""
    monkeypatch.setenv("CRYPTO_ML_BUCKET", store.bucket)
    monkeypatch.setenv("CRYPTO_ML_PREFIX", store.prefix)
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    return Road(store)


def given_up(road: Road, name: str) -> Delivery:
    road.drop(**{name: upload(market({"BTC": 5}))})
    (delivery,) = road.assign()
    give_up(delivery, "gave up: its process died", "run", road.store)
    return delivery


def retry(*words: str) -> Result:
    return CliRunner().invoke(main, ["retry", *words])


def asked(road: Road) -> list[Request]:
    return list(RetryLog(road.store).since(0))


@pytest.mark.parametrize("what", ["uploads/b.csv", "b.csv", "00000002", "2"])
def test_a_key_or_a_delivery_is_asked_for_by_a_request(road: Road, what: str) -> None:
    given_up(road, "a")
    given_up(road, "b")
    done = retry(what)
    assert (done.exit_code, done.stdout) == (
        0,
        "delivery 00000002 (uploads/b.csv) is to be answered again (request 1)\n",
    )
    assert asked(road) == [Request(1, [2])]


def test_all_that_was_given_up_is_one_request(road: Road) -> None:
    given_up(road, "a")
    road.drop(good=upload(market({"BTC": 5})))
    road.answer_new()
    given_up(road, "b")
    assert retry("--given-up").exit_code == 0
    assert asked(road) == [Request(1, [1, 3])]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["uploads/good.csv"], "uploads/good.csv was not given up: it is PREDICTED in delivery 00000001"),
        (["uploads/bad.csv"], "uploads/bad.csv was not given up: it is REJECTED in delivery 00000001"),
        (["1"], "delivery 00000001 was not given up: 1 PREDICTED, 1 REJECTED"),
        (["2"], "delivery 00000002 has no outcome yet"),
        (["3"], "there is no delivery 00000003"),
        (["uploads/absent.csv"], "there is no report on uploads/absent.csv"),
        (["--given-up"], "no delivery was given up"),
    ],
)
def test_where_nothing_was_given_up_one_line_says_so_and_nothing_is_asked_for(
    road: Road, words: list[str], said: str
) -> None:
    road.drop(good=upload(market({"BTC": 5})), bad=b"nothing")
    road.answer_new()
    road.drop(waiting=upload(market({"BTC": 6})))
    road.assign()
    done = retry(*words)
    assert done.exit_code == 1
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert asked(road) == []


def test_either_something_is_named_or_all_of_it(road: Road) -> None:
    assert retry().exit_code == retry("1", "--given-up").exit_code == 2


def answering(road: Road, *, again: bool) -> threading.Thread:
    """The sensor, on another machine: it answers, or gives up again."""

    def answer() -> None:
        until(lambda: asked(road), "nobody asked")
        if again:
            give_up(DeliveryLog(road.store).get(1), "gave up: a price of purple", "run", road.store, retry=1)
        else:
            road.answer(1)

    thread = threading.Thread(target=answer)
    thread.start()
    return thread


@pytest.mark.parametrize("again", [False, True])
def test_waiting_ends_with_the_answer_or_with_why_there_is_none(road: Road, again: bool) -> None:
    given_up(road, "a")
    thread = answering(road, again=again)
    done = retry("a.csv", "--wait")
    thread.join()
    assert done.exit_code == int(again)
    assert done.stdout.splitlines()[-1] == f"delivery 00000001: 1 {'REJECTED' if again else 'PREDICTED'}"
    assert ("given up again: gave up: a price of purple" in done.stderr) == again


def test_waiting_for_a_sensor_that_is_not_there_ends_too(road: Road) -> None:
    given_up(road, "a")
    done = retry("a.csv", "--wait", "--timeout", "0.1")
    assert done.exit_code == 1
    assert "no answer to 00000001 after 0 s; run `crypto-ml doctor`" in done.stderr
