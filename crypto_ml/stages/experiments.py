"""Trainings and the pointer, mirrored to an MLflow server where there is one: for teams that look at models there.

The registry in S3 stays the truth. With MLFLOW_TRACKING_URI set, as MLflow itself reads it, each trained bundle becomes
a run (parameters, metrics, pictures, the bundle itself) and a version of the registered model `crypto_ml`, whose alias
`champion-<environment>` follows the pointer. Both lead to each other: the run's tags say which bundle it is and where,
and an object under receipts/experiments/ says which run. Without the variable nothing of MLflow is imported. A server
that cannot be reached fails neither a training nor a promotion; what it missed is told, and made up for when that model
is promoted.
"""

import json
import logging
import math
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote, urlsplit, urlunsplit

from crypto_ml.errors import CryptoMLError
from crypto_ml.extras import require_experiments
from crypto_ml.forecasting.bundle import TRAINING_MANIFEST, ModelBundle
from crypto_ml.ledger.layout import EXPERIMENTS, JSON, Environment, bundle_prefix
from crypto_ml.ledger.registry import Champion, Registry
from crypto_ml.storage.failures import AlreadyExists, ObjectMissing
from crypto_ml.storage.objects import ObjectStore

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

log: Final = logging.getLogger(__name__)

VARIABLE: Final = "MLFLOW_TRACKING_URI"
NAME: Final = "crypto_ml"
"""The experiment, where MLFLOW_EXPERIMENT_NAME names no other, and the registered model."""

SHA256_TAG: Final = "crypto_ml.bundle_sha256"
VERSION_TAG: Final = "crypto_ml.version"
BUNDLE: Final = "bundle"
"""The folder of the run's artifacts in which the bundle is, pictures and card among its files."""

LONGEST_PARAMETER: Final = 6000
MOST_METRICS: Final = 1000
"""What a server takes at once."""

_QUICK: Final = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "20"}
"""A server that is away must not hold up a training for the quarter of an hour that MLflow would try."""


class NotTracked(CryptoMLError):  # noqa: N818 - reads as what happened
    """What could not be told to the MLflow server, and why."""


@dataclass(frozen=True)
class Experiment:
    """A bundle in MLflow: its run, and its version of the registered model. tracked_at: the server, without secrets."""

    run_id: str
    experiment_id: str
    model_version: str
    tracked_at: str

    @property
    def link(self) -> str:
        """Where the run is looked at in MLflow's UI; the server's address where that is no web page."""
        if not self.tracked_at.startswith(("http://", "https://")):
            return self.tracked_at
        return f"{self.tracked_at.rstrip('/')}/#/experiments/{self.experiment_id}/runs/{self.run_id}"


def tracks() -> bool:
    """Whether an MLflow server is named in the environment."""
    return bool(os.environ.get(VARIABLE))


def log_training(bundle: ModelBundle, store: ObjectStore, *, dagster_run: str | None = None) -> Experiment:
    """Make a run and a model version of a bundle, once: one that is there already is found again.

    Raises NotTracked, NotInstalled, and what the store raises.
    """
    with _client() as client:
        run = _run_of(client, bundle) or _logged(client, bundle, store, dagster_run)
        version = _model_version(client, bundle, run)
        experiment = Experiment(run.info.run_id, run.info.experiment_id, version, without_secrets(os.environ[VARIABLE]))
    content = json.dumps({"format": 1, "version": bundle.version, **asdict(experiment)}, indent=2).encode() + b"\n"
    try:
        store.create_or_same(_key(bundle.version), content, content_type=JSON)
    except AlreadyExists:
        log.info("model %s is in another MLflow server too; the first one stays on record", bundle.version)
    return experiment


def experiment_of(version: str, store: ObjectStore) -> Experiment | None:
    """Where a model is in MLflow, as it was recorded; None where it is not."""
    try:
        said = json.loads(store.read(_key(version)))
    except ObjectMissing:
        return None
    return Experiment(*(str(said[name]) for name in ("run_id", "experiment_id", "model_version", "tracked_at")))


