"""A refreshed model is a candidate like any other, names where it came from, and is watched as the same model."""

from datetime import timedelta

import pytest

from crypto_ml.audit.retraining import retrained
from crypto_ml.forecasting.bundle import TRAINING_MANIFEST
from crypto_ml.stages.monitoring.live_predictions import live_predictions
from crypto_ml.stages.monitoring.prediction_performance import intervals_hold, performance
from crypto_ml.stages.refreshed_rule import refresh, root_of
from crypto_ml.stages.scaler import NoTrainingSet
from crypto_ml.storage.objects import ObjectStore
from crypto_ml_tests.forecasting.markets import market, relative_model
from crypto_ml_tests.stages.road import Road, upload


def test_a_refreshed_model_is_a_candidate_that_names_its_parent_and_goes_on_as_the_same_model(
    store: ObjectStore,
) -> None:
    road = Road(store, bundle=relative_model())
    rows = market({"BTC": 120, "ETH": 120, "NEW": 120}, seed=4)
    last = rows["date"] == rows["date"].max()
    road.drop(prices=upload(rows[~last]))
    road.answer_new()
    parent = road.serving()
    candidate = refresh(road.deployment, parent.version, road.now)
    version = candidate.bundle.version
    assert version.startswith(f"{parent.version}-r20180429-")
    assert road.registry.champion() == parent
    assert version in road.registry.versions()
    loaded = road.registry.load(version)
    told = loaded.document(TRAINING_MANIFEST)["refreshed"]
    assert (told["of"], told["of_sha256"], root_of(loaded)) == (parent.version, parent.sha256, parent.version)
    assert (
        loaded.files["MODEL_CARD.md"].decode().startswith(f"This is {parent.version} with a serving rule of 2018-04-29")
    )
    with pytest.raises(NoTrainingSet, match=f"it is {parent.version} with another serving rule"):
        retrained(loaded, road.history)
    assert refresh(road.deployment, parent.version, road.now + timedelta(days=1)).bundle.sha256 == loaded.sha256
    road.registry.promote(version, by="a test", why="to serve it", at=road.now)
    road.drop(today=upload(rows[last]))
    road.answer_new()
    live = live_predictions(road.deployment, 90, version)
    assert live is not None
    assert set(live.models) == {parent.version, version}
    assert len(live) == 90 * 3
    found = performance(road.deployment)
    assert found is not None
    assert found.level == 0.9
    assert intervals_hold(found).passed
    again = refresh(road.deployment, version, road.now)
    assert root_of(again.bundle) == parent.version
    assert again.bundle.version.startswith(f"{parent.version}-r20180430-")
