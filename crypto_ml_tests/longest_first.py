"""The order in which test files begin when several processes share them: the longest first, so that no process is left
with a long one while the others have nothing to do.

How long each took is in `seconds.json`, which is made anew from a report of the whole suite:

    python -m pytest -q -n 3 --dist loadfile --no-loadscope-reorder --junitxml=report.xml
    python -m crypto_ml_tests.longest_first report.xml
"""

import json
import sys
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Final
from xml.etree import ElementTree

import pytest

SECONDS: Final = Path(__file__).with_name("seconds.json")
ROOT: Final = Path(__file__).parents[1]
SECONDS_OF_NEW: Final = 10.0
"""What a file counts as that nobody has measured yet."""


def in_order(items: Iterable[pytest.Item]) -> list[pytest.Item]:
    """Tests by their files, those first that took longest; within a file as they were."""
    took = json.loads(SECONDS.read_text())
    return sorted(items, key=lambda item: -took.get(item.path.relative_to(ROOT).as_posix(), SECONDS_OF_NEW))


def measured(report: Path) -> dict[str, float]:
    """The seconds of each file, by a JUnit report."""
    seconds = defaultdict[str, float](float)
    for case in ElementTree.parse(report).iter("testcase"):  # noqa: S314 - a report that pytest has just written
        seconds[case.attrib["classname"].replace(".", "/") + ".py"] += float(case.attrib["time"])
    return {name: round(found, 1) for name, found in sorted(seconds.items())}


if __name__ == "__main__":
    SECONDS.write_text(json.dumps(measured(Path(sys.argv[1])), indent=0) + "\n")
