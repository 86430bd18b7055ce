"""Runs that begin in a process that is ready: everything else about them is as with Dagster's own launcher."""

import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import psutil
import pytest
from dagster._core.launcher import DefaultRunLauncher, WorkerStatus
from dagster._core.run_coordinator import QueuedRunCoordinator

from crypto_ml.defs.warm.identity import SUPPORTED, Process
from crypto_ml_tests.defs.warm_site import WarmSite
from crypto_ml_tests.dropbox.site import REPOSITORY, STOCK, until, usual_instance

pytestmark = pytest.mark.skipif(not SUPPORTED, reason="warm processes are forked, which is safe on Linux alone")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WarmSite]:
    directory, module = tmp_path_factory.mktemp("warm"), f"warm_{uuid.uuid4().hex[:8]}"
    (directory / ".env").write_text("WARM_TEST_GIVEN=by .env\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DAGSTER_PROJECT_ENV_FILE_PATHS", json.dumps({module: str(directory)}))
        patch.setenv("PYTHONPATH", f"{directory}{os.pathsep}{REPOSITORY}")
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


def test_limits_hold_and_what_need_not_wait_does_not(site: WarmSite) -> None:
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
import sys, time
import dagster as dg
with dg.DagsterInstance.from_config(sys.argv[1]) as instance:
    launcher = instance.run_launcher
    launcher.keep_warm()
    while not launcher._nursery.ready: time.sleep(0.02)
    print(launcher._nursery.process.pid, flush=True)
    time.sleep(600)
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
