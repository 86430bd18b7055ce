"""The sensor sees every delivery through: asked for once, again where nobody runs it, closed where its runs died."""

import errno
import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
import duckdb
import pytest
from dagster._core.test_utils import create_run_for_test
from deltalake.exceptions import DeltaError
from hypothesis import example, given
from hypothesis import strategies as st

from crypto_ml.defs import sensors
from crypto_ml.defs import watch as watching
from crypto_ml.defs.dagster_internals import PRIORITY_TAG
from crypto_ml.defs.resources import Platform
from crypto_ml.errors import Refused
from crypto_ml.ledger.deliveries import Delivery, DeliveryLog, Upload, delivery_key
from crypto_ml.ledger.giving_up import give_up
from crypto_ml.ledger.layout import answered_key
from crypto_ml.ledger.reports import Report, read_report
from crypto_ml.ledger.retries import RetryLog
from crypto_ml.sample import sample_upload
from crypto_ml.storage.failures import StoreNotUsable, StoreRefused, StoreUnavailable
from crypto_ml.visible import visible
from crypto_ml_tests.in_process_dagster import InProcessDagster

BODY = b"\n".join(sample_upload().split(b"\n")[:20]) + b"\n"


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is waited for."""
    for name in ("GRACE", "SETTLED", "SHORTEST_PAUSE"):
        monkeypatch.setattr(f"crypto_ml.defs.next_step.{name}", timedelta(0))
    monkeypatch.setattr(watching, "GRACE", timedelta(0))
    monkeypatch.setattr(watching, "SECONDS_BETWEEN_REVIEWS", 0.0)
    monkeypatch.setattr("crypto_ml.defs.failures.SECONDS_BETWEEN", 0)


def requests(result: dg.SensorResult | dg.SkipReason) -> list[dg.RunRequest]:
    return list(result.run_requests or []) if isinstance(result, dg.SensorResult) else []


def requested(result: dg.SensorResult | dg.SkipReason) -> list[str]:
    return [str(request.partition_key) for request in requests(result)]


@contextmanager
def failing(error: Exception) -> Iterator[None]:
    """Every run meets this error where it reads the files."""

    def fail(*_: Any) -> None:
        raise error

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("crypto_ml.stages.road.receive", fail)
        yield


def give_up_on(dagster: InProcessDagster, name: str) -> Delivery:
    """A delivery of one file that was given up."""
    drop(dagster, name)
    (number,) = map(int, requested(dagster.tick()))
    delivery = DeliveryLog(dagster.store).get(number)
    give_up(delivery, "gave up: its process died", "run", dagster.store)
    return delivery


def outcome(dagster: InProcessDagster, delivery: Delivery) -> dict[str, Any]:
    (found,) = dagster.store.read_json(answered_key(delivery.id)).values()
    return dict(found)


def run(dagster: InProcessDagster, delivery: str, status: dg.DagsterRunStatus, **tags: str) -> dg.DagsterRun:
    """A run of a delivery that Dagster knows of, in this state; one that failed had begun."""
    known = {"dagster/partition": delivery, **tags}
    if status != dg.DagsterRunStatus.FAILURE:
        return made(dagster, status, known)
    failed = made(dagster, dg.DagsterRunStatus.STARTING, known)
    dagster.instance.report_dagster_event(dg.DagsterEvent("PIPELINE_START", "score_uploads"), failed.run_id)
    dagster.instance.report_run_failed(failed)
    return failed


def made(dagster: InProcessDagster, status: dg.DagsterRunStatus, tags: dict[str, str]) -> dg.DagsterRun:
    run: dg.DagsterRun = create_run_for_test(dagster.instance, "score_uploads", status=status, tags=tags)
    return run


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
        assert said.startswith(f"gave up: 3 runs failed, the last one ({last.run_id}): its process died; once")
        assert said.endswith("once its cause is gone, `crypto-ml retry 00000001` answers it, or drop the file again")
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
    for _ in range(3):
        run(dagster, "00000002", dg.DagsterRunStatus.FAILURE, **{"dagster/will_retry": "false"})
    watching.watch.cache_clear()
    dagster.tick("2")
    assert report(dagster, "b.csv").outcome == "PREDICTED"
    assert store.read_json(answered_key("00000002"))["uploads/b.csv"]["outcome"] == "PREDICTED"


@pytest.mark.parametrize("error", [Refused("no such thing"), StoreRefused("a key that is too long")])
def test_what_was_refused_is_not_run_again_and_given_up_on_in_its_own_words(
    dagster: InProcessDagster, error: Exception
) -> None:
    drop(dagster, "a.csv")
    dagster.tick()
    with failing(error):
        dagster.run("score_uploads", "00000001", raises=False)
    assert requested(dagster.tick("1")) == []
    assert str(report(dagster, "a.csv").document["reason"]).startswith("gave up: a run failed (")
    assert f"): {error}; once" in str(report(dagster, "a.csv").document["reason"])


def test_what_nobody_expected_is_given_up_on_after_three_runs(dagster: InProcessDagster) -> None:
    drop(dagster, "a.csv")
    dagster.tick()
    for _ in range(3):
        assert read_report("uploads/a.csv", dagster.store) is None
        with failing(ValueError("a price of purple")):
            dagster.run("score_uploads", "00000001", raises=False)
        dagster.tick("1")
    said = str(report(dagster, "a.csv").document["reason"])
    assert said.startswith("gave up: 3 runs failed")
    assert "a price of purple" in said


def wrapped(inner: Exception) -> Exception:
    outer = RuntimeError("while sorting")
    outer.__cause__ = inner
    return outer


AWAY = [
    StoreUnavailable("the store did not answer"),
    StoreNotUsable("the store does not accept the AWS credentials (ExpiredToken): renew them"),
    OSError(errno.ENOSPC, "No space left on device"),
    OSError(errno.EMFILE, "Too many open files"),
    ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"),
    duckdb.OutOfMemoryException("failed to offload data block: … set by the 'max_temp_directory_size' setting"),
    DeltaError("Generic LocalFileSystem error: Unable to copy data to file: No space left on device (os error 28)"),
    wrapped(OSError(errno.EDQUOT, "Disk quota exceeded")),
]


@pytest.mark.parametrize("error", AWAY, ids=lambda error: type(error).__name__)
def test_what_was_unavailable_is_waited_for_however_often_and_then_answered(
    dagster: InProcessDagster, error: Exception
) -> None:
    drop(dagster, "a.csv")
    keys = [request.run_key for request in requests(dagster.tick())]
    for _ in range(4):
        with failing(error):
            dagster.run("score_uploads", "00000001", raises=False)
        keys += [request.run_key for request in requests(dagster.tick("1"))]
    assert read_report("uploads/a.csv", dagster.store) is None
    assert len(keys) == len(set(keys)) == 5  # Dagster launches one run for each key
    dagster.run("score_uploads", "00000001")
    assert requested(dagster.tick("1")) == []
    assert report(dagster, "a.csv").outcome == "PREDICTED"


def test_a_run_whose_resources_cannot_be_set_up_is_waited_for_too(
    dagster: InProcessDagster, monkeypatch: pytest.MonkeyPatch
) -> None:
    drop(dagster, "a.csv")
    dagster.tick()

    def fail(*_: Any) -> None:
        raise StoreUnavailable("the store did not answer")

    for _ in range(4):
        with monkeypatch.context() as patch:
            patch.setattr(Platform, "setup_for_execution", fail)
            dagster.run("score_uploads", "00000001", raises=False)
        assert requested(dagster.tick("1")) == ["00000001"]
    dagster.run("score_uploads", "00000001")
    assert report(dagster, "a.csv").outcome == "PREDICTED"


def test_a_damaged_champion_rejects_no_file_and_its_repair_answers_them(dagster: InProcessDagster) -> None:
    drop(dagster, "a.csv")
    dagster.tick()
    champion = "models/champion/dev/00000001.json"
    dagster.store.create(champion, b"not json")
    for _ in range(4):
        dagster.run("score_uploads", "00000001", raises=False)
        assert requested(dagster.tick("1")) == ["00000001"]
    dagster.store.client.delete_object(Bucket=dagster.store.bucket, Key=dagster.store.physical(champion))
    dagster.run("score_uploads", "00000001")
    assert report(dagster, "a.csv").outcome == "PREDICTED"


def test_a_run_that_dagster_could_not_start_is_no_fault_of_its_files(dagster: InProcessDagster) -> None:
    drop(dagster, "a.csv")
    dagster.tick()
    for _ in range(4):
        unreached = made(dagster, dg.DagsterRunStatus.STARTING, {"dagster/partition": "00000001"})
        dagster.instance.report_run_failed(unreached, "the code server is not there")
        assert requested(dagster.tick("1")) == ["00000001"]
    (found,) = watching.waiting(dagster.instance, ["00000001"]).values()
    assert "could not start it: the code server is not there" in found[0][-1].cause


def test_runs_that_took_too_long_count_against_their_files_and_say_so(dagster: InProcessDagster) -> None:
    drop(dagster, "a.csv")
    dagster.tick()
    for _ in range(3):
        slow = made(dagster, dg.DagsterRunStatus.STARTING, {"dagster/partition": "00000001"})
        dagster.instance.report_dagster_event(dg.DagsterEvent("PIPELINE_START", "score_uploads"), slow.run_id)
        dagster.instance.report_run_failed(slow, "Exceeded maximum runtime of 7200 seconds.")
        dagster.tick("1")
    assert "Exceeded maximum runtime of 7200 seconds." in str(report(dagster, "a.csv").document["reason"])


def test_a_run_of_a_part_of_the_job_is_no_answer(dagster: InProcessDagster) -> None:
    drop(dagster, "a.csv")
    dagster.tick()
    run(dagster, "00000001", dg.DagsterRunStatus.SUCCESS)
    assert requested(dagster.tick("1")) == ["00000001"]


def test_a_delivery_that_cannot_be_closed_keeps_no_other_from_it_and_is_named(dagster: InProcessDagster) -> None:
    drop(dagster, "a.csv")
    dagster.tick()
    drop(dagster, "b.csv")
    dagster.tick("1")
    for number in ("00000001", "00000002"):
        run(dagster, number, dg.DagsterRunStatus.CANCELED)
    dagster.store.replace(delivery_key("00000001"), b"not json")
    said = dagster.tick("2")
    assert isinstance(said, dg.SkipReason)
    assert "could not see delivery 00000001 through" in str(said.skip_message)
    assert report(dagster, "b.csv").outcome == "REJECTED"
    upload = {"key": "uploads/a.csv", "etag": "e", "size": 1, "last_modified": "2026-01-01T00:00:00+00:00"}
    whole = {"noticed_at": "2026-01-01T00:00:00+00:00", "uploads": [upload]}
    dagster.store.replace(delivery_key("00000001"), json.dumps(whole).encode())
    dagster.tick("2")
    assert report(dagster, "a.csv").outcome == "REJECTED"


def test_a_look_that_fails_is_said_and_hides_no_dead_delivery(
    dagster: InProcessDagster, monkeypatch: pytest.MonkeyPatch
) -> None:
    drop(dagster, "a.csv")
    dagster.tick()
    run(dagster, "00000001", dg.DagsterRunStatus.CANCELED)

    def fail(*_: Any) -> None:
        raise ValueError("a listing of purple")

    monkeypatch.setattr("crypto_ml.ledger.listing.UploadListing.look", fail)
    said = dagster.tick("1")
    assert isinstance(said, dg.SkipReason)
    assert "could not look for uploads: a listing of purple" in str(said.skip_message)
    assert report(dagster, "a.csv").outcome == "REJECTED"


def test_a_review_that_fails_is_said_and_hides_no_new_upload(
    dagster: InProcessDagster, monkeypatch: pytest.MonkeyPatch
) -> None:
    drop(dagster, "a.csv")
    dagster.tick()

    def fail(*_: Any) -> None:
        raise ValueError("a database of purple")

    monkeypatch.setattr("crypto_ml.defs.runs.RunsOfDeliveries.of", fail)
    said = dagster.tick("1")
    assert isinstance(said, dg.SkipReason)
    assert "a database of purple" in str(said.skip_message)
    drop(dagster, "b.csv")
    assert requested(dagster.tick("1")) == ["00000002"]


def test_what_was_given_up_is_asked_for_once_for_each_request_and_answered(dagster: InProcessDagster) -> None:
    delivery = give_up_on(dagster, "a.csv")
    assert requested(dagster.tick("1")) == []
    for _ in range(2):
        RetryLog(dagster.store).ask([delivery], datetime.now(UTC))
    (request,) = requests(dagster.tick("1"))
    assert (request.partition_key, request.run_key) == ("00000001", "00000001 retry 2")
    dagster.run("score_uploads", "00000001")
    assert report(dagster, "a.csv").outcome == outcome(dagster, delivery)["outcome"] == "PREDICTED"
    for _ in range(2):
        assert requested(dagster.tick("1")) == []
        watching.watch.cache_clear()


def test_what_is_given_up_again_is_asked_for_no_more_also_by_a_new_process(dagster: InProcessDagster) -> None:
    delivery = give_up_on(dagster, "a.csv")
    old = run(dagster, "00000001", dg.DagsterRunStatus.CANCELED)
    RetryLog(dagster.store).ask([delivery], datetime.now(UTC))
    (request,) = requests(dagster.tick("1"))
    again = run(dagster, "00000001", dg.DagsterRunStatus.CANCELED, **{"dagster/run_key": str(request.run_key)})
    assert requested(dagster.tick("1")) == []
    assert outcome(dagster, delivery)["retry"] == 1
    for place in (str(report(dagster, "a.csv").document["reason"]), str(outcome(dagster, delivery)["reason"])):
        assert again.run_id in place
        assert old.run_id not in place
    watching.watch.cache_clear()
    before = report(dagster, "a.csv")
    assert requested(dagster.tick("1")) == []
    assert report(dagster, "a.csv") == before


def test_what_was_given_up_and_is_launched_in_the_ui_is_answered_and_not_asked_for(
    dagster: InProcessDagster,
) -> None:
    delivery = give_up_on(dagster, "a.csv")
    dagster.run("score_uploads", "00000001")
    assert report(dagster, "a.csv").outcome == outcome(dagster, delivery)["outcome"] == "PREDICTED"
    watching.watch.cache_clear()
    assert requested(dagster.tick("1")) == []


def test_what_was_given_up_and_is_dropped_again_with_the_same_bytes_is_answered(dagster: InProcessDagster) -> None:
    give_up_on(dagster, "a.csv")
    found = dagster.store.head("uploads/a.csv")
    assert found is not None
    while dagster.store.replace("uploads/a.csv", BODY) and dagster.store.head("uploads/a.csv") == found:
        pass  # a store that counts whole seconds cannot tell two drops within one
    dagster.answer_new("1")
    assert report(dagster, "a.csv").outcome == "PREDICTED"


def test_a_single_small_file_goes_before_a_burst_and_a_burst_before_one_large_file(dagster: InProcessDagster) -> None:
    def delivery(*sizes: int) -> Delivery:
        uploads = [Upload(f"uploads/{number}.csv", "e", size, "") for number, size in enumerate(sizes)]
        return Delivery(1, uploads, "")

    small, burst, large = delivery(1_000), delivery(*[1_000] * 1_000), delivery(5 << 30)
    assert sensors.priority(small) > sensors.priority(burst) > sensors.priority(large)
    drop(dagster, "a.csv")
    result = dagster.tick()
    assert isinstance(result, dg.SensorResult)
    (request,) = requests(result)
    assert request.tags[PRIORITY_TAG] == str(sensors.priority(small))
    assert request.tags[sensors.FILES_TAG] == "a.csv"


@given(names=st.lists(st.text(min_size=1, max_size=200), min_size=1, max_size=6))
@example(["2024/prices.csv", "b.csv", "c.csv", "d.csv", "e.csv"])
def test_a_run_is_tagged_with_the_names_of_its_files_on_one_short_line(names: list[str]) -> None:
    uploads = [Upload(f"uploads/{name}", "e", 1, "2024-01-01T00:00:00+00:00") for name in names]
    tag = sensors.files_named(Delivery(1, uploads, ""))
    assert visible(tag) == tag
    assert len(tag) < 300
    for name in names[: sensors.MOST_NAMED]:
        assert visible(name)[: sensors.LONGEST_NAME - 1] in tag
    assert tag.endswith(f" and {len(names) - 3} more") == (len(names) > 3) or names[-1].endswith("more")
