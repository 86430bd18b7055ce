"""What keeps a stack from coming up is said before anything is put up, in one sentence with what to do."""

import os
import shutil
import socket
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from cryptography.x509 import CertificateBuilder, Name

from crypto_ml_tests.dropbox.site import REPOSITORY

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="stacks are put up on Linux")
DIGEST = f"sha256:{'0' * 64}"
IMAGES = ("CRYPTO_ML_IMAGE", "STACK_HEAVY_IMAGE", "STACK_DATABASE_IMAGE", "STACK_PROXY_IMAGE")
ENGINE = '#!/bin/sh\n[ "$1" = version ]\n'
"""An engine that is there, and has no container and no volume."""
USERS = {
    "database_password": 10002,
    **dict.fromkeys(("logins", "tls_certificate", "tls_key"), 10003),
    **{f"crypto_ml/{name}": 10001 for name in ("pgpass", "serve_tokens", "aws_credentials", "alarm_urls", "witnesses")},
}
"""Who reads which secret in the containers (deploy/prepare)."""


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """deploy/ as it is on a host where everything is as it has to be."""
    deploy = tmp_path / "deploy"
    deploy.mkdir()
    shutil.copy(REPOSITORY / "deploy" / "check", deploy / "check")
    (tmp_path / "engine").write_text(ENGINE)
    (tmp_path / "engine").chmod(0o755)
    secrets = deploy / "secrets"
    (secrets / "crypto_ml").mkdir(parents=True)
    for name in ("database_password", "logins", "crypto_ml/pgpass", "crypto_ml/serve_tokens"):
        (secrets / name).write_text("something")
    for name in ("aws_credentials", "alarm_urls", "witnesses"):
        (secrets / "crypto_ml" / name).touch()
    certificate(secrets / "tls_certificate", secrets / "tls_key")
    for name, user in USERS.items():
        belongs(secrets / name, user)
    with socket.socket() as one, socket.socket() as other:
        one.bind(("127.0.0.1", 0))
        other.bind(("127.0.0.1", 0))
        ports = [f"STACK_HTTPS={one.getsockname()[1]}", f"STACK_HTTP={other.getsockname()[1]}"]
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket"))
    (tmp_path / "socket").chmod(0o660)
    engine = [f"STACK_ENGINE_SOCKET={tmp_path / 'socket'}", f"STACK_ENGINE_GROUP={os.getgid()}"]
    (deploy / ".env").write_text("\n".join([*engine, *ports, *(f"{name}={DIGEST}" for name in IMAGES)]) + "\n")
    return tmp_path


def belongs(secret: Path, user: int) -> None:
    secret.chmod(0o400)
    if os.geteuid() == 0:
        os.chown(secret, user, -1)


def certificate(public: Path, key: Path) -> None:
    made = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-subj",
        "/CN=x",
    ]
    subprocess.run([*made, "-keyout", str(key), "-out", str(public)], check=True, capture_output=True)


def said(host: Path, *words: str, **environment: str) -> list[str]:
    """What the check says, in lines; that it is nobody's who has rights is left out, since tests may be."""
    given = {"DOCKER": str(host / "engine"), "COMPOSE": str(host / "engine"), **environment}
    done = subprocess.run(
        [str(host / "deploy" / "check"), *words],
        env={**os.environ, **given},
        capture_output=True,
        text=True,
        check=False,
    )
    lines = done.stderr.splitlines()
    assert (done.returncode == 0) == (not lines)
    return [line for line in lines if "has to run as root" not in line]


def choose(host: Path, name: str, value: str) -> None:
    file = host / "deploy" / ".env"
    kept = [line for line in file.read_text().splitlines() if not line.startswith(f"{name}=")]
    file.write_text("\n".join([*kept, f"{name}={value}"]) + "\n")


def test_where_nothing_is_wrong_nothing_is_said(host: Path) -> None:
    assert said(host) == []


