"""A request is answered as a file with the same rows is, bit for bit, whoever else asks and under whatever name."""

import csv as csv_reader
import io
import uuid
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crypto_ml.forecasting.answers import BESIDE, PREDICTIONS_READ, csv_lines
from crypto_ml.forecasting.bundle import ModelBundle
from crypto_ml.ledger.layout import REQUESTS
from crypto_ml.ledger.requests import pack_key
from crypto_ml.stages import requests
from crypto_ml.stages.requests import Asked, Reply, read_replies
from crypto_ml.storage.objects import ObjectStore
from crypto_ml_tests.forecasting.markets import market, model, relative_model
from crypto_ml_tests.stages.asking import ask, csv, in_json, records
from crypto_ml_tests.stages.road import COLUMNS, Road, upload

DAYS = 30
SYMBOLS = ("BTC", "ETH", "NEW", "OTHER")
MARKET = market(dict.fromkeys(SYMBOLS, DAYS))
WITH_SLUG = (*COLUMNS, "slug")
LAST_CLOSE = relative_model(0.0)


@st.composite
def some_rows(draw: st.DrawFn) -> pd.DataFrame:
    """Rows of some series: some days of each, now and then with other prices, refused, or of another coin."""
    parts = []
    for symbol in draw(st.lists(st.sampled_from(SYMBOLS), min_size=1, max_size=3, unique=True)):
        begin = draw(st.integers(0, DAYS - 1))
        rows = MARKET[MARKET["symbol"] == symbol].iloc[begin : begin + draw(st.integers(1, 8))]
        if draw(st.booleans()):  # a correction of what is known, or will be
            rows = rows.assign(high=rows["high"] * draw(st.floats(1.01, 2)))
        if draw(st.integers(0, 3)) == 0:
            rows = pd.concat([rows, rows[-1:].assign(open=-1.0)])
        parts.append(rows.assign(slug=draw(st.sampled_from([None, None, "one-coin", "another-coin"]))))
    return pd.concat(parts)


@st.composite
def bodies(draw: st.DrawFn) -> tuple[bytes, Asked]:
    """Rows as a file, and as a request that says the same."""
    rows = draw(some_rows())
    columns = WITH_SLUG if rows["slug"].notna().any() else COLUMNS
    file = upload(rows, columns=columns)
    return file, records(in_json(rows, columns)) if draw(st.booleans()) else csv(file)


def told(predictions: bytes) -> list[dict[str, str]]:
    """Every row of a file of predictions; of an answer's name only the line."""
    rows = csv_reader.DictReader(io.StringIO(predictions.decode()))
    return [{**row, "prediction_id": row["prediction_id"].rpartition("-")[2]} for row in rows]


def answered(reply: Reply) -> dict[str, Any]:
    """What whoever asked is told."""
    report = reply.report
    names = ("rows", "notes", "reason", "outcome", "ignored_columns", "model_version")
    said = {name: report[name] for name in names}
    return said | {"predictions": told(reply.predictions_csv), "refused": reply.refused_rows.to_pylist()}


@given(
    steps=st.lists(bodies(), min_size=2, max_size=3), bundle=st.sampled_from([model(), relative_model(0.5), LAST_CLOSE])
)
@settings(max_examples=4)
def test_a_request_is_answered_as_a_file_with_the_same_rows_whatever_is_known_and_whoever_else_asks(
    store: ObjectStore, steps: list[tuple[bytes, Asked]], bundle: ModelBundle
) -> None:
    road = Road(store.below(f"{store.prefix}{uuid.uuid4().hex}"), bundle)
    for number, (file, one) in enumerate(steps):
        (reply,) = ask(road, one)
        beside = ask(road, *(other for _, other in steps), record=False)[number]
        assert answered(beside) == answered(reply)
        road.drop(**{f"file{number}": file})
        road.answer_new()
        report = road.report(f"file{number}")
        assert (report["outcome"], report["reason"]) == (reply.outcome, reply.reason)
        assert {name: report[name] for name in ("rows", "notes")} == {
            name: reply.report[name] for name in ("rows", "notes")
        }
        published = road.store.read(report["predictions"]) if report["predictions"] else b""
        assert told(published) == told(reply.predictions_csv)
        refused = road.rejected_rows(f"file{number}") if report["rejected_rows"] else []
        assert [(row["line"], row["reason"]) for row in reply.refused_rows.to_pylist()] == refused


