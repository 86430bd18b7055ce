"""What is watched, in a real Dagster: what its assets show, what an alarm asks for, and what no run ever says."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import pytest
from pydantic import SecretStr

from crypto_ml.defs.alarm_sensor import alarm_sensor
from crypto_ml.defs.machine import memory
from crypto_ml.defs.partitions import last_week
from crypto_ml.defs.resources import Platform
from crypto_ml.ledger.alarms import AlarmLog, Condition, after_look
from crypto_ml.settings import Settings
from crypto_ml.storage.objects import ObjectStore
from crypto_ml_tests.forecasting.markets import market
from crypto_ml_tests.in_process_dagster import InProcessDagster
from crypto_ml_tests.stages.monitoring.inbox import opened
from crypto_ml_tests.stages.road import upload

SECRET = "Wq7pT0kenNobodySees"  # noqa: S105 - what must never be shown
MONITORED = ("prediction_performance", "model_drift", "data_faults", "service_health", "machine_use")


def test_a_look_shows_what_it_saw_and_tells_of_it_and_no_run_says_whom(
    store: ObjectStore, capfd: pytest.CaptureFixture[str]
) -> None:
    with opened() as inbox, dg.DagsterInstance.ephemeral() as instance:
        chosen = Settings(
            bucket=store.bucket, prefix=store.prefix, alarm_urls=SecretStr(inbox.url(SECRET)), environment="dev"
        )
        dagster = InProcessDagster.of(chosen, instance)
        rows = market({"BTC": 80, "ETH": 80, "LTC": 80}, seed=1)
        sick = (rows["symbol"] == "ETH") & (rows["date"] >= "2018-03-20")
        for name in ("open", "high", "low", "close"):
            rows.loc[sick, name] *= 1_000
        store.replace("uploads/prices.csv", upload(rows))
        dagster.answer_new()
        assert store.read_json("predictions/prices_report.json")["notes"][-1].startswith(
            "1 row opens more than 7.4 times"
        )
        result = dagster.run("monitor")
        dagster.run("report_on_drift")
        assert [message["title"].rpartition(": ")[2] for message in inbox.messages] == ["units changed"]
        shown: dict[str, Any] = {name: result.asset_materializations_for_node(name)[0].metadata for name in MONITORED}
        assert shown["prediction_performance"]["dagster/row_count"].value == 3 * 79
        assert "data:image/svg+xml" in str(shown["prediction_performance"]["losses"].value)
        assert shown["data_faults"]["unit_changes"].value == 1
        assert shown["data_faults"]["alarms"].value == 1
        assert shown["service_health"]["deliveries"].value == 1
        assert shown["machine_use"]["peak_memory_bytes"].value > 0
        failed = {one.check_name for one in result.get_asset_check_evaluations() if not one.passed}
        assert failed == {"units_unchanged"}
        dagster.run("monitor")
        assert len(inbox.messages) == 1
        said = "".join(
            str(entry.to_json()) if hasattr(entry, "to_json") else str(entry)
            for run in instance.get_runs()
            for entry in [run.run_config, run.tags, *instance.all_logs(run.run_id)]
        )
        assert SECRET not in said
    assert SECRET not in "".join(capfd.readouterr())
    assert not any(SECRET.encode() in store.read(found.key) for found in store.list("receipts/"))


def test_the_memory_of_a_container_is_what_it_is_given(tmp_path: Path) -> None:
    limit = tmp_path / "memory.max"
    machine = memory([limit])
    assert machine is not None
    for written, there in (("max\n", machine), ("1048576\n", 1 << 20), (f"{machine * 2}\n", machine)):
        limit.write_text(written)
        assert memory([limit]) == there


def test_a_confirmed_alarm_asks_for_one_retrain_of_the_last_week_where_a_setting_says_so(
    dagster: InProcessDagster,
) -> None:
    week = last_week(datetime.now(UTC).date())
    rows = market({"BTC": 300, "ETH": 300})
    rows["date"] += pd.Timestamp(week) + pd.Timedelta(days=6) - rows["date"].max()
    dagster.store.replace("uploads/prices.csv", upload(rows))
    dagster.answer_new()
    willing = dagster.settings.model_copy(update={"retrain_on_alarm": True})

    def tick(settings: Settings, cursor: str | None = None) -> Any:
        context = dg.build_sensor_context(
            dagster.instance, cursor=cursor, resources={"platform": Platform.of(settings)}
        )
        return alarm_sensor(context)

    def look(day: str) -> None:
        bad = Condition("model_drifts", False, "worse", 1.0, "retrain", day, asks_retrain=True)
        AlarmLog(dagster.store).change(lambda state, number: after_look(state, [bad], number, datetime.now(UTC)))

    look("2026-01-01")
    assert "not asked yet" in tick(willing).skip_message
    look("2026-01-02")
    assert "is not true" in tick(dagster.settings).skip_message
    found = tick(willing)
    (request,) = found.run_requests
    assert (request.run_key, request.partition_key, request.job_name) == ("model_drifts-1", week, None)
    assert alarm_sensor.job_name == "retrain"
    assert "not asked yet" in tick(willing, found.cursor).skip_message
    dagster.instance.report_runless_asset_event(dg.AssetMaterialization("trained_model", partition=week))
    assert f"the week {week} was trained on" in tick(willing).skip_message
