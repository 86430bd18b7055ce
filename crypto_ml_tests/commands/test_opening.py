"""How the commands open a deployment: with a proof of its store where they make a claim, without a write where not."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from crypto_ml.cli import main
from crypto_ml.sample import sample_upload
from crypto_ml.storage.failures import StoreNotTrusted
from crypto_ml.storage.objects import ObjectStore

UNTRUSTED = "it ignores If-None-Match"


@pytest.fixture(autouse=True)
def untrusted(store: ObjectStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The environment leads to a store that fails its proof; the working folder has an upload."""

    def refuse(_: ObjectStore) -> None:
        raise StoreNotTrusted(UNTRUSTED)

    monkeypatch.setattr("crypto_ml.storage.probe.probe_conditional_writes", refuse)
    monkeypatch.setenv("CRYPTO_ML_BUCKET", store.bucket)
    monkeypatch.setenv("CRYPTO_ML_PREFIX", store.prefix)
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    monkeypatch.chdir(tmp_path)
    Path("prices.csv").write_bytes(sample_upload())


@pytest.mark.parametrize(
    "command",
    [
        "models",
        "models --history",
        "trace uploads/prices.csv",
        "replay uploads/prices.csv",
        "corrections uploads/prices.csv",
        "score prices.csv -o out.csv",
        "score prices.csv -o out.csv --model 2018-03-25-0123456789ab",
    ],
)
def test_what_reads_asks_for_no_proof_and_leaves_nothing_behind(command: str, store: ObjectStore) -> None:
    result = CliRunner().invoke(main, command.split())
    assert UNTRUSTED not in result.stderr
    assert list(store.list()) == []


def test_who_drops_a_file_claims_nothing(store: ObjectStore) -> None:
    assert CliRunner().invoke(main, ["drop", "prices.csv"]).exit_code == 0
    assert [found.key for found in store.list()] == ["uploads/prices.csv"]


@pytest.mark.parametrize("command", ["promote 2018-03-25-0123456789ab --by me --why so", "rollback --by me --why so"])
def test_what_decides_who_serves_asks_for_a_proof(command: str) -> None:
    result = CliRunner().invoke(main, command.split())
    assert result.exit_code == 1
    assert UNTRUSTED in result.stderr


def test_the_doctor_tells_of_a_store_that_fails_its_proof() -> None:
    result = CliRunner().invoke(main, ["doctor"])
    assert result.exit_code == 1
    assert f"✗ store: {UNTRUSTED}" in result.stdout
