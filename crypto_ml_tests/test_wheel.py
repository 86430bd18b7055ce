"""Installed as a wheel, and used from an empty folder, it works as in a clone."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner

from crypto_ml.cli import main
from crypto_ml.model_out import first_bundle
from crypto_ml.sample import sample_upload

ROOT = Path(__file__).resolve().parents[1]
PACKAGED = ("dagster.yaml", "workspace.yaml", "requirements.lock", "model_out")
LEARNING = ("tensorflow", "keras", "sklearn", "matplotlib", "onnx", "h5py")

SCRIPT = """
import json
from crypto_ml import packaged
from crypto_ml.ledger.software import software
from crypto_ml.settings import Settings
print(json.dumps([packaged.__file__, str(Settings().model_out), packaged.INSTANCE.read_text(), software().lock_sha256]))
"""


@dataclass(frozen=True)
class Installed:
    """An environment with the wheel in it, and an empty folder to stand in."""

    environment: Path
    folder: Path

    def run(self, *words: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        """A command of the environment, as somebody runs it who has no checkout."""
        command = [str(self.environment / "bin" / words[0]), *words[1:]]
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("CRYPTO_ML_", "AWS_"))}
        clean.pop("PYTHONPATH", None)
        return subprocess.run(
            command, cwd=self.folder, env=clean, capture_output=True, text=True, check=False, timeout=timeout
        )


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy: building leaves files behind, and takes in those of builds before."""
    sources, out = tmp_path_factory.mktemp("sources"), tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "README.md", "crypto_ml", *PACKAGED):
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, sources / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, sources / name)
    build = "import sys; from setuptools.build_meta import build_wheel; build_wheel(sys.argv[1])"
    subprocess.run([sys.executable, "-c", build, out], cwd=sources, capture_output=True, check=True)
    (made,) = out.glob("*.whl")
    return made


def test_the_wheel_has_the_package_and_what_it_brings_along_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        held = {name: archive.read(name) for name in archive.namelist() if ".dist-info/" not in name}
    sources = [path for path in (ROOT / "crypto_ml").rglob("*.py") if "packaged/model_out" not in path.as_posix()]
    sources += [path for path in (ROOT / "crypto_ml/page").iterdir() if path.suffix in {".css", ".html", ".js"}]
    expected = {path.relative_to(ROOT).as_posix(): path for path in sources}
    for name in PACKAGED:
        files = (ROOT / name).rglob("*") if (ROOT / name).is_dir() else [ROOT / name]
        expected |= {
            f"crypto_ml/packaged/{path.relative_to(ROOT).as_posix()}": path for path in files if path.is_file()
        }
    assert set(held) == set(expected)
    assert all(held[name] == path.read_bytes() for name, path in expected.items())


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """The wheel in an environment that has the libraries of this one, but not its editable crypto_ml."""
    environment = tmp_path_factory.mktemp("installed") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    (site,) = environment.glob("lib/python3*/site-packages")
    (site / "libraries.pth").write_text(sysconfig.get_path("purelib"))
    pip = [sys.executable, "-m", "pip", "--python", str(environment / "bin" / "python"), "install", "--quiet"]
    subprocess.run([*pip, "--no-deps", "--no-index", "--no-compile", "--ignore-installed", str(wheel)], check=True)
    return Installed(environment, tmp_path_factory.mktemp("empty"))


def test_an_installation_scores_as_a_checkout_does_from_an_empty_folder(installed: Installed, tmp_path: Path) -> None:
    (tmp_path / "prices.csv").write_bytes(sample_upload())
    told = installed.run("crypto-ml", "score", str(tmp_path / "prices.csv"), "-o", str(tmp_path / "installed.csv"))
    assert told.returncode == 0, told.stderr
    assert first_bundle().version in told.stderr
    here = CliRunner().invoke(main, ["score", str(tmp_path / "prices.csv"), "-o", str(tmp_path / "here.csv")])
    assert here.exit_code == 0
    assert (tmp_path / "installed.csv").read_bytes() == (tmp_path / "here.csv").read_bytes()
    assert list(installed.folder.iterdir()) == []


def test_an_installation_finds_everything_in_itself(installed: Installed) -> None:
    told = installed.run("python", "-c", SCRIPT)
    assert told.returncode == 0, told.stderr
    module, model_out, instance, lock = json.loads(told.stdout)
    assert Path(module).is_relative_to(installed.environment)
    assert Path(model_out).is_relative_to(installed.environment)
    assert instance == (ROOT / "dagster.yaml").read_text()
    assert lock is not None


@pytest.fixture(scope="module")
def fresh(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installed]:
    """The wheel in an environment made from the lock of the demo, which has no library that only training needs."""
    environment = tmp_path_factory.mktemp("fresh") / "venv"
    subprocess.run([sys.executable, "-m", "venv", environment], check=True)
    python, uv = str(environment / "bin" / "python"), shutil.which("uv")
    install = [uv, "pip", "install", "--python", python] if uv else [python, "-m", "pip", "install"]
    for what in (["--require-hashes", "-r", str(ROOT / "requirements-demo.lock")], ["--no-index", str(wheel)]):
        subprocess.run([*install, "--quiet", "--no-deps", *what], check=True)
    yield Installed(environment, tmp_path_factory.mktemp("empty"))
    shutil.rmtree(environment)


@pytest.mark.wheel
def test_without_the_training_extra_it_scores_and_answers_in_the_demo(fresh: Installed, tmp_path: Path) -> None:
    look = "import importlib.util as u, sys; print([name for name in sys.argv[1:] if u.find_spec(name)])"
    assert fresh.run("python", "-c", look, *LEARNING).stdout.strip() == "[]"
    (tmp_path / "prices.csv").write_bytes(sample_upload())
    scored = fresh.run("crypto-ml", "score", str(tmp_path / "prices.csv"), "-o", str(tmp_path / "predictions.csv"))
    assert scored.returncode == 0, scored.stderr
    told = fresh.run("crypto-ml", "demo", "--once", timeout=280)
    assert told.returncode == 0, told.stderr
    assert "1,000 rows" in told.stdout
    refused = fresh.run("crypto-ml", "make-model", "-o", str(tmp_path / "model"))
    assert (refused.returncode, refused.stderr.count("\n")) == (1, 1)
    assert "crypto-ml[training]" in refused.stderr
