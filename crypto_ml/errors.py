"""The kinds of failure everything here distinguishes, and whose fault a failure is."""

import errno
import os
import socket
from collections.abc import Iterator
from typing import Final


class CryptoMLError(Exception):
    """Base of every named failure; its text is one sentence that says what is wrong and what to do."""


class Refused(CryptoMLError):  # noqa: N818 - reads as what happened
    """Permanent: the same input gives the same answer, so nothing retries it."""


class Blocked(Refused):
    """Permanent until somebody mends it, and the fault of no file: credentials, a permission, a bucket, a model."""


class Unavailable(CryptoMLError):  # noqa: N818 - reads as what happened
    """Passing: a store or a network did not answer, so the same call may succeed later."""


PASSING: Final = (ConnectionError, TimeoutError, socket.gaierror)
SCARCE: Final = (
    *map(os.strerror, (errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.EROFS, errno.ENETUNREACH)),
    "max_temp_directory_size",  # DuckDB, where the disk it sorts on is full
    "No usable temporary directory",
)
"""What a machine or a network says of itself when it has run out; libraries repeat it in errors of their own."""


def what_was_unavailable(error: BaseException) -> str | None:
    """What everything needs and was not there, in one sentence, where that is why something failed; None elsewhere."""
    for one in _chain(error):
        if isinstance(one, (Unavailable, Blocked)):
            return str(one)
        if not isinstance(one, CryptoMLError) and (isinstance(one, PASSING) or says_it_ran_out(str(one))):
            return f"{type(one).__name__}: {one}"
    return None


def says_it_ran_out(text: str) -> bool:
    """Whether the text of a library's error says that a disk is full, or something like it."""
    return any(words in text for words in SCARCE)


def names_of_unavailable() -> set[str]:
    """The names of the classes that `what_was_unavailable` goes by, for who has only names."""
    named: set[str] = set()
    classes: list[type[BaseException]] = [Unavailable, Blocked, *PASSING]
    while classes:
        one = classes.pop()
        named.add(one.__name__)
        classes += one.__subclasses__()
    return named


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
