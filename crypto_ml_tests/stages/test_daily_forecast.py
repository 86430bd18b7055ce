"""A forecast says the next open of what is current, is recorded before it is published, and never replaces a newer."""

import json
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from crypto_ml.digest import sha256_of
from crypto_ml.forecasting.answers import FORECAST
from crypto_ml.forecasting.scoring import score
from crypto_ml.ledger.forecasts import ForecastOrder, document, read_forecast_receipt
from crypto_ml.ledger.formats.forecast_v1 import ForecastReceipt
from crypto_ml.ledger.layout import FORECASTS, forecast_receipt_key
from crypto_ml.ledger.receipts import sealed
from crypto_ml.ledger.software import software
from crypto_ml.stages import forecast_receipts
from crypto_ml.stages.daily_forecast import publish_forecast
from crypto_ml.stages.next_opens import every_current_symbol
from crypto_ml.stages.recent_opens import recent_opens
from crypto_ml.storage.objects import ORDER, ObjectStore, connect
from crypto_ml.storage.prediction_log import PredictionLog
from crypto_ml_tests.forecasting.markets import market, model
from crypto_ml_tests.stages.forecasts import forecast_now, forecast_sources, read, stands
from crypto_ml_tests.stages.road import Road, upload

TARGET = "2018-01-13"


def rows_of(lengths: dict[str, int], seed: int = 0) -> pd.DataFrame:
    return market(lengths, seed)


def remember(road: Road, rows: pd.DataFrame, name: str = "prices") -> None:
    """Rows into the history, as an upload brings them."""
    road.drop(**{name: upload(rows)})
    road.answer_new()


@pytest.fixture
def known(road: Road) -> Road:
    """Twelve days of a coin the model knows, of one it does not, of one that stopped, and of one that just began."""
    remember(road, rows_of({"BTC": 12, "NEW": 12, "ETH": 10}))
    began = rows_of({"LATE": 12}).tail(3)
    remember(road, began, "late")
    return road


def test_the_numbers_are_those_of_scoring_the_day_to_come(known: Road) -> None:
    forecast_now(known)
    found = read(known.store)
    for symbol, lengths in (("BTC", {"BTC": 13}), ("NEW", {"NEW": 13})):
        rows = known.history.current_rows(symbols=[symbol]).to_pandas(date_as_object=False)
        to_come = market(lengths).tail(1).assign(symbol=symbol, open=float("nan"), slug=None)
        rows = rows.assign(file=0, context=True, slug=None).astype({"date": "datetime64[s]"})
        scored = pd.concat(score([pd.concat([rows, to_come], ignore_index=True)], known.bundle, "one_step"))
        assert found.set_index("symbol").loc[symbol, "pred_open"] == scored["pred_open"].iloc[-1]


def test_every_current_symbol_is_forecast_once_and_every_other_is_listed_with_its_last_day(known: Road) -> None:
    made = forecast_now(known)
    found, left_out = read(known.store), read(known.store, "latest_left_out")
    assert list(found.columns) == [*FORECAST.names]
    assert list(found.columns)[:5] == ["symbol", "as_of", "target_date", "pred_open", "model_version"]
    assert list(found["symbol"]) == ["BTC", "NEW"]
    assert set(found["as_of"]) == {"2018-01-12"}
    assert set(found["target_date"]) == {TARGET}
    name = made.receipt.forecast_id
    assert left_out.to_numpy().tolist() == [
        ["ETH", "2018-01-10", "no row for the newest day", name],
        ["LATE", "2018-01-12", "too few rows", name],
    ]
    symbols = made.receipt.symbols
    assert (symbols.forecast, symbols.without_newest_day, symbols.too_few_rows) == (2, 1, 1)
    assert list(made.missed["symbol"]) == ["LATE"]
    verdict = every_current_symbol(symbols, made.missed, made.receipt.newest_day)
    assert verdict.explanation == (
        "1 current symbol left out: LATE: too few rows; 2 symbols forecast from the rows up to 2018-01-12; "
        "others that stopped earlier: 1"
    )
    for name in ("", "_left_out"):
        assert known.store.read(f"{FORECASTS}{TARGET}{name}.csv") == known.store.read(f"{FORECASTS}latest{name}.csv")


def test_each_row_is_named_by_the_forecast_and_its_number(known: Road) -> None:
    made = forecast_now(known)
    assert list(read(known.store)["prediction_id"]) == [f"{made.receipt.forecast_id}-{number}" for number in (1, 2)]


