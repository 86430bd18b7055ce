"""Which runs are heavy, and get a launcher of their own where there is one."""

from collections.abc import Mapping

import dagster as dg
import pytest

from crypto_ml.definitions import build_defs
from crypto_ml.defs.heavy import HEAVY_ASSETS, HEAVY_JOBS, HEAVY_TAG, is_heavy
from crypto_ml.settings import Settings

BACKFILL = {"dagster/backfill": "abcdefgh"}
LIGHT = {
    "score_uploads",
    "daily_forecast",
    "promote_model",
    "retract_upload",
    "upkeep",
    "monitor",
    "report_on_drift",
    "chain_evidence",
    "verify_evidence",
}


def run(job: str, *assets: str, tags: Mapping[str, str] | None = None) -> dg.DagsterRun:
    return dg.DagsterRun(job, tags=dict(tags or {}), asset_selection=frozenset(map(dg.AssetKey, assets)) or None)


def test_every_job_is_either_light_or_heavy() -> None:
    jobs = {job.name for job in build_defs(Settings()).jobs or ()}
    assert jobs == LIGHT | set(HEAVY_JOBS)
    assert {job for job in jobs if is_heavy(run(job))} == set(HEAVY_JOBS)


def test_an_asset_that_is_heavy_makes_any_run_heavy() -> None:
    keys = {key.to_user_string() for key in build_defs(Settings()).resolve_asset_graph().get_all_asset_keys()}
    assert set(HEAVY_ASSETS) <= keys
    for key in keys:
        assert is_heavy(run("__ASSET_JOB", "champion_model", key)) == (key in HEAVY_ASSETS)


def test_a_part_of_a_backfill_is_heavy_whatever_it_is() -> None:
    assert is_heavy(run("score_uploads", tags=BACKFILL))


@pytest.mark.parametrize("job", ["retrain", "score_uploads"])
def test_who_asks_for_a_run_may_decide_it(job: str) -> None:
    assert is_heavy(run(job, tags={HEAVY_TAG: "true"}))
    assert not is_heavy(run(job, "trained_model", tags={**BACKFILL, HEAVY_TAG: "False"}))
