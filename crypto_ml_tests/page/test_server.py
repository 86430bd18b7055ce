"""The server of the page: one clear error where it cannot listen, and connections for its own page alone."""

import re
import socket
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from click.testing import CliRunner

from crypto_ml.cli import main
from crypto_ml.page.server import BadOrigin, Listening, page_server
from crypto_ml_tests.page.files import as_csv, of_file, predictions, served


def upgraded(address: str, origin: str) -> int:
    """What a server answers to a page of `origin` that asks for a websocket."""
    connection = HTTPConnection(urlsplit(address).netloc, timeout=30)
    asked = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Protocol": "bokeh, token",
        "Origin": origin,
    }
    connection.request("GET", "/ws", headers=asked)
    status = connection.getresponse().status
    connection.close()
    return status


def test_a_taken_port_and_what_is_no_address_are_one_line_that_says_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "a_preds.csv"
    path.write_bytes(as_csv(predictions({"BTC": 3})))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        told = CliRunner().invoke(main, ["page", str(path), "--port", port])
    assert (told.exit_code, told.stderr.count("\n")) == (1, 1)
    assert f"port {port} of 127.0.0.1 is taken" in told.stderr
    for words in (["ftp://host/x.csv"], [str(path), "--forecasts", "s3://bucket"], [str(path), "--host", "192.0.2.1"]):
        told = CliRunner().invoke(main, ["page", "--port", "0", *words])
        assert (told.exit_code, told.stderr.count("\n")) == (1, 1)
        assert "unexpected" not in told.stderr
    assert CliRunner().invoke(main, ["page", str(path), "--service", "localhost"]).exit_code == 2
    with pytest.raises(BadOrigin, match="HOST:PORT"):
        page_server(of_file(path), Listening(port=0, origins=("a:b:c",)))


def test_a_page_of_another_site_gets_no_connection_and_all_that_ours_asks_for_is_its_own_servers(
    tmp_path: Path,
) -> None:
    with served(of_file(tmp_path / "none_preds.csv")) as address:
        port = urlsplit(address).port
        assert upgraded(address, f"http://localhost:{port}") == 101
        assert upgraded(address, "http://elsewhere.example") == 403
        assert upgraded(address, "http://localhost:1") == 403
        connection = HTTPConnection(urlsplit(address).netloc, timeout=30)
        connection.request("GET", "/?symbol=%3Cscript%3Eforged")
        answer = connection.getresponse()
        html = answer.read().decode()
        assert answer.status == 200
        assert "<script>forged" not in html
        fetched = re.findall(r'(?:src|href)="([^"]*)"', html)
        assert any(name.startswith("/static/js/bokeh.min.js") for name in fetched)
        assert all(name.startswith(("/static/", "data:")) for name in fetched)
        connection.close()
