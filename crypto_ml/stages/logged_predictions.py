"""What an answer predicted, into the log of every prediction ever made."""

from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from crypto_ml.digest import sha256_of
from crypto_ml.ledger.formats.receipt_v2 import Receipt
from crypto_ml.ledger.requests import is_request, predicted_key
from crypto_ml.storage.objects import ObjectStore
from crypto_ml.storage.prediction_log import LOGGED_BESIDE, SCHEMA, PredictionLog, with_all_columns

ROAD: Final = "upload"
REQUEST_ROAD: Final = "request"


def road_of(delivery: str) -> str:
    """By what road the predictions of a delivery came."""
    return REQUEST_ROAD if is_request(delivery) else ROAD


def log_predictions(receipts: Mapping[int, Receipt], predicted: Path, store: ObjectStore) -> None:
    """Append the predicted rows of a delivery's answers, once, whatever run comes to this point and how often.

    Those of requests are kept beside their receipts until somebody settles them (see `settled_requests`).

    receipts: by number of the file, those written already. predicted: the rows, in the columns of
    `delivery_scoring.PREDICTED_ROWS`.
    """
    made = {number: receipt for number, receipt in receipts.items() if receipt.rows.predicted and _counts(receipt)}
    log = PredictionLog(store)
    if any(receipt.recorded is not None for receipt in made.values()):  # a run before this one came as far as receipts
        known = log.answers({receipt.answer_id for receipt in made.values()})
        made = {number: receipt for number, receipt in made.items() if receipt.answer_id not in known}
    if not made:
        return
    names = "\n".join(sorted(receipt.answer_id for receipt in made.values()))
    delivery = next(iter(made.values())).inputs.delivery
    if is_request(delivery):
        store.upload_file(predicted, predicted_key(delivery), create_only=True)
        return
    with pq.ParquetFile(predicted) as rows:
        reader = pa.RecordBatchReader.from_batches(SCHEMA, logged_rows(rows, made))
        log.append(reader, append_id=f"{delivery}-{sha256_of(names.encode())[:16]}")


def _counts(receipt: Receipt) -> bool:
    return receipt.outcome == "PREDICTED"


def logged_rows(rows: pq.ParquetFile, made: Mapping[int, Receipt]) -> Iterator[pa.RecordBatch]:
    """The predicted rows of answers of one delivery as the log has them: with the answer's name, model and time."""
    road = road_of(next(iter(made.values())).inputs.delivery)
    numbers = pa.array(list(made), pa.int32())
    said = {
        "answer_id": pa.array([receipt.answer_id for receipt in made.values()]),
        "model_version": pa.array([receipt.model.version for receipt in made.values()]),
        "made_at": pa.array(
            [datetime.fromisoformat(receipt.timings.answered_at) for receipt in made.values()],
            SCHEMA.field("made_at").type,
        ),
    }
    for batch in rows.iter_batches():
        wanted = batch.filter(pc.is_in(batch["file"], numbers))
        at = pc.index_in(wanted["file"], numbers)
        columns = {name: values.take(at) for name, values in said.items()}
        columns |= {name: wanted[name] for name in ("line", "symbol", "date", "pred_open")}
        columns |= {name: wanted[name] for name in LOGGED_BESIDE.names if name in wanted.schema.names}
        columns["road"] = pa.repeat(road, wanted.num_rows)
        yield from with_all_columns(pa.table(columns)).combine_chunks().to_batches()
