"""The state of the code behind a stage, as a hash over the sources it is made of.

A stage's sources are its own module and every module of the package's `stages`, `forecasting` and `audit` rooms that it
imports, directly or not, and those of the history, which decide what rows it reads.
Editing one of them changes the code version of exactly the stages that use it.
"""

import ast
import importlib.util
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Final

from crypto_ml.digest import sha256_of

ROOMS: Final = ("crypto_ml.forecasting.", "crypto_ml.stages.", "crypto_ml.audit.")
STORAGE: Final = ("crypto_ml.storage.history", "crypto_ml.storage.outofcore")
"""What of the storage room decides which rows are read."""


@cache
def code_version(module: str) -> str:
    """Twelve hexadecimal digits for the sources of a stage's module, named like `crypto_ml.stages.predictions`."""
    sources = {name: _source(name) for name in sorted(_closure(module))}
    return sha256_of("".join(f"{name}\n{text}\n" for name, text in sources.items()).encode())[:12]


def _closure(module: str) -> set[str]:
    found: set[str] = set()
    pending = [module]
    while pending:
        name = pending.pop()
        if name not in found:
            found.add(name)
            pending += _imports(name)
    return found


@cache
def _imports(module: str) -> tuple[str, ...]:
    """What a module imports of all that counts; stages share most of it, and reading takes longer than hashing."""
    found: list[str] = []
    for node in _statements(ast.parse(_source(module))):
        names = [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        found += (name for name in names if name.startswith(ROOMS) or name in STORAGE)
    return tuple(found)


_WITHIN: Final = ("body", "orelse", "finalbody", "handlers", "cases")


def _statements(module: ast.Module) -> Iterator[ast.AST]:
    """All statements, among which imports are: a tenth of what `ast.walk` goes through."""
    pending: list[ast.AST] = [module]
    while pending:
        node = pending.pop()
        yield node
        for name in _WITHIN:
            pending += getattr(node, name, ())


def _source(module: str) -> str:
    found = importlib.util.find_spec(module)
    if found is None or found.origin is None:
        raise ModuleNotFoundError(module)
    return Path(found.origin).read_text(encoding="utf-8")
