"""What was refused is not done again, on whatever instance: only processes that died are run once more."""

from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa
import pytest

from crypto_ml.definitions import build_defs
from crypto_ml.defs.resources import Platform
from crypto_ml.defs.schedules import weekly_retraining
from crypto_ml.settings import Settings
from crypto_ml.storage.history import SCHEMA
from crypto_ml_tests.forecasting.markets import market
from crypto_ml_tests.in_process_dagster import InProcessDagster

REPOSITORY = Path(__file__).resolve().parents[2]
JOBS = ("score_uploads", "retrain", "promote_model", "daily_forecast", "retract_upload", "upkeep")


@pytest.mark.parametrize("name", JOBS)
def test_no_job_is_run_again_because_a_step_failed(name: str) -> None:
    job = build_defs(Settings()).resolve_job_def(name)
    assert job.run_tags["dagster/retry_on_asset_or_op_failure"] == "false"


@pytest.mark.parametrize("name", ["dagster.yaml", "deploy/dagster.yaml"])
def test_an_instance_runs_again_what_died_and_not_what_failed(name: str) -> None:
    lines = (REPOSITORY / name).read_text().splitlines()
    at = lines.index("run_retries:")
    assert lines[at + 1 : at + 4] == ["  enabled: true", "  max_retries: 2", "  retry_on_asset_or_op_failure: false"]
    assert lines[lines.index("run_monitoring:") + 1] == "  enabled: true"  # without it no run has a time limit


def test_a_scoring_run_has_the_time_limit_of_the_settings_and_no_other_job_has_one() -> None:
    definitions = build_defs(Settings(max_run_seconds=77))
    limits = {name: definitions.resolve_job_def(name).run_tags.get("dagster/max_runtime") for name in JOBS}
    assert limits == dict.fromkeys(JOBS) | {"score_uploads": "77"}


def test_a_launchpad_describes_each_of_its_fields_and_offers_no_setting() -> None:
    definitions = build_defs(Settings(bucket="somewhere"))
    for name in JOBS:
        job = definitions.resolve_job_def(name)
        assert not fields_of(job.resource_defs["platform"].config_schema)
        for node in job.nodes:
            for field, told in fields_of(node.definition.config_schema).items():
                assert told.description, (name, field)
    promotion = definitions.resolve_job_def("promote_model").nodes[0].definition.config_schema
    assert set(fields_of(promotion)) == {"version", "rollback", "by", "why", "override"}


def fields_of(schema: Any) -> dict[str, Any]:
    return dict(getattr(schema.config_type, "fields", None) or {})


def test_a_partition_that_is_no_delivery_is_told_so_once_and_is_no_partition_any_more(
    dagster: InProcessDagster,
) -> None:
    for key in ("my own word", "999", "-1", "00000007", "\u0663" * 8):
        dagster.instance.add_dynamic_partitions("deliveries", [key])
        run = dagster.run("score_uploads", key, raises=False)
        failed = [event for event in run.all_events if event.is_step_failure]
        assert [event.step_key for event in failed] == ["raw_uploads"]
        told = failed[0].step_failure_data.user_failure_data
        assert told is not None
        assert f"{key!r} is no delivery" in str(told.description)
        assert not any(event.is_step_up_for_retry for event in run.all_events)
        assert not dagster.instance.has_dynamic_partition("deliveries", key)


def test_a_run_for_no_delivery_or_no_week_says_what_to_launch_it_for(dagster: InProcessDagster) -> None:
    said = []
    for job in ("score_uploads", "retrain"):
        run = dagster.definitions.resolve_job_def(job).execute_in_process(
            instance=dagster.instance, raise_on_error=False
        )
        failure = next(event for event in run.all_events if event.is_step_failure).step_failure_data.user_failure_data
        said.append(failure.description if failure else None)
    assert said == [
        "a run is about one delivery: launch it for one of them, by the tag dagster/partition",
        "a run is about one week: launch it for one of the partitions, each named by a Sunday such as 2018-03-18",
    ]


def test_the_weekly_schedule_launches_a_week_with_rows_to_train_on_and_says_why_it_launches_no_other(
    dagster: InProcessDagster,
) -> None:
    def tick(day: date) -> Any:
        when = datetime(day.year, day.month, day.day, 1, tzinfo=UTC)
        platform = {"platform": Platform.of(dagster.settings)}
        return weekly_retraining(
            dg.build_schedule_context(dagster.instance, resources=platform, scheduled_execution_time=when)
        )

    assert "no market history" in str(tick(date(2018, 2, 4)).skip_message)
    rows = market({"BTC": 45, "LTC": 45}).assign(known_at=datetime.now(UTC), upload_id="1.0", cleaning=1, void=None)
    known = pa.Table.from_pandas(rows[SCHEMA.names], schema=SCHEMA, preserve_index=False)
    dagster.deployment.history.append(known, append_id="1.0", known_at=datetime.now(UTC))
    assert tick(date(2018, 2, 4)).partition_key == "2018-01-28"
    assert "the newest is of 2018-02-14" in str(tick(date(2018, 2, 25)).skip_message)
    assert "the first week that can be trained is" in str(tick(date(2018, 1, 7)).skip_message)
