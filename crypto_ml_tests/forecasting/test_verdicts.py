"""A word on predictions is right about as often as it says, and does not depend on what does not matter."""

from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crypto_ml.errors import Refused
from crypto_ml.forecasting.pictures import excess_loss
from crypto_ml.forecasting.verdicts import (
    DELTA,
    FEWEST_DAYS,
    WORDS,
    Judgement,
    daily_loss,
    judge,
    lag_of,
    student_cdf,
    student_quantile,
)
from crypto_ml_tests.forecasting.simulated_gaps import Rows, fitted_on_a_random_walk, predictions_of

Made = Callable[[np.random.Generator, int, int], Rows]


def judged(rows: Rows, **options: Any) -> Judgement:
    return judge(rows.days, rows.symbols, rows.observed, rows.predicted, rows.close, rows.close, **options)


def words(made: Made, runs: int, days: int, coins: int) -> Counter[str]:
    return Counter(judged(made(np.random.default_rng(seed), days, coins)).word for seed in range(runs))


def test_predictions_exactly_as_good_seldom_pass_and_skill_mostly_does() -> None:
    assert words(partial(predictions_of, 1.0), 80, 107, 24)["BEATS"] <= 8  # 4 are expected; half pass a comparison
    assert words(fitted_on_a_random_walk, 40, 107, 24)["BEATS"] <= 2
    assert words(partial(predictions_of, 0.95), 40, 180, 24)["BEATS"] >= 36
    assert words(partial(predictions_of, 1.08), 40, 180, 24)["WORSE"] >= 36


@pytest.mark.simulations
@pytest.mark.parametrize(("days", "coins"), [(107, 43), (180, 24), (365, 24)])
def test_in_a_thousand_runs_luck_passes_as_often_as_the_level_says(days: int, coins: int) -> None:
    equal = words(partial(predictions_of, 1.0), 1000, days, coins)
    fitted = words(fitted_on_a_random_walk, 1000, days, coins)
    print(f"\n{days} days, {coins} coins: equally good {dict(equal)}, fitted on a random walk {dict(fitted)}")
    assert 25 <= equal["BEATS"] <= 70  # 50 are expected, with a deviation of 7
    assert fitted["BEATS"] <= 20


@pytest.mark.simulations
@pytest.mark.parametrize(("mase", "days", "power"), [(0.98, 180, 700), (0.98, 365, 930), (0.99, 365, 450)])
def test_in_a_thousand_runs_skill_is_found(mase: float, days: int, power: int) -> None:
    found = words(partial(predictions_of, mase), 1000, days, 24)
    print(f"\nMASE {mase}, {days} days: {dict(found)}")
    assert found["BEATS"] >= power
    assert found["WORSE"] <= 5


def rows_of(seed: int = 3, mase: float = 0.97, days: int = 90, coins: int = 6) -> Rows:
    return predictions_of(mase, np.random.default_rng(seed), days, coins)


def scaled(rows: Rows, factor: Any) -> Rows:
    return Rows(rows.days, rows.symbols, rows.observed * factor, rows.predicted * factor, rows.close * factor)


@given(st.integers(0, 1000), st.integers(-20, 20))
def test_neither_the_order_of_rows_nor_the_units_of_prices_matter(seed: int, power: int) -> None:
    rows = rows_of(seed)
    shuffled = np.random.default_rng(seed).permutation(len(rows.days))
    columns = (rows.days, rows.symbols, rows.observed, rows.predicted, rows.close, rows.close)
    found = judge(*(column[shuffled] for column in columns))  # type: ignore[arg-type]
    assert found == judged(rows)
    units = 2.0 ** (power * (np.unique(rows.symbols, return_inverse=True)[1] % 3))  # others for each coin, exact
    assert judged(scaled(rows, units)) == judged(rows)


