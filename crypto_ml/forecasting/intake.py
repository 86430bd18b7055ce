"""One upload, from its bytes to rows: read, cleaned, and handed to a sorter, the refused rows as well.

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
from crypto_ml.forecasting.reading import SHOWN_TEXT, UnreadableUpload, UploadReader
from crypto_ml.forecasting.schema import DateOrder
from crypto_ml.forecasting.sorting import REFUSED, RowSorter, as_rows

SHOWN_VALUE: Final = 40
"""Characters of a refused row's value that are repeated."""

REASONS_NAMED: Final = 3


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

    The refused rows themselves are in the sorter. A file that cannot be read has none; one of which no valid row is
    left has them all.
    """

    received_rows: int = 0
    refused_rows: int = 0
    date_order: DateOrder | None = None
    ignored_columns: tuple[str, ...] = ()
    refusal: str | None = None

    @property
    def accepted_rows(self) -> int:
        """Rows that passed the row rules; rows that contradict each other are found only once all are sorted."""
        return self.received_rows - self.refused_rows


def take_in(path: Path, rules: IntakeRules, sorter: RowSorter, file: int = 0) -> FileIntake:
    """Read and clean the upload at `path` and hand its rows, accepted and refused, to `sorter` as rows of `file`.

    A file that is refused as a whole adds nothing: its rows are cleaned a first time only once it is known how its
    dates are read, and rows already added are taken back.
    """
    try:
        reader = UploadReader(path, rules.max_bytes)
        intake = _take_in(reader, rules, sorter, file)
    except UnreadableUpload as refused:
        sorter.discard(file)
        return FileIntake(refusal=str(refused))
    return intake if intake.accepted_rows else replace(intake, refusal=nothing_left(sorter, file))


def nothing_left(sorter: RowSorter, file: int) -> str:
    """Why a file has no valid row, from its refused rows' reasons."""
    reasons = sorter.commonest_reasons(file, REASONS_NAMED)
    if not reasons:
        return "the file has a header and no rows"
    return "no valid row is left: " + "; ".join(f"{why} ({count} row{'s' * (count > 1)})" for why, count in reasons)


def _take_in(reader: UploadReader, rules: IntakeRules, sorter: RowSorter, file: int) -> FileIntake:
    order: DateOrder | None = None
    received = refused = 0

    def refuse_ragged() -> None:
        nonlocal refused
        refused += _refuse(sorter, _ragged(reader), file)

    reader.when_many = refuse_ragged
    for table in reader:
        if order is None and _has_slashes(table["date"]):
            order = _file_order(reader, rules)
        cleaned = clean_rows(table, order, rules.today)
        received += len(cleaned.accepted)
        refused += _refuse(sorter, _with_text(cleaned, table), file)
        if len(cleaned.accepted):
            sorter.add(as_rows(cleaned.accepted, file=file))
        refuse_ragged()
    refuse_ragged()
    return FileIntake(received + refused, refused, order, tuple(reader.ignored))


def _refuse(sorter: RowSorter, rows: pd.DataFrame, file: int) -> int:
    if len(rows):
        sorter.refuse(pa.Table.from_pandas(rows.assign(file=file), schema=REFUSED, preserve_index=False))
    return len(rows)


def _ragged(reader: UploadReader) -> pd.DataFrame:
    """The lines that did not fit the header since this was last asked."""
    lines = reader.ragged
    rows = {name: [getattr(line, name) for line in lines] for name in ("line", "reason", "text")}
    lines.clear()
    return pd.DataFrame(rows)


def _has_slashes(dates: pa.ChunkedArray) -> bool:
    return any(is_slashed(text) for text in pc.unique(dates).to_pylist())


def _file_order(reader: UploadReader, rules: IntakeRules) -> DateOrder:
    """Read the dates of the whole file once more: one date anywhere can settle how all are read."""
    evidence = DateEvidence()
    dates = UploadReader(reader.path, reader.limit, columns=("date",))
    dates.when_many = dates.ragged.clear
    for table in dates:
        evidence = evidence.with_dates(pc.unique(table["date"]).to_pylist())
    return evidence.order(rules.date_order)


def _with_text(cleaned: Cleaned, table: pa.Table) -> pd.DataFrame:
    """Refused rows with what stood in them, so that nobody has to open the file to see what was wrong."""
    if cleaned.refused.empty:
        return cleaned.refused.assign(text="")
    rows = table.filter(pc.is_in(table["line"], pa.array(cleaned.refused["line"].to_numpy())))
    names = [name for name in rows.column_names if name != "line"]
    values = [pc.utf8_slice_codeunits(rows[name], 0, SHOWN_VALUE) for name in names]
    shown = [pc.binary_join_element_wise(name, value, "=") for name, value in zip(names, values, strict=True)]
    text = pc.utf8_slice_codeunits(pc.binary_join_element_wise(*shown, ","), 0, SHOWN_TEXT)
    return cleaned.refused.assign(text=text.to_pandas())


@dataclass
class Repeats:
    """What sorting brought to light: how many rows contradict each other, and how many were given again, by file."""

    contradicting: Counter[int] = field(default_factory=Counter)
    repeated: Counter[int] = field(default_factory=Counter)


def settled_chunks(sorter: RowSorter, repeats: Repeats) -> Iterator[pd.DataFrame]:
    """The sorted rows with repeats settled (see `cleaning.without_repeats`).

    Rows that contradict each other are refused in `sorter`; how many were left out is noted in `repeats`.
    """
    for chunk in sorter.chunks():
        settled = without_repeats(chunk)
        for file, rows in settled.refused.groupby("file"):
            repeats.contradicting[int(str(file))] += _refuse(sorter, rows.assign(text=""), int(str(file)))
        repeats.repeated.update(int(file) for file in settled.repeated)
        if len(settled.accepted):
            yield settled.accepted
