"""The probe believes what a store does, not what it answers."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Barrier, Thread
from typing import ClassVar

import pytest

from crypto_ml.storage.failures import StoreNotTrusted, StoreRefused
from crypto_ml.storage.objects import ObjectStore, connect
from crypto_ml.storage.probe import RACERS, probe_conditional_writes


class LyingS3(BaseHTTPRequestHandler):
    """An S3 that answers 200 to every PUT and keeps the last body."""

    objects: ClassVar[dict[str, bytes]]
    protocol_version = "HTTP/1.1"

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if "aws-chunked" in self.headers.get("Content-Encoding", ""):
            size, rest = body.split(b"\r\n", 1)
            body = rest[: int(size.split(b";")[0], 16)]
        if self.accepts(body):
            self.objects[self.path] = body
            self.answer(200, b"", self.etag(body))
        else:
            self.answer(412, b"<Error><Code>PreconditionFailed</Code></Error>", None)

    def do_GET(self) -> None:
        body = self.objects[self.path]
        self.answer(200, body, self.etag(body))

    def do_DELETE(self) -> None:
        self.objects.pop(self.path)
        self.answer(204, b"", None)

    def accepts(self, _body: bytes) -> bool:
        return True

    def etag(self, body: bytes) -> str | None:
        return f'"{hashlib.md5(body, usedforsecurity=False).hexdigest()}"'

    def answer(self, status: int, body: bytes, etag: str | None) -> None:
        self.send_response(status)
        if etag:
            self.send_header("ETag", etag)
        self.send_header("Last-Modified", "Fri, 20 Nov 2026 00:00:00 GMT")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: the test's output is the test's."""


class RefusingAndOverwriting(LyingS3):
    """Says 412, and overwrites all the same."""

    def accepts(self, body: bytes) -> bool:
        if self.headers.get("If-None-Match") and self.path in self.objects:
            self.objects[self.path] = body
            return False
        return True


class CreatingOnlyOnce(LyingS3):
    """Keeps If-None-Match, and ignores If-Match."""

    def accepts(self, _body: bytes) -> bool:
        return not (self.headers.get("If-None-Match") and self.path in self.objects)


class LettingAllWinAtOnce(LyingS3):
    """Keeps both conditions against what stood when a request came in, and not against those that came with it."""

    racing = Barrier(RACERS)

    def accepts(self, _body: bytes) -> bool:
        if "If-Match" in self.headers:
            return self.headers["If-Match"] == self.etag(self.objects[self.path])
        free = self.path not in self.objects
        if self.path.endswith("-at-once"):
            self.racing.wait(timeout=30)
        return free


class Nameless(LyingS3):
    """Gives no ETag."""

    def etag(self, _body: bytes) -> str | None:
        return None


@contextmanager
def served(kind: type[LyingS3], monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[ObjectStore, dict[str, bytes]]]:
    objects: dict[str, bytes] = {}
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Served", (kind,), {"objects": objects}))
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "k")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s")
    try:
        yield connect("crypto-ml"), objects
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        (LyingS3, "ignores If-None-Match.*claims and receipts would be overwritten.*AWS_ENDPOINT_URL_S3"),
        (RefusingAndOverwriting, "ignores If-None-Match"),
        (CreatingOnlyOnce, "ignores If-Match"),
        (LettingAllWinAtOnce, "told 6 of 6 writers that began at once that each was the first.*Ceph does that"),
        (Nameless, "no ETag"),
    ],
)
def test_a_store_that_lies_is_not_trusted_and_is_left_clean(
    kind: type[LyingS3], sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with served(kind, monkeypatch) as (store, objects):
        with pytest.raises(StoreNotTrusted, match=sentence):
            probe_conditional_writes(store)
        assert objects == {}


def test_a_store_that_keeps_conditional_writes_is_trusted_and_left_clean(store: ObjectStore) -> None:
    probe_conditional_writes(store)
    assert list(store.list()) == []


def test_a_missing_bucket_is_refused_by_name(store: ObjectStore) -> None:
    with pytest.raises(StoreRefused, match="no bucket crypto-ml-no-such-bucket"):
        probe_conditional_writes(ObjectStore(store.client, "crypto-ml-no-such-bucket"))
