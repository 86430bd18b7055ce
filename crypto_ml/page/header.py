"""The first line of a CSV file, which says what it is."""

import csv
from typing import Final

LONGEST: Final = 1 << 16


def column_names(content: bytes) -> list[str] | None:
    """The names in the header of a CSV file in UTF-8; None where its first line is none."""
    lines = content.removeprefix(b"\xef\xbb\xbf")[:LONGEST].splitlines()
    try:
        return next(csv.reader([lines[0].decode()]), []) if lines else []
    except (UnicodeDecodeError, csv.Error):
        return None
