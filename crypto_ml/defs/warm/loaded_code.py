"""What a warm process was made of, so that a change of it is noticed before the next run begins in one."""

import os
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import crypto_ml

Stamp = frozenset[tuple[str, int, int]]


def stamp() -> Stamp:
    """Name, size and time of each file of the package's code, and of the folders that libraries are installed into.

    Some hundred questions to the file system, two milliseconds. Of the libraries the folders are enough: installing or
    removing one changes an entry in them.
    """
    package = Path(crypto_ml.__file__).parent
    return frozenset(
        [*_code(package), *map(_of, sorted({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}))]
    )


def _code(folder: Path) -> Iterator[tuple[str, int, int]]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir():
                if entry.name != "__pycache__":
                    yield from _code(Path(entry.path))
            elif entry.name.endswith(".py"):
                found = entry.stat()
                yield entry.path, found.st_size, found.st_mtime_ns


def _of(path: str) -> tuple[str, int, int]:
    found = Path(path).stat()
    return path, 0, found.st_mtime_ns
