"""Objects in one bucket, under one prefix: listed, read pinned, created once, or replaced as a whole.

What belongs here: everything the product does to single S3 objects, and what each failure means. Which server answers,
and with whose credentials, is the AWS SDK's own affair (`AWS_ENDPOINT_URL_S3`, `AWS_DEFAULT_REGION`, profiles, roles).
Keys at this interface are logical: without the store's prefix, and taken literally (`..` is two dots).

A read that fails raises; it is never an empty listing or a missing object. A write that raises `StoreUnavailable` may
or may not have happened: writing again under the same key tells which.
"""

import hashlib
import json
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import boto3
import botocore.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, NoCredentialsError
from botocore.utils import parse_timestamp

from crypto_ml.errors import Refused
from crypto_ml.storage.failures import (
    AlreadyExists,
    Conflict,
    ObjectChanged,
    ObjectMissing,
    StoreNotUsable,
    StoreRefused,
    VersionsNotListed,
    named_failures,
    no_bucket,
    not_of_s3,
    unusable_settings,
)
from crypto_ml.storage.limits import LONGEST_KEY
from crypto_ml.storage.multipart import may_be, send_in_parts, step_of
from crypto_ml.storage.quick import NOTHING, QuickClient
from crypto_ml.storage.settling import settled

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import GetObjectOutputTypeDef, HeadObjectOutputTypeDef


QUICK_BYTES: Final = 4 << 20
"""The largest object that is read or written by the quick client, in one request and in memory."""

NO_VERSION: Final = "null"
"""The version that a bucket with suspended versioning overwrites: it pins nothing."""

ORDER: Final = "crypto-ml-order"
"""Name of the metadata entry that `put_newest` goes by."""


@dataclass(frozen=True)
class StoredObject:
    """An object as listed or headed: logical key, bytes, ETag without quotes, UTC time of writing, version id if any.

    `version_id` is None from a listing and in a bucket that keeps no versions; a listing has no `metadata` either.
    """

    key: str
    size: int
    etag: str
    last_modified: datetime
    version_id: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict, compare=False)


@dataclass(frozen=True)
class StoredVersion:
    """A version of an object, or its deletion: logical key, bytes, ETag without quotes, UTC time, whether it is the
    newest of its key.

    version_id: None of what was written while the bucket kept no versions. etag: None of a deletion.
    """

    key: str
    size: int
    etag: str | None
    last_modified: datetime
    version_id: str | None
    latest: bool


