"""What requests are answered with: the numbers of the file road, whatever is asked together, how and how often."""

import csv
import io
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from functools import partial
from typing import Any

import httpx
import pandas as pd
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from crypto_ml.forecasting.answers import PREDICTIONS, PREDICTIONS_READ, csv_lines
from crypto_ml.service.rendering import as_json, rows_of, rows_of_csv
from crypto_ml.storage.prediction_log import PredictionLog
from crypto_ml_tests.dropbox.site import until
from crypto_ml_tests.forecasting.markets import market
from crypto_ml_tests.service.asking import Asking, model, numbers, records
from crypto_ml_tests.stages.road import upload


def at_once(asks: Sequence[partial[httpx.Response]]) -> list[httpx.Response]:
    """Answers to requests that are sent at the same moment."""
    with ThreadPoolExecutor(len(asks)) as pool:
        return [asked.result() for asked in [pool.submit(ask) for ask in asks]]


def ok(response: httpx.Response) -> Any:
    assert response.status_code == 200, response.text
    return response.json()


def fresh_market(asking: Asking, days: int, seed: int) -> tuple[str, pd.DataFrame]:
    """A name nobody used before, and a market of a series that the model knows and of one that it does not."""
    asking.made += 1
    name = f"{asking.made:03}"
    return name, market({f"K{name}": days, f"U{name}": days}, seed=seed)


cases = st.tuples(st.integers(1, 20), st.integers(0, 20), st.integers(0, 99), st.booleans())
"""Days that are asked about, days that the history has before them, the market, and whether a row is bad."""


@settings(max_examples=3)
@given(st.lists(cases, min_size=3, max_size=3))
def test_a_request_gets_the_numbers_of_a_file_of_the_same_rows_to_the_last_bit(
    asking: Asking, drawn: list[tuple[int, int, int, bool]]
) -> None:
    known, asked = [], {}
    for days, before, seed, bad in drawn:
        name, rows = fresh_market(asking, days + before, seed)
        first = rows["date"].min() + pd.Timedelta(days=before)
        known.append(rows[rows["date"] < first])
        asked[name] = rows[rows["date"] >= first]
        if bad:
            asked[name] = pd.concat([asked[name], rows.iloc[-1:].assign(symbol=f"bad{name}", low=-1.0)])
    if sum(map(len, known)):
        asking.drop(**{f"known{name}": upload(pd.concat(known))})
    asks = [
        ask
        for rows in asked.values()
        for ask in (
            partial(asking.predict, records(rows)),
            partial(asking.predict, upload(rows)),
            partial(asking.predict, records(rows), accept="text/csv"),
        )
    ]
    answers = at_once(asks)
    asking.drop(**{f"asked{name}": upload(rows) for name, rows in asked.items()})
    for at, name in enumerate(asked):
        as_json, as_csv, csv_back = answers[at * 3 : at * 3 + 3]
        file = asking.road.store.read(f"predictions/asked{name}_preds.csv").decode()
        assert numbers(ok(as_json)["predictions"]) == numbers(ok(as_csv)["predictions"]) == numbers(read(file))
        assert [line.rpartition(",")[0] for line in csv_back.text.splitlines()] == [
            line.rpartition(",")[0] for line in file.splitlines()
        ]
        refused = asking.road.rejected_rows(f"asked{name}") if drawn[at][3] else []
        for answer in (as_json, as_csv):
            assert [(row["line"], row["reason"]) for row in ok(answer)["refused_rows"]] == refused
        assert csv_back.headers["x-refused-rows"] == str(len(refused))


def read(file: str) -> list[dict[str, Any]]:
    """A file of predictions with numbers as numbers."""
    with io.StringIO(file) as lines:
        return [
            {
                **row,
                "index": int(row["index"]),
                "pred_open": float(row["pred_open"]),
                "val_open": float(row["val_open"]),
            }
            for row in csv.DictReader(lines)
        ]


one_row = st.tuples(
    st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=8),
    st.floats(min_value=1e-300, allow_infinity=False),
    st.dates(date(2009, 1, 3), date(2100, 1, 1)),
)


@given(st.lists(one_row, min_size=1, max_size=5))
def test_a_few_rows_taken_one_by_one_are_those_of_the_whole_table(drawn: list[tuple[str, float, date]]) -> None:
    rows = [
        {
            "symbol": symbol,
            "index": number,
            "date": day,
            "pred_open": price,
            "val_open": price / 3,
            "status": "predicted",
            "pred_low": price / 7 if number % 2 else None,
        }
        for number, (symbol, price, day) in enumerate(drawn)
    ]
    schema = PREDICTIONS_READ if len(drawn) > 1 else PREDICTIONS
    table = pa.Table.from_pylist([{**row, "prediction_id": "1-a-2"} for row in rows], schema)
    content = (",".join(table.column_names) + "\n").encode() + csv_lines(table).to_pybytes()
    assert as_json(rows_of_csv(content, lambda: pa.table({}))) == as_json(rows_of(table))


