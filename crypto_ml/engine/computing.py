"""One shard computed: the same for a worker of a cluster and for this process.

What goes between processes are texts and numbers. What went wrong is told in words, by its kind, so that whoever asked
raises it as its own.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import pyarrow as pa

from crypto_ml.deployment import Deployment
from crypto_ml.engine.results import keep, write_tables, written_along
from crypto_ml.engine.work import Asked, Shard, Work, function_named, made_by
from crypto_ml.errors import Blocked, CryptoMLError, Refused, Unavailable
from crypto_ml.settings import Settings

MOST_DEPLOYMENTS: Final = 4

KINDS: Final = {kind.__name__: kind for kind in (Blocked, Refused, Unavailable)}
"""From the most particular one on."""


class ShardFailed(Refused):
    """A shard whose function met what nobody expected."""


class OtherSoftware(Blocked):
    """A worker that would compute with other code, libraries or processors than whoever asked."""


@dataclass
class Outcome:
    """A shard that was computed. seconds, size (bytes): what it took; worker: who computed it. tables: where it is
    computed in this process, its result as it comes; what it took is known when that has an end."""

    worker: str
    seconds: float = 0.0
    size: int = 0
    tables: Iterator[pa.Table] | None = None


OutcomeOf = Callable[[Shard], Outcome]
"""Waits until a shard stands, or is about to be computed in this process; raises what kept it."""


def compute_tables(work: Work, shard: Shard, deployment: Deployment) -> Iterable[pa.Table]:
    """The tables of a shard, computed here. They raise what the function raises."""
    return function_named(work.function)(work.asked, shard.asked, deployment)


def compute(work: Work, shard: Shard, deployment: Deployment, path: Path, then: Callable[[], None]) -> Outcome:
    """Compute a shard here, as its result is read, which is written to a local file on the way. then: called when all
    of it is there. The tables raise what the function raises."""
    made = Outcome("this process")

    def tables() -> Iterator[pa.Table]:
        found = written_along(compute_tables(work, shard, deployment), path)
        while True:
            began = time.perf_counter()
            table = next(found, None)
            made.seconds += time.perf_counter() - began
            if table is None:
                break
            yield table
        made.size = path.stat().st_size
        then()

    made.tables = tables()
    return made


def message(work: Work, shard: Shard, deployment: Deployment) -> dict[str, Any]:
    """What another process needs to know to compute a shard, as JSON has it."""
    store = deployment.store
    return {
        "function": work.function,
        "made_by": work.made_by,
        "asked": dict(work.asked),
        "shard": dict(shard.asked),
        "key": work.key(shard),
        "bucket": store.bucket,
        "prefix": store.prefix,
    }


def compute_message(message: dict[str, Any], worker: str) -> dict[str, Any]:
    """What a worker does: compute what a message asks for, and say in words what became of it."""
    try:
        if made_by(message["function"]) != message["made_by"]:
            raise OtherSoftware(
                f"the worker {worker} has another state of the code, other versions of libraries or another kind of "
                "processor than the process that asked, so its numbers could differ in their last bits: run both "
                "from the same image, on machines of the same kind"
            )
        deployment = _opened(message["bucket"], message["prefix"])
        if stands := deployment.store.head(message["key"]):  # and who computed it died before it could say so
            return {"worker": worker, "seconds": 0.0, "size": stands.size}
        made = _computed(
            message["function"],
            message["asked"],
            message["shard"],
            deployment,
            key=message["key"],
            worker=worker,
        )
        return {"worker": made.worker, "seconds": made.seconds, "size": made.size}
    except CryptoMLError as error:
        kind = next(name for name, kind in KINDS.items() if isinstance(error, kind))
        return {"failed": kind, "why": str(error)}
    except Exception as error:  # noqa: BLE001 - whoever asked raises it, in words
        return {"failed": "", "why": f"{type(error).__name__}: {error}"}


def outcome(answer: dict[str, Any], work: Work, shard: Shard) -> Outcome:
    """What a worker answered. Raises Blocked, Refused, Unavailable as the worker would have, ShardFailed."""
    if "failed" not in answer:
        return Outcome(str(answer["worker"]), float(answer["seconds"]), int(answer["size"]))
    if kind := KINDS.get(str(answer["failed"])):
        raise kind(str(answer["why"]))
    raise ShardFailed(f"{work.told}, {shard.told}: {answer['why']}; the log of the worker says where it happened")


def _computed(function: str, asked: Asked, shard: Asked, deployment: Deployment, *, key: str, worker: str) -> Outcome:
    began = time.perf_counter()
    with TemporaryDirectory(prefix="crypto_ml-shard-") as name:
        path = Path(name) / "result"
        write_tables(function_named(function)(asked, shard, deployment), path)
        size = keep(path, key, deployment.store)
    return Outcome(worker, time.perf_counter() - began, size)


@lru_cache(maxsize=MOST_DEPLOYMENTS)
def _opened(bucket: str, prefix: str) -> Deployment:
    """The deployment that a message is about, opened once in a worker, with the worker's own way to S3. Whoever asked
    has had the store prove that it keeps claims."""
    return Deployment.reading(Settings(bucket=bucket, prefix=prefix.rstrip("/")))
