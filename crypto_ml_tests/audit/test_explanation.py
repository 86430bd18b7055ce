"""Why a number is what it is, for answers and forecasts: parts that add up to it, gaps that its interval comes from."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

from crypto_ml.audit.explanation import Explanation, explain, told
from crypto_ml.audit.references import UnknownAnswer, resolve
from crypto_ml.cli import main
from crypto_ml.errors import Refused
from crypto_ml.forecasting.attribution import EXACT
from crypto_ml.forecasting.bundle import ModelBundle, make_bundle
from crypto_ml.forecasting.learners.linear_graph import linear_graph
from crypto_ml.forecasting.shrinkage import shrunk_network
from crypto_ml.storage.objects import ObjectStore
from crypto_ml_tests.forecasting.markets import market, model, relative_model
from crypto_ml_tests.stages.road import Road, upload


def linear_model(shrink: float) -> ModelBundle:
    """A model of the learner `absolute`."""
    base = relative_model(shrink)
    coefficients = np.random.default_rng(3).normal(0, 0.01, (5, 5))
    return make_bundle(
        label="linear", target="relative_gap", scaler=base.scaler, slugs={}, weights_sha256="", about={},
        network_onnx=shrunk_network(linear_graph(coefficients, 0.01), shrink, 0.05), rule=base.rule,
        documents={"metrics.json": b'{"learner": "absolute", "verdicts": {"last_close": {"word": "BEATS"}}}'},
    )  # fmt: skip


def answered(store: ObjectStore, bundle: ModelBundle) -> Road:
    road = Road(store, bundle=bundle)
    road.drop(prices=upload(market({"BTC": 30, "NEW": 6})))
    road.answer_new()
    return road


def explained(road: Road, symbol: str, day: str) -> Explanation:
    rows = road.predictions("prices")
    (row,) = rows[(rows["symbol"] == symbol) & (rows["date"].astype(str) == day)].to_dict("records")
    found = explain(resolve(str(row["prediction_id"]), road.store), road.store)
    assert found.pred_open == float(row["pred_open"])
    return found


def test_the_parts_of_a_prediction_add_up_to_it_and_the_gaps_to_its_interval(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    road = answered(store, linear_model(0.5))
    found = explained(road, "BTC", "2018-01-28")
    made = found.made_of
    assert found.method == EXACT
    assert found.output is not None and found.average is not None
    assert found.average + sum(part.adds for part in found.parts) == pytest.approx(found.output, abs=1e-6)
    served = np.clip(made.shrink * found.output, -made.cap, made.cap)
    assert found.pred_open == pytest.approx(made.last_close * (1 + made.recent_gap * served), rel=1e-9)
    assert len(found.parts) == 25 and len({part.day for part in found.parts}) == 5
    assert sum(gap.share for gap in found.gaps) == pytest.approx(1)
    assert len(found.gaps) <= made.gaps
    text = "\n".join(told(found))
    assert "learnt by absolute, BEATS against the last close" in text
    assert f"of {found.parts[0].day}" in text and "Shapley values, exact" in text
    monkeypatch.setenv("CRYPTO_ML_BUCKET", store.bucket)
    monkeypatch.setenv("CRYPTO_ML_PREFIX", store.prefix)
    printed = CliRunner().invoke(main, ["explain", found.prediction_id, "--json"])
    assert json.loads(printed.stdout)["made_of"]["shrink"] == 0.5
    with pytest.raises(UnknownAnswer, match="one number is explained"):
        explain(resolve("predictions/prices_preds.csv", store), store)
    few = explained(road, "NEW", "2018-01-05")
    assert (few.method, list(few.parts)) == (None, [])
    assert few.pred_open == few.made_of.last_close


def test_where_the_last_close_is_served_that_is_said_and_what_sets_the_interval(store: ObjectStore) -> None:
    found = explained(answered(store, linear_model(0.0)), "BTC", "2018-01-28")
    assert found.method is None and not found.parts
    assert found.pred_open == found.made_of.last_close
    text = "\n".join(told(found))
    assert "it is the last close" in text
    assert f"the gap of {found.gaps[0].day}" in text


def test_a_prediction_of_a_model_of_before_is_not_taken_apart(store: ObjectStore) -> None:
    with pytest.raises(Refused, match="predicts a gap, which is not taken apart; `crypto-ml trace`"):
        explained(answered(store, model("gap")), "BTC", "2018-01-28")
