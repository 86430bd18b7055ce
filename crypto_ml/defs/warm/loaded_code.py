"""What a warm process was made of, so that a change of it is noticed before the next run begins in one."""

import os
import sysconfig
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

Stamp = frozenset[tuple[str, int, int]]


def stamp(module: str) -> Stamp:
    """Name, size and time of each file of the code that `module` and this package are of, and of the folders that
    libraries are installed into.

    Some hundred questions to the file system, two milliseconds. Of the libraries the folders are enough: installing or
    removing one changes an entry in them.
    """
    found = {_of(sysconfig.get_path(name)) for name in ("purelib", "platlib")}
    for package in {module.partition(".")[0], __name__.partition(".")[0]}:
        spec = find_spec(package)
        for folder in (spec.submodule_search_locations or ()) if spec else ():
            found |= set(_code(folder))
    return frozenset(found)


def _code(folder: str) -> Iterator[tuple[str, int, int]]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir():
                if entry.name != "__pycache__":
                    yield from _code(entry.path)
            elif entry.name.endswith(".py"):
                found = entry.stat()
                yield entry.path, found.st_size, found.st_mtime_ns


def _of(path: str) -> tuple[str, int, int]:
    return path, 0, Path(path).stat().st_mtime_ns
