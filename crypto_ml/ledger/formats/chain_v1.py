"""A link of the chain of evidence, since 0.7: which records came since the link before, and the hash of that link."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

FORMAT: Final = 1


@dataclass(frozen=True)
class Record:
    """A stored record as it was when it was taken in: key, sha256 and bytes, and what S3 said of it.

    etag, written: ETag and LastModified (ISO 8601, UTC) of the object. open: an outcome that may be replaced, because
    an upload in it was given up.
    """

    key: str
    sha256: str
    size: int
    etag: str
    written: str
    open: bool = False


@dataclass(frozen=True)
class Link:
    """One link. previous: sha256 of the bytes of the link before; None for the first.

    at: when it was made, ISO 8601, UTC. taken_in: of the first look, whose records were there before anybody counted.
    complete: everything was looked at for it, and nothing that was there then is left out by this link and those before
    it. seen_until: the latest LastModified that the look saw. deliveries: the greatest number of a delivery so far.
    """

    number: int
    previous: str | None
    at: str
    records: Sequence[Record]
    taken_in: bool = False
    complete: bool = False
    seen_until: str | None = None
    deliveries: int = 0
    format: int = FORMAT
