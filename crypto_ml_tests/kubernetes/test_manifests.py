"""What the manifests say holds for every pod, in every environment."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from crypto_ml_tests.kubernetes.manifests import (
    KUBERNETES,
    OVERLAYS,
    ROOT,
    Document,
    built,
    documents,
    of_kind,
    pod_of,
    strictly_valid,
)

pytestmark = pytest.mark.kubernetes


@pytest.fixture(params=OVERLAYS)
def overlay(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def instance() -> Document:
    document: Document = yaml.safe_load((KUBERNETES / "base" / "dagster.yaml").read_text())
    return document


def requires_little(pod: Document) -> list[str]:
    """What keeps a pod from being admitted as restricted, or from a root file system that is never written."""
    wrong = []
    spec = pod["spec"]
    for container in [*spec.get("initContainers", []), *spec["containers"]]:
        both = spec.get("securityContext", {}) | container.get("securityContext", {})
        wanted: dict[str, Any] = {
            "runAsNonRoot": True,
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        }
        wrong += [
            f"{container['name']}: {key} is {both.get(key)}" for key, value in wanted.items() if both.get(key) != value
        ]
        if "memory" not in container.get("resources", {}).get("limits", {}):
            wrong.append(f"{container['name']}: memory without limit")
        wrong += [
            f"{container['name']}: the secret of {each['name']} is in the environment"
            for each in container.get("env", [])
            if "secretKeyRef" in each.get("valueFrom", {})
        ]
        wrong += [
            f"{container['name']}: a whole secret" for each in container.get("envFrom", []) if "secretRef" in each
        ]
    if (
        spec.get("hostNetwork")
        or spec.get("hostPID")
        or any("hostPath" in volume for volume in spec.get("volumes", []))
    ):
        wrong.append("something of the node")
    return wrong


def test_every_overlay_is_valid_to_the_letter(overlay: str, tmp_path: Path) -> None:
    assert strictly_valid(built(overlay), tmp_path) == ""


def test_every_pod_is_admitted_as_restricted_and_reads_its_secrets_from_files(overlay: str) -> None:
    deployments = of_kind(documents(overlay), "Deployment")
    assert {"code", "daemon", "webserver", "serve", "page"} <= set(deployments)
    assert {name: wrong for name, one in deployments.items() if (wrong := requires_little(pod_of(one)))} == {}
    (namespace,) = of_kind(documents(overlay), "Namespace").values()
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


def test_whatever_is_named_is_there(overlay: str) -> None:
    """Accounts, maps and roles; secrets are put there by whoever has them."""
    every = documents(overlay)
    accounts, maps = set(of_kind(every, "ServiceAccount")), set(of_kind(every, "ConfigMap"))
    named = {pod_of(one)["spec"].get("serviceAccountName", "runs") for one in of_kind(every, "Deployment").values()}
    launched = instance()["run_launcher"]["config"]["heavy"]["config"]
    assert {*named, launched["service_account_name"]} <= accounts
    mounted = {
        volume["configMap"]["name"]
        for one in of_kind(every, "Deployment").values()
        for volume in pod_of(one)["spec"]["volumes"]
        if "configMap" in volume
    }
    assert {*mounted, *launched["env_config_maps"]} <= maps
    for binding in of_kind(every, "RoleBinding").values():
        assert binding["roleRef"]["name"] in of_kind(every, "Role")
        assert {subject["name"] for subject in binding["subjects"]} <= accounts


def test_every_environment_runs_digests_and_says_so_in_what_it_records(overlay: str) -> None:
    every = documents(overlay)
    for one in of_kind(every, "Deployment").values():
        for container in pod_of(one)["spec"]["containers"]:
            said = {each["name"]: each.get("value") for each in container.get("env", [])}
            assert said.get("CRYPTO_ML_IMAGE", container["image"]) == container["image"]
            assert overlay == "kind" or "@sha256:" in container["image"]
    settings, runs = of_kind(every, "ConfigMap")["settings"]["data"], of_kind(every, "ConfigMap")["runs"]["data"]
    assert runs["CRYPTO_ML_IMAGE"] == settings["CRYPTO_ML_TRAINING_IMAGE"]
    assert overlay == "kind" or settings["CRYPTO_ML_ENVIRONMENT"] == overlay


def test_nothing_is_reached_that_no_policy_names(overlay: str) -> None:
    policies = of_kind(documents(overlay), "NetworkPolicy")
    closed = policies["nothing-else"]["spec"]
    assert (closed["podSelector"], sorted(closed["policyTypes"])) == ({}, ["Egress", "Ingress"])
    assert "ingress" not in closed
    reached = {
        policy["spec"]["podSelector"]["matchLabels"]["app.kubernetes.io/component"]: policy["spec"]["ingress"]
        for policy in policies.values()
        if "ingress" in policy["spec"]
    }
    assert set(reached) - {"s3", "postgres"} == {"code", "serve"}
    for rules in reached.values():
        assert all(rule.get("from") and rule.get("ports") for rule in rules)


def test_the_instance_keeps_the_queues_of_the_root_and_outlives_its_pods() -> None:
    here, root = instance(), yaml.safe_load((ROOT / "dagster.yaml").read_text())
    assert here["run_coordinator"] == root["run_coordinator"]
    assert here["run_retries"] == root["run_retries"]
    every = documents("prod")
    # what scores when the daemon is told to end comes to its end, and no run is drained while it trains
    grace = pod_of(of_kind(every, "Deployment")["daemon"])["spec"]["terminationGracePeriodSeconds"]
    assert grace > here["run_launcher"]["config"]["patience"]
    most = here["run_coordinator"]["config"]["max_concurrent_runs"]
    assert of_kind(every, "PodDisruptionBudget")["runs"]["spec"]["minAvailable"] >= most


def test_a_container_that_is_started_again_copies_the_password_over_the_one_it_left() -> None:
    """/scratch outlives its container; `cp` would refuse to write over a file that only its owner may read."""
    patch = yaml.safe_load((KUBERNETES / "base" / "dagster-only.yaml").read_text())
    command = pod_of(patch)["spec"]["containers"][0]["command"]
    assert (
        command
        == instance()["run_launcher"]["config"]["heavy"]["config"]["run_k8s_config"]["container_config"]["command"]
    )
    assert command[2].startswith("install -m 600 /run/secrets/postgres/pgpass /scratch/pgpass && exec")


def test_the_values_of_the_chart_launch_and_queue_as_the_manifests_do() -> None:
    values, here = yaml.safe_load((KUBERNETES / "helm-values.yaml").read_text()), instance()
    coordinator = values["dagsterDaemon"]["runCoordinator"]["config"]["customRunCoordinator"]
    assert coordinator == here["run_coordinator"]
    launcher = values["runLauncher"]["config"]["customRunLauncher"]
    assert (launcher["module"], launcher["class"]) == (here["run_launcher"]["module"], here["run_launcher"]["class"])
    heavy = launcher["config"]["heavy"]
    assert (heavy["module"], heavy["class"]) == ("dagster_k8s", "K8sRunLauncher")
