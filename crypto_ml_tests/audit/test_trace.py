"""Whatever an auditor calls a number, its whole chain is found, and what cannot be found is said in one sentence."""

import gzip
from datetime import date

import pytest

from crypto_ml.audit.references import UnknownAnswer, resolve
from crypto_ml.audit.trace import trace
from crypto_ml.storage.objects import ObjectStore
from crypto_ml_tests.forecasting.markets import market
from crypto_ml_tests.stages.road import Road, upload


@pytest.fixture
def road(store: ObjectStore) -> Road:
    made = Road(store)
    rows = market({"BTC": 12})
    made.drop(before=upload(rows[:10]))
    made.answer_new()
    made.put({"later.csv.gz": gzip.compress(b"\xef\xbb\xbf" + upload(rows[10:]).replace(b"\n", b"\r\n"))})
    made.answer_new()
    return made


def test_every_way_of_naming_a_row_leads_to_the_same_row(road: Road) -> None:
    row = road.predictions("later").iloc[-1]
    prediction_id, day = str(row["prediction_id"]), date.fromisoformat(row["date"])
    named = [
        resolve(prediction_id, road.store),
        resolve("predictions/later_preds.csv", road.store, symbol="BTC", day=day),
        resolve("uploads/later.csv.gz", road.store, symbol="BTC", day=day),
        resolve(road.store.uri("predictions/later_report.json"), road.store, symbol="BTC", day=day),
        resolve(prediction_id.rpartition("-")[0], road.store, symbol="BTC", day=day),
    ]
    found = [trace(reference, road.store).row for reference in named]
    assert all(one == found[0] for one in found)
    assert found[0] is not None
    assert found[0].prediction_id == prediction_id
    assert found[0].pred_open == row["pred_open"]


def test_a_row_shows_its_own_line_and_the_uploads_of_the_rows_before_it(road: Road) -> None:
    row = road.predictions("later").iloc[0]
    found = trace(resolve(str(row["prediction_id"]), road.store), road.store).row
    assert found is not None
    assert found.as_received == upload(market({"BTC": 12})[10:]).decode().splitlines()[1]
    assert [(one.upload, one.line) for one in found.earlier_rows] == [("uploads/before.csv", n) for n in range(6, 12)]
    assert found.scaled_by == "model"


def test_a_number_that_was_replaced_since_can_still_be_traced(road: Road) -> None:
    old = road.predictions("before").iloc[5]
    road.drop(before=upload(market({"BTC": 10}, seed=3)))
    road.answer_new()
    found = trace(resolve(str(old["prediction_id"]), road.store), road.store)
    assert found.row is not None
    assert (found.row.pred_open, found.row.val_open) == (old["pred_open"], old["val_open"])
    newer = str(road.report("before")["answer_id"])
    assert found.published == f"was replaced by answer {newer} of delivery 00000003"
    assert "`crypto-ml corrections` lists what used it" in " ".join(road.report("before")["notes"])


def test_what_was_published_is_looked_at(road: Road) -> None:
    named = resolve("predictions/before_preds.csv", road.store)
    assert trace(named, road.store).published == "stands unchanged"
    road.store.replace("predictions/before_preds.csv", b"other")
    assert trace(named, road.store).published == "was changed from outside"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("predictions/nobody_preds.csv", "was not answered"),
        ("forecasts/latest.csv", "there is no forecast"),
        ("00000001-0123456789abcdef", "there is no answer 00000001-0123456789abcdef"),
        ("", "names no answer"),
    ],
)
def test_a_name_under_which_nothing_was_answered_is_refused_with_a_sentence(road: Road, name: str, said: str) -> None:
    with pytest.raises(UnknownAnswer, match=said):
        trace(resolve(name, road.store), road.store)


def test_a_row_that_is_not_in_the_answer_is_refused_with_a_sentence(road: Road) -> None:
    with pytest.raises(UnknownAnswer, match="has no row for BTC of 1999-01-01; it may have been refused"):
        trace(resolve("uploads/before.csv", road.store, symbol="BTC", day=date(1999, 1, 1)), road.store)
    with pytest.raises(UnknownAnswer, match="give both"):
        resolve("uploads/before.csv", road.store, symbol="BTC")
