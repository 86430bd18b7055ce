"""Who is told of the chain, on real servers, notices that it was made anew; and nobody learns where they are."""

import json
import subprocess
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import quote
from uuid import uuid4

import pytest
from pydantic import SecretStr

from crypto_ml.audit.verify import verify
from crypto_ml.audit.witnessed import compared
from crypto_ml.ledger.chain import EvidenceChain
from crypto_ml.settings import Settings
from crypto_ml.stages.evidence_chain import extend
from crypto_ml.stages.witnesses import BadWitness, is_witnessed, tell_witnesses, witnesses
from crypto_ml.storage.embedded import ensure_bucket
from crypto_ml.storage.objects import ObjectStore, connect

SECRET = "Zx81kenNobodySees"  # noqa: S105 - what must never be shown
NOW = datetime.now(UTC)


@contextmanager
def served(handler: type[BaseHTTPRequestHandler]) -> Iterator[int]:
    """The port of a server that answers so."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def endpoint() -> Iterator[tuple[str, list[bytes]]]:
    """A server that keeps each line it is told, and gives back all of them to whoever knows the password."""
    lines: list[bytes] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            if self._known():
                lines.append(self.rfile.read(int(self.headers["Content-Length"])))
                self._answer(b"")

        def do_GET(self) -> None:
            if self._known():
                self._answer(b"".join(lines))

        def _known(self) -> bool:
            if self.headers.get("Authorization"):
                return True
            self.send_error(401)
            return False

        def _answer(self, content: bytes) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Nothing."""

    with served(Handler) as port:
        yield f"http://auditor:{SECRET}@127.0.0.1:{port}/heads", lines


def forged(store: ObjectStore) -> None:
    """The whole chain made anew, each link as it should be, without one record."""
    chain, previous = EvidenceChain(store), None
    links = [chain.parsed(*found).link for found in chain.contents(chain.listed())]
    for found in chain.listed():
        store.client.delete_object(Bucket=store.bucket, Key=store.physical(found.key))
    for link in links:
        made = replace(link, previous=previous, records=link.records[1:], deliveries=0)
        chain.append(made)
        previous = chain.sha256_of(made)


def test_a_chain_made_anew_as_a_whole_is_noticed_by_each_kind_of_witness_and_by_nothing_else(
    store: ObjectStore, s3_environment: dict[str, str], tmp_path: Path
) -> None:
    for number in (1, 2):
        store.create_json(f"receipts/deliveries/{number:08d}.json", {"noticed_at": NOW.isoformat(), "uploads": []})
        extend(store, NOW + timedelta(seconds=number))
    other = f"witness-{uuid4().hex}"
    ensure_bucket(connect(other).client, other)
    with endpoint() as (address, lines):
        place = f"s3://{other}/kept?endpoint={quote(s3_environment['AWS_ENDPOINT_URL_S3'])}"
        settings = Settings(witnesses=SecretStr(f"file://{tmp_path}/heads.jsonl, {place},{address}"))
        head = EvidenceChain(store).head()
        assert head is not None
        told = tell_witnesses(head, store, settings, NOW)
        assert [(one.witness, one.number, one.problem) for one in told] == [
            ("witness 1 (file)", 2, None),
            ("witness 2 (s3)", 2, None),
            ("witness 3 (http)", 2, None),
        ]
        assert is_witnessed(told).passed
        extend(store, NOW, everything=True)  # a look at everything is a link, also where nothing came
        later = EvidenceChain(store).head()
        assert later is not None
        assert later.number == 3
        tell_witnesses(later, store, settings, NOW + timedelta(hours=1))  # not due
        assert len(lines) == 1
        tell_witnesses(later, store, settings, NOW + timedelta(hours=25))
        tell_witnesses(later, store, settings, NOW + timedelta(hours=25), at_once=True)  # knows it
        assert len(lines) == 2
        found = compared(verify(store), store, settings)
        assert found.whole
        assert sum("knows 2 links of this chain" in note for note in found.notes) == 3
        file = tmp_path / "heads.jsonl"
        kept = file.read_bytes()
        early, late = (json.loads(line) for line in kept.splitlines())
        early["at"] = (NOW - timedelta(days=7)).isoformat()
        file.write_text(f"{json.dumps(early)}\n{json.dumps(late)}\n")
        extend(store, NOW, everything=True)
        (note,) = [note for note in compared(verify(store), store, settings).notes if note.startswith("witness 1")]
        assert "of the 1 link since then it knows nothing; it was told nothing between link 2 of " in note
        file.write_bytes(b"")
        (emptied,) = compared(verify(store), store, settings).findings
        assert (emptied.kind, "it vouches for nothing" in emptied.what) == ("witness", True)
        file.write_bytes(kept)
        forged(store)
        assert verify(store).whole
        wrong = compared(verify(store), store, settings)
        assert [one.kind for one in wrong.findings] == ["witness"] * 6
        assert {one.link for one in wrong.findings} == {2, 3}
        assert "was made anew" in str(wrong.findings[0])
    gone = tell_witnesses(later, store, settings, NOW)
    assert not is_witnessed(gone).passed
    (unasked,) = [one for one in compared(verify(store), store, settings).findings if "could not be asked" in one.what]
    assert SECRET not in f"{gone} {unasked} {settings!r} {is_witnessed(gone).explanation}"


