"""Series in their folded form: the statistics of state and rows are those of all rows, to the last bit."""

from collections.abc import Sequence
from datetime import UTC, date, datetime
from itertools import pairwise

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crypto_ml.forecasting.features import FloatArray, add_levels, feature_block, gaps, series_starts
from crypto_ml.forecasting.running import (
    KEPT,
    ROWS_KEPT,
    STATE,
    STEP,
    FoldedTooFar,
    Seeds,
    SeriesBook,
    fold,
    folded_rows,
    lacks,
)
from crypto_ml.forecasting.scaling import own_statistics
from crypto_ml.forecasting.schema import LOOK_BACK, SCALED
from crypto_ml.forecasting.sorting import as_frame
from crypto_ml_tests.forecasting.markets import market

PRICES = st.floats(1e-300, 1e300) | st.sampled_from([1e-9, 0.1, 1.0, 123456.789, 1e15, 5e-324, 1.7e308])


@st.composite
def histories(draw: st.DrawFn) -> pa.Table:
    """Current rows of some series: walks, constants, and whatever positive numbers there are."""
    lengths = draw(st.dictionaries(st.sampled_from(["A", "B", "Z", "é", "a:b"]), st.integers(1, 90), min_size=1))
    rows = market(lengths, draw(st.integers(0, 1000)))
    kind = draw(st.sampled_from(["walk", "constant", "extreme", "unknown market"]))
    if kind == "constant":
        rows = rows.assign(**dict.fromkeys(["open", "high", "low", "close"], draw(PRICES)))
    if kind == "extreme":
        random = np.random.default_rng(draw(st.integers(0, 1000)))
        some = np.array(draw(st.lists(PRICES, min_size=1, max_size=6)))
        low, opens, closes, high = np.sort(random.choice(some, (4, len(rows))), axis=0)
        rows = rows.assign(open=opens, high=high, low=low, close=closes)
    if kind == "unknown market":
        rows = rows.assign(market=np.nan)
    slugs = draw(st.lists(st.sampled_from([None, "one", "other"]), min_size=1, max_size=3))
    rows["slug"] = [slugs[number * len(slugs) // len(rows)] for number in range(len(rows))]
    return kept(rows)


def kept(rows: pd.DataFrame) -> pa.Table:
    rows = rows.assign(known_at=datetime(2026, 1, 1, tzinfo=UTC), upload_id="00000001.0", cleaning=1)
    return pa.Table.from_pandas(rows, ROWS_KEPT, preserve_index=False)


def same_bits(one: pa.Table, other: pa.Table) -> bool:
    """Equal to the bit, also where numbers are NaN."""
    if one.schema != other.schema or len(one) != len(other):
        return False
    for field, left, right in zip(one.schema, one.columns, other.columns, strict=True):
        if pa.types.is_floating(field.type):
            if pc.is_null(left).to_pylist() != pc.is_null(right).to_pylist():
                return False
            if left.fill_null(0.0).to_numpy().tobytes() != right.fill_null(0.0).to_numpy().tobytes():
                return False
        elif left.to_pylist() != right.to_pylist():
            return False
    return True


def in_pieces(rows: pa.Table, cuts: Sequence[date]) -> SeriesBook:
    """Folded day range by day range, each in another order than the last."""
    book = fold(None, rows.slice(0, 0))
    bounds = [date(2000, 1, 1), *sorted(cuts), date(2100, 1, 1)]
    for begin, end in pairwise(bounds):
        part = rows.filter((pc.field("date") >= begin) & (pc.field("date") < end))
        together = pa.concat_tables([part, book.rows])
        book = fold(book.states, together.take(pa.array(np.random.default_rng(0).permutation(len(together)))))
    return book


def statistics(rows: pa.Table, states: pa.Table | None = None) -> tuple[pd.DataFrame, list[bytes]]:
    """Features and own statistics of each row, as bytes, beside symbol and date."""
    frame = add_levels(as_frame(rows))
    starts = series_starts(frame["symbol"])
    symbols = pa.array(frame["symbol"].to_numpy()[np.unique(starts)], pa.string())
    seeds = None if states is None else Seeds.of(states.take(pc.index_in(symbols, states["symbol"].combine_chunks())))
    block = feature_block(frame, starts, SCALED, None if seeds is None else seeds.last)
    gap = gaps(frame, starts, None if seeds is None else seeds.last["close"])
    own = own_statistics(block, gap, starts, SCALED, seeds)
    numbers = np.column_stack([block, np.nan_to_num(gap), own.count, own.mean, own.scale, own.gap_scale])
    numbers[np.isnan(numbers)] = np.nan
    if states is None:
        for begin, end in pairwise([*np.unique(starts), len(frame)]):
            assert np.array_equal(own.mean[begin:end], _mean_of_0_3(block[begin:end, :12]), equal_nan=True)
    return frame[["symbol", "date"]], [row.tobytes() for row in numbers]


def _mean_of_0_3(values: FloatArray) -> FloatArray:
    """The means before each row of one series, as releases before this one computed them."""
    total = np.zeros_like(values)
    np.cumsum((values - values[0])[:-1], axis=0, out=total[1:])
    mean: FloatArray = values[0] + total / np.maximum(np.arange(len(values)), 1)[:, None]
    return mean


@given(rows=histories(), days=st.lists(st.integers(0, 90), max_size=4), keep=st.sampled_from([LOOK_BACK, KEPT, 40]))
def test_folded_in_any_pieces_it_is_the_same_and_scales_as_all_rows_do(
    rows: pa.Table, days: list[int], keep: int
) -> None:
    with np.errstate(over="ignore", invalid="ignore"):
        once = fold(None, rows)
        cuts = [date.fromordinal(date(2018, 1, 1).toordinal() + day) for day in days]
        pieces = in_pieces(rows, cuts)
        assert same_bits(pieces.states, once.states)
        assert pieces.rows.equals(once.rows)
        asked = fold(once.states, once.rows, kept=LOOK_BACK)
        again = fold(None, rows, kept=LOOK_BACK)
        assert same_bits(asked.states, again.states)
        book = fold(None, rows, kept=keep)
        names, whole = statistics(rows)
        left, found = statistics(book.rows, book.states)
    counts = names.groupby("symbol").size()
    folded = dict(zip(book.states["symbol"].to_pylist(), book.states["folded"].to_pylist(), strict=True))
    assert folded == {symbol: max(0, (n - keep) // STEP * STEP) for symbol, n in counts.items()}
    behind = (names.groupby("symbol").cumcount() >= names["symbol"].map(folded)).to_numpy()
    assert names[behind].reset_index(drop=True).equals(left)
    assert [row for row, is_left in zip(whole, behind, strict=True) if is_left] == found


def test_the_sums_are_those_that_were_released_as_folded_1() -> None:
    """Frozen: what receipts vouch for is made of these numbers."""
    prices = 100 + np.arange(40.0) ** 2 / 7
    rows = market({"A": 40}).assign(open=prices, high=prices + 3, low=prices - 2, close=prices + 1, slug="a")
    (state,) = fold(None, kept(rows), kept=16).states.to_pylist()
    assert (state["symbol"], state["folded"], state["folded_slugs"]) == ("A", 16, ["a"])
    assert (state["first_day"], state["last_folded_day"]) == (date(2018, 1, 1), date(2018, 1, 16))
    assert (state["first_open"], state["first_v_open"], state["last_close"]) == (100.0, 0.0, prices[15] + 1)
    assert state["first_gap"] == prices[1] - prices[0] - 1
    opens = gap = squares = 0.0
    for at in range(16):
        opens += prices[at] - 100.0
        squares += (prices[at] - 100.0) ** 2
        gap += (prices[at] - (prices[at - 1] + 1)) - state["first_gap"] if at else 0.0
    assert (state["sum_open"], state["squares_open"], state["sum_gap"]) == (opens, squares, gap)


def test_rows_that_do_not_fit_their_states_are_refused_and_named() -> None:
    rows = kept(market({"A": 60, "B": 60}))
    book = fold(None, rows)
    with pytest.raises(FoldedTooFar) as caught:  # a retraction took rows back that lay behind the state
        fold(book.states, book.rows.filter(pc.field("symbol") == "A"))
    assert caught.value.symbols == ("B",)
    with pytest.raises(ValueError, match="lie behind"):
        fold(book.states, rows)
    with pytest.raises(ValueError, match="two rows for a day"):
        fold(None, pa.concat_tables([rows, rows]))


def test_a_state_without_a_feature_says_so_and_is_not_gone_on_from() -> None:
    book = fold(None, kept(market({"A": 60})))
    narrower = book.states.drop_columns(["first_v_spread", "sum_v_spread", "squares_v_spread"])
    assert lacks(narrower) == ["v_spread"]
    assert lacks(narrower, SCALED[:-1]) == []
    with pytest.raises(ValueError, match="v_spread"):
        fold(narrower, book.rows)
    without = [column for column in STATE.names if column in narrower.schema.names]
    assert without == narrower.schema.names


def test_a_window_never_reaches_into_a_state() -> None:
    n = np.arange(2000)
    assert ((n - folded_rows(n, LOOK_BACK) >= LOOK_BACK) | (n < LOOK_BACK)).all()
    # what is kept can be folded on to every day of the last ten
    assert all((folded_rows(n) <= folded_rows(np.maximum(n - back, 0), LOOK_BACK)).all() for back in range(11))
