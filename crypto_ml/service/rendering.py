"""Answers as they are sent: JSON or CSV, whole columns at a time where there are many rows."""

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote

import pyarrow as pa
from pydantic_core import to_json

from crypto_ml.forecasting.answers import BESIDE
from crypto_ml.stages.requests import Reply

FEW_BYTES: Final = 8 << 10


def _number_there(text: str) -> float | None:
    return float(text) if text else None


READ: Final[Mapping[str, Callable[[str], Any]]] = {
    **{"index": int, "pred_open": float, "val_open": float},
    **dict.fromkeys(BESIDE.names, _number_there),
}
"""The columns of a file of predictions that are no text; a date is the text that JSON has of it."""

RESULTS: Final = "/v1/predictions"


def rows_of(table: pa.Table) -> list[dict[str, Any]]:
    """The rows of a table, each with its names; numbers are the float64 that they are, dates are dates."""
    names = table.column_names
    columns = [column.to_pylist() for column in table.columns]
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


def rows_of_csv(content: bytes, table: Callable[[], pa.Table]) -> list[dict[str, Any]]:
    """The rows of a file of predictions or refused rows. table: reads it as a whole, which takes longer than a few rows
    take one by one; the values are the same."""
    if len(content) > FEW_BYTES:
        return rows_of(table())
    with io.StringIO(content.decode(), newline="") as lines:
        return [{name: READ.get(name, str)(text) for name, text in row.items()} for row in csv.DictReader(lines)]


def links(answer_id: str) -> dict[str, str]:
    """Where more is to be had about an answer."""
    path = f"{RESULTS}/{quote(answer_id)}"
    return {"self": path, "trace": f"{path}/trace", "model": "/v1/model"}


def answer_document(
    *,
    answer_id: str,
    road: str,
    report: Mapping[str, Any],
    predictions: Sequence[Mapping[str, Any]],
    refused_rows: Sequence[Mapping[str, Any]],
    recorded: bool = True,
) -> dict[str, Any]:
    """An answer, whichever road it came by."""
    rows = report.get("rows", {})
    return {
        "answer_id": answer_id,
        "road": road,
        "recorded": recorded,
        "model_version": report.get("model_version"),
        "rows": {name: rows.get(name, 0) for name in ("received", "accepted", "refused", "predicted")},
        "predictions": predictions,
        "refused_rows": refused_rows,
        "read_as": (report.get("read_as") or {}).get("in_words"),
        "ignored_columns": report.get("ignored_columns", []),
        "notes": report.get("notes", []),
        "links": links(answer_id) if recorded else {"model": "/v1/model"},
    }


def reply_document(reply: Reply) -> dict[str, Any]:
    """The answer to a request."""
    return answer_document(
        answer_id=reply.answer_id,
        road="request",
        report=reply.report,
        predictions=rows_of_csv(reply.predictions_csv, lambda: reply.predictions),
        refused_rows=rows_of(reply.refused_rows),
        recorded=reply.recorded,
    )


def as_json(document: Any) -> bytes:
    """A document as it is sent; numbers are the shortest decimals that read back as the same float64."""
    return to_json(document)


def csv_headers(reply: Reply) -> dict[str, str]:
    """What an answer in CSV has no place for: which one it is, and how many rows it does not have."""
    refused = reply.report["rows"]["refused"]
    where = links(reply.answer_id)
    named = ", ".join(f'<{where[name]}>; rel="{name}"' for name in ("self", "trace"))
    return {
        "x-answer-id": reply.answer_id,
        "x-model-version": str(reply.report["model_version"]),
        "x-refused-rows": str(refused),
        **({"link": named} if reply.recorded else {}),
    }
