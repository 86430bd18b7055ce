"""Models are measured on the same rows, which none of them was fitted on where that can be."""

import json
from dataclasses import replace
from datetime import date, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crypto_ml.forecasting.bundle import ModelBundle, make_bundle
from crypto_ml.forecasting.comparison import (
    DAYS,
    FEWEST_DAYS,
    NothingToCompareOn,
    first_common_day,
    fitted_on,
    side_by_side,
)
from crypto_ml.forecasting.holdout import evaluated, holdout_predictions
from crypto_ml.forecasting.scaling import SeriesStatistics
from crypto_ml.forecasting.schema import OBSERVATION
from crypto_ml.forecasting.training_set import Split
from crypto_ml_tests.forecasting.markets import FIRST_DAY, market, model, relative_model

LAST = date(2018, 3, 1)
ROWS = market({"BTC": 60, "NEW": 40, "SHORT": 8})[list(OBSERVATION)]
FIRST = FIRST_DAY + timedelta(days=32)
MODELS = {"one": model("gap", label="one"), "two": model("change", label="two", seed=1)}


def bundle_of(label: str, statistics: SeriesStatistics, **documents: bytes) -> ModelBundle:
    files = {f"{name}.json": content for name, content in documents.items()}
    return make_bundle(
        label=label, target="gap", scaler=statistics, slugs={}, network_onnx=model().files["network.onnx"],
        weights_sha256="random", about={}, documents=files,
    )  # fmt: skip


def trained(source: str, **said: object) -> ModelBundle:
    manifest = json.dumps({"source": source, **said}).encode()
    return bundle_of("trained", model().statistics, training_manifest=manifest)


@given(back=st.lists(st.integers(-100, 400), max_size=4))
def test_rows_nobody_was_fitted_on_are_taken_where_there_is_a_week_of_them_and_never_more_than_ninety_days(
    back: list[int],
) -> None:
    fitted = [LAST - timedelta(days=days) for days in back]
    first = first_common_day(LAST, fitted)
    assert FEWEST_DAYS <= (LAST - first).days + 1 <= DAYS
    assert all(first >= day for day in fitted) == all(days >= FEWEST_DAYS - 1 for days in back)


def test_every_model_and_both_baselines_are_measured_on_the_same_rows() -> None:
    found = side_by_side(ROWS, FIRST, MODELS, "market_history")
    assert (found.rows, found.series) == (28 + 8, 2)  # SHORT has too few rows to be predicted by each of them
    assert found.measured_on == f"36 rows of 2 series, {FIRST} to 2018-03-01"
    same = ROWS[ROWS["symbol"] != "SHORT"].reset_index(drop=True)
    alone = [evaluated(holdout_predictions(same, Split(FIRST, FIRST), bundle)).overall for bundle in MODELS.values()]
    assert [measured.errors for measured in found.models] == [one.network for one in alone]
    assert (found.last_close, found.last_open) == (alone[0].last_close, alone[0].last_open)
    assert json.loads(json.dumps(found.to_dict(), allow_nan=False))["models"][1]["version"] == "two"


def test_a_word_stands_on_every_model_against_the_last_close_and_the_champion() -> None:
    rows = market({"BTC": 100, "ETH": 95})[list(OBSERVATION)]
    models: dict[str, ModelBundle | str] = {
        "raw": MODELS["one"],
        "shrunk": relative_model(0.0, label="shrunk"),
        "gone": "its files are damaged",
    }
    found = side_by_side(rows, FIRST_DAY + timedelta(days=15), models, "market_history", "raw")
    raw, shrunk, gone = found.models
    assert raw.last_close and shrunk.last_close and shrunk.champion
    words = (raw.last_close.judgement.word, shrunk.last_close.judgement.word, shrunk.champion.judgement.word)
    assert words == ("WORSE", "TIES", "BEATS")  # λ = 0 is the last close, and closer than a network of random numbers
    assert (raw.champion, gone.last_close, gone.champion) == (None, None, None)
    said = json.loads(json.dumps(found.to_dict(), allow_nan=False))["models"]
    assert [one["verdicts"]["last_close"] and one["verdicts"]["last_close"]["word"] for one in said] == [
        *words[:2],
        None,
    ]


def test_a_model_that_cannot_be_measured_says_why_and_leaves_the_rows_of_the_others_as_they_are() -> None:
    statistics = replace(model().statistics, gap_scale=np.full_like(model().statistics.gap_scale, 1e308))
    bundle = bundle_of("broken", statistics)
    found = side_by_side(ROWS, FIRST, {**MODELS, "gone": "its files are damaged", "broken": bundle}, "market_history")
    measured = {one.version: one for one in found.models}
    assert found.rows == 36
    assert measured["one"].errors is not None
    assert (measured["gone"].errors, measured["gone"].why) == (None, "its files are damaged")
    assert (measured["broken"].errors, measured["broken"].why) == (None, "it is off beyond all numbers")


def test_without_enough_rows_there_is_nothing_to_compare_on() -> None:
    with pytest.raises(NothingToCompareOn, match="no series has 10 rows"):
        side_by_side(ROWS[ROWS["symbol"] == "SHORT"].reset_index(drop=True), FIRST_DAY, MODELS, "market_history")


@pytest.mark.parametrize(
    ("source", "said", "fitted"),
    [
        ("market_history", {"split": {"holdout_from": "2018-02-01"}, "as_of": "2018-03-01"}, "no"),
        ("market_history", {"split": {"holdout_from": "2018-02-04"}, "as_of": "2018-03-01"}, "yes"),
        ("a simulated market", {"as_of": "2018-02-01"}, "no"),
        ("a simulated market", {"as_of": "2018-02-04"}, "unknown"),
        ("handed over", {}, "unknown"),
    ],
)
def test_a_model_is_marked_by_the_day_before_which_it_was_fitted(
    source: str, said: dict[str, object], fitted: str
) -> None:
    assert fitted_on(trained(source, **said), date(2018, 2, 3), "market_history") == fitted
