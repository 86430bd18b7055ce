"""The log of predictions keeps what models say beside the open, and null of those that say nothing."""

from datetime import UTC, date, datetime

import pyarrow as pa
import pytest

from crypto_ml.storage.objects import ObjectStore
from crypto_ml.storage.prediction_log import LOGGED_BESIDE, SCHEMA, PredictionLog, with_all_columns
from crypto_ml.storage.tables.growing import GrowingTable

PLAIN = pa.schema([field for field in SCHEMA if field not in LOGGED_BESIDE])


def of(answer_id: str, **beside: float | None) -> pa.Table:
    plain = {"road": "upload", "model_version": "m", "symbol": "BTC", "date": date(2020, 1, 1), "pred_open": 1.0}
    row = {"answer_id": answer_id, "line": 2, **plain, "made_at": datetime(2020, 1, 2, tzinfo=UTC), **beside}
    schema = pa.schema([*PLAIN, *(LOGGED_BESIDE.field(name) for name in beside)])
    return pa.Table.from_pylist([row], schema=schema)


def test_a_log_of_an_earlier_release_is_widened_and_has_null_where_nothing_was_said(store: ObjectStore) -> None:
    GrowingTable(store, "prediction_log", PLAIN).append(of("before"), append_id="before")
    log = PredictionLog(store)
    said = {"pred_low": 0.5, "pred_high": 2.0, "interval_level": 0.9, "expected_range": 0.1, "range_high": None}
    log.append(with_all_columns(of("with", **said)), append_id="with")
    log.append(with_all_columns(of("without")), append_id="without")
    assert log.predictions("with").select(LOGGED_BESIDE.names).to_pylist() == [said]
    nothing = dict.fromkeys(LOGGED_BESIDE.names)
    assert log.predictions().select(LOGGED_BESIDE.names).to_pylist() == [nothing, said, nothing]


def test_only_what_may_be_null_is_filled_in() -> None:
    with pytest.raises(KeyError):
        with_all_columns(of("one").drop_columns("pred_open"))