def follow_pointer(champion: Champion, registry: Registry) -> Experiment:
    """Put the alias of the registry's environment on the champion, which is logged first where it is not yet.

    Raises NotTracked, NotInstalled, and what the store raises.
    """
    experiment = log_training(registry.load(champion.version), registry.store)
    with _client() as client:
        client.set_registered_model_alias(NAME, alias_of(registry.environment), experiment.model_version)
        said = {"pointer": champion.pointer, "by": champion.by, "why": champion.why, "at": champion.at}
        for name, value in said.items():
            client.set_model_version_tag(NAME, experiment.model_version, f"crypto_ml.{name}", str(value))
    return experiment


def alias_of(environment: Environment) -> str:
    """The alias that follows the pointer of an environment."""
    return f"champion-{environment}"


def told_of_training(bundle: ModelBundle, store: ObjectStore, dagster_run: str | None = None) -> dict[str, str]:
    """`log_training` for whoever only wants to say how it went: nothing where no server is named."""
    if not tracks():
        return {}
    try:
        return {"mlflow_run": log_training(bundle, store, dagster_run=dagster_run).link}
    except CryptoMLError as error:
        log.warning("model %s was not logged to MLflow: %s", bundle.version, error)
        return {"mlflow_run": f"not logged: {error}"}


def told_of_decision(champion: Champion, registry: Registry) -> dict[str, str]:
    """`follow_pointer` for whoever only wants to say how it went: nothing where no server is named."""
    if not tracks():
        return {}
    try:
        return {"mlflow_run": follow_pointer(champion, registry).link}
    except CryptoMLError as error:
        log.warning("the alias %s did not follow the pointer: %s", alias_of(registry.environment), error)
        return {"mlflow_run": f"alias not moved: {error}"}


@contextmanager
def _client() -> Iterator["MlflowClient"]:
    """A client of the server that the environment names. Raises NotTracked for whatever goes wrong with it."""
    require_experiments("Logging to MLflow")
    for name, value in _QUICK.items():
        os.environ.setdefault(name, value)
    from mlflow import MlflowClient

    uri = os.environ[VARIABLE]
    try:
        yield MlflowClient(tracking_uri=uri)
    except Exception as error:  # noqa: BLE001 - what answers nonsense makes the client raise anything, and fails nothing
        why = _without_parts_of(uri, (str(error).splitlines() or [type(error).__name__])[0])
        where = without_secrets(uri)
        raise NotTracked(f"MLflow at {where} did not take it ({why}); see that it runs and lets us in") from None


def without_secrets(uri: str) -> str:
    """An address without what it may carry of a user, a password or a token."""
    try:
        parts = urlsplit(uri)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return f"an address that is none ({VARIABLE})"
    host = f"[{host}]" if ":" in host else host
    return urlunsplit((parts.scheme, f"{host}:{port}" if port else host, parts.path, "", ""))


def _without_parts_of(uri: str, text: str) -> str:
    """A text of the client, which may repeat the address, without what lets in."""
    try:
        parts = urlsplit(uri)
        _ = parts.port
    except ValueError:
        return "the address cannot be read"
    for secret in (parts.query, parts.fragment, parts.password, parts.username):
        for written in (secret, unquote(secret)) if secret else ():
            text = text.replace(written, "…")
    return text


def _run_of(client: "MlflowClient", bundle: ModelBundle) -> "Run | None":
    """The finished run that logged these very bytes, from any machine."""
    experiment = _experiment(client)
    found = client.search_runs(
        [experiment],
        f"tags.`{SHA256_TAG}` = '{bundle.sha256}' and attributes.status = 'FINISHED'",
        max_results=1,
        order_by=["attributes.start_time ASC"],
    )
    return found[0] if found else None


def _experiment(client: "MlflowClient") -> str:
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or NAME
    found = client.get_experiment_by_name(name)
    return str(found.experiment_id) if found else str(client.create_experiment(name))


