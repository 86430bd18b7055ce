"""What a file is that is no CSV: named for what it is, by its first bytes, with what to do about it.

Nothing is opened here, and nothing is guessed: a signature is one that its format prescribes, and words are looked at
only once a file has turned out to have no header that can be read.
"""

import re
from typing import Final

PARQUET: Final = b"PAR1"
HEAD: Final = 64 << 10
"""Bytes at the beginning of a file that are looked at."""

_AS_CSV: Final = "save it as CSV in UTF-8 and upload that"
_UNPACKED: Final = "unpack it and upload the CSV file in it, plain or as .csv.gz"

_SIGNATURES: Final = (
    (b"PARE", "an encrypted Parquet file", "write it without encryption, or save it as CSV"),
    (b"ARROW1", "an Arrow or Feather file", "write it as Parquet or CSV"),
    (b"FEA1", "a Feather file", "write it as Parquet or CSV"),
    (b"ORC", "an ORC file", "write it as Parquet or CSV"),
    (b"Obj\x01", "an Avro file", "write it as Parquet or CSV"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file", "write it as Parquet or CSV"),
    (b"\x93NUMPY", "a NumPy array", "write it as Parquet or CSV"),
    (b"SQLite format 3\0", "an SQLite database", "write the table as Parquet or CSV"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old Excel workbook (.xls)", _AS_CSV),
    (b"%PDF-", "a PDF document", "upload the table it was made of as CSV"),
    (b"{\\rtf", "a text document (RTF)", "upload the table in it as CSV"),
    (b"BZh", "a bzip2 archive", _UNPACKED),
    (b"\xfd7zXZ\0", "an xz archive", _UNPACKED),
    (b"\x28\xb5\x2f\xfd", "a Zstandard archive", _UNPACKED),
    (b"\x04\x22\x4d\x18", "an LZ4 archive", _UNPACKED),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive", _UNPACKED),
    (b"Rar!\x1a\x07", "a RAR archive", _UNPACKED),
)
_ZIPPED: Final = (
    (b"xl/", "an Excel workbook (.xlsx)", _AS_CSV),
    (b"opendocument.spreadsheet", "an OpenDocument spreadsheet (.ods)", _AS_CSV),
    (b"word/", "a Word document (.docx)", "upload the table in it as CSV"),
    (b"Index/Document.iwa", "a Numbers or Pages document", "export it as CSV and upload that"),
    (b"[Content_Types].xml", "an Office document", _AS_CSV),
)
_PICKLE: Final = re.compile(rb"\x80[\x02-\x05][\x95}\]c]")
_TAR: Final = slice(257, 262)
_MARKUP: Final = re.compile(r"\s*<(!doctype html|html|head|body|table|\?xml|[a-z][\w:-]*[\s>])", re.IGNORECASE)
_JSON: Final = re.compile(r'\s*(\{\s*("|\}|$)|\[\s*(\{|\[|"|\]|-?\d|$))')


def foreign(head: bytes, packed: bool = False) -> str | None:
    """What a file is whose first bytes no text has, and what to do; None where it may be text.

    packed: whether the bytes were in gzip.
    """
    what = _binary(head)
    if what is None and packed and head.startswith(PARQUET):
        what = ("a Parquet file", "upload it without gzip, it is compressed by itself")
    if what is None:
        return None
    return f"the file is {what[0]}{' in gzip' * packed}; {what[1]}"


def foreign_text(line: str) -> str | None:
    """What a file is whose first line is no header of a table, and what to do; None where nothing is known."""
    if found := _MARKUP.match(line):
        kind = "an HTML page" if found[1].lower() != "?xml" else "an XML document"
        return f"the file is {kind}; download the table itself, and upload it as CSV"
    if _JSON.match(line):
        return "the file is JSON; write it as CSV, with a header and a line for each symbol and day"
    return None


def foreign_name(name: str) -> str | None:
    """What a file is by the end of its name, and what to do; None where the name tells nothing."""
    lower = name.lower()
    for ends, what, todo in (
        ((".xlsx", ".xlsm", ".xls", ".ods", ".numbers"), "a spreadsheet", _AS_CSV),
        ((".zip", ".7z", ".rar", ".bz2", ".xz", ".zst", ".tar", ".tgz"), "an archive", _UNPACKED),
        ((".json", ".jsonl", ".html", ".htm", ".xml", ".pdf"), "no table of text", "upload it as CSV"),
        ((".feather", ".arrow", ".orc", ".avro", ".h5", ".pkl"), "neither CSV nor Parquet", "write it as one of them"),
    ):
        if lower.endswith(ends):
            return f"by its name it is {what}; {todo}"
    return None


def _binary(head: bytes) -> tuple[str, str] | None:
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        inside = next(((what, todo) for mark, what, todo in _ZIPPED if mark in head), None)
        return inside or ("a ZIP archive", _UNPACKED)
    if head[_TAR] == b"ustar":
        return "a tar archive", _UNPACKED
    if _PICKLE.match(head):
        return "a Python pickle, which is never opened", "write the table as Parquet or CSV"
    return next(((what, todo) for mark, what, todo in _SIGNATURES if head.startswith(mark)), None)
