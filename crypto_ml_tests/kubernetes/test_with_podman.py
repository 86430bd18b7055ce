"""Everything runs, from the manifests: podman plays them, files are dropped and answered, a daemon is killed."""

import json
import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
import yaml

from crypto_ml.sample import sample_upload
from crypto_ml_tests.dropbox.site import until
from crypto_ml_tests.kubernetes.manifests import FORWARDED, PORTS, Document, documents, for_podman

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(1_800)]

IMAGES = ("crypto_ml:scoring", "crypto_ml_s3:latest", "crypto_ml_database:latest")
OURS = ("code", "daemon", "webserver", "serve", "page")
TOKEN = "tried-and-thrown-away-by-whoever-tries-it"  # noqa: S105 - stand-ins/tokens says so, too
RECORD = {
    "symbol": "SIM001",
    "date": "2023-12-02",
    **{"open": 1.3561, "high": 1.3702, "low": 1.3418, "close": 1.3655, "market": 51_800_000},
}
LONGEST = 900.0


def podman(*words: str, check: bool = True) -> str:
    done = subprocess.run(["podman", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0 or not check, done.stderr
    return done.stdout.strip() if check else done.stdout + done.stderr


def container(pod: str) -> str:
    return f"{pod}-pod-0-{'main' if pod in OURS else pod}"


def started(pod: str) -> str:
    """When the container that runs now was started; empty where none runs."""
    found = podman("inspect", "--format", "{{.State.Status}} {{.State.StartedAt}}", container(pod))
    status, _, when = found.partition(" ")
    return when if status == "running" else ""


def fetch(name: str, path: str, *, headers: Mapping[str, str] | None = None, **how: Any) -> bytes:
    """What is answered at a path by who listens under that name. Raises HTTPError, and OSError where nobody does."""
    url = f"http://127.0.0.1:{PORTS[name] + FORWARDED}{path}"
    with urlopen(Request(url, headers=dict(headers or {}), **how), timeout=30) as answer:  # noqa: S310 - our own URL
        content: bytes = answer.read()
        return content


def listens(name: str) -> bool:
    """Whether a port is open. Raises OSError where it is not."""
    with socket.create_connection(("127.0.0.1", PORTS[name] + FORWARDED), 5):
        return True


def until_up(ready: Callable[[], object]) -> None:
    """Wait for what answers with an OSError as long as it does not."""

    def there() -> object:
        with suppress(OSError):
            return ready()
        return None

    until(there, "it did not come up", 0.5, longest=LONGEST)


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Document]]:
    """Everything, up and running, with an empty bucket."""
    if shutil.which("podman") is None:
        pytest.skip("NOT TESTED: there is no podman here")
    images = podman("images", "--format", "{{.Repository}}:{{.Tag}}")
    if missing := [name for name in IMAGES if f"localhost/{name}\n" not in f"{images}\n"]:
        pytest.skip(f"NOT TESTED: no image {', '.join(missing)}; docs/kubernetes.md says how they are made")
    folder = tmp_path_factory.mktemp("played")
    for place in (folder, *folder.parents):
        if place.stat().st_uid == os.getuid() and place.name.startswith(("played", "pytest-")):
            place.chmod(0o755)  # nobody's user reads the files of secrets below it
    every = for_podman(documents("kind"), folder / "secrets")
    try:
        play(every, "s3", "postgres", "code")
        until_up(lambda: fetch("s3", "/"))
        fetch("s3", "/crypto-ml", method="PUT")
        # who finds no code server looks again a minute later
        until_up(lambda: listens("code"))
        play(every, "daemon", "webserver", "serve", "page")
        yield every
    finally:
        for name in (*OURS, "s3", "postgres"):
            (folder / f"{name}.log").write_text(podman("logs", container(name), check=False))
            away(name, every)


