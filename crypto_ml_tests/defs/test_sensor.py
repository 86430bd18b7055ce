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
from crypto_ml_tests.in_process_dagster import InProcessDagster

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


def run(dagster: InProcessDagster, delivery: str, status: dg.DagsterRunStatus, **tags: str) -> dg.DagsterRun:
    """A run of a delivery that Dagster knows of, in this state."""
    known = {"dagster/partition": delivery, **tags}
    made: dg.DagsterRun = create_run_for_test(dagster.instance, "score_uploads", status=status, tags=known)
    return made


def report(dagster: InProcessDagster, name: str) -> Report:
    found = read_report(f"uploads/{name}", dagster.store)
    assert found is not None
    return found


def drop(dagster: InProcessDagster, *names: str) -> None:
    for name in names:
        dagster.store.replace(f"uploads/{name}", BODY)


def test_a_delivery_is_asked_for_once_while_its_run_waits_or_works(dagster: InProcessDagster) -> None:
    drop(dagster, "a.csv")
    assert requested(dagster.tick()) == ["00000001"]
    for status in (dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.STARTED):
        run(dagster, "00000001", status)
        assert requested(dagster.tick("1")) == []


def test_a_delivery_that_nobody_runs_is_asked_for_again_also_by_a_new_process(dagster: InProcessDagster) -> None:
    drop(dagster, "a.csv")
    assert requested(dagster.tick()) == ["00000001"]
    assert requested(dagster.tick("1")) == ["00000001"]
    watching.watch.cache_clear()
    assert requested(dagster.tick("1")) == ["00000001"]
    dagster.run("score_uploads", "00000001")
    assert requested(dagster.tick("1")) == []
    watching.watch.cache_clear()
    assert requested(dagster.tick(None)) == []


def test_a_wiped_dagster_database_costs_no_file_and_answers_none_twice(dagster: InProcessDagster) -> None:
    drop(dagster, "answered.csv")
    dagster.answer_new()
    drop(dagster, "waiting.csv")
    dagster.tick("1")
    before = dagster.store.read("predictions/answered_report.json")
    watching.watch.cache_clear()
    with dg.DagsterInstance.ephemeral() as anew:
        other = InProcessDagster(dagster.deployment, anew, dagster.definitions)
        results = other.answer_new()
        assert [result.dagster_run.tags["dagster/partition"] for result in results] == ["00000002"]
    assert dagster.store.read("predictions/answered_report.json") == before


def test_a_delivery_whose_runs_died_is_closed_and_its_uploads_are_told(dagster: InProcessDagster) -> None:
    drop(dagster, "a.csv", "b.csv")
    dagster.tick()
    for _ in range(2):
        run(dagster, "00000001", dg.DagsterRunStatus.FAILURE, **{"dagster/will_retry": "true"})
        dagster.tick("1")
        assert read_report("uploads/a.csv", dagster.store) is None
    last = run(dagster, "00000001", dg.DagsterRunStatus.FAILURE, **{"dagster/will_retry": "false"})
    dagster.tick("1")
    for name in ("a.csv", "b.csv"):
        found = report(dagster, name)
        assert found.outcome == "REJECTED"
        said = str(found.document["reason"])
        assert said.startswith(f"gave up: 3 runs failed, the last one ({last.run_id})")
        assert said.endswith("drop the file again, or launch score_uploads for the partition 00000001")
    outcomes = dagster.store.read_json(answered_key("00000001"))
    assert {key: one["outcome"] for key, one in outcomes.items()} == dict.fromkeys(
        ("uploads/a.csv", "uploads/b.csv"), "REJECTED"
    )
    watching.watch.cache_clear()
    assert requested(dagster.tick("1")) == []


def test_a_cancelled_run_is_an_end_too_and_the_file_dropped_again_is_answered(dagster: InProcessDagster) -> None:
    drop(dagster, "a.csv")
    dagster.tick()
    cancelled = run(dagster, "00000001", dg.DagsterRunStatus.CANCELED)
    dagster.tick("1")
    assert f"the run {cancelled.run_id} was cancelled" in str(report(dagster, "a.csv").document["reason"])
    dagster.store.replace("uploads/a.csv", BODY + BODY.split(b"\n")[1] + b"\n")
    dagster.answer_new("1")
    assert report(dagster, "a.csv").outcome == "PREDICTED"


def test_what_a_dead_run_had_answered_stays_answered(dagster: InProcessDagster) -> None:
    drop(dagster, "a.csv")
    dagster.answer_new()
    drop(dagster, "b.csv")
    dagster.tick("1")
    dagster.run("score_uploads", "00000002")
    store = dagster.store
    store.client.delete_object(Bucket=store.bucket, Key=store.physical(answered_key("00000002")))
    run(dagster, "00000002", dg.DagsterRunStatus.FAILURE, **{"dagster/will_retry": "false"})
    watching.watch.cache_clear()
    dagster.tick("2")
    assert report(dagster, "b.csv").outcome == "PREDICTED"
    assert store.read_json(answered_key("00000002"))["uploads/b.csv"]["outcome"] == "PREDICTED"


def test_a_run_that_cannot_go_on_is_given_up_on_in_its_own_words(dagster: InProcessDagster) -> None:
    drop(dagster, "a.csv")
    dagster.tick()
    champion = "models/champion/dev/00000001.json"
    dagster.store.create(champion, b"not json")
    failed: Any = dagster.run("score_uploads", "00000001", raises=False)
    assert not failed.success
    dagster.tick("1")
    assert "is not the JSON document it should be" in str(report(dagster, "a.csv").document["reason"])


def test_a_single_small_file_goes_before_a_burst_and_a_burst_before_one_large_file(dagster: InProcessDagster) -> None:
    def delivery(*sizes: int) -> Delivery:
        uploads = [Upload(f"uploads/{number}.csv", "e", size, "") for number, size in enumerate(sizes)]
        return Delivery(1, uploads, "")

    small, burst, large = delivery(1_000), delivery(*[1_000] * 1_000), delivery(5 << 30)
    assert sensors.priority(small) > sensors.priority(burst) > sensors.priority(large)
    drop(dagster, "a.csv")
    result = dagster.tick()
    assert isinstance(result, dg.SensorResult)
    (request,) = result.run_requests or []
    assert request.tags[PRIORITY_TAG] == str(sensors.priority(small))
