"""A queue in which S3 tells of uploads wakes the sensor, and is believed in nothing."""

import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import dagster as dg
import pytest

from crypto_ml.settings import Settings
from crypto_ml.storage.hints import NoHints, listen
from crypto_ml.storage.objects import ObjectStore, connect
from crypto_ml_tests.deploy.account import Account, environment
from crypto_ml_tests.in_process_dagster import InProcessDagster

BUCKET = "told"
FILE = b"symbol,date,open,high,low,close,market\nA,2024-01-01,1,1,1,1,1\n"


@pytest.fixture(scope="module")
def queue(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a queue that a real S3 tells of what is put below uploads/."""
    with (
        Account(tmp_path_factory.mktemp("told"), "s3,sqs", strict=False) as account,
        environment(account.environment),
    ):
        sqs, s3 = account.client("sqs"), account.client("s3")
        url: str = sqs.create_queue(QueueName="uploads")["QueueUrl"]
        (arn,) = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"].values()
        policy: dict[str, Any] = {"Effect": "Allow", "Principal": "*", "Action": "sqs:SendMessage", "Resource": arn}
        document = json.dumps({"Version": "2012-10-17", "Statement": [policy]})
        sqs.set_queue_attributes(QueueUrl=url, Attributes={"Policy": document})
        s3.create_bucket(Bucket=BUCKET)
        only = {"Key": {"FilterRules": [{"Name": "prefix", "Value": "uploads/"}]}}
        told = {"QueueArn": arn, "Events": ["s3:ObjectCreated:*"], "Filter": only}
        s3.put_bucket_notification_configuration(
            Bucket=BUCKET, NotificationConfiguration={"QueueConfigurations": [told]}
        )
        while listen(url).wait(0):  # the one that S3 sends to see whether it may
            pass
        yield url


@pytest.fixture
def store(queue: str) -> ObjectStore:
    return connect(BUCKET)


def test_what_is_put_is_told_of_once_and_nothing_else_is(queue: str, store: ObjectStore) -> None:
    told = listen(queue)
    store.replace("predictions/other.csv", FILE)
    assert not told.wait(0)
    store.replace("uploads/a.csv", FILE)
    assert told.wait(5)
    assert not told.wait(0)


def test_of_many_uploads_one_wait_takes_many_messages(queue: str, store: ObjectStore) -> None:
    told = listen(queue)
    for number in range(25):
        store.replace(f"uploads/{number}.csv", FILE)
    waits = 0
    while told.wait(1 if not waits else 0):
        waits += 1
    assert waits == 1


def test_a_queue_that_is_not_there_is_said_so_with_what_to_check(queue: str) -> None:
    with pytest.raises(NoHints, match=r"QueueDoesNotExist|NonExistentQueue"):
        listen(f"{queue}-of-nobody").wait(0)


@pytest.fixture
def site(queue: str) -> Iterator[Callable[..., InProcessDagster]]:
    """A Dagster on a prefix of its own, with the queue of this URL."""
    with dg.DagsterInstance.ephemeral() as instance:

        def made(prefix: str, url: str) -> InProcessDagster:
            return InProcessDagster.of(Settings(bucket=BUCKET, prefix=prefix, uploads_queue=url), instance)

        yield made


def requested(tick: dg.SensorResult | dg.SkipReason) -> list[str | None]:
    assert isinstance(tick, dg.SensorResult), tick
    return [request.partition_key for request in tick.run_requests or []]


@pytest.mark.timeout(15)  # it waits longer where nobody wakes it
def test_the_sensor_is_woken_by_the_queue_and_finds_an_upload_by_its_listing(
    site: Callable[..., InProcessDagster], queue: str, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("crypto_ml.defs.sensors.LONGEST_UNTOLD", 20.0)
    monkeypatch.setattr("crypto_ml.defs.sensors.LONGEST_WAIT", 40.0)
    of_another = connect(BUCKET, "told-of")

    def drop() -> None:
        of_another.replace("uploads/late.csv", FILE)
        store.replace("uploads/what-is-told-of.csv", FILE)

    threading.Timer(0.3, drop).start()
    assert requested(site("told-of", queue).tick()) == ["00000001"]


def test_without_a_queue_to_ask_the_sensor_looks_as_it_ever_did_and_says_why(
    site: Callable[..., InProcessDagster], queue: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("crypto_ml.defs.sensors.LONGEST_WAIT", 1.0)
    threading.Timer(0.1, lambda: connect(BUCKET, "untold").replace("uploads/a.csv", FILE)).start()
    dagster = site("untold", f"{queue}-of-nobody")
    assert requested(dagster.tick()) == ["00000001"]
    skipped = dagster.tick()
    assert isinstance(skipped, dg.SkipReason)
    assert "gives no hints" in str(skipped.skip_message)
    assert "CRYPTO_ML_UPLOADS_QUEUE" in str(skipped.skip_message)
