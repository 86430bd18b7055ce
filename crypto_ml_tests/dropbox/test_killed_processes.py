"""Real processes are killed in the middle of a delivery, and each file still comes to exactly one end."""

import contextlib
import os
import signal
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from crypto_ml.commands.local_dagster import LocalDagster, free_port
from crypto_ml.ledger.deliveries import DeliveryLog
from crypto_ml.ledger.layout import ANSWERED, RAW
from crypto_ml.ledger.reports import Report, read_report
from crypto_ml.sample import sample_upload
from crypto_ml.storage.objects import ObjectStore
from crypto_ml_tests.forecasting.markets import market
from crypto_ml_tests.stages.road import upload

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]

REPOSITORY = Path(__file__).resolve().parents[2]
LONGEST = 240.0


def until(there: Callable[[], object], what: str, pause: float = 0.02) -> None:
    deadline = time.monotonic() + LONGEST
    while not there():
        assert time.monotonic() < deadline, f"{what} within {LONGEST:.0f} s"
        time.sleep(pause)


class Site:
    """A Dagster on this machine that can be killed and started again, on a store of its own."""

    def __init__(self, store: ObjectStore, directory: Path, s3: dict[str, str]) -> None:
        instance = directory / "dagster.yaml"
        # the same instance as in everyday work, which notices a dead worker sooner
        usual = (REPOSITORY / "dagster.yaml").read_text()
        instance.write_text(usual.replace("poll_interval_seconds: 15", "poll_interval_seconds: 3"))
        environment = {**s3, "CRYPTO_ML_BUCKET": store.bucket, "CRYPTO_ML_PREFIX": store.prefix}
        environment["PYTHONPATH"] = str(REPOSITORY)
        self.store = store
        self._dagster = LocalDagster(directory, environment, instance, free_port())

    def start(self) -> None:
        self._dagster.__enter__()
        self._dagster.wait_until_watching()

    def stop(self) -> None:
        self._dagster.stop()

    def kill(self) -> None:
        """The machine goes down: nothing of it has time to say goodbye."""
        while left := self._dagster.left():
            for pid in left:
                self._end(pid)
            time.sleep(0.05)

    def processes(self) -> set[int]:
        return set(self._dagster.left())

    def kill_new(self, before: set[int]) -> None:
        """Kill what was started since: a run's worker."""
        until(lambda: self.processes() - before, "no worker was started")
        for pid in self.processes() - before:
            self._end(pid)

    @staticmethod
    def _end(pid: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)

    def report(self, name: str) -> Report:
        until(lambda: read_report(f"uploads/{name}", self.store), f"no answer to {name}", 0.2)
        found = read_report(f"uploads/{name}", self.store)
        assert found is not None
        return found

    def markers(self) -> list[str]:
        return [found.key for found in self.store.list(ANSWERED)]


@pytest.fixture
def site(store: ObjectStore, tmp_path: Path, s3_environment: dict[str, str]) -> Iterator[Site]:
    own = ObjectStore(store.client, store.bucket, f"{store.prefix}{uuid.uuid4().hex}")
    made = Site(own, tmp_path, s3_environment)
    try:
        made.start()
        yield made
    finally:
        made.stop()


def test_a_delivery_whose_worker_is_killed_is_answered_by_the_next_one(site: Site) -> None:
    before = site.processes()
    site.store.replace("uploads/prices.csv", sample_upload())
    until(lambda: any(site.store.list(f"{RAW}received/")), "nothing was received")
    site.kill_new(before)
    assert site.markers() == []
    report = site.report("prices.csv")
    assert report.outcome == "PREDICTED", report.document["reason"]
    until(lambda: len(site.markers()) == 1, "no list of outcomes")
    lines = site.store.read("predictions/prices_preds.csv").splitlines()
    assert len(lines) == len(sample_upload().splitlines())


def test_a_machine_that_goes_down_right_after_a_drop_loses_and_doubles_nothing(site: Site) -> None:
    names = [f"{number}.csv" for number in range(6)]
    for number, name in enumerate(names):
        site.store.replace(f"uploads/{name}", upload(market({"BTC": 12}, seed=number)))
        if number == 2:
            until(lambda: any(site.store.list("receipts/deliveries/")), "nothing was noticed")
    site.kill()
    site.start()
    assert [site.report(name).outcome for name in names] == ["PREDICTED"] * 6
    log = DeliveryLog(site.store)
    log.catch_up()
    assigned = [one.key for n in range(1, log.last_number + 1) for one in log.get(n).uploads]
    assert sorted(assigned) == [f"uploads/{name}" for name in names]
    until(lambda: log.unanswered() == [], "not every delivery has its outcomes")


def test_a_delivery_whose_every_worker_is_killed_is_given_up_on_and_the_next_file_is_answered(site: Site) -> None:
    before = site.processes()
    site.store.replace("uploads/poison.csv", sample_upload())
    while read_report("uploads/poison.csv", site.store) is None:
        for pid in site.processes() - before:
            site._end(pid)
        time.sleep(0.05)
    report = site.report("poison.csv")
    assert report.outcome == "REJECTED"
    assert str(report.document["reason"]).startswith("gave up: 3 runs failed, the last one (")
    assert len(site.markers()) == 1
    site.store.replace("uploads/good.csv", upload(market({"BTC": 12})))
    assert site.report("good.csv").outcome == "PREDICTED"
