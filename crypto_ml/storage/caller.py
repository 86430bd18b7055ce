"""Who this process acts as, by those who check it: AWS says whose credentials it has, the operating system whose user
it runs as. What somebody types beside it, a decision's `by`, is a name that nobody checks.
"""

import os
import socket
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal
from urllib.parse import urlsplit

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

Kind = Literal["aws", "sts", "os"]

OF_AWS: Final = (".amazonaws.com", ".amazonaws.com.cn")
CHECKED_BY: Final[Mapping[str, str]] = {"aws": "AWS says", "sts": "a server says", "os": "run as"}
LONGEST: Final = 512
"""Characters of a name that are kept: an ARN has fewer."""


@dataclass(frozen=True)
class Caller:
    """kind: who says so; `aws`: the ARN that the credentials belong to; `sts`: the same, of a server that is not of AWS
    and is named with it, for a store that is not either; `os`: user@host of the process."""

    kind: Kind
    name: str


def caller(client: "S3Client") -> Caller:
    """Who acts. AWS is asked where the client's store is its own, and for another store whoever else the SDK's settings
    name. For a store of AWS nobody else is: whoever acts chooses the settings.

    Where it does not answer within some seconds, or there is none to ask, the operating system's user: a decision
    waits for nobody.
    """
    with suppress(BotoCoreError, ClientError, ResponseParserError, ValueError):
        config = Config(connect_timeout=2, read_timeout=5, retries={"total_max_attempts": 2})
        asked = boto3.session.Session().client("sts", region_name=client.meta.region_name, config=config)
        server = asked.meta.endpoint_url
        if _is_of_aws(client.meta.endpoint_url) and _is_of_aws(server):
            return Caller("aws", asked.get_caller_identity()["Arn"][:LONGEST])
        if not _is_of_aws(client.meta.endpoint_url) and not _is_of_aws(server):
            name = f"{urlsplit(server).hostname}: {asked.get_caller_identity()['Arn']}"
            return Caller("sts", name[:LONGEST])
    return Caller("os", f"{_user()}@{socket.gethostname()}"[:LONGEST])


def who(by: str, acted_as: Mapping[str, str] | None) -> str:
    """Who decided something, in words: the name that was given, and who acted under it, where that is recorded."""
    if not acted_as:
        return by
    return f"{by} ({CHECKED_BY.get(acted_as['kind'], acted_as['kind'])} {acted_as['name']})"


def _is_of_aws(endpoint: str) -> bool:
    return (urlsplit(endpoint).hostname or "").endswith(OF_AWS)


def _user() -> str:
    """The name of the process's user, not what a variable calls it; its number where it has no name."""
    try:
        import pwd
    except ImportError:  # Windows
        import getpass

        return getpass.getuser()
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())
