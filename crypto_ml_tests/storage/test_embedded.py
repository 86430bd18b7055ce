"""The embedded S3 server: starts, keeps, stops, and says why not."""

import os
import socket
from pathlib import Path

import psutil
import pytest

from crypto_ml.storage.embedded import EmbeddedS3, EmbeddedS3NotStarted, PortTaken, ensure_bucket
from crypto_ml.storage.objects import ObjectStore, connect


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def reach(server: EmbeddedS3, monkeypatch: pytest.MonkeyPatch) -> ObjectStore:
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    return connect("crypto-ml")


def test_an_object_outlives_a_stop_and_a_start_on_the_same_port(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port()
    with EmbeddedS3(tmp_path, port=port) as server:
        store = reach(server, monkeypatch)
        assert ensure_bucket(store.client, store.bucket)
        etag = store.create("uploads/in/../odd +.csv", b"kept")
    with EmbeddedS3(tmp_path, port=port) as server:
        assert server.endpoint == f"http://127.0.0.1:{port}"
        store = reach(server, monkeypatch)
        assert not ensure_bucket(store.client, store.bucket)
        assert [(o.key, o.etag) for o in store.list()] == [("uploads/in/../odd +.csv", etag)]
        assert store.read("uploads/in/../odd +.csv") == b"kept"


def test_an_empty_bucket_outlives_a_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with EmbeddedS3(tmp_path) as server:
        ensure_bucket(reach(server, monkeypatch).client, "crypto-ml")
    with EmbeddedS3(tmp_path) as server:
        assert not ensure_bucket(reach(server, monkeypatch).client, "crypto-ml")


def test_nothing_of_its_process_group_is_left_after_a_stop(tmp_path: Path) -> None:
    server = EmbeddedS3(tmp_path).start()
    group = server.pid
    assert group is not None
    server.stop()
    with pytest.raises(ProcessLookupError):
        os.killpg(group, 0)
    assert server.pid is None


def test_it_listens_on_loopback_only(tmp_path: Path) -> None:
    with EmbeddedS3(tmp_path) as server:
        connections = psutil.Process(server.pid).net_connections("inet")
        listening = {connection.laddr[:2] for connection in connections if connection.status == psutil.CONN_LISTEN}
    assert listening == {("127.0.0.1", int(server.endpoint.rsplit(":", 1)[1]))}


def test_a_taken_port_is_refused_by_number(tmp_path: Path) -> None:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        s.listen()
        port = s.getsockname()[1]
        with pytest.raises(PortTaken, match=str(port)):
            EmbeddedS3(tmp_path, port=port).start()


def test_a_server_that_ends_at_once_is_reported_with_its_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "ministack").mkdir()
    (tmp_path / "ministack" / "__init__.py").write_text("")
    (tmp_path / "ministack" / "app.py").write_text("raise SystemExit('no room on this machine')")
    with pytest.raises(EmbeddedS3NotStarted, match="no room on this machine"):
        EmbeddedS3(tmp_path / "data").start()


def test_its_address_is_asked_for_after_the_start_only(tmp_path: Path) -> None:
    with pytest.raises(EmbeddedS3NotStarted, match="start it first"):
        _ = EmbeddedS3(tmp_path).environment
