"""An AWS account on this machine: `ministack`, which makes what templates say, holds every request against the policies
of who sends it, and checks signatures. What it does not have is said in docs/aws.md."""

import os
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import boto3
import pytest

from crypto_ml.storage.embedded import EmbeddedS3

REGION: Final = "us-east-1"
ROOT: Final = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
"""Whom the account lets do anything."""

SERVICES: Final = (
    "s3,sqs,iam,sts,cloudformation,ecs,ec2,elbv2,rds,logs,secretsmanager,servicediscovery,ecr,sns,cloudwatch"
)


class Account(EmbeddedS3):
    """The server with more than S3. strict: requests are held against policies."""

    def __init__(self, directory: Path, services: str = SERVICES, *, strict: bool = True) -> None:
        super().__init__(directory)
        self._services, self._strict = services, strict

    @property
    def environment(self) -> dict[str, str]:
        """The AWS SDK's variables that lead to all of it, as root."""
        return {
            **ROOT,
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ENDPOINT_URL_S3": self.endpoint,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def client(self, service: str) -> Any:
        """A client of a service, as root."""
        keys = {name.lower(): value for name, value in ROOT.items()}
        made: Any = boto3.client  # whose stubs know each service by its own name
        return made(service, endpoint_url=self.endpoint, region_name=REGION, **keys)

    def become(self, role: str) -> dict[str, str]:
        """The AWS SDK's variables of somebody in a role. Its trust is opened for it, since no task runs here."""
        anybody = (
            '{"Version": "2012-10-17", "Statement": '
            '[{"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "sts:AssumeRole"}]}'
        )
        self.client("iam").update_assume_role_policy(RoleName=role.rpartition("/")[2], PolicyDocument=anybody)
        keys = self.client("sts").assume_role(RoleArn=role, RoleSessionName="a-test")["Credentials"]
        return {
            "AWS_ACCESS_KEY_ID": keys["AccessKeyId"],
            "AWS_SECRET_ACCESS_KEY": keys["SecretAccessKey"],
            "AWS_SESSION_TOKEN": keys["SessionToken"],
        }

    def _server_environment(self) -> dict[str, str]:
        return super()._server_environment() | {"SERVICES": self._services, "AUTH": str(self._strict).lower()}

    def _answers(self) -> bool:
        # nobody may list buckets without a name, but the server says that it is there
        try:
            with urllib.request.urlopen(f"{self.endpoint}/_ministack/health", timeout=2) as answer:  # noqa: S310
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False


@contextmanager
def environment(variables: Mapping[str, str]) -> Iterator[None]:
    """These AWS variables and no others."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            patch.delenv(name)
        for name, value in variables.items():
            patch.setenv(name, value)
        yield
