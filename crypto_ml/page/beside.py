"""What stands beside a predictions file: its report, its refused rows, the newest forecasts.

All of it may be missing, damaged, or somebody else's: each is read for itself, and says what is wrong with it.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa
import pyarrow.csv as pa_csv

from crypto_ml.errors import Refused
from crypto_ml.forecasting.answers import FORECAST_READ, REJECTED_ROWS
from crypto_ml.page.header import column_names

Row = Sequence[str]


class Unreadable(Refused):
    """A file that is not what should stand there."""


@dataclass(frozen=True)
class ReportShown:
    """What the report on an upload says that is shown; None where it does not say."""

    answer_id: str | None
    model_version: str | None
    outcome: str
    reason: str | None
    upload: str | None
    refused: int | None
    delivery: str | None
    notes: tuple[str, ...]


@dataclass(frozen=True)
class RetractionShown:
    """By whom and why an upload was taken back."""

    delivery: str | None
    by: str
    why: str


@dataclass(frozen=True, eq=False)
class Listed:
    """Rows of texts, as they are shown in a table."""

    rows: tuple[Row, ...]


FORECAST_NEEDED: Final = ("symbol", "as_of", "target_date", "pred_open", "model_version")


def read_report_shown(content: bytes) -> ReportShown:
    """A report, of whatever release. Raises Unreadable."""
    said = _object(content, "the report")
    upload, rows, notes = said.get("upload"), said.get("rows"), said.get("notes")
    refused = rows.get("refused") if isinstance(rows, dict) else None
    return ReportShown(
        answer_id=_text(said.get("answer_id")),
        model_version=_text(said.get("model_version")),
        outcome=_text(said.get("outcome")) or "",
        reason=_text(said.get("reason")),
        upload=_text(upload.get("key")) if isinstance(upload, dict) else None,
        refused=refused if isinstance(refused, int) else None,
        delivery=_text(said.get("delivery")),
        notes=tuple(str(note) for note in notes) if isinstance(notes, list) else (),
    )


def read_retraction_shown(content: bytes) -> RetractionShown:
    """What says that an upload was retracted. Raises Unreadable."""
    said = _object(content, "the notice of a retraction")
    by, why = (_text(said.get(name)) or "somebody" for name in ("by", "why"))
    return RetractionShown(_text(said.get("delivery")), by, why)


def read_refused(content: bytes) -> Listed:
    """Refused rows: line, reason, text. Raises Unreadable."""
    return _rows(content, REJECTED_ROWS.names, "the list of refused rows")


def read_forecasts(content: bytes) -> Listed:
    """Forecasts of next opens: symbol, as_of, target_date, pred_open, model_version, and the id, the interval and the
    range where there are any (the columns of `answers.FORECAST_READ`), empty where not.

    Raises Unreadable.
    """
    return _rows(content, FORECAST_READ.names, "the forecasts", needed=FORECAST_NEEDED)


def _rows(content: bytes, names: Sequence[str], what: str, *, needed: Sequence[str] | None = None) -> Listed:
    there = column_names(content) or ()
    missing = [name for name in needed or names if name not in there]
    if missing:
        raise Unreadable(f"{what} cannot be read: the columns {', '.join(missing)} are not there.")
    try:
        table = pa_csv.read_csv(
            pa.BufferReader(content),
            # what stands in quotes may have ends of lines in it: refused rows are kept as they were received
            parse_options=pa_csv.ParseOptions(newlines_in_values=True),
            convert_options=pa_csv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.string()),
                include_columns=list(names),
                include_missing_columns=True,
                strings_can_be_null=False,
            ),
        )
        columns = [table[name].fill_null("").to_pylist() for name in names]
    except (pa.ArrowInvalid, pa.ArrowKeyError) as error:
        raise Unreadable(f"{what} cannot be read: damaged, or half written.") from error
    return Listed(tuple(zip(*columns, strict=True)))


def _object(content: bytes, what: str) -> dict[str, Any]:
    try:
        said = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"{what} cannot be read: it is no JSON document.") from error
    if not isinstance(said, dict):
        raise Unreadable(f"{what} cannot be read: it is no JSON object.")
    return said


def _text(value: object) -> str | None:
    return None if value is None else str(value)
