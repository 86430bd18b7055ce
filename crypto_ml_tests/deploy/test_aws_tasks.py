"""An environment on AWS as its templates make it, with containers for tasks: a file is answered, and a retrain runs in
a task of its own, which the launcher of heavy runs starts.

The account is an emulator, and this machine's network stands for that of a VPC: what listens has another port, and what
the emulator needs beyond AWS is added to the templates here.
"""

import io
import json
import os
import re
import shutil
import socket
import tarfile
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pytest

from crypto_ml.ledger.registry import Registry
from crypto_ml.ledger.reports import read_report
from crypto_ml.sample import sample_upload
from crypto_ml.storage.objects import ObjectStore, connect
from crypto_ml_tests.deploy.account import ROOT, Account, environment
from crypto_ml_tests.dropbox.site import until
from scripts import deploy_aws

pytestmark = [pytest.mark.containers, pytest.mark.timeout(1500)]

WEEK = "2023-11-19"
IMAGE = os.environ.get("AWS_TEST_IMAGE", "crypto_ml:full")
DATABASE_IMAGE = os.environ.get("AWS_TEST_DATABASE_IMAGE", "crypto_ml_database")
EMULATED = "crypto_ml:emulated"
WHERE = """secrets_tag: null
        use_current_ecs_task_config: false
        run_task_kwargs: {cluster: crypto-ml-dev, launchType: FARGATE}"""
LAUNCH = """
mutation Launch($params: ExecutionParams!) {
  launchRun(executionParams: $params) {
    __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message }
  }
}
"""
RUN = "query Run($id: ID!) { runOrError(runId: $id) { ... on Run { status tags { key value } } } }"


class WithTasks(Account):
    """The account, whose tasks are containers of an engine."""

    def _server_environment(self) -> dict[str, str]:
        return super()._server_environment() | {"DOCKER_HOST": os.environ["DOCKER_HOST"]}


@dataclass
class Ports:
    """Where what listens in the tasks listens here."""

    database: int
    code: int
    web: int
    serve: int

    def in_place_of(self) -> dict[str, str]:
        return {"5432": str(self.database), "4000": str(self.code), "3000": str(self.web), "8000": str(self.serve)}

    def put_into(self, text: str) -> str:
        for usual, here in self.in_place_of().items():
            text = text.replace(usual, here)
        return text


@pytest.fixture(scope="module")
def engine() -> Iterator[Any]:
    docker = pytest.importorskip("docker")
    if "DOCKER_HOST" not in os.environ:
        pytest.skip("no container engine: DOCKER_HOST names none")
    client = docker.from_env(timeout=300)
    for image in (IMAGE, DATABASE_IMAGE):
        try:
            client.images.get(image)
        except docker.errors.ImageNotFound:
            pytest.skip(f"the engine has no image {image}: `make images` builds it")
    yield client
    for container in client.containers.list(all=True, filters={"label": "crypto_ml.test=aws"}):
        container.remove(force=True)
    client.close()


@pytest.fixture(scope="module")
def ports() -> Ports:
    with socket.socket() as a, socket.socket() as b, socket.socket() as c, socket.socket() as d:
        found = []
        for one in (a, b, c, d):
            one.bind(("127.0.0.1", 0))
            found.append(one.getsockname()[1])
    return Ports(*found)


@pytest.fixture(scope="module")
def image(engine: Any, ports: Ports) -> str:
    """The image, with the files of Dagster's instance and workspace as these ports want them."""
    container = engine.containers.create(IMAGE, labels={"crypto_ml.test": "aws"})
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name in ("dagster.yaml", "workspace.yaml"):
            text = ports.put_into((deploy_aws.FOLDER / name).read_text(encoding="utf-8"))
            assert name != "dagster.yaml" or "secrets_tag: null" in text
            # a task in the machine's own network has no interface of its own, by which it would be found where it is
            content = text.replace("secrets_tag: null", WHERE).encode()
            entry = tarfile.TarInfo(f"aws/{name}")
            entry.size, entry.mode = len(content), 0o644
            archive.addfile(entry, io.BytesIO(content))
    container.put_archive("/opt/crypto_ml", packed.getvalue())
    repository, _, tag = EMULATED.partition(":")
    container.commit(repository=repository, tag=tag)
    container.remove()
    return EMULATED


@pytest.fixture(scope="module")
def database(engine: Any, ports: Ports) -> Iterator[None]:
    command = (
        "initdb -D /tmp/data -U dagster --auth trust >/dev/null && "
        "echo 'CREATE DATABASE dagster;' | postgres --single -D /tmp/data postgres >/dev/null && "
        f"exec postgres -D /tmp/data -p {ports.database} -c listen_addresses=127.0.0.1 -c unix_socket_directories=/tmp"
    )
    container = engine.containers.run(
        DATABASE_IMAGE, ["sh", "-c", command], detach=True, network_mode="host", labels={"crypto_ml.test": "aws"}
    )
    until(lambda: listens(ports.database), lambda: container.logs().decode()[-500:], 0.5)
    yield
    container.remove(force=True)


