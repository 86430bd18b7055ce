"""The champion and the newest models are measured on the history as it is, at a bounded cost."""

import pandas as pd
import pytest

from crypto_ml.forecasting.comparison import NothingToCompareOn
from crypto_ml.ledger.layout import bundle_prefix
from crypto_ml.stages.comparison import MOST_MODELS, chosen_models, chosen_series, compare_models
from crypto_ml.storage.objects import ObjectStore
from crypto_ml_tests.forecasting.markets import market, model
from crypto_ml_tests.stages.road import Road, upload


def test_the_champion_stands_first_and_a_model_that_cannot_be_read_is_listed_with_its_reason(
    store: ObjectStore,
) -> None:
    road = Road(store)
    with pytest.raises(NothingToCompareOn, match="no rows yet"):
        compare_models(road.registry, road.history)
    road.drop(prices=upload(market({"BTC": 50, "NEW": 45})))
    road.answer_new()
    damaged, other = model("change", label="damaged"), model("change", label="other")
    for one in (damaged, other):
        road.registry.add(one)
    store.replace(f"{bundle_prefix(damaged.version)}scaler.json", b"{}")
    found = compare_models(road.registry, road.history)
    assert [one.version for one in found.models] == [road.bundle.version, *chosen_models(road.registry)[1:]]
    measured = {one.version: one for one in found.models}
    assert "not as it was written" in measured[damaged.version].why
    assert all(measured[one.version].errors for one in (road.bundle, other))
    assert (found.rows, found.series, str(found.last_day)) == (40 + 35, 2, "2018-02-19")
    # a correction is what counts, as everywhere
    road.drop(corrected=upload(market({"BTC": 50}, seed=1)))
    road.answer_new()
    again = compare_models(road.registry, road.history)
    assert again.rows == found.rows
    assert again.last_close != found.last_close


def test_of_many_models_the_champion_and_those_written_last_are_compared(store: ObjectStore) -> None:
    road = Road(store)
    road.serving()
    for number in range(MOST_MODELS):
        road.registry.add(model("gap", label=f"candidate-{number}"))
    chosen = chosen_models(road.registry)
    assert chosen[0] == road.bundle.version
    assert len(chosen) == MOST_MODELS == len(set(chosen))


def test_of_many_series_as_many_are_chosen_as_their_rows_allow_and_always_the_same() -> None:
    lengths = pd.DataFrame({"symbol": [f"S{number}" for number in range(50)], "rows": 100})
    chosen = chosen_series(lengths, 1000)
    assert len(chosen) == 10
    assert chosen == chosen_series(lengths[::-1].reset_index(drop=True), 1000)
    assert len(chosen_series(lengths, 1)) == 1