def test_one_symbol_a_day_ahead_leaves_the_others_out_and_the_earlier_forecast_stays(known: Road) -> None:
    forecast_now(known)
    before = known.store.read(f"{FORECASTS}{TARGET}.csv")
    remember(known, market({"BTC": 13}).tail(1), "ahead")
    made = forecast_now(known)
    assert list(read(known.store)["symbol"]) == ["BTC"]
    assert dict(read(known.store, "latest_left_out")[["symbol", "last_day"]].to_numpy()) == {
        "ETH": "2018-01-10",
        "LATE": "2018-01-12",
        "NEW": "2018-01-12",
    }
    assert list(made.missed["symbol"]) == ["LATE", "NEW"]
    assert known.store.read(f"{FORECASTS}{TARGET}.csv") == before
    assert stands(known.store, "2018-01-14") == stands(known.store)


def test_a_day_on_which_nothing_can_be_forecast_leaves_what_stands(known: Road) -> None:
    forecast_now(known)
    before = known.objects()
    remember(known, market({"LATE": 13}).tail(1), "ahead")
    assert publish_forecast(forecast_sources(known), datetime.now(UTC)) is None
    forecasts = {key: etag for key, etag in known.objects().items() if "forecasts/" in key}
    assert forecasts == {key: etag for key, etag in before.items() if "forecasts/" in key}


