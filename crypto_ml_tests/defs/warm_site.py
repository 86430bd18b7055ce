"""A real instance with the launcher and the coordinator of dagster.yaml, and a code location of its own to run."""

import textwrap
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import dagster as dg
from dagster._core.launcher import (
    CheckRunHealthResult,
    DefaultRunLauncher,
    LaunchRunContext,
    ResumeRunContext,
    WorkerStatus,
)
from dagster._core.run_coordinator import SubmitRunContext
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import ModuleTarget

from crypto_ml.defs.warm.coordinator import PromptRunCoordinator
from crypto_ml.defs.warm.identity import WORKER_TAG, Process
from crypto_ml.defs.warm.launcher import WarmRunLauncher
from crypto_ml_tests.dropbox.site import until, usual_instance

CLASS = "  class: WarmRunLauncher\n"
ENDED = (dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED)

CODE = """
import os, time
import dagster as dg

SAID = "the first text"

@dg.op
def say(context):
    print("printed by", os.getpid(), flush=True)
    context.log.info(f"said: {SAID}; given: {os.environ.get('WARM_TEST_GIVEN')}")

@dg.op
def sleep(context):
    context.log.info("asleep")
    time.sleep(600)

@dg.job(tags={"crypto_ml/queue": "scoring"})
def quick(): say()

@dg.job(tags={"crypto_ml/queue": "scoring"})
def slow(): sleep()

@dg.job
def cold(): say()

defs = dg.Definitions(jobs=[quick, slow, cold], executor=dg.in_process_executor)
"""


def instance_yaml(module: str) -> str:
    """The product's dagster.yaml, whose runs are those of a module for tests; one run of a queue at once."""
    heavy = f"{{module: {__name__}, class: OtherLauncher, config: {{called: {{env: WARM_TEST_CALLED}}}}}}"
    config = f"  config: {{module: {module}, jobs: [quick, slow], heavy: {heavy}}}\n"
    return usual_instance({CLASS: CLASS + config, "value: scoring, limit: 2": "value: scoring, limit: 1"})


class OtherLauncher(DefaultRunLauncher):
    """Another launcher, with a configuration of its own: it can do all a launcher may, and tells what it was asked."""

    asked: ClassVar[list[tuple[str, str, str]]] = []
    """What the launchers of this process were asked, of which run, and what each is called."""

    without_a_way: ClassVar[set[str]] = set()
    """Those of them that cannot end a run from where they are."""

    def __init__(self, inst_data: Any, called: str) -> None:
        super().__init__(inst_data)
        self._called = called

    @classmethod
    def config_type(cls) -> Any:
        return {"called": dg.StringSource}

    @classmethod
    def from_config_value(cls, inst_data: Any, config_value: Mapping[str, Any]) -> "OtherLauncher":
        return cls(inst_data, config_value["called"])

    def launch_run(self, context: LaunchRunContext) -> None:
        self._note("launch", context.dagster_run.run_id)
        super().launch_run(context)

    def terminate(self, run_id: str) -> bool:
        self._note("terminate", run_id)
        if self._called in self.without_a_way:
            run = self._instance.get_run_by_id(run_id)
            assert run is not None
            self._instance.report_run_canceling(run)
            raise ConnectionError("no way to where the run is")
        return bool(super().terminate(run_id))  # type: ignore[no-untyped-call]

    @property
    def supports_check_run_worker_health(self) -> bool:
        return True

    def check_run_worker_health(self, run: dg.DagsterRun) -> CheckRunHealthResult:
        self._note("health", run.run_id)
        return CheckRunHealthResult(WorkerStatus.NOT_FOUND)

    @property
    def supports_resume_run(self) -> bool:
        return True

    def resume_run(self, context: ResumeRunContext) -> None:
        self._note("resume", context.dagster_run.run_id)

    def get_run_worker_debug_info(self, run: dg.DagsterRun, include_container_logs: bool | None = True) -> str:
        self._note("debug", run.run_id)
        return f"logs: {include_container_logs}"

    def _note(self, what: str, run_id: str) -> None:
        self.asked.append((what, run_id, self._called))