@pytest.mark.parametrize("price", [5e-324, 1e-320, 1e-300, 1e15])
def test_no_coin_takes_the_word_from_the_others_whatever_it_is_quoted_in(price: float) -> None:
    rows = rows_of(mase=0.9, coins=8)
    odd = rows.symbols == "C003"
    still = Rows(
        rows.days, rows.symbols, *(np.where(odd, price, one) for one in (rows.observed, rows.predicted, rows.close))
    )
    found = judged(still)
    assert (found.word, found.coins) == ("BEATS", 8)
    absurd = np.flatnonzero(odd)[7]
    for name, value in (("observed", 1e-320), ("close", 1e-320), ("predicted", 1e308), ("predicted", -1e308)):
        column = getattr(rows, name).copy()
        column[absurd] = value
        columns = {one: getattr(rows, one) for one in ("observed", "predicted", "close")} | {name: column}
        found = judged(Rows(rows.days, rows.symbols, **columns))
        assert found.word in WORDS
        assert all(number is not None and np.isfinite(number) for number in found.numbers.values())


@given(st.integers(0, 1000), st.sampled_from([0.9, 1.0, 1.1]))
def test_the_other_way_round_the_numbers_have_the_other_sign(seed: int, mase: float) -> None:
    rows = rows_of(seed, mase)
    one = judged(rows)
    other = judge(rows.days, rows.symbols, rows.observed, rows.close, rows.predicted, rows.close)
    assert one.low is not None and one.high is not None and one.p is not None
    assert (other.mean, other.low, other.high) == pytest.approx((-one.mean, -one.high, -one.low), rel=1e-9)
    assert other.p == pytest.approx(1 - one.p, abs=1e-9)
    assert (one.word == "BEATS") <= (other.word == "WORSE")


def test_the_last_close_itself_ties_whatever_the_days() -> None:
    for days in (2, FEWEST_DAYS - 1, 90):
        rows = rows_of(days=days)
        equal = judge(rows.days, rows.symbols, rows.observed, rows.close, rows.close, rows.close)
        assert (equal.word, equal.mean, equal.low, equal.high) == ("TIES", 0.0, 0.0, 0.0)


def test_fewer_than_sixty_days_say_nothing() -> None:
    assert judged(rows_of(mase=0.6, days=FEWEST_DAYS - 1)).word == "INCONCLUSIVE"
    assert judged(rows_of(mase=0.6, days=FEWEST_DAYS)).word == "BEATS"
    one_day = judged(rows_of(days=1))
    assert (one_day.word, one_day.low, one_day.high, one_day.p) == ("INCONCLUSIVE", None, None, None)


def test_one_coin_that_gains_much_does_not_outvote_the_others() -> None:
    rows = rows_of(mase=1.0, coins=5)
    best = rows.symbols == "C000"
    gaps = rows.observed - rows.close
    predicted = rows.close + np.where(best, 0.9, -0.01) * gaps  # the others' errors are 1 % larger
    found = judge(rows.days, rows.symbols, rows.observed, predicted, rows.close, rows.close)
    assert found.high is not None and found.high < 0
    assert (found.word, found.coins_better) == ("TIES", 0.2)


def test_an_excess_below_one_percent_is_a_tie_and_above_it_is_worse() -> None:
    rows = rows_of(mase=1.0, days=200, coins=12)
    for excess, word in ((0.5 * DELTA, "TIES"), (2 * DELTA, "WORSE")):
        predicted = rows.close - excess * (rows.observed - rows.close)
        found = judge(rows.days, rows.symbols, rows.observed, predicted, rows.close, rows.close)
        assert found.word == word
        assert found.mean == pytest.approx(excess)


def test_a_coin_whose_last_close_is_nearly_always_right_has_a_floor() -> None:
    rows = rows_of(mase=1.0, coins=4)
    still = rows.symbols == "C001"
    observed = np.where(still, rows.close, rows.observed)
    predicted = np.where(still, rows.close * 1.0001, observed)  # a basis point off, where the last close is right
    loss = daily_loss(rows.days, rows.symbols, observed, predicted, rows.close, rows.close)
    assert loss.by_coin["C001"] == pytest.approx(1.0)


