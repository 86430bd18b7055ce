"""One upload, from its bytes to rows: read, cleaned, and handed to a sorter.

A file is refused as a whole or row by row; either way the outcome says everything a report needs.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import Final

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from crypto_ml.forecasting.cleaning import Cleaned, clean_rows, without_repeats
from crypto_ml.forecasting.dates import DateEvidence, is_slashed
from crypto_ml.forecasting.reading import UnreadableUpload, UploadReader
from crypto_ml.forecasting.schema import DateOrder
from crypto_ml.forecasting.sorting import RowSorter, as_rows

SHOWN_TEXT: Final = 500


@dataclass(frozen=True)
class IntakeRules:
    """What intake needs to know beside the file.

    today: UTC day of the upload; later dates are refused. date_order: how ambiguous slashed dates are read, None to
    refuse them. max_bytes: largest file after decompression.
    """

    today: date
    date_order: DateOrder | None = None
    max_bytes: int = 20 << 30


@dataclass(frozen=True)
class FileIntake:
    """What became of one file: `refusal` is the reason where it was refused as a whole.

    A file that cannot be read has no rows here; one of which no valid row is left has them all in `refused`.
    """

    received_rows: int = 0
    refused: pd.DataFrame = field(default_factory=lambda: pd.DataFrame({"line": [], "reason": [], "text": []}))
    date_order: DateOrder | None = None
    ignored_columns: tuple[str, ...] = ()
    refusal: str | None = None

    @property
    def accepted_rows(self) -> int:
        """Rows that passed the row rules; rows that contradict each other are found only once all are sorted."""
        return self.received_rows - len(self.refused)


def take_in(path: Path, rules: IntakeRules, sorter: RowSorter, file: int = 0) -> FileIntake:
    """Read and clean the upload at `path` and add its accepted rows to `sorter` as rows of `file`.

    A file that is refused as a whole adds nothing: its rows are cleaned a first time only once it is known how its
    dates are read, and rows already added are taken back.
    """
    try:
        reader = UploadReader(path, rules.max_bytes)
        intake = _take_in(reader, rules, sorter, file)
    except UnreadableUpload as refused:
        sorter.discard(file)
        return FileIntake(refusal=str(refused))
    return intake if intake.accepted_rows else replace(intake, refusal=nothing_left(intake.refused))


def nothing_left(refused: pd.DataFrame) -> str:
    """Why a file has no valid row, from its refused rows' `reason`."""
    if refused.empty:
        return "the file has a header and no rows"
    reasons = refused["reason"].value_counts()
    shown = "; ".join(f"{reason} ({count} row{'s' * (count > 1)})" for reason, count in reasons.head(3).items())
    return f"no valid row is left: {shown}"


def _take_in(reader: UploadReader, rules: IntakeRules, sorter: RowSorter, file: int) -> FileIntake:
    order: DateOrder | None = None
    received = 0
    refused: list[pd.DataFrame] = []
    for table in reader:
        if order is None and _has_slashes(table["date"]):
            order = _file_order(reader, rules)
        cleaned = clean_rows(table, order, rules.today)
        received += len(cleaned.accepted) + len(cleaned.refused)
        refused.append(_with_text(cleaned, table))
        if len(cleaned.accepted):
            sorter.add(as_rows(cleaned.accepted, file=file))
    if reader.ragged:
        refused.append(
            pd.DataFrame(
                [{"line": bad.line, "reason": bad.reason, "text": bad.text[:SHOWN_TEXT]} for bad in reader.ragged]
            )
        )
        received += len(reader.ragged)
    intake = FileIntake(received, date_order=order, ignored_columns=tuple(reader.ignored))
    found = [frame for frame in refused if len(frame)]
    return replace(intake, refused=pd.concat(found, ignore_index=True)) if found else intake


def _has_slashes(dates: pa.ChunkedArray) -> bool:
    return any(is_slashed(text) for text in pc.unique(dates).to_pylist())


def _file_order(reader: UploadReader, rules: IntakeRules) -> DateOrder:
    """Read the dates of the whole file once more: one date anywhere can settle how all are read."""
    evidence = DateEvidence()
    for table in UploadReader(reader.path, reader.limit, columns=("date",)):
        evidence = evidence.with_dates(pc.unique(table["date"]).to_pylist())
    return evidence.order(rules.date_order)


def _with_text(cleaned: Cleaned, table: pa.Table) -> pd.DataFrame:
    """Refused rows with what stood in them, so that nobody has to open the file to see what was wrong."""
    if cleaned.refused.empty:
        return cleaned.refused.assign(text="")
    rows = table.filter(pc.is_in(table["line"], pa.array(cleaned.refused["line"].to_numpy())))
    shown = rows.drop_columns(["line"])
    text = [",".join(f"{name}={value[:40]}" for name, value in row.items()) for row in shown.to_pylist()]
    return cleaned.refused.assign(text=[line[:SHOWN_TEXT] for line in text])


@dataclass
class Repeats:
    """What sorting brought to light: rows that contradict each other, and rows given more than once, by file."""

    refused: list[pd.DataFrame] = field(default_factory=list)
    repeated: Counter[int] = field(default_factory=Counter)

    def refused_of(self, file: int) -> pd.DataFrame:
        """`line`, `reason` and an empty `text` of the contradicting rows of one file."""
        if not self.refused:
            return pd.DataFrame({"line": [], "reason": [], "text": []})
        found = pd.concat(self.refused, ignore_index=True)
        return found.loc[found["file"] == file, ["line", "reason"]].assign(text="")


def settled_chunks(sorter: RowSorter, repeats: Repeats) -> Iterator[pd.DataFrame]:
    """The sorted rows with repeats settled (see `cleaning.without_repeats`); what is left out is noted in `repeats`."""
    for chunk in sorter.chunks():
        settled = without_repeats(chunk)
        if len(settled.refused):
            repeats.refused.append(settled.refused)
        repeats.repeated.update(int(file) for file in settled.repeated)
        if len(settled.accepted):
            yield settled.accepted
