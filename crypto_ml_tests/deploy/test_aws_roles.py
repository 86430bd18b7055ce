"""What each role of deploy/aws/roles.yaml may do is what the product does in it, and no role that answers can promote.

The templates are applied to an account that holds every request against the policies of who sends it; then the product
itself works there, in one role after the other, and everything that it asks of S3 passes through a relay that keeps it.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from fnmatch import fnmatchcase

import dagster as dg
import httpx
import pytest

from crypto_ml.audit.replay import replay
from crypto_ml.defs.resources import opened
from crypto_ml.defs.watch import watch
from crypto_ml.deployment import Deployment
from crypto_ml.ledger.registry import Registry
from crypto_ml.ledger.reports import read_report
from crypto_ml.sample import sample_upload
from crypto_ml.service.application import create_app
from crypto_ml.service.config import ServiceConfig
from crypto_ml.service.handling import Service
from crypto_ml.settings import Settings
from crypto_ml.stages.promotion import Decision, decide
from crypto_ml.storage.failures import StoreRefused
from crypto_ml.storage.hints import listen
from crypto_ml.storage.objects import connect
from crypto_ml_tests.deploy.account import Account, environment
from crypto_ml_tests.deploy.recorded import Recorded, Request
from crypto_ml_tests.dropbox.site import until
from crypto_ml_tests.in_process_dagster import InProcessDagster
from crypto_ml_tests.service.asking import served
from scripts.deploy_aws import FOLDER, deploy

pytestmark = pytest.mark.account

WEEK = "2023-11-19"
ROLES = ("Answerer", "Trainer", "Server", "Approver", "Dropper", "Auditor")


@dataclass
class Site:
    """The account, and what was asked of S3 in each role."""

    account: Account
    relay: Recorded
    made: dict[str, str]
    asked: dict[str, list[Request]] = field(default_factory=dict)

    @property
    def settings(self) -> Settings:
        return Settings(bucket=self.made["Bucket"], epochs=1, learners="last_close")

    @contextmanager
    def role(self, name: str, *, forbidden: bool = False) -> Iterator[Settings]:
        """Everything that this process asks of AWS is asked in a role; of what it may not do nothing is to be asked."""
        self.relay.taken()
        keys = self.account.become(self.made[f"{name}Role"])
        variables = {**self.account.environment, **keys, "AWS_ENDPOINT_URL_S3": self.relay.endpoint}
        opened.cache_clear()
        watch.cache_clear()
        with environment(variables):
            yield self.settings
        opened.cache_clear()
        watch.cache_clear()
        passed = self.relay.taken()
        if not forbidden:
            self.asked.setdefault(name, []).extend(passed)


def deployed(account: Account, name: str = "dev") -> dict[str, str]:
    with environment(account.environment):
        made = deploy(name, {"Emulator": "true"}, ["storage", "roles"])
    # AWS has no such action: there sqs:DeleteMessage is what a batch takes, too
    batch = {"Effect": "Allow", "Action": "sqs:DeleteMessageBatch", "Resource": made["QueueArn"]}
    account.client("iam").put_role_policy(
        RoleName=made["AnswererRole"].rpartition("/")[2],
        PolicyName="emulator",
        PolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [batch]}),
    )
    return made


def refused(act: Callable[[], object]) -> None:
    """An act fails because it is not allowed, and for no other reason."""
    with pytest.raises(StoreRefused, match="AccessDenied"):
        act()


def as_bytes(days: int = 60) -> bytes:
    return b"\n".join(sample_upload().split(b"\n")[: days + 1]) + b"\n"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A model's life in roles: first start, a drop and its answer, a retrain, a promotion, requests, an audit."""
    with (
        pytest.MonkeyPatch.context() as patch,
        Account(tmp_path_factory.mktemp("account")) as account,
        Recorded(account.endpoint) as relay,
        dg.DagsterInstance.ephemeral() as instance,
    ):
        patch.setattr("crypto_ml.defs.sensors.LONGEST_WAIT", 0.0)
        made = Site(account, relay, deployed(account))
        with made.role("Approver") as settings:
            Deployment(settings).champion()
        with made.role("Dropper") as settings:
            connect(settings.bucket).replace("uploads/prices.csv", as_bytes())
        with made.role("Answerer") as settings:
            assert listen(made.made["QueueUrl"]).wait(5)
            site = InProcessDagster.of(settings, instance)
            site.answer_new()
            for job in ("daily_forecast", "upkeep", "monitor"):
                site.run(job)
        with made.role("Trainer") as settings:
            InProcessDagster.of(settings, instance).run("retrain", WEEK)
        with made.role("Approver") as settings:
            promote(settings)
        with made.role("Server") as settings:
            serve(settings, patch)
        with made.role("Auditor") as settings:
            deployment = Deployment.reading(settings)
            assert deployment.champion().action == "promotion"
            report = read_report("uploads/prices.csv", deployment.store)
            assert report is not None
            assert replay(str(report.document["answer_id"]), deployment.store).outcome == "IDENTICAL"
        yield made


