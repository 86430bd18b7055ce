"""A real cluster of processes, with TLS: workers and schedulers are killed, and what was computed stands."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from dask import config

from crypto_ml.engine.cluster import Cluster, ClusterLost, ShardEndsWorkers
from crypto_ml.engine.mapping import Engine, Ran
from crypto_ml.errors import Refused, Unavailable
from crypto_ml.storage.objects import ObjectStore
from crypto_ml_tests.dropbox.site import until
from crypto_ml_tests.engine.counted import begun, work
from crypto_ml_tests.engine.test_engine import deployment_on, squares

pytestmark = pytest.mark.faults
ROOT = Path(__file__).parents[2]
DEATHS = 3
SHARDS = 6


@dataclass(frozen=True)
class Running:
    """A scheduler with two workers of one thread each."""

    address: str
    scheduler: subprocess.Popen[bytes]


def certified(folder: Path) -> dict[str, str]:
    """Dask's variables for certificates, as docs/cluster.md has them, and a certificate that vouches for itself."""
    certificate, key = folder / "node.pem", folder / "node.key"
    words = f"req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=cluster -out {certificate} -keyout {key}"
    subprocess.run(["openssl", *words.split()], check=True, capture_output=True)
    tls = "DASK_DISTRIBUTED__COMM__TLS__"
    who = ("SCHEDULER", "WORKER", "CLIENT")
    return {
        "DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION": "true",
        f"{tls}CA_FILE": str(certificate),
        **{f"{tls}{one}__CERT": str(certificate) for one in who},
        **{f"{tls}{one}__KEY": str(key) for one in who},
    }


@contextmanager
def dask(log: Path, variables: dict[str, str], *words: str) -> Iterator[subprocess.Popen[bytes]]:
    """A command of Dask, killed in the end with all that it started."""
    # workers import what they are to run, of which some is in the tests
    allowed = {"PYTHONPATH": str(ROOT), "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": str(DEATHS - 1), **variables}
    command = [str(Path(sys.executable).with_name("dask")), *words]
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, env={**os.environ, **allowed}, stdout=out, stderr=out, start_new_session=True
        )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.fixture(scope="module")
def cluster(s3_environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("cluster")
    here = ("--host", "127.0.0.1", "--no-dashboard", "--protocol", "tls")
    variables = certified(folder)
    at = folder / "scheduler.json"
    with ExitStack() as stack:
        scheduler = stack.enter_context(
            dask(folder / "scheduler.log", variables, "scheduler", *here, "--port", "0", "--scheduler-file", str(at))
        )
        until(lambda: at.exists() and at.stat().st_size > 0, "a scheduler")
        asked = ("--nworkers", "2", "--nthreads", "1", "--scheduler-file", str(at), "--local-directory", str(folder))
        log = folder / "worker.log"
        stack.enter_context(dask(log, variables, "worker", *here, *asked))
        until(lambda: log.read_text().count("Registered to:") == 2, "two workers")
        address = next(
            line.split()[-1] for line in (folder / "scheduler.log").read_text().splitlines() if "Scheduler at:" in line
        )
        # what a process reads of its environment when it imports Dask, which this one may have done
        stack.enter_context(config.set(config.collect_env(variables)))
        yield Running(address, scheduler)


def test_a_worker_killed_in_the_middle_costs_its_shard_alone(
    cluster: Running, store: ObjectStore, tmp_path: Path
) -> None:
    engine, ran, go = Engine(deployment_on(store), Cluster(cluster.address)), Ran(), tmp_path / "go"
    asked = work(tmp_path, SHARDS, until=str(go), waiting=[2])
    with ThreadPoolExecutor(1) as beside:
        result = beside.submit(squares, engine, asked, ran)
        until(lambda: 2 in [number for number, _ in begun(tmp_path)], "the shard")
        (process,) = [process for number, process in begun(tmp_path) if number == 2]
        assert process != os.getpid()
        os.kill(process, signal.SIGKILL)
        until(lambda: [number for number, _ in begun(tmp_path)].count(2) == 2, "another try")
        go.touch()
        assert result.result() == [float(number**2) for number in range(SHARDS)]
    assert sorted(number for number, _ in begun(tmp_path)) == [0, 1, 2, 2, 3, 4, 5]
    assert (ran.stood, sum(ran.computed.values())) == (0, SHARDS)
    assert all(worker.startswith("tls://127.0.0.1:") for worker in ran.computed)


def test_a_shard_on_which_three_workers_die_is_a_reason_that_names_it_and_the_others_stand(
    cluster: Running, store: ObjectStore, tmp_path: Path
) -> None:
    engine = Engine(deployment_on(store), Cluster(cluster.address))
    with pytest.raises(ShardEndsWorkers, match=r"3 workers died one after the other on number 3, .* memory") as told:
        squares(engine, work(tmp_path, 5, deadly=3))
    assert isinstance(told.value, Refused)
    numbers = [number for number, _ in begun(tmp_path)]
    assert numbers.count(3) == DEATHS
    assert all(numbers.count(number) <= 1 for number in (0, 1, 2, 4))
    broken = work(tmp_path, 3, broken=1)
    with pytest.raises(Refused, match="counting, number 1: ValueError: a shard that nobody expected; the log of the"):
        squares(engine, broken)


def test_who_has_no_certificate_of_the_cluster_is_not_let_in(
    cluster: Running, store: ObjectStore, tmp_path: Path
) -> None:
    own = tmp_path / "own"
    own.mkdir()
    with config.set(config.collect_env(certified(own))), pytest.raises(ClusterLost, match="address and certificates"):
        squares(Engine(deployment_on(store), Cluster(cluster.address)), work(tmp_path, 1))
    assert not begun(tmp_path)


def test_when_the_scheduler_is_gone_the_next_run_computes_only_what_lacks(
    cluster: Running, store: ObjectStore, tmp_path: Path
) -> None:
    deployment, go = deployment_on(store), tmp_path / "go"
    asked = work(tmp_path, SHARDS, until=str(go), waiting=[4, 5])
    with ThreadPoolExecutor(1) as beside:
        result = beside.submit(squares, Engine(deployment, Cluster(cluster.address)), asked)
        until(lambda: {4, 5} <= {number for number, _ in begun(tmp_path)}, "the last ones")
        cluster.scheduler.kill()
        with pytest.raises(ClusterLost, match=r"4 of 6 shards were computed before and stand") as told:
            result.result()
    assert isinstance(told.value, Unavailable)
    before = len(begun(tmp_path))
    go.touch()
    ran = Ran()
    assert squares(Engine(deployment), asked, ran) == [float(number**2) for number in range(SHARDS)]
    # who waited may be through by now, as a worker is that has lost its scheduler
    assert {number for number, _ in begun(tmp_path)[before:]} <= {4, 5}
    assert ran.stood >= 4
    with pytest.raises(ClusterLost, match="cannot be reached"):
        squares(Engine(deployment, Cluster(cluster.address)), work(tmp_path, 7))
