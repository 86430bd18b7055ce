"""Small files that are alike, read as if they were one: reading a file of one row costs as much as one of a thousand.

Belongs here: which files that is certain to change nothing for. Everything else is left to `intake`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from crypto_ml.forecasting.cleaning import PLAIN, is_plain
from crypto_ml.forecasting.intake import (
    MOST_TEXT_TOGETHER,
    MOST_TOGETHER,
    SMALL_BYTES,
    FileIntake,
    IntakeRules,
    SmallFile,
    how_read,
    ragged_rows,
    reader_of,
    take_in_together,
)
from crypto_ml.forecasting.sorting import RowSorter
from crypto_ml.forecasting.uploads.intraday import ISO_DAY
from crypto_ml.forecasting.uploads.reading import UploadReader
from crypto_ml.forecasting.uploads.unreadable import UnreadableUpload

LEAST_ALIKE: Final = 8
"""Files with the same header that are read as one; of fewer each is read by itself."""

_UNUSUAL: Final = (b'"', b"\r", b"\0", b"ustar")
"""What may mean that a text is to be read otherwise than line by line, each ended by a line feed."""


@dataclass(frozen=True)
class _Plain:
    """The rows of a small file in ASCII, of which each line has as many commas as its header."""

    file: int
    rows: bytes
    lines: int


def take_in_alike(
    contents: Mapping[int, bytes], rules: IntakeRules, sorter: RowSorter, directory: Path
) -> dict[int, FileIntake]:
    """Take in those of some small files that are plain CSV and have many others' header, all of them as if they were
    one. What comes out is what `take_in_all` makes of them, to which everything else is left.

    contents: the bytes by the file's number. directory: for what is read.
    """
    alike: dict[bytes, list[_Plain]] = {}
    for file, content in contents.items():
        header, _, rows = content.partition(b"\n")
        if plain := _plain(file, header, rows):
            alike.setdefault(header, []).append(plain)
    intakes: dict[int, FileIntake] = {}
    for header, files in alike.items():
        for begin in range(0, len(files), MOST_TOGETHER):
            some = _read_alike(header, files[begin : begin + MOST_TOGETHER], rules, directory / "alike")
            intakes |= take_in_together(some, rules, sorter)
    return intakes


def _plain(file: int, header: bytes, rows: bytes) -> _Plain | None:
    whole = len(header) + len(rows) <= SMALL_BYTES and bool(rows) and header.isascii() and rows.isascii()
    if not whole or any(mark in header or mark in rows for mark in _UNUSUAL):
        return None
    lines = rows.removesuffix(b"\n").split(b"\n")
    commas = header.count(b",")
    if not all(line.count(b",") == commas and line.strip(b", \t") for line in lines):
        return None
    return _Plain(file, rows if rows.endswith(b"\n") else rows + b"\n", len(lines))


def _read_alike(header: bytes, files: Sequence[_Plain], rules: IntakeRules, path: Path) -> list[SmallFile]:
    """Those of the files that are plain CSV. Where one of them is not, each half is looked at by itself."""
    if len(files) < LEAST_ALIKE or sum(len(one.rows) for one in files) > MOST_TEXT_TOGETHER:
        return []
    path.write_bytes(b"\n".join([header, b"".join(one.rows for one in files)]))
    try:
        reader = reader_of(path, rules, "")
        if not isinstance(reader, UploadReader) or (reader.header.delimiter, reader.header.line) != (",", 1):
            return []
        if reader.layout.symbol is not None:  # the name of each file says of which coin it is
            return []
        rows = pa.concat_tables(list(reader))
    except UnreadableUpload:
        return []
    finally:
        path.unlink()
    if rows.num_rows != sum(one.lines for one in files) or not _is_usual(rows):
        half = len(files) // 2
        return [*_read_alike(header, files[:half], rules, path), *_read_alike(header, files[half:], rules, path)]
    lines = np.concatenate([np.arange(2, one.lines + 2) for one in files])
    rows = rows.set_column(rows.column_names.index("line"), "line", pa.array(lines, pa.int64()))
    read, ragged, ignored = how_read(reader, PLAIN.numbers, []), ragged_rows(reader), tuple(reader.ignored)
    small, begin = [], 0
    for one in files:
        small.append(SmallFile(one.file, rows.slice(begin, one.lines), ragged, ignored, read))
        begin += one.lines
    return small


def _is_usual(rows: pa.Table) -> bool:
    """Whether no value asks for a look at its whole file: none is written otherwise, and no date has a time of day."""
    dates = rows["date"]
    longest = pc.max(pc.binary_length(dates)).as_py() or 0
    return longest <= ISO_DAY and not pc.any(pc.utf8_is_digit(dates)).as_py() and is_plain(rows)