def test_a_day_counts_by_its_rows_and_varies_as_a_whole() -> None:
    """By hand: the textbook's formulas on the sums of days with unequal numbers of rows."""
    rng = np.random.default_rng(5)
    rows = rows_of(days=150)
    kept = rng.random(len(rows.days)) < 0.6
    rows = Rows(*(getattr(rows, name)[kept] for name in ("days", "symbols", "observed", "predicted", "close")))
    base = {one: np.abs(rows.observed - rows.close)[rows.symbols == one].mean() for one in set(rows.symbols)}
    d = np.array(
        [
            (abs(o - p) - abs(o - c)) / base[s]
            for s, o, p, c in zip(rows.symbols, rows.observed, rows.predicted, rows.close, strict=True)
        ]
    )
    days = np.unique(rows.days)
    count = len(days)
    u = np.array([(d[rows.days == day] - d.mean()).sum() for day in days]) * count / len(d)
    lag = lag_of(count)
    variance = sum(
        (1 - abs(back) / (lag + 1)) * sum(u[t] * u[t - abs(back)] for t in range(abs(back), count)) / count
        for back in range(-lag, lag + 1)
    )
    statistic = d.mean() / np.sqrt(variance / count) * np.sqrt((count + 1 - 2) / count)
    found = judged(rows)
    assert found.mean == pytest.approx(d.mean())
    assert found.p == pytest.approx(student_cdf(statistic, count - 1))
    assert found.high == pytest.approx(d.mean() + d.mean() / statistic * student_quantile(0.95, count - 1))


def test_students_distribution_is_that_of_the_tables() -> None:
    tables = {(0.95, 1): 6.313751514675, (0.975, 10): 2.228138851986, (0.95, 59): 1.671093032139}
    for (share, freedom), value in tables.items():
        assert student_quantile(share, freedom) == pytest.approx(value, abs=1e-9)
        assert student_cdf(value, freedom) == pytest.approx(share, abs=1e-10)
        assert student_cdf(-value, freedom) == pytest.approx(1 - share, abs=1e-10)


def test_absurd_predictions_are_worse_and_never_no_number() -> None:
    rows = rows_of()
    for factor in (1e300, -1e300):
        found = judge(
            rows.days, rows.symbols, rows.observed, rows.predicted * factor / 1e3, rows.close, rows.close
        )  # beyond what squares can hold
        assert found.word == "WORSE"
        assert found.high is not None and np.isfinite([found.mean, found.low or 0, found.high]).all()


def test_what_cannot_be_judged_is_refused_by_name() -> None:
    rows = rows_of()
    nothing = np.zeros(0)
    with pytest.raises(Refused, match="no rows"):
        judge(nothing.astype("datetime64[D]"), nothing.astype(str), nothing, nothing, nothing, nothing)
    with pytest.raises(Refused, match="differ in shape"):
        judge(rows.days, rows.symbols[1:], rows.observed, rows.predicted, rows.close, rows.close)
    for wrong in (np.nan, np.inf):
        with pytest.raises(Refused, match="finite"):
            judge(rows.days, rows.symbols, rows.observed, rows.predicted * wrong, rows.close, rows.close)
    with pytest.raises(Refused, match="positive"):
        judged(scaled(rows, -1.0))


def test_a_judgement_is_read_again_as_it_was_written() -> None:
    found = judged(rows_of())
    assert Judgement.read({**found.to_dict(), "of a later release": 1}) == found
    assert f"{100 * abs(found.mean):.2f} %" in found.explanation


def test_the_picture_says_the_word_and_needs_no_more_than_a_day() -> None:
    for days in (1, 90):
        rows = rows_of(days=days)
        loss = daily_loss(rows.days, rows.symbols, rows.observed, rows.predicted, rows.close, rows.close)
        drawn = excess_loss(loss, judged(rows), "a model called $1")
        assert drawn.startswith(b"\x89PNG\r\n\x1a\n") and len(drawn) < 40_000
