"""The stack of deploy/ for real: containers, PostgreSQL, proxy, and what happens to files when parts of it die.

It needs a container engine and its compose, the images of `make images`, root, and a host on which no stack is up.
"""

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest

from crypto_ml.ledger.deliveries import DeliveryLog
from crypto_ml.ledger.registry import Registry
from crypto_ml.sample import sample_upload
from crypto_ml.storage import embedded
from crypto_ml.storage.embedded import EmbeddedS3, ensure_bucket
from crypto_ml.storage.objects import connect
from crypto_ml_tests.deploy.stack import RUNS, SERVICES, Stack, put_up
from crypto_ml_tests.dropbox.site import until
from crypto_ml_tests.forecasting.markets import market
from crypto_ml_tests.stages.road import upload

pytestmark = [pytest.mark.containers, pytest.mark.timeout(1800)]
WEEK = "2023-11-19"
IMAGES = ("crypto_ml:scoring", "crypto_ml:full", "crypto_ml_database", "crypto_ml_proxy")


@pytest.fixture(scope="module")
def engine() -> Iterator[docker.DockerClient]:
    """A container engine with the images and no stack; a test that needs one is skipped where there is none."""
    try:
        client = docker.from_env(timeout=120)
        client.ping()
    except (docker.errors.DockerException, OSError) as error:
        pytest.skip(f"no container engine answers (DOCKER_HOST says where one is): {error}")
    if os.geteuid() != 0:
        pytest.skip("the stack's secrets belong to users of its containers, which takes root")
    lacking = [name for name in IMAGES if not client.images.list(name=name)]
    if lacking:
        pytest.skip(f"there is no image {', '.join(lacking)}: run `make images`")
    there = [one.name for one in client.containers.list(all=True) if one.name.startswith("crypto_ml_")]
    if there:
        pytest.skip(f"a stack is up on this host ({', '.join(there)}), and there can be one")
    yield client
    client.close()