@dataclass
class Environment:
    """What was deployed, and how to ask it."""

    account: Account
    made: Mapping[str, str]
    ports: Ports
    engine: Any

    @property
    def store(self) -> ObjectStore:
        return connect(self.made["Bucket"])

    def ask(self, query: str, **variables: Any) -> Any:
        body = json.dumps({"query": query, "variables": variables}).encode()
        address = f"http://127.0.0.1:{self.ports.web}/graphql"
        request = urllib.request.Request(address, body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
            return json.load(answer)["data"]

    def logs(self) -> str:
        """The last words of every container there is."""
        said = ""
        for container in self.engine.containers.list(all=True):
            if container.name.startswith("ministack-ecs-"):
                said += f"\n== {container.name} {container.status}\n{container.logs(tail=40).decode()}"
        return said


@pytest.fixture(scope="module")
def deployed(
    engine: Any, ports: Ports, image: str, database: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Environment]:
    folder = tmp_path_factory.mktemp("aws")
    shutil.copytree(deploy_aws.FOLDER, folder, dirs_exist_ok=True)
    keys = "".join(
        f"            - {{Name: {name}, Value: {value}}}\n"
        for name, value in {
            **ROOT,
            "CRYPTO_ML_LEARNERS": "last_close",
            "CRYPTO_ML_EPOCHS": "1",
            # it does not hand over the secrets of a task definition that CloudFormation made
            "DAGSTER_PG_USERNAME": "dagster",
            "DAGSTER_PG_PASSWORD": "trusted",
        }.items()
    )
    platform = ports.put_into((folder / "platform.yaml").read_text(encoding="utf-8"))
    for ours, here in {
        "          Environment:\n": f"          Environment:\n{keys}",
        "NetworkMode: awsvpc": "NetworkMode: host",
        "TaskDefinition: !Ref ServeTask\n": "TaskDefinition: !Ref ServeTask\n      DesiredCount: 0\n",  # nobody asks it
        '!Sub "code.crypto-ml-${Environment}.internal"': "localhost",
    }.items():
        assert ours in platform
        platform = platform.replace(ours, here)
    platform = re.sub(r" +PortMappings: .*\n", "", platform)
    (folder / "platform.yaml").write_text(platform, encoding="utf-8")
    with (
        pytest.MonkeyPatch.context() as patch,
        WithTasks(tmp_path_factory.mktemp("account"), strict=False) as account,
        environment(account.environment),
    ):
        patch.setattr(deploy_aws, "FOLDER", folder)
        given = {
            "Image": image,
            "ServeImage": image,
            "Emulator": "true",
            "Egress": "endpoints",
            "DatabaseHost": "127.0.0.1",
            "Mail": "nobody@example.org",
            "ServeTokens": f"charts predict,read {'0' * 64}",
        }
        made = deploy_aws.deploy("dev", given, ["network", "storage", "roles", "platform"])
        try:
            yield Environment(account, made, ports, engine)
        finally:
            ecs = account.client("ecs")
            for service in ("dagster", "web", "serve"):
                with suppress(Exception):
                    ecs.update_service(cluster="crypto-ml-dev", service=service, desiredCount=0)
            for container in engine.containers.list(all=True):
                if container.name.startswith("ministack-ecs-"):
                    container.remove(force=True)


def listens(port: int) -> bool:
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0


def test_a_file_is_answered_and_a_retrain_runs_in_a_task_of_its_own(deployed: Environment) -> None:
    deploy_aws.approve(deployed.made)
    champions = list(Registry(deployed.store).champions())
    assert [champion.action for champion in champions] == ["first start"]
    until(lambda: listens(deployed.ports.web), deployed.logs, 0.5, longest=300)
    deployed.store.replace("uploads/prices.csv", sample_upload())
    report = until(lambda: read_report("uploads/prices.csv", deployed.store), deployed.logs, 0.5, longest=300)
    assert report
    assert report.outcome == "PREDICTED"
    selector = {
        "repositoryName": "__repository__",
        "repositoryLocationName": "crypto_ml.definitions",
        "pipelineName": "retrain",
    }
    tags = [{"key": "dagster/partition", "value": WEEK}]
    launched = deployed.ask(
        LAUNCH, params={"selector": selector, "runConfigData": {}, "executionMetadata": {"tags": tags}}
    )["launchRun"]
    assert launched["__typename"] == "LaunchRunSuccess", launched
    run = launched["run"]["runId"]

    def ended() -> Any:
        found = deployed.ask(RUN, id=run)["runOrError"]
        return found if found["status"] in ("SUCCESS", "FAILURE", "CANCELED") else None

    found = until(ended, deployed.logs, 0.5, longest=600)
    assert found["status"] == "SUCCESS", deployed.logs()
    task = {tag["key"]: tag["value"] for tag in found["tags"]}["ecs/task_arn"]
    (described,) = deployed.account.client("ecs").describe_tasks(cluster="crypto-ml-dev", tasks=[task])["tasks"]
    assert described["taskDefinitionArn"].rpartition(":")[0].endswith("crypto-ml-dev-run")
    assert {tag["key"]: tag["value"] for tag in described["tags"]}["dagster/job_name"] == "retrain"
    assert any(version.startswith(WEEK) for version in Registry(deployed.store).versions())