def test_an_older_forecast_never_leaves_its_list_beside_a_newer_one(
    known: Road, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lists without rows are the same bytes, so that a store cannot tell that one was replaced by another meanwhile."""
    older = forecast_sources(known, "older")
    remember(known, market({"BTC": 13, "NEW": 13, "ETH": 13, "LATE": 13}), "everybody")
    forecast_now(known)
    remember(known, market({"BTC": 14, "NEW": 14, "ETH": 14, "LATE": 14}).query("date > '2018-01-13'"), "next")
    newest = forecast_sources(known, "newest")
    head = ObjectStore.head
    came: list[str] = []

    def slow(store: ObjectStore, key: str) -> Any:
        """The newest forecast is published between an older one's look at the list and its replacement of it."""
        seen = head(store, key)
        if key.endswith("latest_left_out.csv") and not came:
            came.append(key)
            publish_forecast(newest, datetime.now(UTC))
        return seen

    known.store.replace(
        f"{FORECASTS}latest_left_out.csv",
        known.store.read(f"{FORECASTS}latest_left_out.csv"),
        metadata={ORDER: "0"},
    )
    known.store.client.delete_object(Bucket=known.store.bucket, Key=known.store.physical(f"{FORECASTS}latest.csv"))
    monkeypatch.setattr(ObjectStore, "head", slow)
    publish_forecast(older, datetime.now(UTC))
    assert came
    assert stands(known.store) == stands(known.store, "latest_left_out")
    assert known.store.read(f"{FORECASTS}latest_left_out.csv").count(b"\n") == 1
    everything_is_vouched_for(known.store)


def test_a_history_without_rows_has_no_forecast(road: Road) -> None:
    road.history.append(road.history.scan().read_all(), append_id="nothing", known_at=datetime(2018, 1, 1, tzinfo=UTC))
    assert publish_forecast(forecast_sources(road), datetime.now(UTC)) is None
    assert not [key for key in road.objects() if key.startswith(FORECASTS)]


def test_the_same_inputs_publish_nothing_anew(known: Road) -> None:
    first = forecast_now(known)
    before = known.objects()
    again = forecast_now(known)
    assert again.unchanged
    assert again.receipt == first.receipt
    assert list(again.rows["prediction_id"]) == list(first.rows["prediction_id"])
    assert list(again.left_out["symbol"]) == list(first.left_out["symbol"])
    assert known.objects() == before


def test_an_object_that_was_changed_from_outside_is_put_right_by_the_next_forecast(known: Road) -> None:
    first = forecast_now(known)
    good = known.store.read(f"{FORECASTS}latest.csv")
    known.store.replace(f"{FORECASTS}latest.csv", b"other")
    again = forecast_now(known)
    assert not again.unchanged
    assert again.receipt == first.receipt
    assert known.store.read(f"{FORECASTS}latest.csv") == good


def test_another_model_or_a_later_append_is_another_forecast_and_takes_its_place(known: Road) -> None:
    ids = [forecast_now(known).receipt.forecast_id]
    other = model("change", label="other")
    known.registry.add(other)
    known.registry.promote(other.version, by="ann", why="better", at=known.now)
    ids.append(forecast_now(known).receipt.forecast_id)
    assert stands(known.store) == ids[-1]
    assert set(read(known.store)["model_version"]) == {other.version}
    remember(known, market({"BTC": 11}, seed=5).tail(1), "correction")
    ids.append(forecast_now(known).receipt.forecast_id)
    assert stands(known.store) == stands(known.store, TARGET) == ids[-1]
    assert len(set(ids)) == 3
    assert {key for key in known.objects() if key.startswith("receipts/forecasts/")} == {
        forecast_receipt_key(forecast_id) for forecast_id in ids
    }


@pytest.mark.parametrize("name", ["code_version", "software"])
def test_what_can_move_a_number_is_in_the_name_and_the_later_attempt_is_the_newer(
    known: Road, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = forecast_now(known)
    other_libraries = replace(software(), libraries={**software().libraries, "numpy": "0.0"})
    other = {"code_version": lambda _: "0" * 12, "software": lambda *_: other_libraries}
    monkeypatch.setattr(forecast_receipts, name, other[name])
    second = forecast_now(known)
    assert second.receipt.inputs.attempt == first.receipt.inputs.attempt + 1
    assert stands(known.store) == stands(known.store, TARGET) == second.receipt.forecast_id
    assert forecast_now(known).unchanged


def test_where_a_receipt_stands_with_other_bytes_the_answer_is_another_attempt(known: Road) -> None:
    first = forecast_now(known)
    forecasts = [key for key in known.objects() if key.startswith(FORECASTS)]
    for key in forecasts:
        known.store.client.delete_object(Bucket=known.store.bucket, Key=known.store.physical(key))
    rewrite(known.store, first.receipt, lambda said: said["published"]["latest"].update(sha256="0" * 64))
    second = forecast_now(known)
    assert second.receipt.inputs == replace(first.receipt.inputs, attempt=2)
    assert stands(known.store) == second.receipt.forecast_id
    everything_is_vouched_for(known.store)


def rewrite(store: ObjectStore, receipt: ForecastReceipt, edit: Any) -> None:
    """Another receipt under the name of one, well sealed."""
    said = json.loads(json.dumps(document(receipt)))
    edit(said)
    store.replace(forecast_receipt_key(receipt.forecast_id), json.dumps(sealed(said)).encode())


def everything_is_vouched_for(store: ObjectStore) -> None:
    """Each object below forecasts/ is one that the receipt it names vouches for."""
    for found in store.list(FORECASTS):
        stored, content = store.fetch(found.key)
        order = ForecastOrder.read(stored.metadata[ORDER])
        assert order is not None, found.key
        receipt = read_forecast_receipt(order.forecast_id, store)
        assert ForecastOrder.of(receipt) == order
        vouched = {one.key: one.sha256 for one in receipt.published.values()}
        assert vouched[found.key] == sha256_of(content), found.key


def test_nothing_is_put_before_a_receipt_vouches_for_it(known: Road, monkeypatch: pytest.MonkeyPatch) -> None:
    put = ObjectStore.put_newest

    def checked(store: ObjectStore, key: str, source: Any, order: str, **described: Any) -> bool:
        found = ForecastOrder.read(order)
        assert found is not None
        receipt = read_forecast_receipt(found.forecast_id, store)
        vouched = {one.key: one.sha256 for one in receipt.published.values()}
        assert vouched[key] == sha256_of(source.read_bytes())
        return put(store, key, source, order, **described)

    monkeypatch.setattr(ObjectStore, "put_newest", checked)
    assert len(forecast_now(known).published.keys) == 4


def test_every_number_is_in_the_log_once_also_that_of_a_forecast_that_came_late(known: Road) -> None:
    late = forecast_sources(known, "late")
    remember(known, market({"BTC": 13, "NEW": 13}, seed=3), "next")
    made = [forecast_now(known), forecast_now(known)]
    for _ in range(2):
        found = publish_forecast(late, datetime.now(UTC))
        assert found is not None
        made.append(found)
    log = PredictionLog(known.store)
    for one in (made[0], made[-1]):
        rows = log.predictions(one.receipt.forecast_id).to_pydict()
        assert rows["line"] == [1, 2]
        assert rows["symbol"] == list(one.rows["symbol"])
        assert rows["pred_open"] == list(one.rows["pred_open"])
        assert {str(day) for day in rows["date"]} == {one.receipt.inputs.target_date}
        assert set(rows["road"]) == {"forecast"}
        assert set(rows["made_at"]) == {datetime.fromisoformat(one.receipt.timings.made_at)}
    assert len({one.receipt.forecast_id for one in made}) == 2
    # what there is to draw: the days observed, and of each day the forecast that was made last
    drawn = recent_opens(known.store, known.history, made[0].receipt.inputs.history_version, date(2018, 1, 13))
    (new,) = [series for series in drawn if series.symbol == "NEW"]
    forecast = {one.receipt.inputs.target_date: one.rows.set_index("symbol")["pred_open"]["NEW"] for one in made}
    predicted = dict(zip(new.days.astype(str).tolist(), new.predicted.tolist(), strict=True))
    assert {day: value for day, value in predicted.items() if not np.isnan(value)} == forecast
    assert list(new.days[[0, -1]].astype(str)) == ["2018-01-01", "2018-01-14"]
    assert np.isnan(new.observed).tolist() == [False] * 13 + [True]


def test_an_object_of_the_first_release_is_replaced_whatever_day_it_is_for(known: Road) -> None:
    for name in ("latest", TARGET):
        known.store.replace(f"{FORECASTS}{name}.csv", b"symbol,as_of,target_date,pred_open,model_version\n")
    made = forecast_now(known)
    assert stands(known.store) == stands(known.store, TARGET) == made.receipt.forecast_id


def test_a_forecast_that_comes_late_says_which_newer_one_stayed(known: Road) -> None:
    late = forecast_sources(known, "late")
    remember(known, market({"BTC": 13, "NEW": 13}, seed=3), "next")
    newer = forecast_now(known)
    made = publish_forecast(late, datetime.now(UTC))
    assert made is not None
    assert set(made.published.keys) == {f"{FORECASTS}{TARGET}.csv", f"{FORECASTS}{TARGET}_left_out.csv"}
    assert made.published.stayed == dict.fromkeys(
        [f"{FORECASTS}latest_left_out.csv", f"{FORECASTS}latest.csv"], newer.receipt.forecast_id
    )
    assert stands(known.store) == newer.receipt.forecast_id
    assert stands(known.store, TARGET) == made.receipt.forecast_id


def test_times_are_in_order_although_the_clock_went_back_meanwhile(known: Road) -> None:
    ahead = datetime.now(UTC) + timedelta(hours=1)
    made = publish_forecast(forecast_sources(known), ahead)
    assert made is not None
    assert made.receipt.timings.made_at == made.receipt.timings.began_at == ahead.isoformat()


@pytest.fixture(scope="module")
def grown(bucket: str) -> Iterator[Road]:
    """A history that grew by days and by corrections, under two champions."""
    road = Road(connect(bucket, f"tests/{uuid.uuid4().hex}"))
    rows = market({"BTC": 14, "NEW": 14})
    for number, (last, seed) in enumerate([(12, 0), (12, 1), (13, 0), (13, 2), (14, 0)]):
        part = rows if seed == 0 else market({"BTC": 14, "NEW": 14}, seed)
        remember(road, part[part["date"] <= pd.Timestamp("2017-12-31") + pd.Timedelta(days=last)], f"part{number}")
    other = model("change", label="other")
    road.registry.add(other)
    road.serving()
    road.registry.promote(other.version, by="ann", why="better", at=road.now)
    yield road


@hypothesis_settings(max_examples=10)
@given(
    asked=st.lists(st.tuples(st.integers(1, 5), st.integers(1, 2)), min_size=2, max_size=5, unique=True),
    at_once=st.integers(1, 4),
    first_release=st.booleans(),
)
def test_forecasts_that_end_in_any_order_and_at_once_leave_the_newest(
    grown: Road, asked: list[tuple[int, int]], at_once: int, first_release: bool
) -> None:
    store = grown.store
    for found in [*store.list(FORECASTS), *store.list("receipts/forecasts/")]:
        store.client.delete_object(Bucket=store.bucket, Key=store.physical(found.key))
    if first_release:
        store.replace(f"{FORECASTS}latest.csv", b"symbol,as_of,target_date,pred_open,model_version\n")
    now = forecast_sources(grown)
    entries = {entry.pointer: entry for entry in grown.registry.champions()}

    def run(state: tuple[int, int]) -> ForecastOrder:
        version, pointer = state
        champion = entries[pointer]
        bundle = grown.registry.load(champion.version)
        made = publish_forecast(
            replace(now, history_version=version, bundle=bundle, champion=champion), datetime.now(UTC)
        )
        assert made is not None
        return ForecastOrder.of(made.receipt)

    with ThreadPoolExecutor(at_once) as pool:
        orders = list(pool.map(run, asked))
    everything_is_vouched_for(store)
    newest = max(orders, key=lambda order: (order.target_date, order.history_version, order.champion_pointer))
    assert stands(store) == stands(store, "latest_left_out") == newest.forecast_id
    for target in {order.target_date for order in orders}:
        newest = max(
            (order for order in orders if order.target_date == target),
            key=lambda order: (order.history_version, order.champion_pointer),
        )
        assert stands(store, f"{target}") == stands(store, f"{target}_left_out") == newest.forecast_id
    assert len({order.forecast_id for order in orders}) == len(asked)