class ObjectStore:
    """One bucket and prefix, through a boto3 S3 client that is safe to share between threads.

    quick: where small objects are read and written by another client first, made for the same bucket.
    """

    waits: bool = True
    """Whether most of what is asked of it is asked of the bucket, over a network."""

    def __init__(self, client: "S3Client", bucket: str, prefix: str = "", quick: QuickClient | None = None) -> None:
        self.client = client
        self.bucket = bucket
        self.quick = quick
        trimmed = prefix.strip("/")
        self.prefix = f"{trimmed}/" if trimmed else ""
        self._bucket_seen = False

    def below(self, prefix: str) -> "ObjectStore":
        """The same bucket through the same clients, under another prefix."""
        return ObjectStore(self.client, self.bucket, prefix, self.quick)

    def physical(self, key: str) -> str:
        """The key as the bucket knows it."""
        return self.prefix + key

    @property
    def room(self) -> int:
        """Bytes of UTF-8 that a key may have here."""
        return LONGEST_KEY - len(self.prefix.encode())

    def uri(self, key: str) -> str:
        """`s3://bucket/prefix/key`, for people, receipts and Delta Lake."""
        return f"s3://{self.bucket}/{self.physical(key)}"

    def list(self, prefix: str = "", start_after: str | None = None) -> Iterator[StoredObject]:
        """Every object under `prefix` in the order of its key's UTF-8 bytes, beginning after `start_after`.

        Raises: StoreUnavailable, StoreRefused, also between two pages.
        """
        asked: dict[str, Any] = {"Bucket": self.bucket, "Prefix": self.physical(prefix)}
        if start_after is not None:
            asked["StartAfter"] = self.physical(start_after)
        with named_failures(self.client, "list", self.uri(prefix)):
            # the SDK asks for url-encoded keys and decodes them, which is what lets a line feed in a key survive XML
            for page in self.client.get_paginator("list_objects_v2").paginate(**asked):
                if "IsTruncated" not in page:
                    raise not_of_s3("listing", self.uri(prefix))
                for entry in page.get("Contents", []):
                    yield StoredObject(
                        key=entry["Key"].removeprefix(self.prefix),
                        size=entry["Size"],
                        etag=entry["ETag"].strip('"'),
                        last_modified=entry["LastModified"].astimezone(UTC),
                    )

    def versions(self, prefix: str = "") -> Iterator[StoredVersion]:
        """Every version below `prefix` that the bucket has, deletions among them; in a bucket that keeps none, every
        object once. By pages in the order of the keys; within one, deletions come last.

        Raises: VersionsNotListed, StoreUnavailable, StoreRefused, also between two pages.
        """
        where = self.uri(prefix)
        no_right = VersionsNotListed(
            f"The store does not let these credentials list the versions of {where}: grant s3:ListBucketVersions."
        )
        unknown = VersionsNotListed(f"The store does not know how to list the versions of {where}: use one that does.")
        with named_failures(self.client, "list", where, {403: no_right, 405: unknown, 501: unknown}):
            pages = self.client.get_paginator("list_object_versions")
            for page in pages.paginate(Bucket=self.bucket, Prefix=self.physical(prefix)):
                if "IsTruncated" not in page:
                    raise not_of_s3("listing", where)
                for entry in (*page.get("Versions", []), *page.get("DeleteMarkers", [])):
                    found: Any = entry
                    version = found["VersionId"]
                    yield StoredVersion(
                        key=found["Key"].removeprefix(self.prefix),
                        size=found.get("Size", 0),
                        etag=found["ETag"].strip('"') if "ETag" in found else None,
                        last_modified=found["LastModified"].astimezone(UTC),
                        version_id=None if version == "null" else version,
                        latest=found["IsLatest"],
                    )

    def head(self, key: str) -> StoredObject | None:
        """What is under `key` now, or None if nothing is."""
        answer = self._head(key)
        return None if answer is None else self._object_of(key, answer)

    def fetch(self, key: str) -> tuple[StoredObject, bytes]:
        """The object under `key` with its bytes, both from one answer. Raises: ObjectMissing."""
        if self.quick and (found := self.quick.fetch(self.physical(key), QUICK_BYTES)):
            if found == NOTHING:
                raise self._missing(key)
            version = None if found.version_id == NO_VERSION else found.version_id
            size = len(found.content)
            return StoredObject(key, size, found.etag, found.last_modified, version, found.metadata), found.content
        with named_failures(self.client, "read", self.uri(key), {404: self._missing(key)}):
            answer = self.client.get_object(Bucket=self.bucket, Key=self.physical(key))
            return self._object_of(key, answer), answer["Body"].read()

    def read(self, key: str) -> bytes:
        """The bytes under `key`. Raises: ObjectMissing."""
        return self.fetch(key)[1]

    def read_part(self, key: str, begin: int, size: int) -> bytes:
        """`size` bytes under `key` from `begin` on, of an object that is never replaced; fewer where it ends before.

        Raises: ObjectMissing; StoreRefused where it ends before `begin`.
        """
        if not size:
            return b""
        with named_failures(self.client, "read", self.uri(key), {404: self._missing(key)}):
            asked = f"bytes={begin}-{begin + size - 1}"
            return self.client.get_object(Bucket=self.bucket, Key=self.physical(key), Range=asked)["Body"].read()

    def read_json(self, key: str) -> Any:
        """The JSON document under `key`. Raises: ObjectMissing; StoreRefused where it is not JSON."""
        try:
            return json.loads(self.read(key))
        except ValueError as e:
            raise StoreRefused(f"{self.uri(key)} is not the JSON document it should be ({e}).") from e

    def chunks(self, obj: StoredObject, size: int = 1024 * 1024) -> Iterator[bytes]:
        """Exactly the bytes of `obj` as it was listed, in pieces of at most `size`.

        Pinned by version id where there is one, else by ETag. Raises: ObjectChanged.
        """
        if self.quick and obj.size <= min(size, QUICK_BYTES):
            content = self.quick.get(self.physical(obj.key), etag=obj.etag, version=obj.version_id)
            if content is not None:
                yield from [content] if content else []
                return
        pin = {"VersionId": obj.version_id} if obj.version_id else {"IfMatch": f'"{obj.etag}"'}
        changed = ObjectChanged(
            f"{self.uri(obj.key)} was replaced or deleted since it was listed with ETag {obj.etag}: list it again."
        )
        with named_failures(self.client, "read", self.uri(obj.key), {404: changed, 412: changed}):
            answer = self.client.get_object(Bucket=self.bucket, Key=self.physical(obj.key), **pin)  # type: ignore[arg-type]
            with closing(answer["Body"]) as body:
                while piece := body.read(size):
                    yield piece

    def read_pinned(self, obj: StoredObject) -> bytes:
        """All bytes of `obj` as it was listed. Raises: ObjectChanged."""
        return b"".join(self.chunks(obj))

    def download(self, obj: StoredObject, path: Path) -> str:
        """Write `obj` as it was listed to the local `path`; returns the sha256 of its bytes in hex.

        `path` appears whole or not at all. Raises: ObjectChanged.
        """
        partial = path.with_name(f"{path.name}.{uuid.uuid4().hex}.part")
        digest = hashlib.sha256()
        try:
            with partial.open("xb") as out:
                for piece in self.chunks(obj):
                    digest.update(piece)
                    out.write(piece)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
        return digest.hexdigest()

    def download_whole(self, key: str, path: Path) -> None:
        """Write the object under `key`, which is one that is never replaced, to the local `path`.

        `path` appears whole or not at all. Raises: ObjectMissing.
        """
        partial = path.with_name(f"{path.name}.{uuid.uuid4().hex}.part")
        try:
            with (
                named_failures(self.client, "read", self.uri(key), {404: self._missing(key)}),
                partial.open("xb") as out,
            ):
                answer = self.client.get_object(Bucket=self.bucket, Key=self.physical(key))
                with closing(answer["Body"]) as body:
                    shutil.copyfileobj(body, out, 1 << 20)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)

    def create(
        self, key: str, body: bytes, *, content_type: str | None = None, metadata: Mapping[str, str] | None = None
    ) -> str:
        """Write a key that nobody has written yet; returns its ETag. Of many writers exactly one succeeds.

        Raises: AlreadyExists.
        """
        return self._put(key, body, {"IfNoneMatch": "*"}, self._exists(key), _described(content_type, metadata))

    def create_or_same(self, key: str, body: bytes, *, content_type: str | None = None) -> bool:
        """True if this call created the object, False if these very bytes were there. Raises: AlreadyExists."""
        try:
            self.create(key, body, content_type=content_type)
            return True
        except AlreadyExists:
            if self.read(key) != body:
                raise
            return False

    def create_json(self, key: str, document: Any) -> str:
        """`create` with a JSON document (sorted keys, so equal documents are equal bytes)."""
        return self.create(key, rendered(document), content_type="application/json")

    def replace(
        self,
        key: str,
        body: bytes,
        *,
        if_match: str | None = None,
        content_type: str | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> str:
        """Put the whole object under `key`, whatever was there; returns its ETag.

        With `if_match` only if what is there has that ETag. Raises: Conflict.
        """
        condition = {} if if_match is None else {"IfMatch": f'"{if_match}"'}
        return self._put(key, body, condition, self._changed(key, if_match), _described(content_type, metadata))

    def upload_file(
        self,
        path: Path,
        key: str,
        *,
        create_only: bool,
        if_match: str | None = None,
        content_type: str | None = None,
        metadata: Mapping[str, str] | None = None,
        sent: Callable[[int], None] = lambda _: None,
    ) -> str:
        """Send a local file of any size as one object that appears whole or not at all; returns its ETag.

        From 16 MB on in parts, of which four are in memory at once; `sent` is called with the bytes of each. With
        `if_match` the ETag is another one afterwards, also where the bytes are the same: who saw the object before sees
        that it was replaced. Raises: AlreadyExists (with `create_only`), Conflict (with `if_match`).
        """
        described = _described(content_type, metadata)
        return self._send(key, path, create_only=create_only, if_match=if_match, described=described, sent=sent)

    def _send(
        self,
        key: str,
        source: Path | bytes,
        *,
        create_only: bool,
        if_match: str | None,
        described: Mapping[str, Any],
        sent: Callable[[int], None] = lambda _: None,
    ) -> str:
        step = step_of(source, if_match)
        condition = {"IfNoneMatch": "*"} if create_only else {"IfMatch": f'"{if_match}"'} if if_match else {}
        lost = self._exists(key) if create_only else self._changed(key, if_match)
        if step is None:
            body = source.read_bytes() if isinstance(source, Path) else source
            return self._put(key, body, condition, lost, described)
        if create_only and self.head(key) is not None:  # spares sending gigabytes for nothing; the store still decides
            raise self._exists(key)
        where = {"Bucket": self.bucket, "Key": self.physical(key)}
        return settled(
            self.client,
            (self.bucket, self.physical(key)),
            lambda marked: send_in_parts(self.client, source, where, marked, condition, step=step, sent=sent),
            described=described,
            condition=condition,
            lost=lost,
        )

    def put_newest(self, key: str, source: Path | bytes, order: str, *, content_type: str | None = None) -> bool:
        """Put the object under `key` unless what is there has a greater `order` (compared as text); True if it was put.

        The order stands in the object's metadata; an object without one counts as older. Of any number of writers, in
        whatever sequence, the one with the greatest order is there in the end, also where some put the same bytes: one
        of them has another ETag than what it replaced, so that an older writer sees that it was replaced. (Two of them
        would have to come between its look and its write to bring the first ETag back.) What is there
        already, bytes and order, is not put again.
        """
        described, seen = _described(content_type, {ORDER: order}), None
        while True:
            with suppress(AlreadyExists, Conflict):  # somebody was faster: look again who that was
                self._send(key, source, create_only=seen is None, if_match=seen, described=described)
                return True
            found = self.head(key)
            there = found.metadata.get(ORDER, "") if found else ""
            if there > order:
                return False
            if found and there == order and may_be(source, found.etag):  # put before: whoever reads it sees no change
                return True
            seen = found.etag if found else None

    def delta_uri(self, key: str) -> str:
        """The address delta-rs opens for the table under `key`."""
        return self.uri(key)

    def delta_options(self) -> dict[str, str]:
        """Storage options with which delta-rs reaches the same store, with the same credentials as this client.

        Credentials of a role expire, so ask anew for every operation. Raises: StoreRefused where there are none.
        """
        with named_failures(self.client, "open", self.uri("")):
            # the client offers no public way to its own credentials, and a second chain could find others
            found = self.client._get_credentials()  # type: ignore[attr-defined]
            if found is None:
                raise NoCredentialsError
            keys = found.get_frozen_credentials()
        endpoint = self.client.meta.endpoint_url
        options = {
            "aws_endpoint": endpoint,
            "aws_region": self.client.meta.region_name,
            "aws_access_key_id": keys.access_key,
            "aws_secret_access_key": keys.secret_key,
            "aws_virtual_hosted_style_request": "false",
            "aws_conditional_put": "etag",
            "aws_allow_http": str(endpoint.startswith("http://")).lower(),
        }
        return options | ({"aws_session_token": keys.token} if keys.token else {})

    def _put(
        self, key: str, body: bytes, condition: dict[str, Any], lost: Refused, described: Mapping[str, Any]
    ) -> str:
        where: dict[str, Any] = {"Bucket": self.bucket, "Key": self.physical(key), "Body": body, **condition}
        quick = self.quick if len(body) <= QUICK_BYTES else None
        return settled(
            self.client,
            (self.bucket, self.physical(key)),
            lambda marked: self.client.put_object(**where, **marked).get("ETag", ""),
            described=described,
            condition=condition,
            lost=lost,
            first=(lambda marked: quick.put(self.physical(key), body, condition, marked)) if quick else None,
        )

    def _head(self, key: str) -> "HeadObjectOutputTypeDef | None":
        missing = self._missing(key)
        try:
            with named_failures(self.client, "look at", self.uri(key), {404: missing}):
                answer = self.client.head_object(Bucket=self.bucket, Key=self.physical(key))
        except ObjectMissing:
            if not self._bucket_seen:  # HEAD has no body, so a missing bucket looks like a missing object
                with named_failures(self.client, "look at", self.uri(""), {404: no_bucket(self.bucket)}):
                    self.client.head_bucket(Bucket=self.bucket)
                self._bucket_seen = True
            return None
        self._bucket_seen = True
        return answer

    def _object_of(self, key: str, answer: "HeadObjectOutputTypeDef | GetObjectOutputTypeDef") -> StoredObject:
        if "ETag" not in answer or "LastModified" not in answer:
            raise not_of_s3("reading", self.uri(key))
        version = answer.get("VersionId")
        return StoredObject(
            key=key,
            size=answer["ContentLength"],
            etag=answer["ETag"].strip('"'),
            last_modified=answer["LastModified"].astimezone(UTC),
            version_id=None if version == NO_VERSION else version,
            metadata=answer.get("Metadata", {}),
        )

    def _missing(self, key: str) -> ObjectMissing:
        return ObjectMissing(f"There is no object {self.uri(key)}.")

    def _changed(self, key: str, etag: str | None) -> Conflict:
        return Conflict(f"{self.uri(key)} no longer has the ETag {etag}: read it again and decide anew.")

    def _exists(self, key: str) -> AlreadyExists:
        return AlreadyExists(f"{self.uri(key)} is there already and is never overwritten: choose another key.")


def rendered(document: Any) -> bytes:
    """A JSON document as it is stored: sorted keys, so equal documents are equal bytes."""
    return json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False).encode() + b"\n"


