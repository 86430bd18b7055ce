"""The run coordinator that dagster.yaml names: Dagster's own queue, which a run does not wait in where it need not."""

from threading import Lock
from typing import Any

import dagster as dg

from crypto_ml.defs.warm.dagster_launching import (
    ACTIVE_RUN_STATUSES,
    QueuedRunCoordinator,
    SubmitRunContext,
    TagConcurrencyLimitsCounter,
)
from crypto_ml.defs.warm.launcher import WarmRunLauncher


class PromptRunCoordinator(QueuedRunCoordinator):
    """QueuedRunCoordinator, with one difference: a run that a warm process waits for, and that no limit holds back,
    is launched when it is submitted, instead of when the daemon looks at its queue the next time.

    It is held back by runs that are queued as much as by those that run: none is overtaken that competes with it, and
    what the daemon launches at the same moment is counted already. All other runs are queued as usual, and in processes
    other than the daemon all runs are.
    """

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self._submitting = Lock()

    @property
    def dequeue_use_threads(self) -> bool:
        """As configured. The daemon asks at each look at its queue, and nobody else does: here the process that
        launches runs is known for what it is: it gets its nursery, and ends what others have cancelled."""
        launcher = self._instance.run_launcher
        if isinstance(launcher, WarmRunLauncher):
            launcher.keep_warm()
            launcher.end_cancelled()
        return super().dequeue_use_threads

    def submit_run(self, context: SubmitRunContext) -> dg.DagsterRun:
        """Launch the run where it need not wait, else queue it."""
        run = context.dagster_run
        launcher = self._instance.run_launcher
        if run.status != dg.DagsterRunStatus.NOT_STARTED or not isinstance(launcher, WarmRunLauncher):
            return super().submit_run(context)
        with self._submitting:
            if not (launcher.can_begin(run) and self._may_begin(run)):
                return super().submit_run(context)
            return self._instance.launch_run(run.run_id, context.workspace)

    def _may_begin(self, run: dg.DagsterRun) -> bool:
        """Whether all limits would be kept if what is queued were running as well."""
        config = self._instance.get_concurrency_config().run_queue_config
        assert config is not None  # noqa: S101 - this is the coordinator that has one
        if config.should_block_op_concurrency_limited_runs and self._instance.event_log_storage.get_pool_limits():
            return False  # who waits for a place in a pool is for the daemon to say
        filters = dg.RunsFilter(statuses=[*ACTIVE_RUN_STATUSES, dg.DagsterRunStatus.QUEUED])
        before = list(self._instance.get_runs(filters))
        most = config.max_concurrent_runs
        if most != -1 and len(before) >= most:
            return False
        return not TagConcurrencyLimitsCounter(list(config.tag_concurrency_limits or []), before).is_blocked(run)
