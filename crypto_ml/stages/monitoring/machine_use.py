"""machine_use: what runs took of the machine, and how they ended, as they said themselves.

Belongs here: what is made of it. How a run measures itself, and where what it said is read, knows `defs`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from crypto_ml.forecasting.evaluation import Verdict
from crypto_ml.ledger.alarms import Condition

DAYS: Final = 7
MOST_MEMORY: Final = 0.7
"""Share of the machine's memory that one run may take: others run beside it."""

MOST_FAILED: Final = 0.1
FEWEST_RUNS: Final = 10
MEMORY_SHORT: Final = "memory_short"
RUNS_FAIL: Final = "runs_fail"


@dataclass(frozen=True)
class Used:
    """What one run took. peak_memory: bytes. Seconds since 1970 for `ended`."""

    asset: str
    ended: float
    processor_seconds: float
    peak_memory: float


@dataclass(frozen=True)
class Runs:
    """The runs of one job that ended lately: how many, how many failed, how many were tried again, their seconds."""

    job: str
    ended: int
    failed: int
    again: int
    seconds: float
    longest: float


@dataclass(frozen=True)
class MachineUse:
    """What runs took in the last DAYS days, and the memory of machine or container in bytes (None where none says)."""

    day: str
    used: Sequence[Used]
    runs: Sequence[Runs]
    memory: int | None

    @property
    def peak_memory(self) -> float:
        return max((one.peak_memory for one in self.used), default=0.0)


def by_asset(found: MachineUse) -> list[dict[str, float | str | int]]:
    """A row for each asset: runs, processor seconds (median, most), memory (most, MB)."""
    rows: list[dict[str, float | str | int]] = []
    for name in sorted({one.asset for one in found.used}):
        own = [one for one in found.used if one.asset == name]
        seconds = [one.processor_seconds for one in own]
        rows.append(
            {
                "asset": name,
                "runs": len(own),
                "processor_seconds": round(float(np.median(seconds)), 2),
                "most_processor_seconds": round(max(seconds), 2),
                "most_memory_mb": round(max(one.peak_memory for one in own) / 1e6),
            }
        )
    return rows


def runs_fit_in_memory(found: MachineUse) -> Verdict:
    """Whether no run took so much memory that others have none."""
    peak = found.peak_memory
    said = f"the largest of {len(found.used):,} runs in {DAYS} days took {peak / 1e6:,.0f} MB"
    if not found.memory:
        return Verdict(True, {"peak_memory_bytes": peak}, 0.0, said)
    share = peak / found.memory
    return Verdict(
        share <= MOST_MEMORY,
        {"peak_memory_bytes": peak, "share": share},
        MOST_MEMORY,
        f"{said}, {100 * share:.0f} % of the machine's; {100 * MOST_MEMORY:g} % is the limit",
    )


def runs_succeed(found: MachineUse) -> Verdict:
    """Whether few runs failed."""
    ended, failed = sum(one.ended for one in found.runs), sum(one.failed for one in found.runs)
    share = failed / ended if ended else 0.0
    which = ", ".join(f"{one.job} {one.failed}" for one in found.runs if one.failed)
    return Verdict(
        share <= MOST_FAILED or ended < FEWEST_RUNS,
        {"runs": ended, "failed": failed, "failed_share": share},
        MOST_FAILED,
        f"{failed} of {ended} runs failed in {DAYS} days{': ' + which if which else ''}",
    )


def conditions(found: MachineUse) -> list[Condition]:
    """What of it may be an alarm."""
    memory, runs = runs_fit_in_memory(found), runs_succeed(found)
    return [
        Condition(
            MEMORY_SHORT,
            memory.passed,
            memory.explanation,
            float(memory.numbers.get("share") or 0.0) / MOST_MEMORY,
            "give the machine more memory, or let fewer runs be at once (`dagster.yaml`)",
            found.day,
        ),
        Condition(
            RUNS_FAIL,
            runs.passed,
            runs.explanation,
            float(runs.numbers["failed_share"] or 0.0) / MOST_FAILED,
            "look at the failed runs in Dagster",
            found.day,
        ),
    ]
