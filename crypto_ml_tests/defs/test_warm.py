"""Runs that begin in a process that is ready: everything else about them is as with Dagster's own launcher."""

import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import dagster as dg
import psutil
import pytest
from dagster._core.launcher import DefaultRunLauncher, ResumeRunContext, WorkerStatus
from dagster._core.run_coordinator import QueuedRunCoordinator

from crypto_ml.defs.heavy import HEAVY_TAG
from crypto_ml.defs.warm.identity import SUPPORTED, WORKER_TAG, Process
from crypto_ml.defs.warm.launcher import LAUNCHED_BY, LEFT_TO_DAEMON
from crypto_ml_tests.defs.warm_site import OtherLauncher, WarmSite
from crypto_ml_tests.dropbox.site import REPOSITORY, STOCK, until, usual_instance

pytestmark = pytest.mark.skipif(not SUPPORTED, reason="warm processes are forked, which is safe on Linux alone")


UNDER_WAY = (dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WarmSite]:
    directory, module = tmp_path_factory.mktemp("warm"), f"warm_{uuid.uuid4().hex[:8]}"
    (directory / ".env").write_text("WARM_TEST_GIVEN=by .env\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DAGSTER_PROJECT_ENV_FILE_PATHS", json.dumps({module: str(directory)}))
        patch.setenv("PYTHONPATH", f"{directory}{os.pathsep}{REPOSITORY}")
        patch.setenv("WARM_TEST_CALLED", "the other")
        patch.syspath_prepend(str(directory))
        with WarmSite.at(directory, module) as made:
            made.warm()
            yield made


def test_a_run_looks_as_any_other_and_is_in_a_process_of_its_own(site: WarmSite) -> None:
    first, second = site.launched("quick"), site.launched("quick")
    assert [site.ended(first), site.ended(second)] == [dg.DagsterRunStatus.SUCCESS] * 2
    worker, other = site.worker(first), site.worker(second)
    assert worker and other and worker != other
    said = site.said(first)
    assert f"Started process for run (pid: {worker.pid})" in said
    assert "said: the first text; given: by .env" in said
    until(lambda: f"Process for run exited (pid: {worker.pid})" in site.said(first), "no end is reported")
    until(lambda: not worker.alive, "the process of an ended run stays")
    captured = list((site.home / "storage" / first / "compute_logs").glob("*.out"))
    assert [f"printed by {worker.pid}" in log.read_text() for log in captured] == [True]


def test_a_run_is_cancelled_from_another_process_of_the_instance(site: WarmSite) -> None:
    run_id = site.launched("slow")
    until(lambda: "asleep" in site.said(run_id), "the run does not begin")
    assert site.launcher.check_run_worker_health(site.run(run_id)).status == WorkerStatus.RUNNING
    with dg.DagsterInstance.from_config(str(site.home)) as webserver:
        assert webserver.run_coordinator.cancel_run(run_id)
    assert site.ended(run_id) == dg.DagsterRunStatus.CANCELED
    assert not site.launcher.terminate(run_id)


def test_a_run_whose_process_is_killed_has_failed(site: WarmSite) -> None:
    run_id = site.launched("slow")
    until(lambda: "asleep" in site.said(run_id), "the run does not begin")
    worker = site.worker(run_id)
    assert worker
    os.kill(worker.pid, signal.SIGKILL)
    assert site.ended(run_id) == dg.DagsterRunStatus.FAILURE
    assert "was terminated by signal 9 (SIGKILL)" in site.said(run_id)
    assert site.launcher.check_run_worker_health(site.run(run_id)).status == WorkerStatus.FAILED


def test_a_run_cancelled_from_another_container_is_ended_by_the_daemon(site: WarmSite) -> None:
    run_id = site.launched("slow")
    until(lambda: "asleep" in site.said(run_id), "the run does not begin")
    worker = site.worker(run_id)
    assert worker
    site.instance.add_run_tags(run_id, {WORKER_TAG: replace(worker, counting="another container's").tag})
    assert site.launcher.terminate(run_id)
    assert site.run(run_id).status == dg.DagsterRunStatus.CANCELING
    assert worker.alive, "the number was not one of this container's"
    site.instance.add_run_tags(run_id, {WORKER_TAG: worker.tag})
    site.warm()
    assert site.ended(run_id) == dg.DagsterRunStatus.CANCELED