def play(every: list[Document], *only: str) -> None:
    """Start the pods of these Deployments."""
    chosen = [one for one in every if one["kind"] == "ConfigMap" or one["metadata"]["name"] in only]
    subprocess.run(
        ["podman", "play", "kube", "-"], input=yaml.safe_dump_all(chosen), text=True, check=True, capture_output=True
    )


def away(name: str, every: list[Document]) -> None:
    """A pod, and all that it kept."""
    podman("pod", "rm", "--force", f"{name}-pod-0", check=False)
    (deployment,) = (one for one in every if one["kind"] == "Deployment" and one["metadata"]["name"] == name)
    for volume in deployment["spec"]["template"]["spec"]["volumes"]:
        podman("volume", "rm", "--force", volume.get("configMap", volume)["name"], check=False)


def drop(name: str, content: bytes) -> Document:
    """Drop a file as anybody would, by HTTP, and wait for its report."""
    fetch("s3", f"/crypto-ml/uploads/{name}.csv", data=content, method="PUT")
    until_up(lambda: report(name))
    found = report(name)
    assert found is not None
    return found


def report(name: str) -> Document | None:
    try:
        found: Document = json.loads(fetch("s3", f"/crypto-ml/predictions/{name}_report.json"))
    except HTTPError as error:
        assert error.code == 404
        return None
    return found


def test_a_dropped_file_is_answered_and_says_which_image_did(played: list[Document]) -> None:
    assert drop("prices", sample_upload())["outcome"] == "PREDICTED"
    assert fetch("s3", "/crypto-ml/predictions/prices_preds.csv").count(b"\n") == sample_upload().count(b"\n")
    traced = podman("exec", container("page"), "crypto-ml", "trace", "predictions/prices_preds.csv", "--json")
    assert "localhost/crypto_ml:scoring" in traced
    assert b"dagster_version" in fetch("webserver", "/server_info")


def test_the_service_answers_who_has_a_token_and_the_page_shows(played: list[Document]) -> None:
    until_up(lambda: fetch("serve", "/readyz"))
    body, kind = json.dumps(RECORD).encode(), {"Content-Type": "application/json"}
    answer = fetch("serve", "/v1/predictions", data=body, headers={**kind, "Authorization": f"Bearer {TOKEN}"})
    assert b"pred_open" in answer
    with pytest.raises(HTTPError, match="401"):
        fetch("serve", "/v1/predictions", data=body, headers=kind)
    until_up(lambda: fetch("page", "/"))


def test_nobody_has_rights_and_nothing_is_written_but_what_is_meant_to_be(played: list[Document]) -> None:
    for name in OURS:
        assert podman("exec", container(name), "id", "-u") == "10001"
        assert "Read-only file system" in podman(
            "exec", container(name), "touch", "/opt/crypto_ml/written", check=False
        )
        podman("exec", container(name), "touch", "/scratch/written")
        assert "tried-and-thrown-away" not in podman("exec", container(name), "env")
        assert podman("inspect", "--format", "{{.EffectiveCaps}}", container(name)) == "[]"


def test_a_daemon_that_is_killed_is_another_one_soon_and_what_is_dropped_meanwhile_is_answered(
    played: list[Document],
) -> None:
    before = started("daemon")
    podman("kill", "--signal", "KILL", container("daemon"))

    def another() -> bool:
        """As a kubelet would: podman starts the container again, or ends the pod with it, whichever comes first."""
        podman("pod", "start", "daemon-pod-0", check=False)
        return started("daemon") not in ("", before)

    until(another, "no other daemon")
    assert drop("again", sample_upload())["outcome"] == "PREDICTED"


def test_dagster_s_records_lost_the_next_file_is_answered_and_what_was_answered_stays(played: list[Document]) -> None:
    before = drop("kept", sample_upload())
    away("postgres", played)
    play(played, "postgres")
    for name in (
        "code",
        "webserver",
        "daemon",
    ):  # they find no tables any more: their probes would have them started again
        podman("restart", "--time", "5", container(name))
    assert drop("after", sample_upload())["outcome"] == "PREDICTED"
    assert report("kept") == before
