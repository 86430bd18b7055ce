"""The graph as plain data, for the snapshot test; run as a module it writes the snapshot anew."""

import json
from pathlib import Path
from typing import Any

import dagster as dg

from crypto_ml.definitions import build_defs
from crypto_ml.settings import Settings

SNAPSHOT = Path(__file__).with_name("graph.json")


def graph() -> dict[str, Any]:
    """Assets with everything a user sees of them, jobs, schedules, sensors. Code versions are left out: they change."""
    definitions = build_defs(Settings())
    specs = sorted(definitions.resolve_all_asset_specs(), key=lambda spec: spec.key.to_user_string())
    repository = definitions.get_repository_def()
    return {
        "assets": {spec.key.to_user_string(): _asset(spec) for spec in specs},
        "checks": sorted(
            f"{key.asset_key.to_user_string()}: {key.name}" for key in repository.asset_graph.asset_check_keys
        ),
        "jobs": {
            job.name: sorted(key.to_user_string() for key in job.asset_layer.selected_asset_keys)
            for job in repository.get_all_jobs()
            if not job.name.startswith("__")
        },
        "schedules": {
            schedule.name: [schedule.cron_schedule, schedule.execution_timezone, schedule.default_status.value]
            for schedule in repository.schedule_defs
        },
        "sensors": {sensor.name: sensor.default_status.value for sensor in repository.sensor_defs},
    }


def _asset(spec: dg.AssetSpec) -> dict[str, Any]:
    return {
        "description": spec.description,
        "group": spec.group_name,
        "kinds": sorted(spec.kinds),
        "owners": list(spec.owners),
        "deps": sorted(dep.asset_key.to_user_string() for dep in spec.deps),
        "partitions": type(spec.partitions_def).__name__ if spec.partitions_def else None,
        "has_code_version": spec.code_version is not None,
    }


if __name__ == "__main__":
    SNAPSHOT.write_text(json.dumps(graph(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
