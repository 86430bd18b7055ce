"""`crypto-ml handover`: a bundle that scores like any other, or one line and nothing written."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from crypto_ml.ledger.registry import Registry
from crypto_ml.storage.objects import ObjectStore

COMMAND = [str(Path(sys.executable).with_name("crypto-ml"))]


def run(*arguments: str | Path, settings: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **(settings or {})}
    command = [*COMMAND, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def of(store: ObjectStore) -> dict[str, str]:
    """The settings that lead to a store."""
    return {"CRYPTO_ML_BUCKET": store.bucket, "CRYPTO_ML_PREFIX": store.prefix}


def test_handover_writes_a_bundle_that_scores_and_registers(shared: Path, store: ObjectStore, tmp_path: Path) -> None:
    out, files = tmp_path / "bundle", [shared / "handover" / name for name in ("model.h5", "scaler.pkl")]
    result = run("handover", *files, "-o", out, "--register", settings=of(store))
    assert result.returncode == 0, result.stderr
    version = result.stderr.split()[0]
    assert Registry(store).versions() == [version]
    upload = shared / "handover" / "crypto_test.csv"
    by_folder = run("score", upload, "-o", tmp_path / "a.csv", "--model", out)
    by_version = run("score", upload, "-o", tmp_path / "b.csv", "--model", version, settings=of(store))
    assert by_folder.returncode == by_version.returncode == 0
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()


def test_a_refused_handover_writes_nothing(tmp_path: Path) -> None:
    for name in ("model.h5", "scaler.pkl"):
        (tmp_path / name).write_bytes(b"not what it should be")
    result = run("handover", tmp_path / "model.h5", tmp_path / "scaler.pkl", "-o", tmp_path / "bundle")
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "bundle").exists()