@pytest.fixture(scope="module")
def stack(engine: docker.DockerClient, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    network = engine.networks.create("crypto_ml_s3", driver="bridge")
    # the bridge is there once a container has been
    engine.containers.run("crypto_ml_database", ["true"], network=network.name, remove=True)
    network.reload()
    gateway = network.attrs["IPAM"]["Config"][0]["Gateway"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(embedded, "LOOPBACK", gateway)
        with EmbeddedS3(tmp_path_factory.mktemp("s3")) as server:
            for name, value in server.environment.items():
                patch.setenv(name, value)
            store = connect("crypto-ml-tests", f"tests/{uuid.uuid4().hex}")
            ensure_bucket(store.client, store.bucket)
            with put_up(tmp_path_factory.mktemp("stack"), store, engine, server.environment) as made:
                made.wait()
                yield made
    network.remove()


def coins(number: int) -> bytes:
    return upload(market({"BTC": 12, "ETH": 12}, seed=number))


def answered_once(stack: Stack, names: list[str]) -> None:
    """Each file has its answer, and each was given to one delivery."""
    assert [stack.report(name).outcome for name in names] == ["PREDICTED"] * len(names)
    log = DeliveryLog(stack.store)
    log.catch_up()
    assigned = [one.key for number in range(1, log.last_number + 1) for one in log.get(number).uploads]
    assert [assigned.count(f"uploads/{name}") for name in names] == [1] * len(names)
    until(lambda: log.unanswered() == [], "not every delivery has its outcomes")


def test_a_dropped_file_is_answered_by_the_image_that_the_receipt_names(stack: Stack) -> None:
    stack.drop("prices.csv", sample_upload())
    report = stack.report("prices.csv")
    assert report.outcome == "PREDICTED"
    said = stack.chosen("CRYPTO_ML_IMAGE")
    assert said.startswith("sha256:")
    key = str(report.document["receipt"])
    assert said in stack.store.read(key).decode()


def test_what_people_see_takes_a_login_and_what_programs_ask_a_token(stack: Stack) -> None:
    with stack.http() as nobody, stack.http(auth=stack.login) as somebody:
        for path in ("/", "/dagster/", "/dagster/graphql"):
            assert nobody.get(path).status_code == 401
        assert "bokeh" in somebody.get("/").text
        assert "Dagster" in somebody.get("/dagster/").text
        foreign = {"Sec-Fetch-Site": "cross-site"}
        assert somebody.post("/dagster/graphql", json={"query": "{version}"}, headers=foreign).status_code == 403
        assert nobody.get("/readyz").status_code == 200
        assert nobody.get("/v1/model").status_code == 401
        assert nobody.get("/v1/model", headers={"Authorization": f"Bearer {stack.token}"}).status_code == 200


def test_no_container_has_rights_that_it_does_not_need(stack: Stack) -> None:
    for service in SERVICES:
        container = stack.container(service)
        who = container.exec_run(
            ["sh", "-c", "id -u; touch /opt/there /there 2>&1; cat /proc/self/status | grep CapEff"]
        )
        assert int(who.output.split()[0]) > 10000, service
        assert who.output.count(b"Read-only file system") == 2, service
        assert b"CapEff:\t0000000000000000" in who.output, service
        assert container.attrs["HostConfig"]["Memory"] > 0, service
        shown = str(container.attrs["Config"]["Env"])
        password = (stack.folder / "secrets" / "database_password").read_text().strip()
        assert password not in shown, service


def test_a_retrain_has_a_container_of_the_image_that_can_train_and_leaves_none(stack: Stack) -> None:
    run_id = stack.launch("retrain", dagster__partition=WEEK)
    until(lambda: stack.run_containers(run_id), "no container for the run")
    # scoring goes on beside it, in processes that are warm
    stack.drop("beside.csv", coins(1))
    assert stack.report("beside.csv").outcome == "PREDICTED"
    assert stack.ended(run_id) == "SUCCESS", stack.said(run_id)[-3000:]
    assert stack.tags(run_id)["dagster/image"] == stack.chosen("STACK_HEAVY_IMAGE")
    registry = Registry(stack.store)
    trained = [version for version in registry.versions() if version.startswith(WEEK)]
    made_in = {registry.load(version).manifest["about"]["image"] for version in trained}
    assert made_in == {stack.chosen("STACK_HEAVY_IMAGE")}
    until(lambda: not stack.run_containers(run_id), "the container stays")
    logs = [one.key for one in connect(stack.store.bucket, "compute_logs").list() if run_id in one.key]
    assert logs, "what the training printed is not in S3"


def test_a_retrain_that_is_cancelled_in_the_ui_ends_though_the_ui_has_no_way_to_it(stack: Stack) -> None:
    run_id = stack.launch("retrain", dagster__partition=WEEK)
    stack.cancel(run_id)
    assert stack.ended(run_id) == "CANCELED"
    until(lambda: not stack.run_containers(run_id), "the container stays")


def test_a_retrain_whose_container_is_killed_is_noticed_and_tried_again(stack: Stack) -> None:
    run_id = stack.launch("retrain", dagster__partition=WEEK)
    until(lambda: stack.status(run_id) == "STARTED", "the run does not begin")
    [container] = stack.run_containers(run_id)
    container.kill()
    assert stack.ended(run_id) == "FAILURE"

    def again() -> list[str]:
        there = {one.labels["dagster/run_id"] for one in stack.run_containers()}
        return sorted(there - {run_id})

    until(again, "it is not tried again")
    assert stack.ended(again()[0]) == "SUCCESS"


@pytest.mark.parametrize("service", SERVICES)
def test_whichever_container_is_killed_every_file_is_answered_once(stack: Stack, service: str) -> None:
    names = [f"{service}-{number}.csv" for number in range(3)]
    stack.drop(names[0], coins(2))
    stack.kill(service)
    stack.drop(names[1], coins(3))
    stack.wait()
    stack.drop(names[2], coins(4))
    answered_once(stack, names)


def test_an_upgrade_lets_what_runs_end_and_begins_the_next_with_the_new_image(stack: Stack) -> None:
    old = stack.chosen("STACK_HEAVY_IMAGE")
    training = stack.launch("retrain", dagster__partition=WEEK)
    until(lambda: stack.status(training) == "STARTED", "the run does not begin")
    new = {"CRYPTO_ML_IMAGE": stack.later("crypto_ml:scoring"), "STACK_HEAVY_IMAGE": stack.later("crypto_ml:full")}
    stack.choose(new)
    backlog = [f"before-{number}.csv" for number in range(40)]
    for number, name in enumerate(backlog):
        stack.drop(name, coins(100 + number))
    stack.up()
    stack.drop("after.csv", coins(8))
    stack.wait()
    answered_once(stack, [*backlog, "after.csv"])
    assert stack.ended(training) == "SUCCESS", stack.said(training)[-3000:]
    assert stack.tags(training)["dagster/image"] == old
    stack.drop("later.csv", coins(9))
    receipt = str(stack.report("later.csv").document["receipt"])
    assert new["CRYPTO_ML_IMAGE"] in stack.store.read(receipt).decode()
    following = stack.launch("retrain", dagster__partition=WEEK)
    until(lambda: stack.run_containers(following), "no container for the run")
    assert stack.tags(following)["dagster/image"] == new["STACK_HEAVY_IMAGE"]
    stack.cancel(following)
    assert stack.ended(following) == "CANCELED"


def test_two_daemons_by_mistake_answer_each_file_once(stack: Stack) -> None:
    with stack.another_daemon() as second:
        until(lambda: b"SensorDaemon" in second.logs(), "the second daemon does not begin")
        names = [f"two-{number}.csv" for number in range(20)]
        for number, name in enumerate(names):
            stack.drop(name, coins(200 + number))
        answered_once(stack, names)
    stack.drop("one.csv", coins(220))
    answered_once(stack, ["one.csv"])


def test_a_backup_is_put_back_and_what_was_dropped_since_is_answered_once(stack: Stack, tmp_path: Path) -> None:
    file = stack.run([str(stack.folder / "backup"), str(tmp_path)]).stdout.strip()
    cut = tmp_path / "cut.dump"
    cut.write_bytes(Path(file).read_bytes()[:-10_000])
    with pytest.raises(AssertionError, match="could not read from input file"):
        stack.run([str(stack.folder / "restore"), str(cut)])
    since = stack.launch("upkeep")
    assert stack.ended(since) == "SUCCESS"
    stack.drop("since.csv", coins(5))
    first = stack.report("since.csv").document["answer_id"]
    stack.run([str(stack.folder / "restore"), file])
    stack.wait()
    known = {run["runId"] for run in stack.ask(RUNS)["runsOrError"]["results"]}
    assert known
    assert since not in known
    stack.drop("after.csv", coins(6))
    answered_once(stack, ["since.csv", "after.csv"])
    assert stack.report("since.csv").document["answer_id"] == first


def test_a_host_that_goes_down_and_comes_back_loses_nothing(stack: Stack) -> None:
    names = [f"down-{number}.csv" for number in range(4)]
    for number, name in enumerate(names):
        if number == 2:
            stack.power_off()
        stack.drop(name, coins(10 + number))
    stack.power_on()
    stack.wait()
    answered_once(stack, names)
