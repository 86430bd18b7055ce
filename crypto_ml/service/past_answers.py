"""An answer that was given before, by whatever road: its numbers, and everything behind them."""

import json
from collections.abc import Mapping
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

from crypto_ml.audit import forecast_trace, held
from crypto_ml.audit import trace as tracing
from crypto_ml.audit.references import ANSWER_ID, FORECAST_ID, Reference, UnknownAnswer, resolve
from crypto_ml.digest import sha256_of
from crypto_ml.forecasting.answers import BESIDE, FORECAST_READ, PREDICTIONS_READ, REJECTED_ROWS
from crypto_ml.ledger.forecasts import read_forecast_receipt
from crypto_ml.ledger.receipts import read_receipt
from crypto_ml.ledger.requests import is_request
from crypto_ml.service.problems import ANSWER_TOO_LARGE, Problem
from crypto_ml.service.rendering import answer_document, rows_of
from crypto_ml.stages.requests import Reply, read_replies
from crypto_ml.storage.failures import ObjectMissing
from crypto_ml.storage.objects import ObjectStore
from crypto_ml.storage.prediction_log import PredictionLog

MOST_BYTES: Final = 32 << 20
"""Of a file of predictions that is sent as a whole; who wants more of one reads the object itself."""

LOGGED: Final = ("symbol", "date", "pred_open", "prediction_id")


def reference(text: str, store: ObjectStore) -> Reference:
    """What an id names. Raises UnknownAnswer; a key of the bucket is none."""
    if not (ANSWER_ID.fullmatch(text) or FORECAST_ID.fullmatch(text)):
        raise UnknownAnswer("this is no id of an answer or a prediction; answers have both")
    return resolve(text, store)


def past_answer(named: Reference, store: ObjectStore) -> dict[str, Any]:
    """An answer, or its one row that is meant, as a document. Raises UnknownAnswer, Problem."""
    try:
        if named.is_forecast:
            return _forecast(named, store)
        if is_request(named.answer_id.partition("-")[0]):
            return _request(named, store)
        return _upload(named, store)
    except ObjectMissing as missing:
        raise UnknownAnswer(f"there is no answer {named.answer_id}") from missing


def trace_json(named: Reference, store: ObjectStore) -> bytes:
    """Everything behind an answer or one of its rows, as `crypto-ml trace --json` has it."""
    if named.is_forecast:
        forecast = forecast_trace.trace(named, store)
        return _dumped({**forecast.document(), **held.document(held.of_forecast(forecast, store))})
    answer = tracing.trace(named, store)
    return _dumped({**answer.document(), **held.document(held.of_answer(answer, store))})


def _dumped(document: Any) -> bytes:
    return json.dumps(document, default=str).encode()


def past_reply(answer_id: str, store: ObjectStore) -> Reply:
    """The answer to a request. Raises UnknownAnswer, ObjectMissing."""
    for reply in read_replies(answer_id.partition("-")[0], store):
        if reply.answer_id == answer_id:
            return reply
    raise UnknownAnswer(f"there is no answer {answer_id}")


def _request(named: Reference, store: ObjectStore) -> dict[str, Any]:
    reply = past_reply(named.answer_id, store)
    return _document(named, "request", reply.report, reply.predictions, reply.refused_rows)


def _upload(named: Reference, store: ObjectStore) -> dict[str, Any]:
    receipt = read_receipt(named.answer_id, store)
    report = {
        "model_version": receipt.inputs.model_version,
        "rows": vars(receipt.rows),
        "read_as": receipt.read_as,
        "ignored_columns": list(receipt.ignored_columns),
        "notes": list(receipt.notes),
    }
    tables = {"predictions": PREDICTIONS_READ, "rejected_rows": REJECTED_ROWS}
    found = {}
    for what, schema in tables.items():
        vouched = receipt.published.get(what)
        found[what] = _as_published(vouched.key, vouched.sha256, schema, store) if vouched else schema.empty_table()
    predictions = found["predictions"]
    if predictions is None:  # another answer took its place since
        predictions = _as_logged(named.answer_id, store)
    return _document(named, "upload", report, predictions, found["rejected_rows"])


def _forecast(named: Reference, store: ObjectStore) -> dict[str, Any]:
    receipt = read_forecast_receipt(named.answer_id, store)
    report = {
        "model_version": receipt.inputs.model_version,
        "rows": dict.fromkeys(("received", "accepted", "predicted"), receipt.symbols.forecast),
    }
    vouched = receipt.published["forecast"]
    rows = _as_published(vouched.key, vouched.sha256, FORECAST_READ, store)
    return _document(named, "forecast", report, _as_logged(named.answer_id, store) if rows is None else rows, None)


def _document(
    named: Reference, road: str, report: Mapping[str, Any], predictions: pa.Table, refused: pa.Table | None
) -> dict[str, Any]:
    if named.line is not None:
        wanted = f"{named.answer_id}-{named.line}"
        predictions, refused = predictions.filter(pc.field("prediction_id") == wanted), None
        if not predictions.num_rows:
            raise UnknownAnswer(f"answer {named.answer_id} has no prediction {wanted}; its row may have been refused")
    return answer_document(
        answer_id=named.answer_id,
        road=road,
        report=report,
        predictions=rows_of(predictions),
        refused_rows=[] if refused is None else rows_of(refused),
    )


def _as_published(key: str, sha256: str, schema: pa.Schema, store: ObjectStore) -> pa.Table | None:
    """A file as it was published; None where it does not stand any more. Raises Problem."""
    there = store.head(key)
    if there is None:
        return None
    if there.size > MOST_BYTES:
        raise Problem(
            ANSWER_TOO_LARGE, f"it has {there.size:,} bytes, and {MOST_BYTES:,} are sent: read {store.uri(key)}"
        )
    content = store.read(key)
    if sha256_of(content) != sha256:
        return None
    options = pa_csv.ConvertOptions(column_types=schema, strings_can_be_null=False)
    parse = pa_csv.ParseOptions(newlines_in_values=True)
    return pa_csv.read_csv(pa.BufferReader(content), pa_csv.ReadOptions(use_threads=False), parse, options)


def _as_logged(answer_id: str, store: ObjectStore) -> pa.Table:
    """What the log of every prediction has of an answer whose files are others' by now."""
    logged = PredictionLog(store).predictions(answer_id)
    ids = pc.binary_join_element_wise(logged["answer_id"], pc.cast(logged["line"], pa.string()), "-")
    beside = [name for name in BESIDE.names if logged[name].null_count < logged.num_rows]
    return logged.append_column("prediction_id", ids).select([*LOGGED, *beside])