def time_of(said: Any) -> datetime:
    """A time in an answer, aware of its zone, as the SDK reads it; who tries every way of writing one, which is most of
    what a listing costs."""
    for read in (datetime.fromisoformat, parsedate_to_datetime):
        with suppress(AttributeError, TypeError, ValueError):
            found = read(said)
            if found.tzinfo is not None:
                return found
    return parse_timestamp(said)


def connect(bucket: str, prefix: str = "") -> ObjectStore:
    """The store that the AWS SDK's own variables, profile or role lead to. Raises: StoreRefused without a region."""
    try:
        core = botocore.session.Session()
        core.get_component("response_parser_factory").set_parser_defaults(timestamp_parser=time_of)
        session = boto3.session.Session(botocore_session=core)
        if session.region_name is None:
            raise StoreNotUsable("No AWS region is set: set AWS_DEFAULT_REGION, or choose a profile that names one.")
        # how often to try is left to AWS_MAX_ATTEMPTS
        config = Config(retries={"mode": "standard"}, connect_timeout=5, read_timeout=60, max_pool_connections=32)
        client = session.client("s3", config=config)
    except (BotoCoreError, ValueError) as e:
        raise unusable_settings(e) from e
    return ObjectStore(client, bucket, prefix, QuickClient(client, bucket))


def _described(content_type: str | None, metadata: Mapping[str, str] | None = None) -> dict[str, Any]:
    return ({"ContentType": content_type} if content_type else {}) | ({"Metadata": dict(metadata)} if metadata else {})