def test_an_answer_is_read_again_traced_and_logged_by_its_ids_and_enters_no_history(asking: Asking) -> None:
    name, rows = fresh_market(asking, 20, 1)
    asking.drop(**{f"history{name}": upload(rows[rows["date"] < rows["date"].max()])})
    version = asking.road.history.version()
    answer = ok(asking.predict(records(rows[rows["date"] == rows["date"].max()])))
    assert asking.get(answer["links"]["self"]) == answer
    one = answer["predictions"][1]
    alone = asking.get(f"/v1/predictions/{one['prediction_id']}")
    assert alone["predictions"] == [one]
    assert alone["model_version"] == model().version
    trace = asking.get(f"/v1/predictions/{one['prediction_id']}/trace")
    assert trace["row"]["pred_open"] == one["pred_open"]
    assert json.loads(trace["row"]["as_received"])["symbol"] == one["symbol"]
    assert trace["row"]["earlier_rows"][-1]["upload"] == f"uploads/history{name}.csv"
    log = PredictionLog(asking.road.store)
    until(lambda: log.predictions(answer["answer_id"]).num_rows, "the answer is not in the log of predictions")
    logged = log.predictions(answer["answer_id"]).to_pylist()
    assert [(row["symbol"], row["pred_open"]) for row in logged] == [
        (row["symbol"], row["pred_open"]) for row in answer["predictions"]
    ]
    assert asking.road.history.version() == version


def test_a_dropped_file_s_answer_is_read_here_too_also_when_another_took_its_place(asking: Asking) -> None:
    name, rows = fresh_market(asking, 12, 2)
    asking.drop(**{f"file{name}": upload(rows)})
    first = asking.road.report(f"file{name}")["answer_id"]
    read = asking.get(f"/v1/predictions/{first}")
    assert (read["road"], len(read["predictions"])) == ("upload", 24)
    asking.drop(**{f"file{name}": upload(rows.iloc[:-1])})
    again = asking.get(f"/v1/predictions/{first}")
    predicted = {row["prediction_id"]: row["pred_open"] for row in read["predictions"] if row["status"] == "predicted"}
    assert {row["prediction_id"]: row["pred_open"] for row in again["predictions"]} == predicted
    assert asking.get(f"/v1/predictions/{next(iter(predicted))}/trace")["row"]["symbol"] == f"K{name}"


def test_the_same_key_and_body_get_the_same_answer_once_however_many_ask_at_once(asking: Asking) -> None:
    _, rows = fresh_market(asking, 1, 3)
    body, packs = records(rows), "receipts/requests/"
    before = len(list(asking.road.store.list(packs)))
    ask = partial(asking.predict, body, idempotency_key="close of the day!".replace(" ", "-"))
    answers = [ok(one) for one in at_once([ask] * 4)] + [ok(ask())]
    assert all(one == answers[0] for one in answers)
    assert len(list(asking.road.store.list(packs))) == before + 1
    other = asking.predict(body[:1], idempotency_key="close-of-the-day!")
    assert (other.status_code, other.json()["type"]) == (422, "urn:crypto-ml:problem:idempotency-key-reused")


def test_nothing_is_kept_of_what_is_not_recorded(asking: Asking) -> None:
    _, rows = fresh_market(asking, 3, 4)
    recorded = ok(asking.predict(records(rows)))
    before = asking.road.objects()
    body = json.dumps(records(rows))
    answer = ok(asking.post(body, "application/json", query="?record=false"))
    assert numbers(answer["predictions"]) == numbers(recorded["predictions"])
    assert (answer["recorded"], set(answer["links"])) == (False, {"model"})
    assert asking.client.get(f"/v1/predictions/{answer['answer_id']}").status_code == 404
    changed = {key for key in asking.road.objects() if key not in before}
    assert not [key for key in changed if answer["answer_id"].partition("-")[0] in key]


def test_ten_thousand_records_are_one_answer_and_small_requests_beside_them_have_theirs(asking: Asking) -> None:
    _, rows = fresh_market(asking, 2_500, 5)
    small = records(rows.head(1))
    large, *others = at_once([partial(asking.predict, upload(rows)), *[partial(asking.predict, small)] * 5])
    assert ok(large)["rows"]["accepted"] == 5_000
    assert {ok(one)["answer_id"] for one in others}.isdisjoint({ok(large)["answer_id"]})
