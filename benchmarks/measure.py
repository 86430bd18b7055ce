"""Timing for the benchmarks: calls, and whole processes with their peak memory."""

import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final


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


ASKS: Final = "requests?\n"
"""What a child prints that wants to know how many requests there were so far."""


def measured_by_child(
    module: str, words: Sequence[str], environment: Mapping[str, str], so_far: Callable[[], str] = lambda: "0"
) -> Any:
    """What `python -m MODULE --child WORDS` measured of itself: its last line, as JSON. so_far: what it is told where
    it asks (`requests_so_far`)."""
    command = [sys.executable, "-m", module, "--child", *words]
    variables = {**os.environ, **environment}
    with subprocess.Popen(command, env=variables, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdin
        assert child.stdout
        last = ""
        for line in child.stdout:
            last = line
            if line == ASKS:
                child.stdin.write(f"{so_far()}\n")
                child.stdin.flush()
    if child.returncode:
        raise SystemExit(f"{module} --child {' '.join(words)} failed")
    return json.loads(last)


def requests_so_far() -> list[int]:
    """What a child is told by whoever started it."""
    sys.stdout.write(ASKS)
    sys.stdout.flush()
    return list(map(int, sys.stdin.readline().split()))


def end_with_children() -> None:
    """Have SIGTERM end this process as an exception does, so that the servers it started are ended too."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))


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
