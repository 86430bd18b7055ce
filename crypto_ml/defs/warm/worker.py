"""What a worker does: it opens the deployment, waits for a run, executes it as Dagster's own worker would, and ends.

Everything that may have changed since it opened is asked for again when the run begins: the champion pointer by the
resource, the history by each step. A run is never answered with what the worker found when it was made.
"""

import json
import logging
import os
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final

import dagster as dg

from crypto_ml.defs.resources import opened
from crypto_ml.defs.warm.dagster_launching import (
    DefaultRunLauncher,
    EngineEventData,
    InstanceRef,
    ModuleCodePointer,
    ReconstructableJob,
    ReconstructableRepository,
    capture_interrupts,
    core_execute_run,
    deserialize_value,
    get_run_crash_explanation,
    pop_captured_interrupt,
    recon_job_from_origin,
)
from crypto_ml.defs.warm.records import write_at_once
from crypto_ml.ledger.software import software
from crypto_ml.settings import Settings

if TYPE_CHECKING:
    from crypto_ml.forecasting.bundle import ModelBundle

ATTRIBUTE: Final = "defs"
"""What Dagster finds in the module, and loads."""

MOST_ROWS: Final = 1_000_000
"""Of a history with more rows only that is read of its series which the upkeep has kept."""

MOST_SERIES: Final = 1_000
"""So many of them are held in memory by a process that waits."""

OURS: Final = "crypto_ml."
"""What a code location is called that opens a deployment of ours."""

log: Final = logging.getLogger(__name__)


def load(instance_ref: str, module: str, job: str) -> None:
    """Give this process the environment that runs of the location have, and build its definitions.

    Both are kept by those forked from it. Definitions that cannot be built are left to the run, which says why.
    """
    loader = deserialize_value(instance_ref, InstanceRef).secrets_loader
    if loader is not None:
        os.environ.update(loader.get_secrets_for_environment(module))
    try:
        _prepared(module, job).get_definition()
        software()
    except Exception as error:  # noqa: BLE001 - whatever it is, the run will meet it as well
        log.warning("the definitions of %s cannot be loaded: %s", module, error)


def _prepared(module: str, job: str) -> ReconstructableJob:
    """A job as Dagster finds it; asked for again, it is the one built last."""
    return ReconstructableRepository.for_module(module, ATTRIBUTE, str(Path.cwd())).get_reconstructable_job(job)


def work(pipe: Connection, instance_ref: str, module: str) -> None:
    """Open, say so, wait for one run, execute it. Returns also where nobody is left to ask for one."""
    write_at_once()
    with capture_interrupts(), ExitStack() as stack:
        instance = stack.enter_context(dg.DagsterInstance.from_ref(deserialize_value(instance_ref, InstanceRef)))
        for _ in open_ahead(instance) if module.startswith(OURS) else ():
            if pipe.poll():  # somebody waits: what is left is opened as the run needs it
                break
        pipe.send_bytes(b'{"ready": true}')
        try:
            run_id = str(json.loads(pipe.recv_bytes())["run"])
        except EOFError:
            return
        pop_captured_interrupt()  # one from before was not meant for this run
        execute(instance, run_id)
        pipe.send_bytes(b'{"done": true}')


def open_ahead(instance: dg.DagsterInstance) -> Iterator[str]:
    """Open what a run opens, and go once through what it does, with the sample and without a trace; piece by piece.

    What cannot be opened now is left to the run, which says what is wrong with it, and is tried again for it.
    """
    try:
        settings = Settings.from_environment()
        deployment = opened(settings)
        instance.get_run_records(limit=1)
        yield "what is known of runs"
        champion = deployment.registry.champion()
        # that the first model serves from now on is for a run to decide, not for a process that waits for one
        bundle = deployment.bundle(champion.version) if champion else deployment.first_bundle()
        yield "the store, and what serves"
        version = deployment.history.version()
        yield "the history"
        if version is not None:
            few = deployment.history.count(version) <= MOST_ROWS
            deployment.history.slugs(None if few else (), version)
            yield "which coin each symbol is"
            deployment.series.at_hand(list(bundle.coins)[:MOST_SERIES], version)
            yield "the last rows of the series that the model knows"
        _rehearse(bundle, settings)
    except Exception as error:  # noqa: BLE001 - whatever it is, the run will meet it as well
        log.warning("a process for runs could not open everything ahead: %s", error)


def _rehearse(bundle: "ModelBundle", settings: Settings) -> None:
    """Score the sample on local disk, which loads what is loaded when it is first used."""
    from crypto_ml.forecasting.file_scoring import score_file
    from crypto_ml.forecasting.intake import IntakeRules
    from crypto_ml.sample import sample_upload

    with TemporaryDirectory(prefix="crypto_ml-warm-") as name:
        upload = Path(name) / "sample.csv"
        upload.write_bytes(sample_upload())
        score_file(upload, Path(name) / "out.csv", bundle, settings.recovery, IntakeRules(datetime.now(UTC).date()))


def execute(instance: dg.DagsterInstance, run_id: str) -> None:
    """Execute a run, with the events that a stock worker reports. What goes wrong stands in the run's own log."""
    run = instance.get_run_by_id(run_id)
    if run is None:
        log.warning("the run %s was deleted before it began", run_id)
        return
    pid = os.getpid()
    instance.report_engine_event(f"Started process for run (pid: {pid}).", run, EngineEventData.in_process(pid))
    try:
        for _ in core_execute_run(_job_of(run), run, instance, inject_env_vars=False):
            pass
    except BaseException as error:  # noqa: BLE001 - Dagster has written it to the run's log before it raised it
        log.debug("the run %s ended early: %s", run_id, error)
    finally:
        instance.report_engine_event(f"Process for run exited (pid: {pid}).", run)


def _job_of(run: dg.DagsterRun) -> ReconstructableJob:
    """The job that a run's origin names: where that is what was built ahead, this very one."""
    origin = run.job_code_origin
    assert origin is not None  # noqa: S101 - the launcher has looked at it
    pointer = origin.get_repo_pointer()
    if isinstance(pointer, ModuleCodePointer):
        prepared = _prepared(pointer.module, origin.job_name)
        if prepared.repository.pointer == pointer:
            return prepared
    return recon_job_from_origin(origin)


def report_crash(instance_ref: str, run_id: str, exit_code: int) -> None:
    """Say that a run's process has ended before its run, in the words of a stock server."""
    with dg.DagsterInstance.from_ref(deserialize_value(instance_ref, InstanceRef)) as instance:
        run = instance.get_run_by_id(run_id)
        if run is None or run.is_finished:
            return
        told = get_run_crash_explanation(prefix=f"Run execution process for {run_id}", exit_code=exit_code)
        instance.report_engine_event(told, run, cls=DefaultRunLauncher)
        instance.report_run_failed(run)
