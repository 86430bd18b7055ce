"""What was refused is not done again, on whatever instance: only processes that died are run once more."""

from pathlib import Path

import pytest

from crypto_ml.definitions import build_defs
from crypto_ml.settings import Settings

REPOSITORY = Path(__file__).resolve().parents[2]
JOBS = ("score_uploads", "retrain", "promote_model", "daily_forecast", "retract_upload")


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