def test_of_a_process_whose_container_is_gone_the_next_one_of_that_name_says_so(site: WarmSite) -> None:
    here = Process.of(os.getpid())

    def health(worker: Process) -> WorkerStatus:
        return site.launcher.check_run_worker_health(dg.DagsterRun("quick", tags={WORKER_TAG: worker.tag})).status

    assert health(here) == WorkerStatus.RUNNING
    assert health(replace(here, counting="an earlier container's")) == WorkerStatus.FAILED
    assert health(replace(here, counting="elsewhere", machine="another")) == WorkerStatus.RUNNING


def test_a_heavy_run_is_the_affair_of_the_other_launcher_in_everything(site: WarmSite) -> None:
    run_id = site.submitted("slow", {HEAVY_TAG: "true"})
    assert site.run(run_id).status == dg.DagsterRunStatus.QUEUED, "only what begins warm overtakes the queue"
    site.instance.launch_run(run_id, site.process.create_request_context())
    until(lambda: "asleep" in site.said(run_id), "the run does not begin")
    run = site.run(run_id)
    assert site.worker(run_id) is None
    assert site.launcher.check_run_worker_health(run).status == WorkerStatus.NOT_FOUND
    assert site.launcher.get_run_worker_debug_info(run, include_container_logs=False) == "logs: False"
    assert site.launcher.supports_resume_run
    site.launcher.resume_run(ResumeRunContext(run, None))
    with dg.DagsterInstance.from_config(str(site.home)) as webserver:
        assert webserver.run_coordinator.cancel_run(run_id)
    assert site.ended(run_id) == dg.DagsterRunStatus.CANCELED
    asked = [what for what, of, called in OtherLauncher.asked if (of, called) == (run_id, "the other")]
    assert asked == ["launch", "health", "debug", "resume", "terminate"]


