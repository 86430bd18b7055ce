"""The sensor sees every delivery through: asked for once, again where nobody runs it, closed where its runs died."""

from datetime import timedelta
from typing import Any

import dagster as dg
import pytest
from dagster._core.storage.tags import PRIORITY_TAG
from dagster._core.test_utils import create_run_for_test

from crypto_ml.defs import sensors
from crypto_ml.defs import watch as watching
from crypto_ml.ledger.deliveries import Delivery, Upload
from crypto_ml.ledger.layout import answered_key
from crypto_ml.ledger.reports import Report, read_report
from crypto_ml.sample import sample_upload
from crypto_ml_tests.deployment import Deployment

BODY = b"\n".join(sample_upload().split(b"\n")[:20]) + b"\n"


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is waited for."""
    monkeypatch.setattr(watching, "GRACE", timedelta(0))
    monkeypatch.setattr(watching, "SETTLED", timedelta(0))
    monkeypatch.setattr(watching, "SECONDS_BETWEEN_REVIEWS", 0.0)


def requested(result: dg.SensorResult | dg.SkipReason) -> list[str]:
    requests = (result.run_requests or []) if isinstance(result, dg.SensorResult) else []
    return [str(request.partition_key) for request in requests]


def run(deployment: Deployment, delivery: str, status: dg.DagsterRunStatus, **tags: str) -> dg.DagsterRun:
    """A run of a delivery that Dagster knows of, in this state."""
    known = {"dagster/partition": delivery, **tags}
    made: dg.DagsterRun = create_run_for_test(deployment.instance, "score_uploads", status=status, tags=known)
    return made


def report(deployment: Deployment, name: str) -> Report:
    found = read_report(f"uploads/{name}", deployment.store)
    assert found is not None
    return found


def drop(deployment: Deployment, *names: str) -> None:
    for name in names:
        deployment.store.replace(f"uploads/{name}", BODY)


def test_a_delivery_is_asked_for_once_while_its_run_waits_or_works(deployment: Deployment) -> None:
    drop(deployment, "a.csv")
    assert requested(deployment.tick()) == ["00000001"]
    for status in (dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.STARTED):
        run(deployment, "00000001", status)
        assert requested(deployment.tick("1")) == []


def test_a_delivery_that_nobody_runs_is_asked_for_again_also_by_a_new_process(deployment: Deployment) -> None:
    drop(deployment, "a.csv")
    assert requested(deployment.tick()) == ["00000001"]
    assert requested(deployment.tick("1")) == ["00000001"]
    watching.watch.cache_clear()
    assert requested(deployment.tick("1")) == ["00000001"]
    deployment.run("score_uploads", "00000001")
    assert requested(deployment.tick("1")) == []
    watching.watch.cache_clear()
    assert requested(deployment.tick(None)) == []


def test_a_wiped_dagster_database_costs_no_file_and_answers_none_twice(deployment: Deployment) -> None:
    drop(deployment, "answered.csv")
    deployment.answer_new()
    drop(deployment, "waiting.csv")
    deployment.tick("1")
    before = deployment.store.read("predictions/answered_report.json")
    watching.watch.cache_clear()
    with dg.DagsterInstance.ephemeral() as anew:
        other = Deployment(deployment.store, deployment.settings, anew, deployment.definitions)
        results = other.answer_new()
        assert [result.dagster_run.tags["dagster/partition"] for result in results] == ["00000002"]
    assert deployment.store.read("predictions/answered_report.json") == before


def test_a_delivery_whose_runs_died_is_closed_and_its_uploads_are_told(deployment: Deployment) -> None:
    drop(deployment, "a.csv", "b.csv")
    deployment.tick()
    for _ in range(2):
        run(deployment, "00000001", dg.DagsterRunStatus.FAILURE, **{"dagster/will_retry": "true"})
        deployment.tick("1")
        assert read_report("uploads/a.csv", deployment.store) is None
    last = run(deployment, "00000001", dg.DagsterRunStatus.FAILURE, **{"dagster/will_retry": "false"})
    deployment.tick("1")
    for name in ("a.csv", "b.csv"):
        found = report(deployment, name)
        assert found.outcome == "REJECTED"
        said = str(found.document["reason"])
        assert said.startswith(f"gave up: 3 runs failed, the last one ({last.run_id})")
        assert said.endswith("drop the file again, or launch score_uploads for the partition 00000001")
    outcomes = deployment.store.read_json(answered_key("00000001"))
    assert {key: one["outcome"] for key, one in outcomes.items()} == dict.fromkeys(
        ("uploads/a.csv", "uploads/b.csv"), "REJECTED"
    )
    watching.watch.cache_clear()
    assert requested(deployment.tick("1")) == []


def test_a_cancelled_run_is_an_end_too_and_the_file_dropped_again_is_answered(deployment: Deployment) -> None:
    drop(deployment, "a.csv")
    deployment.tick()
    cancelled = run(deployment, "00000001", dg.DagsterRunStatus.CANCELED)
    deployment.tick("1")
    assert f"the run {cancelled.run_id} was cancelled" in str(report(deployment, "a.csv").document["reason"])
    deployment.store.replace("uploads/a.csv", BODY + BODY.split(b"\n")[1] + b"\n")
    deployment.answer_new("1")
    assert report(deployment, "a.csv").outcome == "PREDICTED"


def test_what_a_dead_run_had_answered_stays_answered(deployment: Deployment) -> None:
    drop(deployment, "a.csv")
    deployment.answer_new()
    drop(deployment, "b.csv")
    deployment.tick("1")
    deployment.run("score_uploads", "00000002")
    store = deployment.store
    store.client.delete_object(Bucket=store.bucket, Key=store.physical(answered_key("00000002")))
    run(deployment, "00000002", dg.DagsterRunStatus.FAILURE, **{"dagster/will_retry": "false"})
    watching.watch.cache_clear()
    deployment.tick("2")
    assert report(deployment, "b.csv").outcome == "PREDICTED"
    assert store.read_json(answered_key("00000002"))["uploads/b.csv"]["outcome"] == "PREDICTED"


def test_a_run_that_cannot_go_on_is_given_up_on_in_its_own_words(deployment: Deployment) -> None:
    drop(deployment, "a.csv")
    deployment.tick()
    champion = "models/champion/dev/00000001.json"
    deployment.store.create(champion, b"not json")
    failed: Any = deployment.run("score_uploads", "00000001", raises=False)
    assert not failed.success
    deployment.tick("1")
    assert "is not the JSON document it should be" in str(report(deployment, "a.csv").document["reason"])


def test_a_single_small_file_goes_before_a_burst_and_a_burst_before_one_large_file(deployment: Deployment) -> None:
    def delivery(*sizes: int) -> Delivery:
        uploads = [Upload(f"uploads/{number}.csv", "e", size, "") for number, size in enumerate(sizes)]
        return Delivery(1, uploads, "")

    small, burst, large = delivery(1_000), delivery(*[1_000] * 1_000), delivery(5 << 30)
    assert sensors.priority(small) > sensors.priority(burst) > sensors.priority(large)
    drop(deployment, "a.csv")
    result = deployment.tick()
    assert isinstance(result, dg.SensorResult)
    (request,) = result.run_requests or []
    assert request.tags[PRIORITY_TAG] == str(sensors.priority(small))