def _logged(client: "MlflowClient", bundle: ModelBundle, store: ObjectStore, dagster_run: str | None) -> "Run":
    from mlflow.entities import Metric, Param, RunTag

    run = client.create_run(_experiment(client), run_name=bundle.version)
    told = {
        VERSION_TAG: bundle.version,
        SHA256_TAG: bundle.sha256,
        "crypto_ml.bundle": store.uri(bundle_prefix(bundle.version)),
        **({"dagster.run_id": dagster_run} if dagster_run else {}),
        "mlflow.note.content": bundle.files.get("MODEL_CARD.md", b"").decode(),
    }
    now = int(run.info.start_time)
    metrics = [Metric(name, value, now, step) for name, value, step in metrics_of(bundle)]
    run_id = run.info.run_id
    client.log_batch(
        run_id,
        metrics=metrics[:MOST_METRICS],
        params=[Param(name, value[:LONGEST_PARAMETER]) for name, value in parameters_of(bundle)],
        tags=[RunTag(name, value) for name, value in told.items()],
    )
    with TemporaryDirectory(prefix="crypto_ml-mlflow-") as folder:
        bundle.write(Path(folder))
        client.log_artifacts(run_id, folder, BUNDLE)
    client.set_terminated(run_id)
    return client.get_run(run_id)


def parameters_of(bundle: ModelBundle) -> Iterator[tuple[str, str]]:
    """What a model was made with, as names and texts: the plan of its training, and what names its training set."""
    yield "target", bundle.target
    yield "features", ",".join(bundle.features)
    for name, value in bundle.manifest["about"].get("plan", {}).items():
        yield f"plan.{name}", str(value)
    manifest = bundle.document(TRAINING_MANIFEST)
    for name in ("source", "week", "as_of", "known_by", "history_version", "symbols", "rows_sha256"):
        if name in manifest:
            yield f"training_set.{name}", str(manifest[name])
    for span, value in {**manifest.get("rows", {}), **manifest.get("split", {})}.items():
        yield f"training_set.{span}", str(value)


def metrics_of(bundle: ModelBundle) -> Iterator[tuple[str, float, int]]:
    """Every number of metrics.json by its path, and its step: epochs count from 0. Coins one by one are left out, as
    they are in the bundle."""
    metrics = dict(bundle.document("metrics.json"))
    for name, series in metrics.pop("loss", {}).items():
        yield from ((name, float(value), step) for step, value in enumerate(series))
    yield from ((name, value, 0) for name, value in _numbers("", metrics))


def _numbers(path: str, found: Any) -> Iterator[tuple[str, float]]:
    if isinstance(found, Mapping):
        for name, inner in found.items():
            if name not in ("by_symbol", "by_coin", "by_month"):
                yield from _numbers(f"{path}.{name}".strip("."), inner)
    elif isinstance(found, int | float) and math.isfinite(found):
        yield re.sub(r"[^A-Za-z0-9_\-./ ]", "_", path), float(found)


def _model_version(client: "MlflowClient", bundle: ModelBundle, run: "Run") -> str:
    """The version of the registered model that is this run's bundle; made where there is none."""
    from mlflow.exceptions import MlflowException

    try:
        client.get_registered_model(NAME)
    except MlflowException:
        client.create_registered_model(NAME, description="Next opening prices; the registry of record is in S3")
    of_run = client.search_model_versions(f"name = '{NAME}' and run_id = '{run.info.run_id}'")
    if of_run:
        return str(min(of_run, key=lambda one: int(one.version)).version)
    tags = {VERSION_TAG: bundle.version, SHA256_TAG: bundle.sha256}
    source = f"{run.info.artifact_uri}/{BUNDLE}"
    return str(client.create_model_version(NAME, source, run_id=run.info.run_id, tags=tags).version)


def _key(version: str) -> str:
    return f"{EXPERIMENTS}{version}.json"
