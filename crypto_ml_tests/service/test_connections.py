"""What a client may do with a connection before anybody knows who it is: bounded, and told as a problem."""

import json
import socket
from collections.abc import Iterator
from typing import Any

import httpx
import psutil
import pytest

from crypto_ml.service.draining import MOST_HEAD_BYTES
from crypto_ml_tests.dropbox.site import until
from crypto_ml_tests.service.asking import served_until_told, told_to

GET = b"GET / HTTP/1.1\r\nHost: localhost\r\n"
POST = b"POST / HTTP/1.1\r\nHost: localhost\r\n"
LARGE = 8 << 20


@pytest.fixture(scope="module")
def address() -> Iterator[tuple[str, int]]:
    """An application that answers at once, without reading a body; connections are given little time."""

    async def application(scope: Any, _receive: Any, send: Any) -> None:
        body = b"x" * (LARGE if scope["path"] == "/large" else 2)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
        await send({"type": "http.response.body", "body": body})

    with pytest.MonkeyPatch.context() as patch:
        for name in ("SECONDS_FOR_HEAD", "SECONDS_TO_TAKE_SOME"):
            patch.setattr(f"crypto_ml.service.draining.{name}", 0.3)
        with served_until_told(application) as (url, _):
            yield httpx.URL(url).host, int(httpx.URL(url).port or 0)


@pytest.mark.parametrize(
    ("status", "kind", "pieces"),
    [
        (400, "malformed", [b"\x16\x03\x01 hello\r\n\r\n"]),
        (400, "malformed", [POST + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n"]),
        (431, "headers-too-large", [GET + b"A: " + b"a" * MOST_HEAD_BYTES + b"\r\n\r\n"]),
        (431, "headers-too-large", [GET + b"a:\r\n" * (MOST_HEAD_BYTES // 33 + 1)]),
        (408, "headers-too-slow", [GET]),
        (408, "headers-too-slow", [b"G"]),
    ],
)
def test_what_is_no_request_is_refused_as_a_problem(
    status: int, kind: str, pieces: list[bytes], address: tuple[str, int]
) -> None:
    head, _, body = told_to(address, *pieces).partition(b"\r\n\r\n")
    document = json.loads(body)
    assert head.startswith(b"HTTP/1.1 %d " % status)
    assert b"content-type: application/problem+json" in head and b"connection: close" in head
    assert (document["status"], document["type"]) == (status, f"urn:crypto-ml:problem:{kind}")


@pytest.mark.parametrize(
    "begun",
    [
        b"GET /",  # an address
        GET + b"A: ",  # a header
        POST + b"Transfer-Encoding: chunked\r\n\r\n2;x=",  # what stands behind the size of a chunk
        POST + b"Transfer-Encoding: chunked\r\n\r\n0\r\nA: ",  # a header behind the body
    ],
)
def test_a_line_without_an_end_is_cut_off(begun: bytes, address: tuple[str, int]) -> None:
    with socket.create_connection(address, timeout=30) as connection:
        connection.sendall(begun)
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            for _ in range(1_000):
                connection.sendall(b"a" * (1 << 14))


def test_a_connection_on_which_nothing_comes_is_closed(address: tuple[str, int]) -> None:
    assert told_to(address) == b""


def test_the_rest_of_a_body_is_not_waited_for_once_it_is_answered(address: tuple[str, int]) -> None:
    answer = told_to(address, POST + b"Content-Length: 1000\r\n\r\nabc")
    assert answer.startswith(b"HTTP/1.1 200 ") and answer.endswith(b"xx")


def test_requests_one_behind_the_other_are_all_answered(address: tuple[str, int]) -> None:
    answer = told_to(address, (GET + b"\r\n") * 50 + GET + b"Connection: close\r\n\r\n")
    assert answer.count(b"HTTP/1.1 200 ") == 51


def test_an_upgrade_is_not_made_and_the_request_is_answered(address: tuple[str, int]) -> None:
    asked = (
        b"Connection: Upgrade, close\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: eA==\r\n"
    )
    assert told_to(address, GET + asked + b"\r\n").startswith(b"HTTP/1.1 200 ")


def test_who_takes_nothing_of_an_answer_loses_the_connection(address: tuple[str, int]) -> None:
    def kept() -> bool:
        mine = connection.getsockname()
        return any(one.raddr == mine for one in psutil.Process().net_connections("tcp"))

    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 12)
        connection.connect(address)
        connection.sendall(GET.replace(b"/", b"/large", 1) + b"\r\n")
        until(kept, "there is no connection")
        until(lambda: not kept(), "the connection is kept for who takes nothing")
