"""Output that goes nowhere: a full disk is said in a line, by help and by commands."""

import subprocess
import sys
from pathlib import Path

import pytest

FULL = Path("/dev/full")


@pytest.mark.skipif(not FULL.exists(), reason="there is no /dev/full here")
@pytest.mark.parametrize("command", [["--help"], ["serve", "--new-token", "charts"]])
def test_a_full_disk_where_the_output_goes_is_said_in_a_line(command: list[str]) -> None:
    with FULL.open("w") as full:
        ended = subprocess.run(
            [sys.executable, "-c", "from crypto_ml.cli import main; main()", *command],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert ended.returncode == 1
    assert ended.stderr.startswith("Error: there is no room left to write to")
    assert ended.stderr.count("\n") == 1
