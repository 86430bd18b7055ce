"""Which runs are heavy: those that take long, much memory, or libraries that scoring does without. Said here alone.

Where `dagster.yaml` names a second launcher for them (`heavy:` below `run_launcher`), each gets what that launcher
makes: a container, a task, a pod. What is not heavy goes on as if there were none.
"""

from typing import Final

import dagster as dg

from crypto_ml.defs.dagster_internals import BACKFILL_ID_TAG

HEAVY_TAG: Final = "crypto_ml/heavy"
"""The tag by which whoever asks for a run decides it: `true` or `false`."""

HEAVY_JOBS: Final = ("retrain", "refresh_rule", "rescore")
HEAVY_ASSETS: Final = ("scaler", "trained_model", "refreshed_rule", "backtest", "rescored_month")
"""What is heavy also where it is materialised by itself, or among others."""


def is_heavy(run: dg.DagsterRun) -> bool:
    """Whether a run is heavy: as its tag says, else by its job, what it materialises, or as part of a backfill."""
    said = run.tags.get(HEAVY_TAG)
    if said is not None:
        return said.strip().lower() == "true"
    if run.job_name in HEAVY_JOBS or BACKFILL_ID_TAG in run.tags:
        return True
    return any(key.to_user_string() in HEAVY_ASSETS for key in run.asset_selection or ())
