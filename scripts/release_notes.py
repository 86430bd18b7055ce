"""Prints the part of CHANGELOG.md that is about a release: `python -m scripts.release_notes v0.6.0`."""

import re
import sys
from pathlib import Path
from typing import Final

CHANGES: Final = Path(__file__).resolve().parents[1] / "CHANGELOG.md"


def notes(version: str, changes: str) -> str | None:
    """What stands below the heading of a version, which may begin with a v; None where it has none."""
    found = re.search(
        rf"^## {re.escape(version.removeprefix('v'))}\n(.*?)(?=^## |\Z)", changes, re.MULTILINE | re.DOTALL
    )
    return found.group(1).strip() if found else None


def main() -> int:
    """Exit code 0, or 1 where the changelog says nothing of the version."""
    found = notes(sys.argv[1], CHANGES.read_text(encoding="utf-8"))
    if found is None:
        print(f"CHANGELOG.md has no section {sys.argv[1]}: write it before the release", file=sys.stderr)
        return 1
    print(found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
