"""Dagster's records, written at once: they are all there, whoever reads them and whatever ends."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import psutil
import pytest

from crypto_ml.defs.warm.dagster_launching import SQLITE_STORAGES
from crypto_ml.defs.warm.records import MOST_HELD, write_at_once
from crypto_ml_tests.dropbox.site import until

RUNS = MOST_HELD + 4

WRITER = """
import sys
import dagster as dg
from crypto_ml.defs.warm.records import write_at_once

write_at_once()
write_at_once()

@dg.op
def nothing(): ...

@dg.job
def nothing_at_all(): nothing()

with dg.DagsterInstance.from_config(sys.argv[1]) as instance:
    runs = [instance.create_run_for_job(nothing_at_all) for _ in range(int(sys.argv[2]))]
    for run in runs:
        for number in range(3):
            instance.report_engine_event(f"record {number}", run)
    print(*(run.run_id for run in runs), flush=True)
    for line in sys.stdin:
        instance.report_engine_event(line.strip(), runs[-1])
        instance.report_run_failed(runs[-1])
"""


@dataclass
class Writer:
    """A process that has written records of some runs, and writes one more of the last when it is told to."""

    process: subprocess.Popen[str]
    home: Path
    runs: list[str]

    def held(self) -> set[str]:
        opened = (Path(file.path) for file in psutil.Process(self.process.pid).open_files())
        return {path.stem for path in opened if path.suffix == ".db"}

    def write(self, text: str) -> None:
        assert self.process.stdin
        self.process.stdin.write(f"{text}\n")
        self.process.stdin.flush()


@pytest.fixture(scope="module")
def writer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Writer]:
    home = tmp_path_factory.mktemp("records")
    (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    command = [sys.executable, "-c", WRITER, str(home), str(RUNS)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            yield Writer(process, home, process.stdout.readline().split())
        finally:
            process.kill()


def test_all_of_dagsters_databases_have_one_engine_each_whatever_is_asked_of_them(tmp_path: Path) -> None:
    (tmp_path / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    write_at_once()
    asked = [storage.create_engine for storage in SQLITE_STORAGES]
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        for _ in range(3):
            assert instance.get_runs() == [] and instance.all_instigator_state() == []
            assert instance.all_asset_keys() == []
    kept = [[key for key in engines._kept if str(tmp_path) in key] for engines in asked]
    # an instance asks twice of the event log's database, once with a limit of time
    assert [len({key.split()[0] for key in keys}) for keys in kept] == [1, 1, 1]
    assert sum(map(len, kept)) <= 4


def test_as_many_databases_are_kept_open_as_are_in_use(writer: Writer) -> None:
    held = writer.held()
    assert len(writer.runs) == RUNS
    assert len(held) == MOST_HELD
    assert writer.runs[-1] in held
    assert writer.runs[0] not in held


def test_a_run_is_followed_while_its_records_are_written_and_none_is_lost_with_the_process(writer: Writer) -> None:
    seen: list[str] = []
    with dg.DagsterInstance.from_config(str(writer.home)) as reader:
        reader.watch_event_logs(writer.runs[-1], None, lambda entry, _: seen.append(entry.message))
        writer.write("one more")
        until(lambda: "one more" in seen, "a record that was written is not told of")
        until(lambda: reader.get_run_by_id(writer.runs[-1]).status == dg.DagsterRunStatus.FAILURE, "no end is told of")  # type: ignore[union-attr]
        os.kill(writer.process.pid, signal.SIGKILL)
        writer.process.wait()
        for run in writer.runs:
            said = [
                entry.message for entry in reader.all_logs(run) if "record" in entry.message or "more" in entry.message
            ]
            assert said[:3] == ["record 0", "record 1", "record 2"]
        assert said[3] == "one more"
        assert reader.get_run_by_id(writer.runs[-1]).status == dg.DagsterRunStatus.FAILURE  # type: ignore[union-attr]
        of_the_instance = dg.RunStatusChangeRecordsFilter(dg.DagsterEventType.RUN_FAILURE)
        assert len(reader.fetch_run_status_changes(of_the_instance, limit=10).records) == 1
