"""crypto-ml demo, as a person runs it: a process of its own, in a folder of its own."""

import contextlib
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
import tomllib
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import dagster as dg
import httpx
import psutil
import pytest

from crypto_ml.commands.local_dagster import MARK, MODULE, PORTS, LocalDagster, PortTaken, free_port, kept_ports
from crypto_ml.packaged import INSTANCE
from crypto_ml.sample import sample_upload
from crypto_ml.storage.objects import ObjectStore
from crypto_ml_tests.dropbox.site import REPOSITORY, until

MARKER = "TEST_MARK_OF_CRYPTO_ML"
COMMAND = [sys.executable, "-c", "from crypto_ml.cli import main; main()"]


@dataclass
class Person:
    """Somebody at a shell whose processes can be told from everybody else's."""

    folder: Path
    mark: str = field(default_factory=lambda: uuid.uuid4().hex)

    def environment(self, **more: str) -> dict[str, str]:
        mine = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "CRYPTO_ML_", MARK))}
        return mine | {MARKER: self.mark} | more

    def start(self, *words: str, **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*COMMAND, *words],
            cwd=self.folder,
            env=self.environment(**environment),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        with self.start(*words, **environment) as process:
            out, err = process.communicate(timeout=200)
        return subprocess.CompletedProcess(words, process.returncode, out, err)

    def processes(self) -> list[int]:
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                if process.environ().get(MARKER) == self.mark:
                    found.append(process.pid)
        return found


@pytest.fixture
def person(tmp_path: Path) -> Iterator[Person]:
    someone = Person(tmp_path)
    yield someone
    for pid in someone.processes():  # only where a test has failed
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def curl_of_readme() -> str:
    """The one line that asks over REST."""
    (line,) = (line for line in (REPOSITORY / "README.md").read_text().splitlines() if line.strip().startswith("curl "))
    return line


def test_once_shows_the_answer_and_leaves_no_process_and_no_other_store_touched(person: Person) -> None:
    done = person.run("demo", "--once", AWS_ENDPOINT_URL_S3="http://127.0.0.1:9", PYTHONDONTWRITEBYTECODE="1")
    assert done.returncode == 0, done.stderr
    assert "symbol,index,date,pred_open,val_open,status,prediction_id" in done.stdout
    assert "1,000 rows" in done.stdout
    assert "s3://crypto-ml/uploads/" in done.stdout
    assert "leaves http://127.0.0.1:9 alone" in done.stderr
    assert person.processes() == []


def test_a_running_demo_answers_drops_is_well_and_ends_with_all_its_processes_at_ctrl_c(person: Person) -> None:
    demo = person.start("demo", "--port", str(free_port()))
    assert demo.stdout is not None
    exports: dict[str, str] = {}
    addresses: dict[str, str] = {}
    for line in demo.stdout:
        if line.strip().startswith("export "):
            name, value = shlex.split(line)[1].split("=", 1)
            exports[name] = value
        elif line.strip().startswith(("the page", "REST")):
            addresses[line.split("http")[0].strip()] = re.findall(r"http://[^\s,]+", line)[0]
        if "DAGSTER_HOME" in exports:
            break
    else:
        pytest.fail("" if demo.stderr is None else demo.stderr.read())
    assert httpx.get(addresses["the page"]).status_code == 200
    asked, body = shlex.split(curl_of_readme())[1], shlex.split(curl_of_readme())[-1]
    assert httpx.URL(asked).path == httpx.URL(addresses["REST"]).path

    def asked_over_rest() -> tuple[str, str]:
        answer = httpx.post(addresses["REST"], content=body, headers={"content-type": "application/json"}, timeout=30)
        (predicted,) = answer.json()["predictions"]
        return predicted["symbol"], predicted["status"]

    assert asked_over_rest()[0] == "SIM001"
    # each worker looks every second what the history has by now
    until(lambda: asked_over_rest()[1] == "predicted", "a prediction over REST")
    second = person.run("demo", "--once")
    assert (second.returncode, "runs in" in second.stderr) == (1, True)

    (person.folder / "mine.csv").write_bytes(sample_upload())
    (person.folder / "empty.csv").write_bytes(b"")
    dropped = person.run("drop", "mine.csv", "empty.csv", "--wait", **exports)
    assert dropped.returncode == 1
    assert "uploads/mine.csv PREDICTED s3://crypto-ml/predictions/mine_preds.csv" in dropped.stdout
    assert "uploads/empty.csv REJECTED" in dropped.stdout

    looked = person.run("doctor", "--json", **exports)
    assert looked.returncode == 0, looked.stdout
    told = json.loads(looked.stdout)
    states = {finding["what"]: finding["state"] for finding in told["findings"]}
    shown = "settings store clock champion uploads deliveries retractions tables requests alarms daemon sensor runs"
    assert states == dict.fromkeys(shown.split(), "ok")
    assert told["metrics"]["outcomes"] == {"PREDICTED": 2, "REJECTED": 1}
    assert told["metrics"]["tick_seconds"] > 0

    elsewhere = person.folder / "elsewhere"
    elsewhere.mkdir()
    launch = [sys.executable, "-m", "dagster", "job", "launch", "--job", "promote_model"]
    subprocess.run(launch, cwd=elsewhere, env=person.environment(**exports), check=True, capture_output=True)
    with dg.DagsterInstance.from_config(exports["DAGSTER_HOME"]) as instance:
        asked_for = dg.RunsFilter(job_name="promote_model")
        until(lambda: all(run.is_finished for run in instance.get_runs(asked_for)), "nobody ran what was launched")
        assert [run.status for run in instance.get_runs(asked_for)] == [dg.DagsterRunStatus.SUCCESS]
    assert list(elsewhere.iterdir()) == []

    demo.send_signal(signal.SIGINT)
    _, err = demo.communicate(timeout=60)
    assert demo.returncode == 0, err
    assert person.processes() == []