@pytest.fixture
def road(store: ObjectStore) -> Road:
    return Road(store)


def test_what_stands_under_a_name_is_returned_and_what_is_not_recorded_leaves_nothing(road: Road) -> None:
    (first,) = ask(road, csv(upload(MARKET[:12]), "first"), delivery="179500000000000042")
    assert first.stored
    road.drop(other=upload(MARKET))
    road.answer_new()
    (again,) = ask(road, csv(upload(MARKET[:12]), "again"), delivery="179500000000000042")
    assert (again.answer_id, again.predictions_csv) == (first.answer_id, first.predictions_csv)
    assert not again.stored
    (read,) = read_replies(first.delivery, road.store)
    assert (read.report, read.predictions_csv) == (first.report, first.predictions_csv)
    before = road.objects()
    (unrecorded,) = ask(road, csv(upload(MARKET[:12])), record=False)
    assert told(unrecorded.predictions_csv) == told(
        ask(road, csv(upload(MARKET[:12])), record=False)[0].predictions_csv
    )
    assert not unrecorded.recorded
    assert road.objects() == before
    assert [one.key for one in road.store.list(REQUESTS)] == [pack_key(first.delivery)]


def test_two_processes_that_take_one_name_in_one_millisecond_answer_their_own(
    road: Road, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = iter(["179500000000000042", "179500000000000042", "179500000000000043"])
    monkeypatch.setattr(requests, "new_delivery", lambda _: next(names))
    (one,) = ask(road, csv(upload(MARKET[:12]), "one"))
    (other,) = ask(road, csv(upload(MARKET[12:20]), "other"))
    assert (one.delivery, other.delivery) == ("179500000000000042", "179500000000000043")
    assert other.predictions.num_rows == 8


def test_coins_that_share_a_symbol_are_named_as_if_each_had_asked_alone(road: Road) -> None:
    rows = MARKET[:12]
    one, other = (csv(upload(rows.assign(slug=slug), columns=WITH_SLUG)) for slug in ("one-coin", "another-coin"))
    for reply in ask(road, one, other, one):
        assert set(reply.predictions["symbol"].to_pylist()) == {"BTC"}
        assert reply.report["notes"] == ask(road, one, record=False)[0].report["notes"]
    both = pd.concat([rows.assign(slug="one-coin"), rows.assign(slug="another-coin")])
    (reply,) = ask(road, records(in_json(both, WITH_SLUG)))
    assert set(reply.predictions["symbol"].to_pylist()) == {"BTC", "BTC:another-coin"}


TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)


@given(
    rows=st.lists(
        st.tuples(
            TEXTS,
            st.integers(0, 1 << 40),
            st.dates(),
            st.floats(allow_nan=False, allow_infinity=False),
            st.floats(allow_nan=False, allow_infinity=False),
            TEXTS,
            TEXTS,
            *(st.none() | st.floats(allow_nan=False, allow_infinity=False) for _ in BESIDE),
        ),
        max_size=5,
    )
)
def test_few_rows_that_were_written_are_read_as_many_are(
    rows: list[tuple[object, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    columns = [list(column) for column in zip(*rows, strict=True)] or [[] for _ in PREDICTIONS_READ]
    written = pa.table(columns, schema=PREDICTIONS_READ)
    content = (",".join(PREDICTIONS_READ.names) + "\n").encode() + csv_lines(written).to_pybytes()
    few = requests._table(content, PREDICTIONS_READ)
    with monkeypatch.context() as patch:
        patch.setattr(requests, "FEW_BYTES", 0)
        assert few.equals(requests._table(content, PREDICTIONS_READ))
    assert few.equals(written)
