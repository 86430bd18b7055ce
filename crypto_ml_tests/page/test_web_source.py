"""Web servers that are slow, break off, or lead elsewhere."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from crypto_ml.page.sources import LedAway, NoAnswer, WebSource

CONTENT = b"symbol,date,pred_open,val_open\nA,2020-01-01,1,1\n"


class _Server(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        what, _, where = self.path[1:].partition("?")
        self.send_response(302 if what == "to" else 200)
        self.send_header("ETag", '"one"')
        if what == "to":
            self.send_header("Location", where)
        self.send_header("Content-Length", str(len(CONTENT) + (10 if what == "half" else 0)))
        self.end_headers()
        for number in range(len(CONTENT)) if what == "slow" else ():
            self.wfile.write(CONTENT[number : number + 1])
            if stopped.wait(0.1):
                break
        if what != "slow":
            self.wfile.write(CONTENT)

    def log_message(self, format: str, *args: Any) -> None:
        pass


stopped = threading.Event()


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Server) as running:
        thread = threading.Thread(target=running.serve_forever, args=[0.01])
        thread.start()
        yield f"127.0.0.1:{running.server_port}"
        stopped.set()
        running.shutdown()
        thread.join()


def test_a_file_that_broke_off_is_no_version_of_it(address: str) -> None:
    with pytest.raises(NoAnswer, match="broke off"):
        WebSource(f"http://{address}/half").newer(None)
    whole = WebSource(f"http://{address}/whole").newer(None)
    assert whole and whole.content == CONTENT


def test_a_server_that_sends_a_byte_now_and_then_is_given_up(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crypto_ml.page.sources.SECONDS_IN_ALL", 0.3)
    with pytest.raises(NoAnswer, match="too slow"):
        WebSource(f"http://{address}/slow").newer(None)


def test_a_redirect_within_a_server_is_followed(address: str) -> None:
    found = WebSource(f"http://{address}/to?/whole").newer(None)
    assert found and found.content == CONTENT


@pytest.mark.parametrize(
    "elsewhere",
    [
        "http://localhost:{port}/whole",  # a server of another name
        "http://127.0.0.1:1/whole",  # another service of the same machine
        "http://169.254.169.254/latest/meta-data/",
        "http://user:hunter2@localhost:{port}/whole",
        "file:///etc/passwd",
        "ftp://127.0.0.1/etc/passwd",
        "data:text/csv,symbol",
    ],
)
def test_a_redirect_to_another_place_is_not_followed_and_said(elsewhere: str, address: str) -> None:
    where = elsewhere.format(port=address.partition(":")[2])
    with pytest.raises(LedAway, match="leads to another address") as raised:
        WebSource(f"http://{address}/to?{where}").newer(None)
    assert "hunter2" not in str(raised.value)
