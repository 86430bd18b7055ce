"""What a failure of the store is called, what it says to do, and whether another try or another file would help."""

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import botocore.exceptions
import pytest
from botocore.exceptions import BotoCoreError

from crypto_ml.errors import CryptoMLError
from crypto_ml.storage.failures import StoreNotUsable, StoreRefused, StoreUnavailable, named_failures
from crypto_ml.storage.objects import ObjectStore, connect

SECRET = "AKIAIOSFODNN7EXAMPLE"  # noqa: S105 - the documentation's own
URI = "s3://bucket/uploads/a.csv"


class Refusing(ThreadingHTTPServer):
    """A server that answers every request with one error of S3's."""

    status, code, about = 500, "InternalError", ""
    date: datetime | None = None


class _Refusal(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # answers "Expect: 100-continue" at once
    server: Refusing

    def answer(self) -> None:
        self.rfile.read(int(self.headers.get("content-length", 0)))
        server = self.server
        body = f"<Error><Code>{server.code}</Code><Message>{SECRET}</Message>{server.about}</Error>".encode()
        self.send_response_only(server.status)
        self.send_header("Date", format_datetime(server.date or datetime.now(UTC), usegmt=True))
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_PUT = do_HEAD = answer  # noqa: N815 - names that http.server looks for

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Refusing]:
    with Refusing(("127.0.0.1", 0), _Refusal) as running:
        thread = threading.Thread(target=running.serve_forever, args=[0.01])
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture
def refused(server: Refusing, monkeypatch: pytest.MonkeyPatch) -> ObjectStore:
    """A store that the server refuses everything to."""
    for name, value in {
        "AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{server.server_port}",
        "AWS_DEFAULT_REGION": "eu-west-1",
        "AWS_ACCESS_KEY_ID": SECRET,
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_MAX_ATTEMPTS": "1",
    }.items():
        monkeypatch.setenv(name, value)
    return connect("crypto-ml")


def failure(store: ObjectStore, *, write: bool = False) -> CryptoMLError:
    with pytest.raises(CryptoMLError) as found:
        store.create("a.csv", b"x") if write else store.read("a.csv")
    assert SECRET not in str(found.value)
    return found.value


CODES = [
    (403, "RequestTimeTooSkewed", StoreNotUsable, "set the clock"),
    (400, "RequestExpired", StoreNotUsable, "set the clock"),
    (400, "BadDigest", StoreUnavailable, "transfer was damaged"),
    (400, "InvalidDigest", StoreUnavailable, "transfer was damaged"),
    (400, "IncompleteBody", StoreUnavailable, "transfer was damaged"),
    (400, "XAmzContentSHA256Mismatch", StoreUnavailable, "transfer was damaged"),
    (400, "RequestTimeout", StoreUnavailable, "try again in a moment"),
    (503, "SlowDown", StoreUnavailable, "try again in a moment"),
    (507, "XMinioStorageFull", StoreUnavailable, "no room left"),
    (507, "Unheard", StoreUnavailable, "no room left"),
    (403, "QuotaExceeded", StoreUnavailable, "no room left"),
    (403, "InvalidAccessKeyId", StoreNotUsable, "renew them"),
    (400, "ExpiredToken", StoreNotUsable, "renew them"),
    (403, "AllAccessDisabled", StoreNotUsable, "ask who owns the account"),
    (403, "AccessDenied", StoreNotUsable, "grant s3:ListBucket"),
    (400, "IllegalLocationConstraintException", StoreNotUsable, "set AWS_DEFAULT_REGION"),
    (404, "NoSuchBucket", StoreNotUsable, "There is no bucket crypto-ml"),
    (400, "KMS.DisabledException", StoreNotUsable, "kms:Decrypt"),
    (501, "NotImplemented", StoreNotUsable, "does not know how to"),
    (405, "MethodNotAllowed", StoreNotUsable, "does not know how to"),
    (400, "InvalidBucketName", StoreNotUsable, "cannot be the name of a bucket"),
    (400, "KeyTooLongError", StoreRefused, "use a shorter and simpler name"),
    (400, "EntityTooLarge", StoreRefused, "takes no object of the size"),
    (403, "InvalidObjectState", StoreRefused, "is archived"),
    (400, "InvalidArgument", StoreRefused, "check the key and the AWS settings"),
]


@pytest.mark.parametrize("meant", CODES, ids=lambda meant: str(meant[1]))
@pytest.mark.parametrize("write", [False, True])
def test_a_code_of_the_store_is_named_by_what_it_means_and_says_what_to_do(
    server: Refusing, refused: ObjectStore, meant: tuple[int, str, type[CryptoMLError], str], write: bool
) -> None:
    server.status, server.code, kind, says = meant
    found = failure(refused, write=write)
    assert type(found) is kind
    assert says in str(found)
    assert server.code in str(found) or server.code == "NoSuchBucket"


