"""Real processes are killed in the middle of a delivery, and each file still comes to exactly one end."""

import uuid
from collections.abc import Iterator

import dagster as dg
import pytest

from crypto_ml.ledger.deliveries import DeliveryLog
from crypto_ml.ledger.layout import RAW
from crypto_ml.ledger.reports import read_report
from crypto_ml.sample import sample_upload
from crypto_ml.storage.objects import connect
from crypto_ml_tests.dropbox.site import STOCK, Site, until
from crypto_ml_tests.forecasting.markets import market
from crypto_ml_tests.stages.road import upload

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]


@pytest.fixture(scope="module", params=[{}, STOCK], ids=["warm", "stock"])
def site(
    bucket: str,
    tmp_path_factory: pytest.TempPathFactory,
    s3_environment: dict[str, str],
    request: pytest.FixtureRequest,
) -> Iterator[Site]:
    store, directory = connect(bucket, f"tests/{uuid.uuid4().hex}"), tmp_path_factory.mktemp("killed")
    made = Site(store, directory, s3_environment, replaced=request.param)
    try:
        made.start()
        yield made
    finally:
        made.stop()


def test_a_delivery_whose_worker_is_killed_is_answered_by_the_next_one(site: Site) -> None:
    closed = site.markers()
    received = len(list(site.store.list(f"{RAW}received/")))
    site.store.replace("uploads/prices.csv", sample_upload())
    until(lambda: len(list(site.store.list(f"{RAW}received/"))) > received, "nothing was received")
    site.kill_worker()
    assert site.markers() == closed
    report = site.report("prices.csv")
    assert report.outcome == "PREDICTED", report.document["reason"]
    until(lambda: len(site.markers()) == len(closed) + 1, "no list of outcomes")
    lines = site.store.read("predictions/prices_preds.csv").splitlines()
    assert len(lines) == len(sample_upload().splitlines())


def test_a_machine_that_goes_down_right_after_a_drop_loses_and_doubles_nothing(site: Site) -> None:
    names = [f"{number}.csv" for number in range(6)]
    deliveries = len(list(site.store.list("receipts/deliveries/")))
    for number, name in enumerate(names):
        site.store.replace(f"uploads/{name}", upload(market({"BTC": 12}, seed=number)))
        if number == 2:
            until(lambda: len(list(site.store.list("receipts/deliveries/"))) > deliveries, "nothing was noticed")
    site.kill()
    site.start()
    assert [site.report(name).outcome for name in names] == ["PREDICTED"] * 6
    log = DeliveryLog(site.store)
    log.catch_up()
    assigned = [one.key for n in range(deliveries + 1, log.last_number + 1) for one in log.get(n).uploads]
    assert sorted(assigned) == [f"uploads/{name}" for name in names]
    until(lambda: log.unanswered() == [], "not every delivery has its outcomes")


def test_a_delivery_whose_every_worker_is_killed_is_given_up_on_and_the_next_file_is_answered(site: Site) -> None:
    closed = site.markers()
    # so large that no run gets to its end before it is looked at, however busy the machine
    site.store.replace("uploads/poison.csv", upload(market({f"C{number}": 1_000 for number in range(300)})))

    def kill_workers() -> bool:
        # one that is killed before its run has begun never came to the file, and does not count
        for run in site.runs()[:1]:
            pid = site.worker(run) if run.status == dg.DagsterRunStatus.STARTED else None
            if pid is not None:
                site.end(pid)
        return read_report("uploads/poison.csv", site.store) is not None

    until(kill_workers, "poison.csv has no outcome", pause=0.05)
    report = site.report("poison.csv")
    assert report.outcome == "REJECTED"
    assert str(report.document["reason"]).startswith("gave up: 3 runs failed, the last one (")
    assert len(site.markers()) == len(closed) + 1
    site.store.replace("uploads/good.csv", upload(market({"BTC": 12})))
    assert site.report("good.csv").outcome == "PREDICTED"
