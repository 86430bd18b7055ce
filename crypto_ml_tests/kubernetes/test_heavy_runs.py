"""Heavy runs become pods: what the real launcher asks of a cluster, held against roles and rules of the manifests."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml

from crypto_ml.defs.warm.dagster_launching import ReconstructableRepository
from crypto_ml_tests.kubernetes.cluster_api import Asked, ClusterAPI
from crypto_ml_tests.kubernetes.manifests import KUBERNETES, Document, documents, of_kind, pod_of, strictly_valid
from crypto_ml_tests.kubernetes.test_manifests import requires_little

pytestmark = pytest.mark.kubernetes

TRAINING = "registry.example.com/crypto_ml_training@sha256:" + "1" * 64


@pytest.fixture
def api() -> Iterator[ClusterAPI]:
    with ClusterAPI() as api:
        yield api


@pytest.fixture
def instance(api: ClusterAPI, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
    """An instance with the launcher of the manifests, but for where the cluster is, and records in a folder."""
    pytest.importorskip("dagster_k8s", reason="NOT TESTED: dagster-k8s is not installed (the extra `kubernetes`)")
    (tmp_path / "kubeconfig").write_text(api.kubeconfig)
    launcher = yaml.safe_load((KUBERNETES / "base" / "dagster.yaml").read_text())["run_launcher"]
    launcher["config"]["heavy"]["config"] |= {
        "load_incluster_config": False,
        "kubeconfig_file": str(tmp_path / "kubeconfig"),
    }
    (tmp_path / "dagster.yaml").write_text(yaml.safe_dump({"run_launcher": launcher, "telemetry": {"enabled": False}}))
    monkeypatch.setenv("POD_NAMESPACE", "crypto-ml-prod")
    monkeypatch.setenv("CRYPTO_ML_TRAINING_IMAGE", TRAINING)
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        yield instance


def launched(instance: dg.DagsterInstance, job_name: str) -> dg.DagsterRun:
    """A run of a job of ours, handed to the launcher as the daemon does."""
    job = ReconstructableRepository.for_module("crypto_ml.definitions", "defs").get_reconstructable_job(job_name)
    origin = job.get_python_origin()
    run = instance.create_run_for_job(
        job.get_definition(), job_code_origin=origin, tags={"dagster/partition": "2018-03-18"}
    )
    nobody: Any = None  # this launcher asks no code server
    return instance.launch_run(run.run_id, nobody)


def test_a_heavy_run_asks_for_one_pod_that_the_cluster_admits_and_nothing_that_its_account_may_not(
    api: ClusterAPI, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    run = launched(instance, "retrain")
    ((name, job),) = api.jobs.items()
    assert run.run_id in name
    assert api.namespaces == {"crypto-ml-prod"}
    assert strictly_valid(yaml.safe_dump(job), tmp_path) == ""
    pod = pod_of(job)
    assert requires_little(pod) == []
    (container,) = pod["spec"]["containers"]
    assert container["image"] == TRAINING
    assert container["args"][:3] == ["dagster", "api", "execute_run"]
    assert pod["spec"]["automountServiceAccountToken"] is False
    _belongs(pod)
    # looked after as run monitoring does, then ended as from the UI
    assert instance.run_launcher.check_run_worker_health(run).status.name == "RUNNING"
    daemon, before = _may("launches-runs"), len(api.asked)
    assert set(api.asked) <= daemon
    assert instance.run_launcher.terminate(run.run_id)
    assert set(api.asked) <= daemon
    assert set(api.asked[before:]) <= _may("ends-runs")
    assert Asked("batch", "jobs", "create") not in _may("ends-runs")


def _may(role: str) -> set[Asked]:
    rules = of_kind(documents("prod"), "Role")[role]["rules"]
    return {
        Asked(group, resource, verb)
        for rule in rules
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def _belongs(pod: Document) -> None:
    """The pod is one of those that policies, budgets and accounts of the manifests are about."""
    every, labels = documents("prod"), pod["metadata"]["labels"]

    def chosen(selector: Document) -> bool:
        return all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items()) and all(
            labels.get(rule["key"]) in rule["values"] for rule in selector.get("matchExpressions", [])
        )

    policies = {name for name, one in of_kind(every, "NetworkPolicy").items() if chosen(one["spec"]["podSelector"])}
    assert policies == {"nothing-else", "to-names-and-https", "dagster-to-postgres"}
    assert chosen(of_kind(every, "PodDisruptionBudget")["runs"]["spec"]["selector"])
    assert not any(chosen(one["spec"]["selector"]) for one in of_kind(every, "Deployment").values())
    assert pod["spec"]["serviceAccountName"] in of_kind(every, "ServiceAccount")
    deployed = {volume["name"] for volume in pod_of(of_kind(every, "Deployment")["daemon"])["spec"]["volumes"]}
    assert {volume["name"] for volume in pod["spec"]["volumes"]} <= deployed