def test_a_skewed_clock_is_told_by_how_much_it_is_wrong(server: Refusing, refused: ObjectStore) -> None:
    server.status, server.code = 403, "RequestTimeTooSkewed"
    server.about = "<RequestTime>20240101T010000Z</RequestTime><ServerTime>2024-01-01T00:30:00Z</ServerTime>"
    assert "clock is 1800 s ahead (RequestTimeTooSkewed): set the clock" in str(failure(refused))
    server.about = "<RequestTime>20240101T000000Z</RequestTime><ServerTime>2024-01-01T00:30:00Z</ServerTime>"
    assert "clock is 1800 s behind" in str(failure(refused))


def test_a_head_refused_without_a_reason_is_the_clock_where_the_clocks_are_far_apart_and_else_the_permissions(
    server: Refusing, refused: ObjectStore
) -> None:
    server.status, server.code = 403, "AccessDenied"
    with pytest.raises(StoreNotUsable, match="grant s3:ListBucket"):
        refused.head("a.csv")
    server.date = datetime.now(UTC) + timedelta(hours=2)
    with pytest.raises(StoreNotUsable, match=r"clock is 7[12]\d\d s behind \(403\): set the clock"):
        refused.head("a.csv")


ERRORS: list[tuple[str, dict[str, Any], type[CryptoMLError], str]] = [
    ("FlexibleChecksumError", {"error_msg": "crc32"}, StoreUnavailable, "transfer was damaged"),
    ("ChecksumError", {"checksum_type": "crc32", "expected_checksum": "1", "actual_checksum": "2"},
     StoreUnavailable, "transfer was damaged"),
    ("IncompleteReadError", {"actual_bytes": 1, "expected_bytes": 2}, StoreUnavailable, "broke off"),
    ("ResponseStreamingError", {"error": "reset"}, StoreUnavailable, "broke off"),
    ("SSLError", {"endpoint_url": "e", "error": "self-signed"}, StoreUnavailable, "AWS_CA_BUNDLE"),
    ("ProxyConnectionError", {"proxy_url": f"http://u:{SECRET}@p"}, StoreUnavailable, "HTTPS_PROXY"),
    ("ConnectTimeoutError", {"endpoint_url": "e"}, StoreUnavailable, "firewall"),
    ("ReadTimeoutError", {"endpoint_url": "e"}, StoreUnavailable, "overloaded"),
    ("EndpointConnectionError", {"endpoint_url": "e"}, StoreUnavailable, "running and reachable"),
    ("ConnectionClosedError", {"endpoint_url": "e"}, StoreUnavailable, "running and reachable"),
    ("CredentialRetrievalError", {"provider": "p", "error_msg": SECRET}, StoreUnavailable, "credential process"),
    ("NoCredentialsError", {}, StoreNotUsable, "set AWS_PROFILE"),
    ("UnauthorizedSSOTokenError", {}, StoreNotUsable, "log in again"),
    ("TokenRetrievalError", {"provider": "p", "error_msg": SECRET}, StoreNotUsable, "log in again"),
    ("ParamValidationError", {"report": "Invalid bucket name"}, StoreNotUsable, "cannot be the name of a bucket"),
    ("ProfileNotFound", {"profile": "p"}, StoreNotUsable, "check the AWS settings"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "about", "kind", "says"), ERRORS)
def test_an_error_of_the_sdk_is_named_by_what_it_means_and_says_what_to_do(
    refused: ObjectStore, name: str, about: dict[str, Any], kind: type[CryptoMLError], says: str
) -> None:
    with pytest.raises(CryptoMLError) as found, named_failures(refused.client, "read", URI):
        raise getattr(botocore.exceptions, name)(**about)
    assert type(found.value) is kind
    assert says in str(found.value)
    assert name in str(found.value)
    assert SECRET not in str(found.value)


def test_every_error_of_the_sdk_has_a_name_of_ours(refused: ObjectStore) -> None:
    kinds = [kind for kind in vars(botocore.exceptions).values() if isinstance(kind, type)]
    for kind in (kind for kind in kinds if issubclass(kind, BotoCoreError)):
        with pytest.raises((StoreRefused, StoreUnavailable)), named_failures(refused.client, "read", URI):
            raise kind.__new__(kind)


def test_an_answer_that_is_not_of_s3_is_told_by_where_it_may_come_from(server: Refusing, refused: ObjectStore) -> None:
    server.status = 200  # as the log-in page of a proxy, or the web server at a mistyped port, answers anything
    with pytest.raises(StoreNotUsable, match="check where AWS_ENDPOINT_URL_S3 leads"):
        refused.read("a.csv")
    with pytest.raises(StoreNotUsable, match="check where AWS_ENDPOINT_URL_S3 leads"):
        refused.head("a.csv")


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("AWS_ENDPOINT_URL_S3", f"user:{SECRET}@127.0.0.1:9000", "http:// or https://"),
        ("AWS_ENDPOINT_URL_S3", "localhost:9000", "http:// or https://"),
        ("AWS_PROFILE", "nobody", "check AWS_PROFILE"),
    ],
)
def test_settings_of_which_the_sdk_makes_nothing_say_which_and_repeat_no_password(
    name: str, value: str, says: str, refused: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(StoreNotUsable, match=says) as found:
        connect("crypto-ml")
    assert SECRET not in str(found.value)


def test_what_is_no_fault_of_a_file_is_still_a_refusal() -> None:
    assert issubclass(StoreNotUsable, StoreRefused)
