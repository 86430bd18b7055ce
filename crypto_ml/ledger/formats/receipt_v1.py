"""The receipt of 0.1, in the terms of the next format. Frozen.

0.1 chose current rows by the time at which they became known, had neither libraries nor processor in the identity of an
answer, and gave each answer one receipt, which did not vouch for the report (see `report_v1`).
"""

from collections.abc import Mapping
from typing import Any, Final

FORMAT: Final = 1


def in_terms_of_v2(said: Mapping[str, Any]) -> dict[str, Any]:
    """A receipt as it was written (without id and seal), with what 0.1 left unsaid."""
    software = said["software"]
    unsaid = {
        "current": "known",
        "libraries": software["libraries"],
        "processor": software["machine"],
        "attempt": 1,
    }
    return {**said, "inputs": {**said["inputs"], **unsaid}, "software": {**software, "processor": software["machine"]}}
