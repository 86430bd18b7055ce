"""A real Dagster instance beside the real S3, and the graph on both, driven as the daemon drives it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import dagster as dg

from crypto_ml.definitions import build_defs
from crypto_ml.defs.partitions import DELIVERIES
from crypto_ml.defs.resources import Platform
from crypto_ml.defs.sensors import uploads_sensor
from crypto_ml.deployment import Deployment
from crypto_ml.settings import Settings
from crypto_ml.storage.objects import ObjectStore


@dataclass(frozen=True)
class InProcessDagster:
    """The whole graph on a store of its own, driven as the daemon drives it, in this process."""

    deployment: Deployment
    instance: dg.DagsterInstance
    definitions: dg.Definitions

    @classmethod
    def of(cls, settings: Settings, instance: dg.DagsterInstance) -> "InProcessDagster":
        """The graph with these settings; its deployment is the one that the graph's own resource opens."""
        return cls(Platform.of(settings).deployment, instance, build_defs(settings))

    @property
    def store(self) -> ObjectStore:
        return self.deployment.store

    @property
    def settings(self) -> Settings:
        return self.deployment.settings

    def tick(self, cursor: str | None = None) -> dg.SensorResult | dg.SkipReason:
        """One tick of the sensor; its new partitions are added, as the daemon does."""
        platform = Platform.of(self.settings)
        context = dg.build_sensor_context(self.instance, cursor=cursor, resources={"platform": platform})
        result: Any = uploads_sensor(context)
        if isinstance(result, dg.SensorResult):
            for request in result.dynamic_partitions_requests or []:
                assert request.partitions_def_name == DELIVERIES.name
                self.instance.add_dynamic_partitions(request.partitions_def_name, list(request.partition_keys))
        found: dg.SensorResult | dg.SkipReason = result
        return found

    def run(
        self, job: str, partition: str | None = None, config: Mapping[str, Any] | None = None, *, raises: bool = True
    ) -> dg.ExecuteInProcessResult:
        """Run a job, in this process."""
        return self.definitions.resolve_job_def(job).execute_in_process(
            run_config=config, instance=self.instance, partition_key=partition, raise_on_error=raises
        )

    def answer_new(self, cursor: str | None = None) -> list[dg.ExecuteInProcessResult]:
        """Tick, and run what the tick asks for."""
        result = self.tick(cursor)
        assert isinstance(result, dg.SensorResult), result
        return [self.run("score_uploads", request.partition_key) for request in result.run_requests or []]