def test_dev_says_how_to_reach_it_and_leaves_nothing_but_its_folder_and_no_process(
    person: Person, store: ObjectStore, s3_environment: dict[str, str]
) -> None:
    given = s3_environment | {"CRYPTO_ML_BUCKET": store.bucket, "CRYPTO_ML_PREFIX": store.prefix}
    dev = person.start("dev", "--port", str(free_port()), **given)
    assert dev.stderr is not None
    told = ""
    for line in dev.stderr:
        told += line
        if "in this one" in line:
            break
    assert f"export CRYPTO_ML_PREFIX={store.prefix}" in told
    assert f"export DAGSTER_HOME={person.folder}/.crypto_ml/dev/{store.bucket}-" in told
    assert f"export DAGSTER_MODULE_NAME={MODULE}" in told
    assert s3_environment["AWS_SECRET_ACCESS_KEY"] not in told
    dev.send_signal(signal.SIGINT)
    _, err = dev.communicate(timeout=60)
    assert (dev.returncode, "stopped" in err) == (0, True), told + err
    assert [path.name for path in person.folder.iterdir()] == [".crypto_ml"]
    assert person.processes() == []


@pytest.mark.parametrize("milliseconds", [0, 2, 4, 8, 16, 64])
def test_told_to_end_while_it_starts_others_a_demo_says_so_and_leaves_nothing(
    person: Person, milliseconds: int
) -> None:
    demo = person.start("demo", "--once")
    assert demo.stderr is not None
    for line in demo.stderr:
        if "S3 server" in line:  # what it starts next comes within these milliseconds
            break
    time.sleep(milliseconds / 1000)
    demo.send_signal(signal.SIGTERM)
    _, err = demo.communicate(timeout=60)
    assert demo.returncode == 1
    assert "stopped before the answer came" in err
    assert person.processes() == []


def test_a_dagster_that_cannot_start_is_told_with_the_end_of_its_log(tmp_path: Path) -> None:
    broken = tmp_path / "broken.yaml"
    broken.write_text("no_such_setting: 1\n")
    with LocalDagster(tmp_path / "state", {}, broken, free_port()) as dagster:
        with pytest.raises(Exception, match="no_such_setting"):
            dagster.wait_until_watching()
        dagster.stop()
        assert dagster.left() == []


def test_everything_that_dagster_keeps_is_in_its_home_from_wherever_it_is_reached(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, elsewhere = tmp_path / "home", tmp_path / "elsewhere"
    for folder in (home, elsewhere):
        folder.mkdir()
    (home / "dagster.yaml").write_bytes(INSTANCE.read_bytes())
    monkeypatch.chdir(elsewhere)
    with dg.DagsterInstance.from_config(str(home)) as instance:
        instance.add_dynamic_partitions("some", ["one"])
    monkeypatch.chdir(tmp_path)
    with dg.DagsterInstance.from_config(str(home)) as instance:
        assert instance.get_dynamic_partitions("some") == ["one"]
    assert list(elsewhere.iterdir()) == []


def test_a_run_is_launched_by_the_daemon_of_the_same_code_however_that_was_loaded() -> None:
    names = [
        line.split(":")[1].strip()
        for workspace in ("workspace.yaml", "deploy/workspace.yaml")
        for line in (REPOSITORY / workspace).read_text().splitlines()
        if "location_name:" in line
    ]
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["dg"]["project"]
    assert [*names, project["code_location_name"], project["code_location_target_module"]] == [MODULE] * 4


def test_what_runs_in_a_folder_again_has_the_ports_it_had_where_they_are_free(tmp_path: Path) -> None:
    usual = {"ui": free_port(), "s3": None}
    first = kept_ports(tmp_path, usual)
    assert first["ui"] == usual["ui"]
    assert kept_ports(tmp_path, {"ui": free_port(), "s3": None}) == first
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", first["s3"]))
        taken.listen()
        moved = kept_ports(tmp_path, usual)
    assert moved["ui"] == first["ui"] != moved["s3"] != first["s3"]
    (tmp_path / PORTS).write_text("no ports")
    assert kept_ports(tmp_path, usual, free_port())["ui"] != usual["ui"]


def test_a_port_that_somebody_names_is_that_one_or_none(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(PortTaken, match=f"port {port} already"):
            kept_ports(tmp_path, {"ui": None, "s3": None}, port)
    assert not (tmp_path / PORTS).exists()


def test_a_port_in_use_is_not_taken_a_free_one_is() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert free_port(port) != port
    assert free_port(port) == port
