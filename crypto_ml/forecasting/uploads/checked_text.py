"""The bytes of an upload as a stream of UTF-8 lines, which refuses while it is read what no CSV reader should be given.

Belongs here: gzip, encodings, ends of lines, quotes that are left open, lines and files that are too long. Does not
belong here: what a line says (`reading`).
"""

import codecs
import gzip
import io
import re
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, cast

import numpy as np

from crypto_ml.forecasting.uploads.file_kinds import foreign
from crypto_ml.forecasting.uploads.unreadable import UnreadableUpload

LONGEST_LINE: Final = 1 << 20
BLOCK: Final = 8 << 20
LINES_AT_ONCE: Final = 1 << 18
"""Lines of a block that are given on at once: eight million empty ones would take a hundred times their size."""


GZIP_MAGIC: Final = b"\x1f\x8b"
DELIMITERS: Final = (",", ";", "\t", "|")
"""What stands between the values of a line, in the order in which it is looked for."""
UTF_16: Final = {codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"}


def _closed_lines(delimiter: str) -> re.Pattern[bytes]:
    """Lines in which each quote that opens a value is closed: what follows another one would be swallowed by it."""
    mark = re.escape(delimiter.encode())
    value = rb'(?:"[^"\n]*+(?:""[^"\n]*+)*+"[^%b\n]*+|[^"%b\n][^%b\n]*+|)' % (mark, mark, mark)
    return re.compile(rb"(?:%b(?:%b%b)*+\n)*+" % (value, mark, value))


_CLOSED_LINES: Final = {delimiter: _closed_lines(delimiter) for delimiter in DELIMITERS}


def is_gzip(path: Path) -> bool:
    """Whether an upload is gzip, whatever its name is."""
    with path.open("rb") as raw:
        return raw.read(len(GZIP_MAGIC)) == GZIP_MAGIC


def open_bytes(path: Path, *, gzipped: bool | None = None) -> BinaryIO:
    """The bytes of an upload, decompressed where they are gzip. gzipped: whether they are, where that is known."""
    if is_gzip(path) if gzipped is None else gzipped:
        return cast(BinaryIO, gzip.open(path, "rb"))
    return path.open("rb")


@dataclass(frozen=True)
class TooLarge:
    """So many bytes after decompression are accepted, and what is said where there are more."""

    bytes: int
    reason: str


class CheckedText(io.RawIOBase):
    """A stream of text that refuses, while it is read, what no CSV reader should be given.

    Every line comes out ended by a line feed, also those that ended in CR LF, CR, or with the file; UTF-16 comes out as
    UTF-8. delimiter: between values; None to look at no quotes. packed: whether the text was in gzip.
    """

    def __init__(self, opener: Callable[[], BinaryIO], limit: TooLarge, delimiter: str | None, *, packed: bool) -> None:
        super().__init__()
        self._source = opener()
        self._limit = limit
        self._closed_lines = _CLOSED_LINES[delimiter] if delimiter else None
        self._packed = packed
        self.encoding = "utf-8"
        self._decoder: codecs.IncrementalDecoder = codecs.getincrementaldecoder("utf-8")()
        self._seen = 0
        self._lines = 0
        self._after_return = False
        self._pending = b""  # the unfinished last line, for the checks that are about a line
        self._ready = deque[bytes]()

    def bytes_before(self, line: int) -> int:
        """About how far into the file, as it lies on disk, a line is: what parses it is some blocks behind."""
        read = getattr(self._source, "fileobj", self._source).tell()
        return int(read * min(1.0, line / max(self._lines, 1)))

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        self._source.close()
        super().close()

    def read(self, size: int | None = -1) -> bytes:
        if not self._ready:
            self._ready.extend(self._next_block(BLOCK if size is None or size < 0 else size))
        return self._ready.popleft()

    def read_all(self) -> bytes:
        """All of the text, as far as it has not been read."""
        return b"".join(iter(self.read, b""))

    def _next_block(self, asked: int) -> Iterator[bytes]:
        """The text of the next block in pieces of LINES_AT_ONCE lines; an empty one at the end of the file."""
        text, ended = b"", False
        while not text and not ended:
            try:
                chunk = self._source.read(asked)
            except (EOFError, gzip.BadGzipFile, zlib.error) as error:
                raise UnreadableUpload(
                    f"the gzip data is damaged or cut short ({error}); upload the file again"
                ) from error
            ended = len(chunk) < asked
            checked = self._checked(chunk, ended)
            text = self._with_line_feeds(checked if self._seen else checked.removeprefix(codecs.BOM_UTF8), ended)
            self._seen += len(chunk)
            self._check_lines(text)
        begin = 0
        if text.count(b"\n") > LINES_AT_ONCE:
            ends = np.flatnonzero(np.frombuffer(text, np.uint8) == ord("\n"))
            for end in (ends[LINES_AT_ONCE - 1 :: LINES_AT_ONCE] + 1).tolist():
                yield text[begin:end]
                begin = end
        if begin < len(text) or not text:
            yield text[begin:]

    def _checked(self, chunk: bytes, ended: bool) -> bytes:
        """The bytes of a chunk in UTF-8. Raises UnreadableUpload where they are too many, or no text."""
        if self._seen + len(chunk) > self._limit.bytes:
            raise UnreadableUpload(self._limit.reason)
        if not self._seen:
            if reason := foreign(chunk, self._packed):
                raise UnreadableUpload(reason)
            if self._packed and chunk.startswith(GZIP_MAGIC):
                raise UnreadableUpload("the file is gzip within gzip, so it is not text; compress it once")
            if chunk.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
                raise UnreadableUpload("the file is UTF-32; save it as CSV in UTF-8")
            if name := UTF_16.get(chunk[:2]):
                self.encoding = name
                self._decoder = codecs.getincrementaldecoder(name)()
        plain = self.encoding == "utf-8"
        if plain and (zero := chunk.find(b"\0")) >= 0:
            raise UnreadableUpload(f"the file has a NUL byte at byte {self._seen + zero:,}: it is not text")
        try:
            text = self._decoder.decode(chunk, final=ended)
        except UnicodeDecodeError as error:
            where = f"(near byte {self._seen + error.start:,})"
            if plain:
                raise UnreadableUpload(
                    f"the file is not UTF-8 {where}, it may be Latin-1 or Windows-1252; save it as CSV in UTF-8"
                ) from error
            raise UnreadableUpload(f"the file is damaged UTF-16 {where}; save it as CSV in UTF-8") from error
        if plain:
            return chunk
        if "\0" in text:
            raise UnreadableUpload(f"the file has a NUL character near byte {self._seen:,}: it is not text")
        return (text if self._seen else text.removeprefix("\ufeff")).encode()

    def _with_line_feeds(self, chunk: bytes, ended: bool) -> bytes:
        if self._after_return:
            chunk = chunk.removeprefix(b"\n")
        self._after_return = chunk.endswith(b"\r")
        text = chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n") if b"\r" in chunk else chunk
        unfinished = text or self._pending
        return text + b"\n" if ended and unfinished and not unfinished.endswith(b"\n") else text

    def _check_lines(self, text: bytes) -> None:
        complete, newline, self._pending = (self._pending + text).rpartition(b"\n")
        complete += newline
        if (before := _lines_before_a_long_one(complete, self._pending)) is not None:
            raise UnreadableUpload(f"line {self._lines + before + 1:,} is longer than {LONGEST_LINE:,} bytes")
        if self._closed_lines and b'"' in complete:
            closed = cast(re.Match[bytes], self._closed_lines.match(complete)).end()
            if closed < len(complete):
                number = self._lines + complete.count(b"\n", 0, closed) + 1
                raise UnreadableUpload(f"line {number:,} opens a quote and does not close it on the same line")
        self._lines += complete.count(b"\n")


def _lines_before_a_long_one(complete: bytes, pending: bytes) -> int | None:
    if len(complete) + len(pending) <= LONGEST_LINE:
        return None
    ends = np.flatnonzero(np.frombuffer(complete, np.uint8) == ord("\n"))
    lengths = np.diff(ends, prepend=-1, append=ends[-1] + 1 + len(pending) if len(ends) else len(pending) - 1)
    too_long = np.flatnonzero(lengths > LONGEST_LINE)
    return int(too_long[0]) if len(too_long) else None
