"""Shards that leave a mark when they are begun, so that a test can count them, and find who computes one."""

import os
import signal
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from crypto_ml.deployment import Deployment
from crypto_ml.engine.work import Shard, Work, name_of
from crypto_ml_tests.dropbox.site import until


def counted(asked: Mapping[str, Any], shard: Mapping[str, Any], deployment: Deployment) -> Iterator[pa.Table]:
    """Two tables. In a folder stands afterwards which process began it; a shard may wait until a file is there, or end
    its process."""
    number = shard["number"]
    mark = Path(asked["folder"]) / f"{number}-{os.getpid()}-{time.monotonic_ns()}"
    mark.touch()
    if number == asked.get("deadly"):
        os.kill(os.getpid(), signal.SIGKILL)
    if number == asked.get("broken"):
        raise ValueError("a shard that nobody expected")
    if "until" in asked and number in asked["waiting"]:
        until(Path(asked["until"]).exists, "nobody let the shard go on")
    yield pa.table({"number": [number]})
    yield pa.table({"square": [float(number) ** 2], "bucket": [deployment.store.bucket]})


def work(folder: Path, count: int, **asked: Any) -> Work:
    """So many of them."""
    shards = tuple(Shard({"number": number}, f"number {number}") for number in range(count))
    return Work(name_of(counted), {"folder": str(folder), **asked}, shards, "counting")


def begun(folder: Path) -> list[tuple[int, int]]:
    """Number and process of every shard that was begun, in order."""
    marks = [tuple(map(int, path.name.split("-"))) for path in folder.iterdir() if path.name[0].isdigit()]
    marks.sort(key=lambda mark: mark[2])
    return [(number, process) for number, process, _ in marks]
