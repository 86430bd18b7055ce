"""A prediction is what the definitions say, from earlier rows of the same series and from nothing else."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crypto_ml.forecasting.bundle import ModelBundle
from crypto_ml.forecasting.scaled_by import BY_MODEL, BY_OWN_ROWS
from crypto_ml.forecasting.schema import LOOK_BACK, PRICES, SCALED, Recovery, Target
from crypto_ml.forecasting.scoring import PREDICTED, SEED, score, score_rows
from crypto_ml_tests.forecasting import reference
from crypto_ml_tests.forecasting.markets import KNOWN, market, model, records

TARGETS: Sequence[Target] = ("change", "gap")
RECOVERIES: Sequence[Recovery] = ("one_step", "cumulative")
SYMBOLS = (*KNOWN, "NEW", "AAA")
LENGTHS = st.dictionaries(st.sampled_from(SYMBOLS), st.integers(0, 18), min_size=1)
SEEDS = st.integers(0, 1000)
ANSWER = ["symbol", "date", "index", "pred_open", "val_open", "status", "scaled_by"]


def scaler_of(bundle: ModelBundle, symbol: str) -> reference.Scaler | None:
    learnt = bundle.statistics
    if symbol not in learnt.symbols:
        return None
    row = learnt.symbols.index(symbol)
    columns: list[Mapping[str, float]] = [
        dict(zip(SCALED, values[row].tolist(), strict=True)) for values in (learnt.mean, learnt.scale)
    ]
    return reference.Scaler(columns[0], columns[1], float(learnt.gap_scale[row]))


def reference_model(bundle: ModelBundle, recovery: Recovery) -> reference.Model:
    def network(window: list[list[float]]) -> float:
        return float(bundle.network.predict(np.array([window], np.float32))[0])

    return reference.Model(network, bundle.target, recovery)


def with_context(rows: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Some rows of a market turned into context, first rows more often than others."""
    random = np.random.default_rng(seed)
    age = rows.groupby("symbol").cumcount()
    return rows.assign(context=random.random(len(rows)) < np.where(age < random.integers(0, 12), 0.9, 0.2))


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("recovery", RECOVERIES)
@given(lengths=LENGTHS, seed=SEEDS)
def test_answers_are_what_a_loop_over_the_definitions_gives(
    target: Target, recovery: Recovery, lengths: dict[str, int], seed: int
) -> None:
    rows, bundle = with_context(market(lengths, seed), seed), model(target)
    found = score_rows(rows, bundle, recovery)
    expected: list[reference.Answer] = []
    for symbol, series in rows.groupby("symbol"):
        asked, scaler = (~series["context"]).tolist(), scaler_of(bundle, str(symbol))
        expected += reference.answers(records(series), asked, scaler, reference_model(bundle, recovery))
    assert found["status"].tolist() == [answer.status for answer in expected]
    assert found["line"].tolist() == rows.loc[~rows["context"], "line"].tolist()
    size = rows["high"].max() if len(rows) else 1.0
    np.testing.assert_allclose(found["pred_open"], [answer.price for answer in expected], rtol=1e-6, atol=1e-9 * size)


@pytest.mark.parametrize("target", TARGETS)
@given(lengths=LENGTHS, seed=SEEDS, data=st.data())
def test_a_prediction_does_not_change_a_bit_with_its_own_row_or_later_ones(
    target: Target, lengths: dict[str, int], seed: int, data: st.DataObject
) -> None:
    rows, bundle = market(lengths, seed), model(target)
    before = score_rows(rows, bundle, "one_step")
    at = data.draw(st.integers(0, 17))
    later = rows.groupby("symbol").cumcount().to_numpy() >= at
    changed = rows.copy()
    factor = np.random.default_rng(seed).uniform(0.1, 10, len(rows))
    for name in (*PRICES, "market"):
        changed.loc[later, name] = (rows[name] * factor)[later]
    after = score_rows(changed, bundle, "one_step")
    same = (before["index"] <= at) & (before["status"] == PREDICTED)
    pd.testing.assert_frame_equal(
        before[same].drop(columns="val_open"), after[same].drop(columns="val_open"), check_exact=True
    )
    without = score_rows(rows[~later], bundle, "one_step")
    pd.testing.assert_frame_equal(
        before[before["index"] < at].reset_index(drop=True), without, check_exact=True, check_dtype=False
    )


@given(lengths=LENGTHS, seed=SEEDS, recovery=st.sampled_from(RECOVERIES), cut=st.integers(0, 5))
def test_a_prediction_does_not_change_a_bit_with_other_series_or_with_chunking(
    lengths: dict[str, int], seed: int, recovery: Recovery, cut: int
) -> None:
    rows, bundle = with_context(market(lengths, seed), seed), model("gap")
    together = score_rows(rows, bundle, recovery)
    series = [part for _, part in rows.groupby("symbol")]
    alone = pd.concat([together.iloc[:0], *score(series, bundle, recovery)], ignore_index=True)
    halves = [pd.concat(part) for part in (series[:cut], series[cut:]) if part]
    in_two = pd.concat([together.iloc[:0], *score(halves, bundle, recovery)], ignore_index=True)
    for found in (alone, in_two):
        pd.testing.assert_frame_equal(found[ANSWER], together[ANSWER], check_exact=True)


