"""What is away comes back: a store, the room on a disk, a worker that hangs; and what was refused is not done again.

One Dagster for all, whose `dagster.yaml` says nothing of failed steps: the jobs themselves must.
"""

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner

from crypto_ml.cli import main
from crypto_ml.commands.local_dagster import free_port
from crypto_ml.ledger.layout import RAW
from crypto_ml.sample import sample_upload
from crypto_ml.storage.embedded import EmbeddedS3, ensure_bucket
from crypto_ml.storage.objects import connect
from crypto_ml_tests.dropbox.site import Site, until

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]

RUN_SECONDS = 30
DISK = 32 << 20
ROOM_LEFT = 32 << 10


@dataclass
class Place:
    """A site with a store of its own, and with a small disk of its own for temporary files, where one can be made."""

    site: Site
    server: EmbeddedS3
    disk: Path | None

    def received(self) -> int:
        return sum(1 for _ in self.site.store.list(f"{RAW}received/"))

    def waiting(self) -> str:
        """What the doctor says is waited for."""
        found = json.loads(CliRunner().invoke(main, ["doctor", "--json"]).stdout)["findings"]
        return " ".join(one["detail"] for one in found if one["what"] == "waiting")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("outages")
    disk = folder / "disk"
    disk.mkdir()
    mounted = (
        os.geteuid() == 0
        and not subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(disk)], check=False, capture_output=True
        ).returncode
    )
    try:
        with EmbeddedS3(folder / "s3", free_port()) as server, pytest.MonkeyPatch.context() as patch:
            for name in [name for name in os.environ if name.startswith("AWS_")]:
                patch.delenv(name)
            environment = server.environment | {"AWS_MAX_ATTEMPTS": "1", "CRYPTO_ML_MAX_RUN_SECONDS": str(RUN_SECONDS)}
            for name, value in (environment | {"CRYPTO_ML_BUCKET": "outages", "CRYPTO_ML_PREFIX": ""}).items():
                patch.setenv(name, value)
            store = connect("outages")
            ensure_bucket(store.client, "outages")
            if mounted:
                environment["TMPDIR"] = str(disk)
            site = Site(store, folder, environment, replaced={"  retry_on_asset_or_op_failure: false\n": ""})
            patch.setenv("DAGSTER_HOME", str(site.home))
            try:
                site.start()
                yield Place(site, server, disk if mounted else None)
            finally:
                site.stop()
    finally:
        if mounted:
            subprocess.run(["umount", str(disk)], check=True)


def test_a_refused_promotion_runs_once(place: Place) -> None:
    site = place.site
    refused = site.launch("promote_model", {"ops": {"champion_model": {"config": {"rollback": True, "by": "me"}}}})
    until(lambda: "Not retrying run" in site.said(refused), "no word on running it again", 1)
    (only,) = site.runs("promote_model")
    assert (only.run_id, only.tags["dagster/will_retry"]) == (refused, "false")


def test_a_worker_that_hangs_is_ended_at_its_time_limit_and_its_file_answered_by_the_next_one(place: Place) -> None:
    site = place.site
    site.store.replace("uploads/hangs.csv", sample_upload())
    until(place.received, "nothing was received")
    assert place.server.pid is not None
    os.kill(place.server.pid, signal.SIGSTOP)  # it waits for an answer of the store
    try:
        until(lambda: "Exceeded maximum runtime" in site.said(site.runs()[-1].run_id), "no end of the run", 1)
    finally:
        os.kill(place.server.pid, signal.SIGCONT)
    assert site.report("hangs.csv").outcome == "PREDICTED"
    assert {run.tags["dagster/max_runtime"] for run in site.runs()} == {str(RUN_SECONDS)}


def test_a_store_that_was_away_is_named_meanwhile_and_its_file_answered_when_it_is_back(place: Place) -> None:
    site = place.site
    runs = len(site.runs())
    site.store.replace("uploads/store.csv", sample_upload())
    until(lambda: len(site.runs()) > runs and site.runs()[0].status.value == "STARTED", "no run was started")
    place.server.kill()
    until(lambda: "did not answer" in place.waiting(), "nothing is said to be waited for", 1)
    place.server.start()
    assert site.report("store.csv").outcome == "PREDICTED"


def test_a_full_disk_of_the_worker_is_named_meanwhile_and_the_file_answered_when_there_is_room(place: Place) -> None:
    if place.disk is None:
        pytest.skip("a disk of its own cannot be mounted here (that takes root)")
    free = os.statvfs(place.disk)
    filler = place.disk / "filler"
    filler.write_bytes(bytes(free.f_bavail * free.f_frsize - ROOM_LEFT))
    place.site.store.replace("uploads/disk.csv", sample_upload())
    until(lambda: "No space left on device" in place.waiting(), "nothing is said to be waited for", 1)
    filler.unlink()
    assert place.site.report("disk.csv").outcome == "PREDICTED"
