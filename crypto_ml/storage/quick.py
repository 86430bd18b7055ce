"""Small objects read and written by a client that takes a fifth of the SDK's processor time for a request.

What belongs here: one request for one object of a known small size, sent once. What does not: what an answer means.
Whatever is neither a plain success nor a condition that did not hold is asked again of the SDK, whose answer is named.
So failures, repetitions and patience are the same whichever client sent the first request. Credentials, endpoint and
region are those of the SDK's client. The client's threads do not survive a fork: who forked has the SDK alone.
"""

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from threading import Lock
from typing import TYPE_CHECKING, Any, Final, Literal

from botocore.exceptions import NoCredentialsError

from crypto_ml.storage.settling import LOST

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from obstore.store import S3Credential, S3Store

PATIENCE: Final = timedelta(seconds=60)
FRESH: Final = timedelta(minutes=8)
"""How long credentials are used before they are asked for anew; the SDK renews those of a role ten minutes before they
end at the latest."""

MOST_SILENCES: Final = 3
REST: Final = 60.0
"""Seconds in which the SDK alone is used, after so many requests in a row without any answer."""

PRECONDITION_FAILED: Final = "status code: 412"

NOTHING: Final = "nothing"
NO_SUCH_KEY: Final = "<Code>NoSuchKey</Code>"

OF_HTTP: Final = frozenset(
    {"Cache-Control", "Content-Disposition", "Content-Encoding", "Content-Language", "Content-Type", "Storage-Class"}
)
"""Attributes of an answer that are no metadata of the object: that has names in small letters."""


@dataclass(frozen=True)
class Answer:
    """An object as one answer had it. etag: without quotes. version_id: as the store says, None in a bucket without."""

    content: bytes
    etag: str
    last_modified: datetime
    version_id: str | None
    metadata: dict[str, str]


class QuickClient:
    """Single requests to one bucket, safe to share between threads. Each says None where the SDK is to be asked."""

    def __init__(self, client: "S3Client", bucket: str) -> None:
        self._client = client
        self._bucket = bucket
        self._opening = Lock()
        self._opened = False
        self._store: S3Store | None = None
        self._silences = 0
        self._resting_until = 0.0

    def get(self, key: str, *, etag: str, version: str | None) -> bytes | None:
        """The bytes of the very version of an object that was listed."""
        store = self._for(key)
        if store is None:
            return None
        from obstore import get
        from obstore.exceptions import BaseError

        try:
            answer = get(store, key, options={"version": version} if version else {"if_match": f'"{etag}"'})
            content = bytes(answer.bytes())
        except (BaseError, OSError, ValueError) as failure:
            self._note(failure)
            return None
        self._silences = 0
        return content

    def fetch(self, key: str, at_most: int) -> Answer | Literal["nothing"] | None:
        """What is under a key now, unless it has more bytes than `at_most`; `NOTHING` where the bucket has none."""
        store = self._for(key)
        if store is None:
            return None
        from obstore import get
        from obstore.exceptions import BaseError

        try:
            answer = get(store, key)
            found, described = answer.meta, answer.attributes
            if found["size"] > at_most or not found["e_tag"]:
                return None
            metadata = {str(name): str(value) for name, value in described.items() if name not in OF_HTTP}
            content = bytes(answer.bytes())
        except FileNotFoundError as failure:  # a bucket that is not there is the SDK's to tell of
            return NOTHING if NO_SUCH_KEY in str(failure) else None
        except (BaseError, OSError, ValueError) as failure:
            self._note(failure)
            return None
        self._silences = 0
        return Answer(content, found["e_tag"].strip('"'), found["last_modified"], found["version"], metadata)

    def put(self, key: str, body: bytes, condition: Mapping[str, str], described: Mapping[str, Any]) -> str | None:
        """The ETag of the object as it was written; `LOST` where the condition did not hold. With None it may have been
        written, or not. condition, described: as the SDK's `put_object` takes them."""
        store = self._for(key)
        if store is None:
            return None
        from obstore import put
        from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError

        attributes = dict(described.get("Metadata", {}))
        if "ContentType" in described:
            attributes["Content-Type"] = described["ContentType"]
        try:
            written = put(store, key, body, attributes=attributes, mode=_mode(condition), use_multipart=False)
        except (AlreadyExistsError, PreconditionError) as failure:
            return LOST if PRECONDITION_FAILED in str(failure) else None  # 409 says that nobody has won yet
        except (BaseError, OSError, ValueError) as failure:
            self._note(failure)
            return None
        self._silences = 0
        return written["e_tag"] or None

    def _note(self, failure: Exception) -> None:
        """Rest where nothing answers this client; a key that it does not take, or a refusal, is no silence."""
        if "status code:" not in str(failure) and not isinstance(failure, ValueError):
            self._silences += 1
            if self._silences >= MOST_SILENCES:
                self._silences, self._resting_until = 0, time.monotonic() + REST

    def _for(self, key: str) -> "S3Store | None":
        """What to send a request for this key with; None where that is the SDK's."""
        # its paths have no slash at either end, and leave one away that is there
        if key.startswith("/") or key.endswith("/") or time.monotonic() < self._resting_until:
            return None
        with self._opening:
            if not self._opened and _first_here():
                self._store, self._opened = self._open(), True
        return self._store if _first_here() else None

    def _open(self) -> "S3Store | None":
        """A client with the SDK's endpoint, region and credentials; None where the SDK was told what it cannot be."""
        from obstore.store import S3Store

        config: Any = self._client.meta.config
        endpoint = self._client.meta.endpoint_url
        plain = endpoint.startswith("http://")
        if config.proxies or config.client_cert or not (plain or _usual_certificates(self._client)):
            return None
        return S3Store(
            self._bucket,
            endpoint=endpoint,
            aws_endpoint_url_s3=endpoint,
            region=self._client.meta.region_name,
            virtual_hosted_style_request=False,
            conditional_put="etag",
            # of nothing that leads back to the store: the collector does not see through it
            credential_provider=partial(_credentials, self._client),
            client_options={
                "allow_http": plain,
                "connect_timeout": timedelta(seconds=5),
                "timeout": PATIENCE,
            },
            # whether a repeated write is the first one's must be known, so the SDK repeats it
            retry_config={"max_retries": 0, "retry_timeout": PATIENCE},
        )


def _credentials(client: "S3Client") -> "S3Credential":
    found = client._get_credentials()  # type: ignore[attr-defined]
    if found is None:
        raise NoCredentialsError
    keys = found.get_frozen_credentials()
    return {
        "access_key_id": keys.access_key,
        "secret_access_key": keys.secret_key,
        "token": keys.token,
        "expires_at": datetime.now(UTC) + FRESH,
    }


_first_user: list[int] = []


def _mode(condition: Mapping[str, str]) -> Any:
    if "IfNoneMatch" in condition:
        return "create"
    return {"e_tag": condition["IfMatch"]} if "IfMatch" in condition else "overwrite"


def _first_here() -> bool:
    """Whether this process is the first that uses the client's threads, and not a fork of that one."""
    if not _first_user:
        _first_user.append(os.getpid())
    return _first_user[0] == os.getpid()


def _usual_certificates(client: "S3Client") -> bool:
    """Whether the SDK trusts the certificates that everybody does, and was given none of its own."""
    session = getattr(getattr(client, "_endpoint", None), "http_session", None)
    return getattr(session, "_verify", None) is True
