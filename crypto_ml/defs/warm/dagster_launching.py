"""What of Dagster's inside a run launcher needs: the one place that imports it.

Stock launchers use each of these in the same way (`DefaultRunLauncher` and its code server, `dagster api execute_run`).
"""

from dagster._core.code_pointer import ModuleCodePointer
from dagster._core.definitions.reconstruct import ReconstructableJob, ReconstructableRepository
from dagster._core.events import EngineEventData
from dagster._core.instance.ref import InstanceRef
from dagster._core.launcher import CheckRunHealthResult, LaunchRunContext, ResumeRunContext, RunLauncher, WorkerStatus
from dagster._core.launcher.default_run_launcher import DefaultRunLauncher
from dagster._core.run_coordinator import QueuedRunCoordinator, SubmitRunContext
from dagster._core.storage.dagster_run import ACTIVE_RUN_STATUSES
from dagster._core.storage.event_log.sqlite import sqlite_event_log
from dagster._core.storage.runs.sqlite import sqlite_run_storage
from dagster._core.storage.schedules.sqlite import sqlite_schedule_storage
from dagster._core.storage.tags import HIDDEN_TAG_PREFIX
from dagster._grpc.impl import core_execute_run
from dagster._serdes import ConfigurableClassData, deserialize_value, serialize_value
from dagster._utils import get_run_crash_explanation
from dagster._utils.hosted_user_process import recon_job_from_origin
from dagster._utils.interrupts import capture_interrupts, pop_captured_interrupt
from dagster._utils.tags import TagConcurrencyLimitsCounter

SQLITE_STORAGES = (sqlite_event_log, sqlite_run_storage, sqlite_schedule_storage)
"""The modules that open SQLite for an instance, each by its name `create_engine`."""

__all__ = (
    "ACTIVE_RUN_STATUSES",
    "HIDDEN_TAG_PREFIX",
    "SQLITE_STORAGES",
    "CheckRunHealthResult",
    "ConfigurableClassData",
    "DefaultRunLauncher",
    "EngineEventData",
    "InstanceRef",
    "LaunchRunContext",
    "ModuleCodePointer",
    "QueuedRunCoordinator",
    "ReconstructableJob",
    "ReconstructableRepository",
    "ResumeRunContext",
    "RunLauncher",
    "SubmitRunContext",
    "TagConcurrencyLimitsCounter",
    "WorkerStatus",
    "capture_interrupts",
    "core_execute_run",
    "deserialize_value",
    "get_run_crash_explanation",
    "pop_captured_interrupt",
    "recon_job_from_origin",
    "serialize_value",
)