def test_a_heavy_run_that_a_webserver_cannot_end_is_ended_by_the_daemon(
    site: WarmSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = site.launched("slow", {HEAVY_TAG: "true"})
    until(lambda: "asleep" in site.said(run_id), "the run does not begin")
    monkeypatch.setenv("WARM_TEST_CALLED", "the webserver's")
    monkeypatch.setattr(OtherLauncher, "without_a_way", {"the webserver's"})
    with dg.DagsterInstance.from_config(str(site.home)) as webserver:
        assert webserver.run_coordinator.cancel_run(run_id)
    assert site.run(run_id).status == dg.DagsterRunStatus.CANCELING
    site.warm()
    assert site.ended(run_id) == dg.DagsterRunStatus.CANCELED
    asked = [called for what, of, called in OtherLauncher.asked if (what, of) == ("terminate", run_id)]
    assert asked == ["the webserver's", "the other"]


def test_a_heavy_run_that_forgot_by_beginning_that_it_was_cancelled_ends_and_one_that_tries_again_does_not(
    site: WarmSite,
) -> None:
    run_id = site.launched("slow", {HEAVY_TAG: "true"})
    until(lambda: "asleep" in site.said(run_id), "the run does not begin")
    site.instance.add_run_tags(run_id, {LEFT_TO_DAEMON: run_id})
    again = site.launched("slow", {**site.run(run_id).tags})
    until(lambda: "asleep" in site.said(again), "the run does not begin")
    assert [site.run(one).status for one in (run_id, again)] == [dg.DagsterRunStatus.STARTED] * 2
    site.warm()
    assert site.ended(run_id) == dg.DagsterRunStatus.CANCELED
    assert site.run(again).status == dg.DagsterRunStatus.STARTED
    assert site.launcher.terminate(again)
    assert site.ended(again) == dg.DagsterRunStatus.CANCELED


def test_nothing_about_a_run_that_is_not_heavy_is_asked_of_the_other_launcher(site: WarmSite) -> None:
    tried_again = {LAUNCHED_BY: "OtherLauncher", WORKER_TAG: replace(Process.of(1), began=-1).tag}
    for job in ("quick", "cold"):
        run_id = site.launched(job, tried_again)
        assert site.ended(run_id) == dg.DagsterRunStatus.SUCCESS
        run = site.run(run_id)
        if job == "cold":
            assert site.worker(run_id) is None, "the process of the run before is not this one's"
            assert site.launcher.check_run_worker_health(run).status == WorkerStatus.RUNNING
        assert site.launcher.get_run_worker_debug_info(run) is None
        with pytest.raises(NotImplementedError):
            site.launcher.resume_run(ResumeRunContext(run, None))
        assert run_id not in {of for _, of, _ in OtherLauncher.asked}


def test_a_run_whose_launcher_dagster_yaml_no_longer_names_is_left_alone(site: WarmSite) -> None:
    run = site.created("slow", {LAUNCHED_BY: "Forgotten"})
    assert site.launcher.check_run_worker_health(run).status == WorkerStatus.RUNNING
    assert not site.launcher.terminate(run.run_id)
    assert "launched by Forgotten, which dagster.yaml does not name" in site.said(run.run_id)
    site.instance.delete_run(run.run_id)


def test_limits_hold_and_what_need_not_wait_does_not(site: WarmSite) -> None:
    under_way = dg.RunsFilter(statuses=[*UNDER_WAY])
    until(lambda: not site.instance.get_runs(under_way), "runs of other tests do not end")
    first = site.submitted("slow")
    assert site.run(first).status in (dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED)
    second = site.submitted("quick")
    assert site.run(second).status == dg.DagsterRunStatus.QUEUED
    until(lambda: "asleep" in site.said(first), "the run does not begin")
    assert site.launcher.terminate(first)
    assert site.ended(first) == dg.DagsterRunStatus.CANCELED
    third = site.submitted("quick")
    assert site.run(third).status == dg.DagsterRunStatus.QUEUED, "it overtook one that competes with it"
    for waiting in (second, third):
        assert site.coordinator.cancel_run(waiting)
    assert site.ended(site.submitted("quick")) == dg.DagsterRunStatus.SUCCESS


def test_runs_in_a_row_leave_nothing_behind(site: WarmSite) -> None:
    def grown() -> int:
        assert site.ended(site.launched("quick")) == dg.DagsterRunStatus.SUCCESS
        return int(psutil.Process(site.nursery_pid).memory_info().rss)

    grown()
    before = grown()
    after = [grown() for _ in range(8)][-1]
    assert after - before < 1 << 20
    nursery = psutil.Process(site.nursery_pid)
    until(lambda: len(nursery.children()) == 2, "more or less wait than were asked for")
    assert nursery.num_fds() < 30
    threads = [task.joinpath("comm").read_text().strip() for task in Path(f"/proc/{nursery.pid}/task").iterdir()]
    assert [name for name in threads if name != "jemalloc_bg_thd"] == ["python"], "a fork would lose a thread"


def test_what_it_does_not_serve_is_launched_the_usual_way(site: WarmSite) -> None:
    run_id = site.launched("cold")
    assert site.ended(run_id) == dg.DagsterRunStatus.SUCCESS
    assert site.worker(run_id) is None


def test_changed_code_is_what_the_next_run_is_made_of(site: WarmSite) -> None:
    site.code.write_text(site.code.read_text().replace("the first text", "the second text, which is longer"))
    usual = site.launched("quick")
    assert site.ended(usual) == dg.DagsterRunStatus.SUCCESS
    assert site.worker(usual) is None
    assert "said: the second text" in site.said(usual)
    site.warm()
    again = site.launched("quick")
    assert site.ended(again) == dg.DagsterRunStatus.SUCCESS
    assert site.worker(again)
    assert "said: the second text" in site.said(again)


DAEMON = """
import signal, sys
import dagster as dg
from crypto_ml_tests.dropbox.site import until
with dg.DagsterInstance.from_config(sys.argv[1]) as instance:
    launcher = instance.run_launcher
    launcher.keep_warm()
    until(lambda: launcher._nursery.ready, "no warm process")
    print(launcher._nursery.process.pid, flush=True)
    signal.pause()
"""


def test_nothing_is_left_when_the_daemon_is_killed(site: WarmSite) -> None:
    command = [sys.executable, "-c", DAEMON, str(site.home)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as daemon:
        assert daemon.stdout is not None
        nursery = psutil.Process(int(daemon.stdout.readline()))
        until(lambda: len(nursery.children()) == 2, "none waits")
        family = [Process.of(one.pid) for one in [nursery, *nursery.children()]]
        daemon.kill()
    until(lambda: not any(one.alive for one in family), "a process is left")


def test_without_its_two_classes_dagster_yaml_is_that_of_stock_dagster(tmp_path: Path) -> None:
    (tmp_path / "dagster.yaml").write_text(usual_instance(STOCK))
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        assert type(instance.run_launcher) is DefaultRunLauncher
        assert type(instance.run_coordinator) is QueuedRunCoordinator
