"""What there is to compute: a function by its name, what decides all of its shards, and the shards; and their names.

A result's key follows from everything that decides its bytes: the function and the state of its code, the libraries,
the kind of processor, what is asked of all shards, and the shard. So a shard that stands is that shard, whoever
computed it and however the others were cut.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from typing import Any, Final

import pyarrow as pa

from crypto_ml.deployment import Deployment
from crypto_ml.digest import sha256_of
from crypto_ml.ledger.code import code_version
from crypto_ml.ledger.layout import shards_prefix
from crypto_ml.ledger.software import software

FORMAT: Final = 1
"""Of a result as it is stored; see `results`."""

Asked = Mapping[str, Any]
"""What JSON has: texts, numbers, lists, mappings by text, None."""

Function = Callable[[Asked, Asked, Deployment], Iterable[pa.Table]]
"""From what is asked of all shards, and of one, to its tables. It reads what is never changed, and writes nothing."""


@dataclass(frozen=True)
class Shard:
    """One part of some work. told: what it is, for people, in a few words."""

    asked: Asked
    told: str


@dataclass(frozen=True)
class Work:
    """A function on the top level of a module, as `module:name`, and what is asked of it. told: for people."""

    function: str
    asked: Asked
    shards: tuple[Shard, ...]
    told: str

    @cached_property
    def made_by(self) -> str:
        """Which code, libraries and kind of processor this process would compute with."""
        return made_by(self.function)

    @cached_property
    def id(self) -> str:
        """The name of everything that decides the results, but for the shards."""
        return _hash([FORMAT, self.function, self.made_by, self.asked])[:24]

    @property
    def prefix(self) -> str:
        """Below where the results stand."""
        return shards_prefix(self.id)

    def key(self, shard: Shard) -> str:
        """Where the result of a shard stands."""
        return f"{self.prefix}{_hash(shard.asked)[:24]}.arrow"


def made_by(function: str) -> str:
    """What of a process can move a bit of what a function makes, as one word."""
    module, program = function.partition(":")[0], software()
    return _hash([code_version(module), program.libraries, program.processor])[:24]


def function_named(name: str) -> Function:
    """The function that work names."""
    module, _, function = name.partition(":")
    found: Function = getattr(import_module(module), function)
    return found


def name_of(function: Function) -> str:
    """The name by which another process finds a function."""
    return f"{function.__module__}:{function.__name__}"


def _hash(said: Any) -> str:
    return sha256_of(json.dumps(said, sort_keys=True, allow_nan=False).encode())
