"""deploy/ put up in a container engine as `make stack` puts it up, and what users, operators and accidents do to it."""

import contextlib
import json
import os
import shlex
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import docker
import httpx
import requests

from crypto_ml.ledger.reports import Report, read_report
from crypto_ml.storage.objects import ObjectStore
from crypto_ml_tests.dropbox.site import REPOSITORY, until

SERVICES = ("database", "code", "webserver", "daemon", "serve", "page", "proxy")
HTTPS = 18443
HTTP = 18080
SITE = f"localhost:{HTTPS}"

LAUNCH = """
mutation ($job: String!, $config: RunConfigData, $tags: [ExecutionTag!]) {
  launchRun(executionParams: {
    selector: {
      repositoryLocationName: "crypto_ml.definitions", repositoryName: "__repository__", jobName: $job
    }
    runConfigData: $config, executionMetadata: {tags: $tags}
  }) { __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } }
}
"""
RUN = "query ($id: ID!) { runOrError(runId: $id) { ... on Run { status tags { key value } } } }"
RUNS = "query { runsOrError { ... on Runs { results { runId jobName status } } } }"
TERMINATE = "mutation ($id: String!) { terminateRun(runId: $id) { __typename } }"
LOGS = """
query ($id: ID!) { logsForRun(runId: $id) { ... on EventConnection { events { ... on MessageEvent { message } } } } }
"""


