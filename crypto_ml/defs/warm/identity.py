"""Which process a run is in, said so that any process of the same machine can tell whether it is still that one.

A number alone does not tell: the system gives it to another process once the first has ended. On Linux alone; where
/proc is not, there are no warm processes.
"""

import json
import os
import signal
import socket
import sys
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Final, Self

from crypto_ml.defs.warm.dagster_launching import HIDDEN_TAG_PREFIX

WORKER_TAG: Final = f"{HIDDEN_TAG_PREFIX}crypto_ml/worker"
"""The tag of a run that is in a process of ours; hidden, as that of a stock run with its server's address is."""

SUPPORTED: Final = sys.platform == "linux"
"""Elsewhere a process that has loaded libraries of the system cannot be forked safely (macOS), or not at all."""


@dataclass(frozen=True)
class Process:
    """One process: its number, when it began in ticks of the kernel, and what tells where and when these were given:
    the machine's name, and since when it counts (its last start, or its container's)."""

    pid: int
    began: int
    machine: str
    counting: str

    @classmethod
    def of(cls, pid: int) -> Self:
        """The process with this number now. Raises ProcessLookupError."""
        return cls(pid, _state_and_begin(pid)[1], socket.gethostname(), counting())

    @classmethod
    def from_tag(cls, tag: str | None) -> Self | None:
        """The process that a run's tag names; None without one, or with an empty one."""
        return cls(**json.loads(tag)) if tag else None

    @property
    def tag(self) -> str:
        """What `from_tag` reads."""
        return json.dumps(asdict(self))

    @property
    def counted_here(self) -> bool:
        """Whether its number means something to this process: same machine, same container, no start in between."""
        return self.counting == counting()

    @property
    def alive(self) -> bool:
        """Whether it is one of this machine's, or container's, is still there, and has not ended."""
        try:
            state, began = _state_and_begin(self.pid)
        except ProcessLookupError:
            return False
        return self.counted_here and self.began == began and state not in "ZX"

    def interrupt(self) -> bool:
        """Ask it to stop, as Ctrl-C would; False where it has ended."""
        if not self.alive:
            return False
        try:
            os.kill(self.pid, signal.SIGINT)
        except ProcessLookupError:
            return False
        return True


@cache
def counting() -> str:
    """What tells the process numbers of this machine, or container, from those before its last start."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot} {Path('/proc/self/ns/pid').readlink()}"


def _state_and_begin(pid: int) -> tuple[str, int]:
    try:
        said = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError) as error:
        raise ProcessLookupError(pid) from error
    fields = said[said.rindex(")") + 2 :].split()  # the name before it may hold anything
    return fields[0], int(fields[19])
