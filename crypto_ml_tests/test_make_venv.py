"""What make says where the libraries cannot be installed: one line that says what to do."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.make_venv import SIZES, reason

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize(
    ("log", "meaning"),
    [
        ("ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device", "the disk is full"),
        ("error: Failed to install x\n  Caused by: No space left on device (os error 28)", "the disk is full"),
        (
            "WARNING: Retrying … NewConnectionError …\nERROR: No matching distribution found for x==1",
            "cannot be reached",
        ),
        ("error: Failed to fetch: `…`\n  Caused by: error sending request for url (…)", "cannot be reached"),
        ("error: error sending request …\n  Caused by: invalid peer certificate: UnknownIssuer", "set PIP_CERT"),
        ("ERROR: No matching distribution found for tensorflow==2.21.0 (from -r …)", "no build for this machine"),
        ("ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE.", "than the lock file names"),
        ("Collecting x\nERROR: something new\n\n", "ERROR: something new"),
        ("", "no word"),
    ],
)
def test_what_an_installer_says_is_told_as_what_to_do(log: str, meaning: str) -> None:
    assert meaning in reason(log)


def test_offline_it_ends_with_one_line(tmp_path: Path) -> None:
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "python").symlink_to(sys.executable)
    (tmp_path / "requirements-demo.lock").write_text(f"no-such-library==1.0 --hash=sha256:{'0' * 64}\n")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "UV_"))}
    environment |= {"PATH": "/usr/bin:/bin", "PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_RETRIES": "1"}
    environment |= {"PIP_CONFIG_FILE": os.devnull}
    command = [sys.executable, str(ROOT / "scripts" / "make_venv.py"), "requirements-demo.lock"]
    told = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert told.returncode == 1
    assert told.stderr.count("\n") == 1
    assert "the package registry cannot be reached" in told.stderr


def test_every_lock_file_has_the_size_of_its_environment() -> None:
    assert {path.name for path in ROOT.glob("*.lock")} == set(SIZES)
