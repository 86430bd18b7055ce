"""Where a file may be, and how it is looked at cheaply: an object in S3, an http(s) address, a local path.

A look at a file that has not changed costs one small request (an ETag, a time of change) or none. Every failure is one
sentence that says what to do; none holds a password or a signature that an address may carry.
"""

import hashlib
import stat
import time
from dataclasses import dataclass
from functools import cache
from http.client import HTTPException, HTTPMessage, HTTPResponse
from pathlib import Path
from typing import IO, Final, NoReturn, Protocol
from urllib.error import HTTPError, URLError
from urllib.parse import urljoin, urlsplit, urlunsplit
from urllib.request import HTTPRedirectHandler, OpenerDirector, Request, build_opener

from crypto_ml.errors import Blocked, Refused, Unavailable
from crypto_ml.storage.failures import ObjectChanged
from crypto_ml.storage.objects import ObjectStore, connect

MOST_BYTES: Final = 256 << 20
"""The largest file that is read, all of it into memory: some three million rows."""

SECONDS: Final = 20.0
"""How long a web server is waited for."""

PIECE: Final = 1 << 20
SECONDS_IN_ALL: Final = 120.0
"""How long a file may take to come; else a server that sends a byte now and then keeps the page from looking."""


class BadAddress(Refused):
    """An address that means no file."""


class NotThere(Refused):
    """There is no file at this address, yet or any more."""


class LedAway(Blocked):
    """A web server that sends whoever asks it on to where they did not mean to go."""


class NotReadable(Blocked):
    """There is something at this address that may not, or cannot, be read."""


class TooLarge(Refused):
    """A file that is larger than the page reads."""


class BeingWritten(Unavailable):
    """A file that changed while it was read."""


class NoAnswer(Unavailable):
    """Whoever has the file does not answer."""


@dataclass(frozen=True, eq=False)
class Fetched:
    """The bytes of a file, and the stamp (ETag, time of change) by which another version is told from it."""

    content: bytes
    stamp: str


class Source(Protocol):
    """A place that a file is read from."""

    @property
    def shown(self) -> str:
        """The address as people may see it: without passwords and signatures."""

    def newer(self, stamp: str | None) -> Fetched | None:
        """The file, or None where it still has this stamp.

        Raises NotThere, NotReadable, TooLarge, BeingWritten, NoAnswer, and what storage raises.
        """

    def at(self, path: str) -> "Source":
        """Another file in the same place; path: as `path`."""

    @property
    def path(self) -> str | None:
        """What the file is called there, of which the names of other files follow; None where none do."""


@dataclass(frozen=True)
class FileSource:
    """A local file."""

    file: Path

    @property
    def shown(self) -> str:
        return str(self.file)

    @property
    def path(self) -> str | None:
        return str(self.file)

    def at(self, path: str) -> "FileSource":
        return FileSource(Path(path))

    def newer(self, stamp: str | None) -> Fetched | None:
        try:
            seen = self._stamp()
            if seen == stamp:
                return None
            content = self.file.read_bytes()
            changed = self._stamp() != seen
        except FileNotFoundError:
            raise NotThere(f"There is no file {self.file}.") from None
        except PermissionError:
            raise NotReadable(
                f"{self.file} may not be read: give whoever runs the page permission to read it."
            ) from None
        except OSError as error:
            raise NotReadable(f"{self.file} cannot be read ({error.strerror or error}).") from error
        if changed:
            raise BeingWritten(f"{self.file} is being written.")
        return Fetched(content, seen)

    def _stamp(self) -> str:
        now = self.file.stat()
        if not stat.S_ISREG(now.st_mode):  # a pipe would be waited for, and take what another reader is there for
            raise NotReadable(f"{self.file} is no ordinary file: name the predictions file itself.")
        if now.st_size > MOST_BYTES:
            raise _too_large(self.shown, now.st_size)
        return f"{now.st_mtime_ns} {now.st_size} {now.st_ino}"


@dataclass(frozen=True, eq=False)
class ObjectSource:
    """An object in S3, read with what the AWS SDK finds."""

    store: ObjectStore
    key: str

    @property
    def shown(self) -> str:
        return self.store.uri(self.key)

    @property
    def path(self) -> str | None:
        return self.key

    def at(self, path: str) -> "ObjectSource":
        return ObjectSource(self.store, path)

    def newer(self, stamp: str | None) -> Fetched | None:
        found = self.store.head(self.key)
        if found is None:
            raise NotThere(f"There is no object {self.shown}.")
        if found.etag == stamp:
            return None
        if found.size > MOST_BYTES:
            raise _too_large(self.shown, found.size)
        try:
            return Fetched(self.store.read_pinned(found), found.etag)
        except ObjectChanged as error:
            raise BeingWritten(f"{self.shown} was replaced while it was read.") from error