@given(lengths=LENGTHS, seed=SEEDS)
def test_the_files_of_a_delivery_are_series_of_their_own(lengths: dict[str, int], seed: int) -> None:
    rows, bundle = market(lengths, seed), model("change")
    alone = score_rows(rows, bundle, "one_step")
    both = score_rows(pd.concat([rows, rows.assign(file=1)], ignore_index=True), bundle, "one_step")
    for file in (0, 1):
        part = both[both["file"] == file].reset_index(drop=True)
        pd.testing.assert_frame_equal(part[ANSWER], alone[ANSWER], check_exact=True)


@pytest.mark.parametrize("target", TARGETS)
@given(seed=SEEDS, length=st.integers(12, 40))
def test_a_daily_row_is_answered_as_the_last_row_of_the_whole_history(target: Target, seed: int, length: int) -> None:
    rows, bundle = market(dict.fromkeys(SYMBOLS, length), seed), model(target)
    back = rows.groupby("symbol").cumcount(ascending=False)
    whole = score_rows(rows, bundle, "one_step")[back.to_numpy() == 0]
    # of a series the scaler knows a daily file is given only the rows that its window needs
    given_rows = rows[~rows["symbol"].isin(KNOWN) | (back <= LOOK_BACK)]
    daily = score_rows(given_rows.assign(context=back > 0), bundle, "one_step")
    assert daily["index"].tolist() == [0] * len(SYMBOLS)
    columns = ["symbol", "date", "pred_open", "val_open", "status"]
    pd.testing.assert_frame_equal(daily[columns], whole[columns].reset_index(drop=True), check_exact=True)
    assert (daily["status"] == PREDICTED).all()


def test_a_row_with_too_few_earlier_rows_is_a_seed_that_repeats_its_open() -> None:
    found = score_rows(market({"BTC": 12, "NEW": 12}), model("gap"), "one_step")
    seeds = found[found["status"] == SEED]
    assert seeds[["symbol", "index"]].values.tolist() == [["BTC", 0], *(["NEW", number] for number in range(10))]
    assert seeds["pred_open"].tolist() == seeds["val_open"].tolist()
    by = found.groupby(["symbol", "status"])["scaled_by"].unique().map(list).to_dict()
    assert by == {
        ("BTC", PREDICTED): [BY_MODEL],
        ("BTC", SEED): [""],
        ("NEW", PREDICTED): [BY_OWN_ROWS],
        ("NEW", SEED): [""],
    }


@given(lengths=LENGTHS, seed=SEEDS, recovery=st.sampled_from(RECOVERIES))
def test_every_asked_row_is_answered_once_in_order_and_context_never(
    lengths: dict[str, int], seed: int, recovery: Recovery
) -> None:
    rows = with_context(market(lengths, seed), seed)
    asked = rows[~rows["context"]]
    found = score_rows(rows, model("gap"), recovery)
    assert found["line"].tolist() == asked["line"].tolist()
    assert found["val_open"].tolist() == asked["open"].tolist()
    assert found["index"].tolist() == asked.groupby("symbol").cumcount().tolist()
    assert np.isfinite(found["pred_open"]).all()


@given(seed=SEEDS)
def test_cumulative_is_the_first_open_and_the_sum_of_the_one_step_changes(seed: int) -> None:
    rows, bundle = market({"BTC": 30}, seed), model("change")
    one_step = score_rows(rows, bundle, "one_step")
    changes = one_step["pred_open"].to_numpy()[1:] - rows["open"].to_numpy()[:-1]
    expected = rows["open"].iloc[0] + np.concatenate([[0], np.cumsum(changes)])
    np.testing.assert_allclose(score_rows(rows, bundle, "cumulative")["pred_open"], expected, rtol=1e-9)


def test_a_day_to_come_is_predicted_like_the_day_that_comes() -> None:
    rows, bundle = market({"BTC": 20, "NEW": 20}, 5), model("gap")
    last = rows.groupby("symbol").cumcount(ascending=False) == 0
    to_come = rows.assign(context=~last)
    to_come.loc[last, [*PRICES, "market"]] = np.nan
    found = score_rows(to_come, bundle, "one_step")
    expected = score_rows(rows.assign(context=~last), bundle, "one_step")
    assert found["pred_open"].tolist() == expected["pred_open"].tolist()
    assert found["val_open"].isna().all()


def with_slugs(bundle: ModelBundle, slugs: Mapping[str, str]) -> ModelBundle:
    manifest: dict[str, Any] = {**bundle.manifest, "slugs": slugs}
    return ModelBundle(manifest, bundle.files)


def test_another_coin_of_a_known_symbol_is_not_scaled_by_the_coin_of_that_name() -> None:
    bundle = with_slugs(model("gap"), {"BTC": "bitcoin"})
    rows = market({"BTC": 15}, 2)
    stranger = score_rows(rows.assign(slug="batcoin"), bundle, "one_step")
    assert set(stranger["scaled_by"]) == {"", BY_OWN_ROWS}
    for slug in ("bitcoin", None):
        assert set(score_rows(rows.assign(slug=slug), bundle, "one_step")["scaled_by"]) == {"", BY_MODEL}