@pytest.mark.parametrize("given", ["ftp://host/heads", "heads.jsonl", "s3://", "http:///heads", f"https://[{SECRET}"])
def test_what_can_be_no_witness_is_refused_and_not_repeated(store: ObjectStore, given: str) -> None:
    with pytest.raises(BadWitness) as refused:
        witnesses(Settings(witnesses=SecretStr(given)), store)
    assert SECRET not in str(refused.value)


AUTHORITY = """
[tsa]
serial = {0}/serial
signer_cert = {0}/tsa.pem
signer_key = {0}/tsa.key
signer_digest = sha256
default_policy = 1.2.3.4.1
digests = sha256, sha512
ess_cert_id_alg = sha256
"""


def openssl(*arguments: str, given: bytes | None = None) -> bytes:
    return subprocess.run(["openssl", *arguments], input=given, capture_output=True, check=True).stdout


def certificates(place: Path) -> None:
    """An authority for time stamps and who certifies it, as openssl makes and serves one."""
    named = ["-nodes", "-newkey", "rsa:2048", "-days", "2"]
    openssl("req", "-x509", *named, "-subj", "/CN=ca", "-keyout", f"{place}/ca.key", "-out", f"{place}/ca.pem")
    openssl("req", *named, "-subj", "/CN=tsa", "-keyout", f"{place}/tsa.key", "-out", f"{place}/tsa.csr")
    use = "basicConstraints=CA:FALSE\nkeyUsage=critical,digitalSignature\nextendedKeyUsage=critical,timeStamping\n"
    (place / "use.cnf").write_text(use)
    signing = ["-CA", f"{place}/ca.pem", "-CAkey", f"{place}/ca.key", "-CAcreateserial", "-extfile", f"{place}/use.cnf"]
    openssl("x509", "-req", "-days", "2", "-in", f"{place}/tsa.csr", *signing, "-out", f"{place}/tsa.pem")
    (place / "tsa.cnf").write_text(AUTHORITY.format(place))
    (place / "serial").write_text("01\n")


@contextmanager
def authority(place: Path) -> Iterator[str]:
    """What answers queries for time stamps over HTTP, by `openssl ts`."""
    certificates(place)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            query = place / "query.tsq"
            query.write_bytes(self.rfile.read(int(self.headers["Content-Length"])))
            reply = openssl("ts", "-reply", "-config", f"{place}/tsa.cnf", "-section", "tsa", "-queryfile", str(query))
            self.send_response(200)
            self.send_header("Content-Type", "application/timestamp-reply")
            self.send_header("Content-Length", str(len(reply)))
            self.end_headers()
            self.wfile.write(reply)

        def log_message(self, *_: object) -> None:
            """Nothing."""

    with served(Handler) as port:
        yield f"rfc3161+http://127.0.0.1:{port}/tsr?ca={quote(str(place))}/ca.pem"


def test_time_stamps_of_an_authority_are_verified_and_tell_that_a_chain_was_made_anew(
    store: ObjectStore, tmp_path: Path
) -> None:
    for number in (1, 2):
        store.create_json(f"receipts/deliveries/{number:08d}.json", {"noticed_at": NOW.isoformat(), "uploads": []})
        extend(store, NOW + timedelta(seconds=number))
    with authority(tmp_path) as address:
        settings = Settings(witnesses=SecretStr(address))
        head = EvidenceChain(store).head()
        assert head is not None
        (told,) = tell_witnesses(head, store, settings, NOW)
        assert (told.witness, told.number, told.problem) == ("witness 1 (rfc3161+http)", 2, None)
        (key,) = (found.key for found in store.list("receipts/timestamps/"))
        document = store.read_json(key)
        (tmp_path / "head").write_text(document["head"])
        (tmp_path / "tsr").write_bytes(b64decode(document["token"]))
        files = ["-in", f"{tmp_path}/tsr", "-data", f"{tmp_path}/head", "-CAfile", f"{tmp_path}/ca.pem"]
        openssl("ts", "-verify", *files)  # or else it ends with 1
        whole = verify(store, now=NOW)
        assert compared(whole, store, settings).findings == ()
        store.replace(key, json.dumps({**document, "head": document["head"].replace("a", "b", 1)}).encode())
        (found,) = compared(whole, store, settings).findings
        assert "not of these bytes" in found.what
        store.replace(key, json.dumps(document).encode())
        forged(store)
        (found,) = compared(whole, store, settings).findings
        assert (found.link, "the chain was made anew" in found.what) == (2, True)
    certificates(tmp_path)  # of others, whom nobody trusts who has the first ones
    (found,) = compared(whole, store, settings).findings
    assert "not of an authority that is trusted" in found.what