@dataclass(frozen=True)
class WebSource:
    """What a web server answers."""

    url: str

    @property
    def shown(self) -> str:
        parts = urlsplit(self.url)
        host = parts.netloc.rpartition("@")[2]
        return urlunsplit((parts.scheme, host, parts.path, "…" if parts.query else "", ""))

    @property
    def path(self) -> str | None:
        parts = urlsplit(self.url)
        return None if parts.query else parts.path  # what is signed is signed for this file alone

    def at(self, path: str) -> "WebSource":
        return WebSource(urlunsplit(urlsplit(self.url)._replace(path=path, query="", fragment="")))

    def newer(self, stamp: str | None) -> Fetched | None:
        kind, _, value = (stamp or "").partition(" ")
        asked = {"Accept": "text/csv, */*", "Cache-Control": "no-cache"}
        asked |= {"If-None-Match": value} if kind == "etag" else {}
        asked |= {"If-Modified-Since": value} if kind == "modified" else {}
        try:
            with _opener().open(Request(self.url, headers=asked), timeout=SECONDS) as answer:  # noqa: S310
                content = self._all_of(answer)
                etag, modified = answer.headers.get("ETag"), answer.headers.get("Last-Modified")
        except HTTPError as error:
            error.close()
            if error.code == 304:
                return None
            self._refused(error)
        except (URLError, HTTPException, OSError) as error:
            reason = getattr(error, "reason", error)
            raise NoAnswer(
                f"The server of {self.shown} does not answer ({type(reason).__name__}): is it running?"
            ) from error
        if len(content) > MOST_BYTES:
            raise _too_large(self.shown, None)
        content_stamp = f"sha256 {hashlib.sha256(content).hexdigest()}"
        seen = f"etag {etag}" if etag else f"modified {modified}" if modified else content_stamp
        return None if seen == stamp else Fetched(content, seen)

    def _all_of(self, answer: HTTPResponse) -> bytes:
        """All that comes. Raises NoAnswer where it is not all, or takes too long."""
        content, end = bytearray(), time.monotonic() + SECONDS_IN_ALL
        while len(content) <= MOST_BYTES and (piece := answer.read1(PIECE)):
            content += piece
            if time.monotonic() > end:
                raise NoAnswer(f"The server of {self.shown} took more than {SECONDS_IN_ALL:.0f} s: it is too slow.")
        if len(content) <= MOST_BYTES and answer.length:
            raise NoAnswer(f"The server of {self.shown} broke off in the middle of the file.")
        return bytes(content)

    def _refused(self, error: HTTPError) -> NoReturn:
        if error.code in (404, 410):
            raise NotThere(f"There is nothing at {self.shown} (status {error.code}).") from error
        if error.code in (401, 403):
            raise NotReadable(
                f"The server of {self.shown} refuses to show it (status {error.code}): a signed address may have "
                "expired; start the page with another one."
            ) from error
        if error.code == 429 or error.code >= 500:
            raise NoAnswer(f"The server of {self.shown} cannot answer now (status {error.code}).") from error
        raise NotReadable(f"The server of {self.shown} answers with status {error.code}: check the address.") from error


class _Redirects(HTTPRedirectHandler):
    """Follows a redirect to the same server, and to another one by https alone.

    Whoever gives an address trusts its server with what is shown, not with what this machine reaches: what is on its
    network, the metadata of a cloud (169.254.169.254) among it, answers over http to whoever asks from here.
    """

    def http_error_302(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage
    ) -> HTTPResponse | None:
        new = urljoin(req.full_url, headers.get("Location", ""))
        if _server(new) != _server(req.full_url) and urlsplit(new).scheme != "https":
            fp.close()
            raise LedAway(
                f"The server of {WebSource(req.full_url).shown} leads to another address, {WebSource(new).shown}: give "
                "that one, if it is what you mean."
            )
        return super().http_error_302(req, fp, code, msg, headers)

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302


def _server(address: str) -> tuple[str, str]:
    parts = urlsplit(address)
    return parts.scheme, parts.netloc.rpartition("@")[2].lower()


@cache
def _opener() -> OpenerDirector:
    """What asks web servers; other schemes are not read, see `source_of` and `_Redirects`."""
    return build_opener(_Redirects)


def source_of(address: str) -> Source:
    """What an address means: `s3://bucket/key`, `http://…`, `https://…`, or a path.

    Raises BadAddress, and StoreNotUsable where the AWS settings lead nowhere.
    """
    scheme, separator, rest = address.partition("://")
    if not separator:
        return FileSource(Path(address))
    if scheme == "s3":
        bucket, _, key = rest.partition("/")
        if not bucket or not key or key.endswith("/"):
            raise BadAddress(f"{address} names no object: write s3://BUCKET/KEY")
        return ObjectSource(connect(bucket), key)
    if scheme not in ("http", "https"):
        raise BadAddress(f"{scheme}:// is no address that can be read: give s3://BUCKET/KEY, http(s)://…, or a path")
    try:
        parts = urlsplit(address)
        usable = bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        usable = False
    if not usable or not address.isascii() or not address.isprintable() or " " in address:
        raise BadAddress("the address is no URL: write what is special in it with %, as a browser's address bar does")
    if "@" in parts.netloc:
        raise BadAddress("an address with a password in it is not read: use a signed address, or a file")
    return WebSource(address)


def _too_large(shown: str, size: int | None) -> TooLarge:
    has = f"has {size / (1 << 20):,.0f} MB" if size else "has more than that"
    return TooLarge(
        f"{shown} {has}, and the page shows files of up to {MOST_BYTES >> 20} MB: give it fewer symbols or days."
    )