@dataclass
class Stack:
    """A stack on this machine. folder: where its deploy/ is. gateway: the address of this machine on its network."""

    folder: Path
    store: ObjectStore
    engine: docker.DockerClient
    environment: Mapping[str, str]
    login: tuple[str, str] = ("", "")
    token: str = ""
    _ended: dict[str, int] = field(default_factory=dict)

    @property
    def compose(self) -> list[str]:
        """The compose that make is given, or finds."""
        return [*shlex.split(os.environ.get("COMPOSE") or "docker compose"), "-f", str(self.folder / "compose.yaml")]

    def prepare(self) -> None:
        """Secrets and .env, as `make stack` makes them; what is said once is kept."""
        said = self.run([str(self.folder / "prepare"), SITE]).stderr
        for line in said.splitlines():
            if "token of the service" in line:
                self.token = line.split()[-1]
            if "login of page" in line:
                name, password = line.rsplit(": ", 1)[1].split(", ")
                self.login = (name, password)

    def check(self) -> None:
        """What would keep it from coming up, or its runs from beginning, is said now and not after half an hour."""
        self.run([str(self.folder / "check")])

    def up(self) -> None:
        """Put up, or replace, what has to be."""
        self.run([*self.compose, "up", "-d"])

    def down(self) -> None:
        """Take away all of it, data included."""
        subprocess.run([*self.compose, "down", "--volumes"], env=self._environment, check=False, capture_output=True)

    def run(self, command: list[str], **named: Any) -> subprocess.CompletedProcess[str]:
        """A command of an operator, in the folder of the stack."""
        done = subprocess.run(
            command, cwd=self.folder, env=self._environment, capture_output=True, text=True, check=False, **named
        )
        assert done.returncode == 0, f"{shlex.join(command)}: {done.stdout[-3000:]}{done.stderr[-3000:]}"
        return done

    @property
    def _environment(self) -> dict[str, str]:
        return {**os.environ, **self.environment}

    def container(self, service: str) -> Any:
        return self.engine.containers.get(f"crypto_ml_{service}")

    def kill(self, service: str) -> None:
        """Its main process is killed, as by the kernel that has no memory left."""
        os.kill(self._process(service), signal.SIGKILL)

    def wait(self, *services: str) -> None:
        """Return once these services (all, where none is named) do what they are there for."""
        for service in services or SERVICES:
            until(lambda service=service: self._answers(service), f"{service} is not well", 1.0)  # type: ignore[misc]

    def _answers(self, service: str) -> bool:
        """Whether the check of its health, as compose.yaml has it, is content now."""
        try:
            container = self.container(service)
            if container.status != "running":
                return False
            test = container.attrs["Config"]["Healthcheck"]["Test"]
            return bool(container.exec_run(test[1:]).exit_code == 0)
        except (docker.errors.APIError, docker.errors.NotFound, requests.RequestException):
            return False

    def http(self, **named: Any) -> httpx.Client:
        """A client that knows the stack's certificate, and nothing else about it."""
        certificate = self.folder / "secrets" / "tls_certificate"
        return httpx.Client(base_url=f"https://{SITE}", verify=str(certificate), timeout=30, trust_env=False, **named)

    def ask(self, query: str, **variables: Any) -> Any:
        """What the UI asks, through the proxy; asked again while what it is sent to is being started."""
        answer: dict[str, Any] = {}

        def answered() -> bool:
            with self.http(auth=self.login) as client, contextlib.suppress(httpx.TransportError):
                response = client.post("/dagster/graphql", json={"query": query, "variables": variables})
                if response.status_code == httpx.codes.OK:
                    answer.update(response.json())
                    return True
                assert response.status_code in (502, 503, 504), response.text
            return False

        until(answered, "the UI does not answer", 0.5)
        assert answer.get("data"), answer
        return answer["data"]

    def launch(self, job: str, config: Mapping[str, Any] | None = None, **tags: str) -> str:
        """Launch a job as the UI does; returns the run's id."""
        given = [{"key": key.replace("__", "/"), "value": value} for key, value in tags.items()]
        launched = self.ask(LAUNCH, job=job, config=json.dumps(config or {}), tags=given)["launchRun"]
        assert "run" in launched, launched
        return str(launched["run"]["runId"])

    def status(self, run_id: str) -> str:
        return str(self.ask(RUN, id=run_id)["runOrError"]["status"])

    def tags(self, run_id: str) -> dict[str, str]:
        return {tag["key"]: tag["value"] for tag in self.ask(RUN, id=run_id)["runOrError"]["tags"]}

    def said(self, run_id: str) -> str:
        events = self.ask(LOGS, id=run_id)["logsForRun"]["events"]
        return "\n".join(event.get("message", "") for event in events)

    def ended(self, run_id: str) -> str:
        """How a run ended, once it has."""
        until(lambda: self.status(run_id) in ("SUCCESS", "FAILURE", "CANCELED"), f"{run_id} does not end", 1.0)
        return self.status(run_id)

    def cancel(self, run_id: str) -> None:
        """Cancel a run as the UI does, once it has begun; while it is being started, Dagster refuses to."""
        until(lambda: self.status(run_id) == "STARTED", "the run does not begin", 0.5)
        answer = self.ask(TERMINATE, id=run_id)["terminateRun"]
        assert answer["__typename"] == "TerminateRunSuccess", answer

    def chosen(self, variable: str) -> str:
        """What .env has."""
        lines = (self.folder / ".env").read_text().splitlines()
        return dict(line.split("=", 1) for line in lines if "=" in line)[variable]

    def choose(self, given: Mapping[str, str]) -> None:
        """Change .env, as an operator does for an upgrade."""
        file = self.folder / ".env"
        kept = [line for line in file.read_text().splitlines() if line.partition("=")[0] not in given]
        file.write_text("\n".join([*kept, *(f"{name}={value}" for name, value in given.items())]) + "\n")

    def later(self, image: str) -> str:
        """Another image that does the same, by what it is."""
        container = self.engine.containers.create(image)
        try:
            made = container.commit("crypto_ml_later", image.partition(":")[2], changes="LABEL later=yes")
        finally:
            container.remove()
        return f"sha256:{str(made.id).removeprefix('sha256:')}"

    @contextmanager
    def another_daemon(self) -> Iterator[Any]:
        """A second daemon beside that of the stack, just like it, as whoever forgot the first would start it."""
        first = self.container("daemon").attrs
        second = self.engine.containers.run(
            first["Config"]["Image"],
            first["Config"]["Cmd"],
            environment=first["Config"]["Env"],
            volumes=[
                "crypto_ml_secrets:/run/secrets:ro",
                f"{self.folder / 'dagster.yaml'}:/opt/crypto_ml/dagster_home/dagster.yaml:ro",
            ],
            network="crypto_ml_back",
            init=True,
            detach=True,
        )
        try:
            yield second
        finally:
            second.remove(force=True)

    def power_off(self) -> None:
        """All containers end at once, without a word."""
        for service in SERVICES:
            self._ended[service] = self._process(service)
            self.kill(service)

    def power_on(self) -> None:
        """What the start of a host does: containers that are not running are started.

        Some may be started again by the engine already. It gives up one that depends on another which is not there yet,
        and may say for a moment that one runs whose process has ended.
        """

        def another(service: str) -> bool:
            if self.container(service).status != "running":
                self.container(service).start()
            return self._process(service) not in (0, self._ended[service])

        for service in SERVICES:
            until(partial(another, service), f"{service} is not started", 0.5)

    def _process(self, service: str) -> int:
        """The number of its main process; 0 where there is none."""
        return int(self.container(service).attrs["State"]["Pid"])

    def drop(self, name: str, content: bytes) -> None:
        self.store.replace(f"uploads/{name}", content)

    def report(self, name: str) -> Report:
        """The answer to a file, once it is there."""
        until(lambda: read_report(f"uploads/{name}", self.store), f"no answer to {name}", 0.1)
        found = read_report(f"uploads/{name}", self.store)
        assert found is not None
        return found

    def run_containers(self, run_id: str = "") -> list[Any]:
        """The containers of heavy runs, or of one; that of a run that has ended may be there a little longer."""
        label = f"dagster/run_id={run_id}" if run_id else "dagster/run_id"
        return list(self.engine.containers.list(filters={"label": label}))


@contextmanager
def put_up(folder: Path, store: ObjectStore, engine: docker.DockerClient, s3: Mapping[str, str]) -> Iterator[Stack]:
    """A stack of its own with a copy of deploy/, gone at the end with all that it kept."""
    deploy = folder / "deploy"
    shutil.copytree(REPOSITORY / "deploy", deploy, ignore=shutil.ignore_patterns("secrets", ".env"))
    folder.chmod(0o755)
    socket = engine.api.base_url
    environment = {
        **s3,
        "CRYPTO_ML_BUCKET": store.bucket,
        "CRYPTO_ML_PREFIX": store.prefix,
        "CRYPTO_ML_LEARNERS": "gru,last_close",
        "CRYPTO_ML_EPOCHS": "1",
        "STACK_ENGINE_SOCKET": os.environ.get("DOCKER_HOST", "").removeprefix("unix://") or "/var/run/docker.sock",
        "STACK_HTTPS": str(HTTPS),
        "STACK_HTTP": str(HTTP),
    }
    assert socket
    stack = Stack(deploy, store, engine, environment)
    try:
        stack.prepare()
        stack.check()
        stack.up()
        yield stack
    finally:
        for container in stack.run_containers():
            container.remove(force=True)
        stack.down()