def test_no_engine_is_one_sentence(host: Path) -> None:
    (line,) = said(host, "before", DOCKER="no-such-engine")
    assert line.startswith("no-such-engine is not on the PATH: install")
    (host / "engine").write_text("#!/bin/sh\nexit 1\n")
    (line,) = said(host, "before")
    assert "no engine answers it: start it" in line


def test_another_stack_and_a_database_whose_password_is_lost_are_named(host: Path) -> None:
    engine = host / "engine"
    engine.write_text('#!/bin/sh\n[ "$1" != inspect ] || echo /srv/other/deploy\n')
    (line,) = said(host)
    assert line.startswith("The stack of /srv/other/deploy is up on this host, and a host has one")
    engine.write_text('#!/bin/sh\n[ "$1" != inspect ]\n')
    (host / "deploy" / "secrets" / "database_password").unlink()
    (line,) = said(host, "before")
    assert line.startswith("The database of an earlier stack is here")


def test_a_port_in_use_is_named(host: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        choose(host, "STACK_HTTPS", str(port))
        (line,) = said(host, "before")
    assert line.startswith(f"Something listens on port {port} already")
    assert "STACK_HTTPS" in line


def test_an_image_that_may_be_another_one_tomorrow_is_refused(host: Path) -> None:
    choose(host, "CRYPTO_ML_IMAGE", "registry.example.com/crypto_ml:scoring")
    (line,) = said(host)
    assert line.startswith("CRYPTO_ML_IMAGE in deploy/.env is 'registry.example.com/crypto_ml:scoring'")
    choose(host, "CRYPTO_ML_IMAGE", f"registry.example.com/crypto_ml@{DIGEST}")
    assert said(host) == []


def test_secrets_that_lack_or_do_not_belong_together_are_named(host: Path) -> None:
    secrets = host / "deploy" / "secrets"
    (secrets / "logins").chmod(0o600)
    (secrets / "logins").write_text("")
    (line,) = said(host)
    assert line.startswith("deploy/secrets/logins is not there, or empty")
    (secrets / "logins").write_text("somebody")
    (secrets / "tls_certificate").chmod(0o600)
    certificate(secrets / "tls_certificate", host / "another_key")
    (line,) = said(host)
    assert "is not the certificate of" in line


@pytest.mark.skipif(os.geteuid() != 0, reason="whose a file is, only root can change")
def test_a_secret_that_its_reader_cannot_read_or_others_can_is_named(host: Path) -> None:
    pgpass = host / "deploy" / "secrets" / "crypto_ml" / "pgpass"
    for user, mode in ((0, 0o400), (10001, 0o644), (10001, 0o000)):
        os.chown(pgpass, user, -1)
        pgpass.chmod(mode)
        (line,) = said(host)
        assert line.startswith("deploy/secrets/crypto_ml/pgpass is to be read by the user 10001 of a container")


def test_a_certificate_that_has_expired_is_named(host: Path) -> None:
    secrets = host / "deploy" / "secrets"
    key = load_pem_private_key((secrets / "tls_key").read_bytes(), None)
    assert isinstance(key, EllipticCurvePrivateKey)
    name, yesterday = Name([]), datetime.now(UTC) - timedelta(days=1)
    expired = CertificateBuilder(name, name, key.public_key(), 1, yesterday - timedelta(days=90), yesterday)
    (secrets / "tls_certificate").chmod(0o600)
    (secrets / "tls_certificate").write_bytes(expired.sign(key, SHA256()).public_bytes(Encoding.PEM))
    belongs(secrets / "tls_certificate", USERS["tls_certificate"])
    (line,) = said(host)
    assert line.startswith("deploy/secrets/tls_certificate has expired")


def test_a_socket_that_the_daemon_may_not_use_is_named(host: Path) -> None:
    (host / "socket").chmod(0o600)
    (line,) = said(host)
    assert f"may not use {host / 'socket'}" in line
    (host / "socket").unlink()
    (line,) = said(host)
    assert line.startswith(f"There is no socket {host / 'socket'}")