@dataclass
class WarmSite:
    """What a daemon is to its runs: it keeps the nursery, and launches."""

    instance: dg.DagsterInstance
    process: WorkspaceProcessContext
    code: Path
    home: Path

    @classmethod
    @contextmanager
    def at(cls, directory: Path, module: str) -> Iterator["WarmSite"]:
        """One whose code is in a module below the directory, which is on the path of all its processes."""
        home = directory / "home"
        code = directory / module / "__init__.py"
        for folder in (home, code.parent):
            folder.mkdir()
        code.write_text(textwrap.dedent(CODE))
        (home / "dagster.yaml").write_text(instance_yaml(module))
        target = ModuleTarget(module, None, str(Path.cwd()), module)
        with (
            dg.DagsterInstance.from_config(str(home)) as instance,
            WorkspaceProcessContext(instance, target) as process,
        ):
            yield cls(instance, process, code, home)

    @property
    def launcher(self) -> WarmRunLauncher:
        launcher = self.instance.run_launcher
        assert isinstance(launcher, WarmRunLauncher)
        return launcher

    @property
    def coordinator(self) -> PromptRunCoordinator:
        coordinator = self.instance.run_coordinator
        assert isinstance(coordinator, PromptRunCoordinator)
        return coordinator

    @property
    def nursery_pid(self) -> int:
        assert self.launcher._nursery is not None
        return self.launcher._nursery.process.pid

    def warm(self) -> None:
        """Return once a run would begin at once."""

        def ready() -> bool:
            assert self.coordinator.dequeue_use_threads is False  # what the daemon asks at each look
            return self.launcher._nursery is not None and self.launcher._nursery.ready

        until(ready, "no warm process")

    def created(self, job: str, tags: Mapping[str, str] | None = None) -> dg.DagsterRun:
        """A run of a job, as the daemon makes one for a sensor's request."""
        location = next(iter(self.process.create_request_context().code_locations))
        found = location.get_repositories()["__repository__"].get_full_job(job)
        plan = self.instance_plan(found)
        return self.instance.create_run(
            job_name=job,
            run_id=None,
            run_config={},
            status=dg.DagsterRunStatus.NOT_STARTED,
            tags={**found.tags, **(tags or {})},
            root_run_id=None,
            parent_run_id=None,
            step_keys_to_execute=None,
            execution_plan_snapshot=plan,
            job_snapshot=found.job_snapshot,
            parent_job_snapshot=None,
            asset_selection=None,
            asset_check_selection=None,
            resolved_op_selection=None,
            op_selection=None,
            remote_job_origin=found.get_remote_origin(),
            job_code_origin=found.get_python_origin(),
            asset_graph=location.get_repositories()["__repository__"].asset_graph,
        )

    def instance_plan(self, job: Any) -> Any:
        location = next(iter(self.process.create_request_context().code_locations))
        return location.get_execution_plan(job, {}, None, None, self.instance).execution_plan_snapshot

    def launched(self, job: str, tags: Mapping[str, str] | None = None) -> str:
        """The id of a new run that was launched as the daemon does, without the queue."""
        run = self.created(job, tags)
        self.instance.launch_run(run.run_id, self.process.create_request_context())
        return run.run_id

    def submitted(self, job: str, tags: Mapping[str, str] | None = None) -> str:
        """The id of a new run that was submitted."""
        run = self.created(job, tags)
        self.coordinator.submit_run(SubmitRunContext(run, self.process.create_request_context()))
        return run.run_id

    def run(self, run_id: str) -> dg.DagsterRun:
        found = self.instance.get_run_by_id(run_id)
        assert found is not None
        return found

    def ended(self, run_id: str) -> dg.DagsterRunStatus:
        """How the run ended, once it has."""
        until(lambda: self.run(run_id).status in ENDED, f"the run {run_id} does not end")
        return self.run(run_id).status

    def said(self, run_id: str) -> str:
        return "\n".join(entry.message for entry in self.instance.all_logs(run_id))

    def worker(self, run_id: str) -> Process | None:
        return Process.from_tag(self.run(run_id).tags.get(WORKER_TAG))
