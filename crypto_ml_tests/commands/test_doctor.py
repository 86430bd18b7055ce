"""crypto-ml doctor, against a real store; a Dagster that runs is looked at in test_demo."""

import errno
import json
import time
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from click.testing import CliRunner

from crypto_ml.cli import main
from crypto_ml.ledger.alarms import AlarmLog, Condition, after_look
from crypto_ml.ledger.deliveries import DeliveryLog
from crypto_ml.ledger.giving_up import give_up
from crypto_ml.ledger.layout import bundle_prefix
from crypto_ml.ledger.registry import Registry
from crypto_ml.model_out import first_bundle
from crypto_ml.settings import Settings
from crypto_ml.stages.settled_requests import sweep
from crypto_ml.storage.objects import ObjectStore
from crypto_ml_tests.forecasting.markets import market
from crypto_ml_tests.in_process_dagster import InProcessDagster
from crypto_ml_tests.stages.asking import ask, csv, settle
from crypto_ml_tests.stages.road import Road, upload

Findings = dict[str, tuple[str, str]]


@pytest.fixture
def settings(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """The environment that leads to `store`, and to no Dagster."""
    monkeypatch.setenv("CRYPTO_ML_BUCKET", store.bucket)
    monkeypatch.setenv("CRYPTO_ML_PREFIX", store.prefix)
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    return monkeypatch


def doctor() -> tuple[int, Findings]:
    done = CliRunner().invoke(main, ["doctor", "--json"])
    return done.exit_code, {one["what"]: (one["state"], one["detail"]) for one in json.loads(done.stdout)["findings"]}


def test_an_empty_store_is_well_and_dagster_is_not_looked_for_without_its_home(settings: pytest.MonkeyPatch) -> None:
    code, found = doctor()
    assert code == 0
    assert {what: state for what, (state, _) in found.items()} == dict.fromkeys(
        [
            "settings",
            "store",
            "clock",
            "champion",
            "retractions",
            "tables",
            "requests",
            "alarms",
            "uploads",
            "deliveries",
        ],
        "ok",
    ) | {"dagster": "skipped"}
    assert "DAGSTER_HOME is not set" in found["dagster"][1]


def test_an_alarm_that_stands_is_told_and_an_address_that_none_can_be_sent_to_by_its_number(
    settings: pytest.MonkeyPatch, store: ObjectStore
) -> None:
    bad = Condition("days_missing", False, "9 days are missing", 2.5, "ask for them", "2026-01-04", since="2026-01-02")
    AlarmLog(store).change(lambda before, number: after_look(before, [bad], number, datetime.now(UTC)))
    settings.setenv("CRYPTO_ML_ALARM_URLS", "json://localhost nothing://Wq7pT0ken")
    code, found = doctor()
    assert (code, found["alarms"][0]) == (0, "warn")
    assert "days_missing since 2026-01-02, 2.5 times the limit: 9 days are missing; ask for them" in found["alarms"][1]
    assert "cannot read: nothing 1" in found["alarms"][1]
    assert "Wq7pT0ken" not in str(found)


def test_a_setting_that_means_nothing_is_named(settings: pytest.MonkeyPatch) -> None:
    settings.setenv("CRYPTO_ML_RECOVERY", "backwards")
    code, found = doctor()
    assert (code, found["settings"][0]) == (1, "fail")
    assert "CRYPTO_ML_RECOVERY" in found["settings"][1]


def test_a_variable_that_is_no_setting_is_named_beside_those_that_are(settings: pytest.MonkeyPatch) -> None:
    settings.setenv("CRYPTO_ML_BUKET", "mine")
    code, found = doctor()
    assert (code, found["variables"][0]) == (0, "warn")
    assert "CRYPTO_ML_BUKET is no setting" in found["variables"][1]
    assert "CRYPTO_ML_BUCKET" in found["variables"][1]


def test_a_bucket_that_is_not_there_fails(settings: pytest.MonkeyPatch) -> None:
    settings.setenv("CRYPTO_ML_BUCKET", "no-such-bucket-of-crypto-ml")
    code, found = doctor()
    assert (code, found["store"][0]) == (1, "fail")
    assert "no-such-bucket-of-crypto-ml" in found["store"][1]


def test_a_champion_whose_bundle_was_damaged_fails(settings: pytest.MonkeyPatch, store: ObjectStore) -> None:
    champion = Registry(store).champion_or_first(first_bundle, datetime.now(UTC))
    assert doctor()[1]["champion"][0] == "ok"
    store.replace(bundle_prefix(champion.version) + "network.onnx", b"other bytes")
    code, found = doctor()
    assert (code, found["champion"][0]) == (1, "fail")


def test_an_upload_without_answer_is_counted_whether_noticed_or_not(
    settings: pytest.MonkeyPatch, store: ObjectStore
) -> None:
    store.create("uploads/a.csv", b"symbol\n")
    assert doctor()[1]["uploads"][1].startswith("1 unanswered, the oldest uploads/a.csv")
    DeliveryLog(store).assign_new(datetime.now(UTC))
    assert doctor()[1]["uploads"][1].startswith("1 unanswered, the oldest uploads/a.csv")


@pytest.mark.parametrize(
    ("hours", "said"), [(1, "ahead of the store's, so waits look longer"), (-1, "behind the store's")]
)
def test_a_clock_that_is_not_the_store_s_is_a_warning_that_says_which_way(
    settings: pytest.MonkeyPatch, hours: int, said: str
) -> None:
    class Clock(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> "Clock":
            return cls.fromtimestamp(time.time() + 3600 * hours, tz)

    settings.setattr("crypto_ml.commands.doctor.datetime", Clock)
    state, detail = doctor()[1]["clock"]
    assert state == "warn"
    assert said in detail


def test_an_instance_whose_daemon_never_ran_fails(settings: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    settings.setenv("DAGSTER_HOME", str(tmp_path))
    code, found = doctor()
    assert code == 1
    assert (found["daemon"][0], found["sensor"][0]) == ("fail", "fail")


def metrics() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(CliRunner().invoke(main, ["doctor", "--json"]).stdout)["metrics"]
    return found


def test_the_numbers_for_a_monitor_say_what_waits_and_what_became_of_the_rest(
    settings: pytest.MonkeyPatch, store: ObjectStore
) -> None:
    road = Road(store)
    road.drop(good=upload(market({"BTC": 5})), bad=b"nothing")
    road.answer_new()
    assert {name: metrics()[name] for name in ("unanswered", "lag_seconds", "outcomes", "deliveries")} == {
        "unanswered": 0,
        "lag_seconds": 0.0,
        "outcomes": {"PREDICTED": 1, "REJECTED": 1},
        "deliveries": 1,
    }
    road.drop(waiting=upload(market({"BTC": 6})))
    found = metrics()
    assert (found["unanswered"], found["oldest_unanswered"]) == (1, "uploads/waiting.csv")
    assert found["lag_seconds"] >= 0


def test_what_is_waited_for_is_named_with_since_when_and_when_it_is_tried_next(
    settings: pytest.MonkeyPatch, store: ObjectStore, tmp_path: Path
) -> None:
    (tmp_path / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    settings.setenv("DAGSTER_HOME", str(tmp_path))
    settings.setattr("crypto_ml.defs.failures.SECONDS_BETWEEN", 0)
    settings.setattr("crypto_ml.stages.road.receive", _full_disk)
    store.create("uploads/a.csv", b"symbol\n")
    DeliveryLog(store).assign_new(datetime.now(UTC))
    chosen = Settings(bucket=store.bucket, prefix=store.prefix.rstrip("/"))
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        instance.add_dynamic_partitions("deliveries", ["00000001"])
        instance.add_dynamic_partitions("deliveries", ["mine"])
        InProcessDagster.of(chosen, instance).run("score_uploads", "mine", raises=False)
        assert doctor()[1]["runs"] == (
            "ok",
            "no scoring run failed in the last day",
        )  # it was refused, no file's failed
        InProcessDagster.of(chosen, instance).run("score_uploads", "00000001", raises=False)
    assert doctor()[1]["runs"][0] == "warn"
    state, detail = doctor()[1]["waiting"]
    assert state == "warn"
    assert detail.startswith("00000001: unavailable since ")
    assert "No space left on device" in detail
    assert "; tried again by itself in " in detail
    assert set(metrics()["waiting"]["00000001"]) == {"for", "since", "next"}
    settings.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")  # nothing listens there
    settings.setenv("AWS_MAX_ATTEMPTS", "1")
    assert doctor()[1]["store"][0] == "fail"
    assert "No space left on device" in doctor()[1]["waiting"][1]


def _full_disk(*_: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_stuck_delivery_and_one_given_up_on_are_named_with_what_to_do(
    settings: pytest.MonkeyPatch, store: ObjectStore
) -> None:
    store.create("uploads/a.csv", b"symbol\n")
    (delivery,) = DeliveryLog(store).assign_new(datetime.now(UTC))
    settings.setattr("crypto_ml.commands.doctor.MOST_LAG", 0.0)
    assert doctor()[1]["deliveries"][0] == "warn"
    assert "no outcome for 00000001; look at their runs" in doctor()[1]["deliveries"][1]
    give_up(delivery, "gave up: its process died", "run", store)
    state, detail = doctor()[1]["deliveries"]
    assert state == "warn"
    assert "gave up on 00000001" in detail
    assert "`crypto-ml retry --given-up`" in detail


def test_answers_to_requests_that_nobody_settles_are_a_warning_that_says_who_does(
    settings: pytest.MonkeyPatch, store: ObjectStore
) -> None:
    road, ago = Road(store), datetime.now(UTC) - timedelta(minutes=40)
    asked = [ask(road, csv(upload(market({"BTC": 9}))), now=ago) for _ in range(2)]
    ask(road, csv(upload(market({"BTC": 9}))))  # just now: whoever answered it will settle it
    state, detail = doctor()[1]["requests"]
    assert state == "warn"
    assert detail.startswith("2 deliveries of answers are not in prediction_log, the first of 20")
    assert detail.endswith("; start `crypto-ml serve`, which settles them when it starts")
    settle(road, asked[0], now=ago)
    assert doctor()[1]["requests"][1].startswith("1 delivery of answers to requests is not in prediction_log")
    assert sweep(store, datetime.now(UTC)) == 1
    assert doctor()[1]["requests"] == ("ok", "all answers are in prediction_log")
