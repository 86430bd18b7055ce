"""The manifests as kubectl puts them together, and as podman can run them: with no cluster, on loopback."""

import base64
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

ROOT: Final = Path(__file__).resolve().parents[2]
KUBERNETES: Final = ROOT / "deploy" / "kubernetes"
VALIDATOR: Final = ROOT / ".crypto_ml" / "kubernetes" / "bin" / "kubernetes-validate"
VERSION: Final = "1.34"
"""Of Kubernetes, whose schemas the manifests are held against."""

OVERLAYS: Final = ("dev", "preprod", "prod", "kind")

Document = dict[str, Any]


def built(overlay: str) -> str:
    """An overlay as one text, as `kubectl apply -k` would have it."""
    if shutil.which("kubectl") is None:
        pytest.skip("NOT TESTED: there is no kubectl here, which puts the manifests together")
    command = ["kubectl", "kustomize", str(KUBERNETES / "overlays" / overlay)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def documents(overlay: str) -> list[Document]:
    """The objects of an overlay."""
    return list(yaml.safe_load_all(built(overlay)))


def of_kind(every: list[Document], kind: str) -> dict[str, Document]:
    """Those of a kind, by name."""
    return {one["metadata"]["name"]: one for one in every if one["kind"] == kind}


def pod_of(deployment: Document) -> Document:
    """The pod that a Deployment or a Job makes: labels, and spec."""
    template: Document = deployment["spec"]["template"]
    return template


def strictly_valid(text: str, folder: Path) -> str:
    """What the validator says of a text; empty where nothing is wrong."""
    if not VALIDATOR.exists():
        pytest.skip("NOT TESTED: there is no kubernetes-validate here; `make kubernetes` installs it")
    path = folder / "documents.yaml"
    path.write_text(text, encoding="utf-8")
    command = [str(VALIDATOR), "--strict", "--version", VERSION, str(path)]
    said = subprocess.run(command, capture_output=True, text=True, check=False)
    return "" if said.returncode == 0 else said.stdout + said.stderr


PORTS: Final = {"s3": 4566, "postgres": 5432, "code": 4000, "webserver": 3000, "serve": 8000, "page": 5006}
"""What listens where in a cluster, each in a pod of its own."""

FORWARDED: Final = 10_000
"""Podman's pods share this machine's network here: so far above, each listens somewhere else."""


def for_podman(every: list[Document], folder: Path) -> list[Document]:
    """What podman can run of the manifests: Deployments and ConfigMaps.

    There is no cluster: names become this machine's loopback, secrets files of a folder, probes are left out, and so is
    the launcher of heavy runs. What is said of users, file systems, capabilities, images, settings and commands stays.
    """
    secrets = of_kind(every, "Secret")
    kept = [one for one in every if one["kind"] in ("ConfigMap", "Deployment")]
    for one in kept:
        one["metadata"].pop("namespace", None)
        if one["kind"] == "ConfigMap":
            one["data"] = {key: _here(key, value) for key, value in one["data"].items()}
            continue
        spec = pod_of(one)["spec"]
        spec["hostNetwork"] = True
        for container in spec["containers"]:
            for left_out in ("ports", "startupProbe", "readinessProbe", "livenessProbe", "lifecycle"):
                container.pop(left_out, None)
            container["args"] = [_port(one["metadata"]["name"], word) for word in container.get("args", [])]
            container["env"] = [
                each | ({"value": _port(one["metadata"]["name"], each["value"])} if "value" in each else {})
                for each in container.get("env", [])
                if "valueFrom" not in each
            ]
        if one["metadata"]["name"] == "postgres":
            spec["containers"][0]["args"] = [
                "start",
                "-p",
                str(PORTS["postgres"] + FORWARDED),
                "-c",
                "listen_addresses=127.0.0.1",
            ]
        _named_apart(spec, one["metadata"]["name"])
        for volume in spec["volumes"]:
            if secret := volume.pop("secret", None):
                volume["hostPath"] = {"path": str(_as_files(secret, secrets, folder)), "type": "Directory"}
    return kept


def _named_apart(spec: Document, pod: str) -> None:
    """Podman gives volumes of one name in two pods one folder."""
    for each in [*spec["volumes"], *(mount for one in spec["containers"] for mount in one["volumeMounts"])]:
        each["name"] = f"{pod}-{each['name']}"


def _here(key: str, value: str) -> str:
    if key == "workspace.yaml":
        workspace = yaml.safe_load(value)
        for server in workspace["load_from"]:
            server["grpc_server"] |= {"host": "127.0.0.1", "port": PORTS["code"] + FORWARDED}
        return str(yaml.safe_dump(workspace))
    if key == "dagster.yaml":
        instance = yaml.safe_load(value)
        del instance["run_launcher"]["config"]["heavy"]
        return str(yaml.safe_dump(instance))
    for name in ("s3", "postgres"):
        value = value.replace(f"{name}:{PORTS[name]}", f"127.0.0.1:{PORTS[name] + FORWARDED}")
    return value


def _port(name: str, word: str) -> str:
    port = PORTS.get(name, -1)
    return word.replace(str(port), str(port + FORWARDED)).replace("0.0.0.0", "127.0.0.1")  # noqa: S104


def _as_files(secret: Document, secrets: Mapping[str, Document], folder: Path) -> Path:
    """The files that a volume of a Secret would have; readable, as its group's are in a pod."""
    made = folder / "-".join([secret["secretName"], *sorted(item["path"] for item in secret.get("items", []))])
    made.mkdir(parents=True, exist_ok=True)
    for name, content in _contents(secret, secrets.get(secret["secretName"], {})):
        path = made / name
        path.write_bytes(content)
        path.chmod(0o444)
    made.chmod(0o755)
    return made


def _contents(secret: Document, held: Document) -> Iterator[tuple[str, bytes]]:
    data = {key: base64.b64decode(value or "") for key, value in held.get("data", {}).items()}
    for key, content in data.items():
        path = {item["key"]: item["path"] for item in secret.get("items", [])}.get(key, key)
        if not secret.get("items") or path != key:
            yield path, content
