"""Timing for the benchmarks: calls, and whole processes with their peak memory."""

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class ProcessRun:
    """One finished process: wall-clock and processor seconds (all cores), peak resident memory in bytes."""

    seconds: float
    processor_seconds: float
    peak_bytes: int


class Missed(SystemExit):
    """A target that was not reached; the process ends with 1."""

    def __init__(self, sentence: str) -> None:
        sys.stderr.write(f"MISSED: {sentence}\n")
        super().__init__(1)


def median_seconds(call: Callable[[], object], repeats: int) -> float:
    """Median wall-clock seconds of `repeats` calls."""
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


def run_process(command: Sequence[str]) -> ProcessRun:
    """Run a command to its end. Raises CalledProcessError where its exit code is not 0.

    Linux counts the caller's own peak into a child's until the child's program is loaded, so a caller that measures
    memory must itself be small.
    """
    began = time.perf_counter()
    child = subprocess.Popen(command)
    _, status, usage = os.wait4(child.pid, 0)
    seconds = time.perf_counter() - began
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise subprocess.CalledProcessError(child.returncode, command)
    processor = usage.ru_utime + usage.ru_stime
    return ProcessRun(seconds, processor, usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024))
