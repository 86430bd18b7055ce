"""Install a lock file and this project into .venv, saying how far it is; where that fails, in one line what to do.

Run by make, with the Python that .venv is to have, from the repository's root; it needs nothing but that Python. Where
uv is on the PATH it fetches and unpacks, else pip.
"""

import os
import platform
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

VENV: Final = Path(".venv")
PYTHON: Final = VENV / "bin" / "python"
LOG: Final = VENV / "install.log"
GIGABYTE: Final = 1e9

SIZES: Final = {
    "requirements-demo.lock": 0.9,
    "requirements-scoring.lock": 0.9,
    "requirements.lock": 2.6,
    "requirements-dev.lock": 3.0,
}
"""Gigabytes that an environment takes, as `du` measured it on Linux x86."""

MACHINES: Final = {("Linux", "x86_64"), ("Linux", "aarch64"), ("Darwin", "arm64")}
"""What every library of the lock files has a build for."""

PINNED: Final = re.compile(r"^[A-Za-z0-9._-]+==", re.MULTILINE)
SECONDS_BETWEEN_LINES: Final = 15.0

UNREACHABLE: Final = (
    *("NewConnectionError", "NameResolutionError", "ConnectTimeout", "ReadTimeout", "ProxyError", "ConnectionError"),
    *("Temporary failure in name resolution", "error sending request", "dns error", "Network is unreachable"),
)
REASONS: Final = (
    (("No space left on device", "os error 28"), "the disk is full: make room, and run it again"),
    (
        ("DO NOT MATCH THE HASHES", "Hash mismatch"),
        "a downloaded file is another than the lock file names: empty the cache (pip cache purge), and run it again",
    ),
    (
        ("CERTIFICATE_VERIFY_FAILED", "invalid peer certificate"),
        "the package registry shows a certificate that is not trusted here: set PIP_CERT (for uv SSL_CERT_FILE) to the "
        "file of your network's certificates, and run it again",
    ),
    (
        UNREACHABLE,
        "the package registry cannot be reached: go online, or set the proxy or the index for pip and uv, "
        "and run it again",
    ),
    (
        ("No matching distribution found", "no wheels with a matching"),
        f"a library has no build for this machine ({platform.platform()}, Python {platform.python_version()})",
    ),
)
"""What an installer says, and what that means to whoever waits for it; the first that fits counts."""


def main(lock: str) -> int:
    """Make or complete .venv. The exit code is 0, or 1 with one line on standard error that says what to do."""
    size = SIZES[lock]
    if (platform.system(), platform.machine()) not in MACHINES:
        supported = ", ".join(" ".join(machine) for machine in sorted(MACHINES))
        return _failed(f"this is {platform.system()} {platform.machine()}, and there are libraries for {supported}")
    there = sum(file.stat().st_size for file in VENV.rglob("*") if file.is_file() and not file.is_symlink())
    free, missing = shutil.disk_usage(VENV.parent).free, size * GIGABYTE - there
    if free < missing:
        return _failed(f"it needs {missing / GIGABYTE:.1f} GB, and {free / GIGABYTE:.1f} GB are free: make room first")
    total = len(PINNED.findall(Path(lock).read_text(encoding="utf-8")))
    version = platform.python_version()
    print(
        f"Installing {total} libraries into .venv ({size} GB, Python {version}; a few minutes the first time)",
        flush=True,
    )
    if not PYTHON.exists():
        made = subprocess.run([sys.executable, "-m", "venv", VENV], capture_output=True, text=True, check=False)
        if made.returncode:
            return _failed(
                f"{sys.executable} cannot make an environment: install its venv module (python3-venv on Debian and "
                "Ubuntu), or put another Python on the PATH"
            )
    with LOG.open("w", encoding="utf-8") as log, _progress(total):
        done = all(subprocess.run(step, stdout=log, stderr=log, check=False).returncode == 0 for step in _steps(lock))
    if not done:
        return _failed(f"{reason(LOG.read_text(errors='replace'))} (all of it: {LOG})")
    return 0


def _steps(lock: str) -> Iterator[Sequence[str | Path]]:
    uv = shutil.which("uv")
    pip: list[str | Path] = [PYTHON, "-m", "pip", "--disable-pip-version-check"]
    install: list[str | Path] = [uv, "pip", "install", "--python", PYTHON] if uv else [*pip, "install"]
    yield [*install, "--no-deps", "--require-hashes", "-r", lock]
    yield [*install, "--no-deps", "--no-build-isolation", "--editable", "."]


def reason(log: str) -> str:
    """What an installer's output means in one sentence; its own last words where nobody knows."""
    for signs, meaning in REASONS:
        if any(sign in log for sign in signs):
            return meaning
    said = [line for line in log.splitlines() if line.strip()]
    return next((line for line in reversed(said) if line.lower().startswith("error")), said[-1] if said else "no word")


@contextmanager
def _progress(total: int) -> Iterator[None]:
    """Say how many libraries are there: on a terminal in one line that changes, else in a line now and then."""
    over = threading.Event()
    watching = threading.Thread(target=_watch, args=(total, over), daemon=True)
    watching.start()
    try:
        yield
    finally:
        over.set()
        watching.join()


def _watch(total: int, over: threading.Event) -> None:
    terminal = sys.stdout.isatty()
    began = said = time.monotonic()
    while not over.wait(0.5):
        now = time.monotonic()
        line = f"{_how_far(total)}, {now - began:.0f} s"
        if terminal:
            print(f"\r\033[K  {line}", end="", flush=True)
        elif now - said > SECONDS_BETWEEN_LINES:
            said = now
            print(f"  {line}", flush=True)
    if terminal:
        print("\r\033[K", end="", flush=True)


def _how_far(total: int) -> str:
    """pip fetches everything first, and then unpacks; uv does both at once."""
    fetched = set(re.findall(r"^Collecting ([\w.-]+)", LOG.read_text(errors="replace"), re.MULTILINE))
    installed = sum(1 for _ in VENV.glob("lib/python3*/site-packages/*.dist-info"))
    if fetched and "Installing collected packages" not in LOG.read_text(errors="replace"):
        return f"fetched {len(fetched)} of {total} libraries"
    return f"installed {min(installed, total)} of {total} libraries"


def _failed(why: str) -> int:
    print(f"crypto_ml could not be installed: {why}.", file=sys.stderr)
    return 1


if __name__ == "__main__":
    os.environ.pop("PYTHONPATH", None)
    sys.exit(main(*sys.argv[1:]))