def promote(settings: Settings) -> None:
    deployment = Deployment(settings)
    registry = deployment.registry
    (candidate,) = [version for version in registry.versions() if version.startswith(WEEK)]
    decision = Decision(candidate, "a test", "to see", override="it is a test")
    decide(decision, registry, deployment.history, datetime.now(UTC))


def serve(settings: Settings, patch: pytest.MonkeyPatch) -> None:
    """Have a request answered, and wait until its predictions are in the log."""
    patch.setattr("crypto_ml.service.watch.LOOK_EVERY", 0.2)
    patch.setattr("crypto_ml.service.watch.SETTLE_EVERY", 0.2)
    deployment = Deployment(settings)
    record = {"symbol": "SIM001", "date": "2023-12-02", "open": 1, "high": 1, "low": 1, "close": 1, "market": 1}
    with (
        served(create_app(Service.of(deployment, ServiceConfig()))) as address,
        httpx.Client(base_url=address) as client,
    ):
        until(lambda: client.get("/readyz").status_code == 200, "the service is not ready")
        answer = client.post("/v1/predictions", json=record, headers={"Idempotency-Key": "once"})
        assert answer.status_code == 200, answer.text
        until(lambda: any(deployment.store.list("receipts/settled/")), "nothing was settled")


def test_each_role_may_do_all_that_the_product_does_in_it(site: Site) -> None:
    assert {name: len(asked) > 0 for name, asked in site.asked.items()} == dict.fromkeys(ROLES, True)
    lacking = [f"{name}: {one}" for name, asked in site.asked.items() for one in asked if one.status in (401, 403)]
    assert not lacking


@pytest.mark.parametrize("role", ["Answerer", "Trainer", "Server", "Dropper", "Auditor"])
def test_no_role_but_the_approver_moves_the_pointer(site: Site, role: str) -> None:
    with site.role(role, forbidden=True) as settings:
        store = connect(settings.bucket)
        before = [found.key for found in store.list("models/champion/")] if role != "Dropper" else []
        key = f"models/champion/dev/{len(before) + 1:08d}.json"
        refused(lambda: store.create(key, b"{}"))
        if role in ("Answerer", "Trainer"):  # the way of the product itself, too
            refused(lambda: Registry(Deployment(settings).store).roll_back(by="me", why="mine", at=datetime.now(UTC)))
    with site.role("Auditor") as settings:
        assert len(list(Registry(connect(settings.bucket)).champions())) == 2


@pytest.mark.parametrize("other", ["preprod", "prod"])
def test_the_approver_of_one_environment_does_not_move_the_pointer_of_another(site: Site, other: str) -> None:
    with site.role("Approver", forbidden=True) as settings:
        store = connect(settings.bucket)
        refused(lambda: store.create(f"models/champion/{other}/00000001.json", b"{}"))


@pytest.mark.parametrize("role", ["Answerer", "Trainer", "Server", "Approver", "Dropper", "Auditor"])
def test_no_role_removes_evidence_or_changes_what_was_dropped_but_who_drops(site: Site, role: str) -> None:
    with site.role(role, forbidden=True) as settings:
        store = connect(settings.bucket)
        for key in (
            "raw/uploads/0",
            "receipts/answers/0.json",
            "models/bundles/0",
            "market_history/0",
            "uploads/prices.csv",
        ):
            with pytest.raises(Exception, match="AccessDenied"):
                store.client.delete_object(Bucket=store.bucket, Key=key)
        if role != "Dropper":
            refused(lambda: store.replace("uploads/prices.csv", b""))


def test_what_the_bucket_asks_to_be_written_once_is_written_so_by_whoever_writes_it(site: Site) -> None:
    once = written_once()
    written = [one for asked in site.asked.values() for one in asked if one.writes]
    evidence = [one for one in written if any(fnmatchcase(one.key, pattern) for pattern in once)]
    assert {one.key.split("/")[0] for one in evidence} == {"raw", "receipts", "models"}
    assert not [str(one) for one in evidence if "if-none-match" not in one.headers]
    # and nothing of what is evidence is left out of the policy, but for what follows under If-Match
    others = {one.key for one in written} - {one.key for one in evidence}
    left = ("uploads/", "predictions/", "forecasts/", "cache/", "market_history/", "prediction_log/")
    assert {key for key in others if not key.startswith((*left, "receipts/.probe/", "receipts/answered/"))} == set()


def written_once() -> list[str]:
    """The keys that storage.yaml asks to be written under a condition, as patterns."""
    text = (FOLDER / "storage.yaml").read_text(encoding="utf-8")
    statement = text[text.index("Sid: EvidenceIsWrittenOnce") : text.index('"s3:if-none-match": "true"')]
    found = [line.split("${Prefix}")[1].rstrip('"') for line in statement.splitlines() if "${Prefix}" in line]
    assert len(found) > 10
    return found
