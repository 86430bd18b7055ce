"""The files that answer an upload read back as what was written."""

import csv
import io
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from crypto_ml.forecasting.answers import FORECAST, PREDICTIONS, REJECTED_ROWS, append_csv, prediction_ids

TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)


def test_a_prediction_file_begins_with_the_columns_a_chart_reads(tmp_path: Path) -> None:
    path = tmp_path / "preds.csv"
    rows = pd.DataFrame({"line": [7], "status": ["predicted"], "val_open": [2.5], "pred_open": [1e-7], "symbol": ["A"]})
    rows = rows.assign(index=0, date=pd.Timestamp("2018-03-26"), ignored="x")
    rows = rows.assign(prediction_id=prediction_ids("0123456789abcdef", pa.array(rows["line"])).to_pylist())
    append_csv(path, PREDICTIONS, rows)
    header, line = path.read_text().splitlines()
    assert header == "symbol,index,date,pred_open,val_open,status,prediction_id"
    assert line == "A,0,2018-03-26,1e-7,2.5,predicted,0123456789abcdef-7"


def test_a_forecast_has_the_columns_of_the_contract() -> None:
    contract = ["symbol", "as_of", "target_date", "pred_open", "model_version"]
    assert FORECAST.names == [*contract, "prediction_id"]


@given(chunks=st.lists(st.lists(st.tuples(st.integers(0, 2**40), TEXTS, TEXTS), max_size=4), max_size=4))
def test_any_text_reads_back_as_it_was_however_the_file_was_put_together(
    chunks: list[list[tuple[int, str, str]]], tmp_path: Path
) -> None:
    path = tmp_path / "rejected.csv"
    path.unlink(missing_ok=True)
    append_csv(path, REJECTED_ROWS, pd.DataFrame(columns=REJECTED_ROWS.names))
    for chunk in chunks:
        append_csv(path, REJECTED_ROWS, pd.DataFrame(chunk, columns=["line", "reason", "text"]))
    found = list(csv.reader(io.StringIO(path.read_bytes().decode(), newline="")))
    assert found == [["line", "reason", "text"], *([str(line), *texts] for chunk in chunks for line, *texts in chunk)]


@given(values=st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=20))
def test_numbers_read_back_to_the_last_bit(values: list[float], tmp_path: Path) -> None:
    path = tmp_path / "preds.csv"
    path.unlink(missing_ok=True)
    rows = pd.DataFrame({"pred_open": values, "val_open": values, "symbol": "A", "index": 0, "status": "", "line": 1})
    append_csv(path, PREDICTIONS, rows.assign(date=pd.Timestamp("2018-01-01"), prediction_id="id-1"))
    found = [float(row["pred_open"]) for row in csv.DictReader(path.read_text().splitlines())]
    assert np.array_equal(found, values)
