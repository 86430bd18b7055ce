"""Repeats are settled as they would be with every row at hand, wherever the rows are cut."""

from collections import Counter
from collections.abc import Iterable
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from crypto_ml.forecasting.schema import OBSERVATION, PRICES
from crypto_ml.forecasting.settling import Settled, Settling
from crypto_ml.forecasting.sorting import ROWS, as_frame

VALUES = (*PRICES, "market", "volume")


class Whole(NamedTuple):
    """What becomes of rows that are settled all at once."""

    accepted: pd.DataFrame
    refused: pd.DataFrame
    repeated: dict[int, int]


def settled_at_once(rows: pd.DataFrame) -> Whole:
    """The rule in pandas, with every row at hand."""
    same = rows[["file", "symbol", "date"]].duplicated(keep=False)
    group = [rows["file"], rows["symbol"], rows["date"]]
    contradicted = same & (rows.loc[same, list(VALUES)].groupby([k[same] for k in group])
        .transform("nunique", dropna=False).gt(1).any(axis=1).reindex(rows.index, fill_value=False))  # fmt: skip
    first = rows["line"].groupby(group).transform("min")
    refused = rows.loc[contradicted, ["file", "line"]].assign(
        reason="symbol and date: more than once, with different values (first in line "
        + first[contradicted].astype(str)
        + ")"
    )
    repeated = same & ~contradicted & (rows["line"] != first)
    left_out = {int(str(file)): len(some) for file, some in rows[repeated].groupby("file")}
    return Whole(rows[~contradicted & ~repeated].reset_index(drop=True), refused.reset_index(drop=True), left_out)


def settled_in_pieces(frame: pd.DataFrame, cuts: list[int], most_listed: int) -> list[Settled]:
    """The same rows, cut at these places."""
    settling, rows = Settling(most_listed), as_rows(frame)
    bounds = sorted({0, *(cut for cut in cuts if cut < len(rows)), len(rows)})
    done = [settling.settle(rows.slice(begin, end - begin)) for begin, end in pairwise(bounds)]
    rest = settling.rest()
    return [*done, rest] if rest else done


def as_rows(frame: pd.DataFrame) -> pa.Table:
    return pa.Table.from_pandas(frame.assign(context=False), schema=ROWS, preserve_index=False)


def joined(tables: Iterable[pa.Table]) -> pd.DataFrame:
    return as_frame(pa.concat_tables(tables))


def days(drawn: list[tuple[int, str, int, float, float]]) -> pd.DataFrame:
    """Sorted rows: file, symbol, day, a price and a volume of each."""
    rows = pd.DataFrame(drawn, columns=["file", "symbol", "day", "price", "volume"])
    rows["date"] = pd.Timestamp("2018-01-01") + pd.to_timedelta(rows["day"], "D")
    rows = rows.assign(line=np.arange(2, len(rows) + 2), slug=None, **dict.fromkeys((*PRICES, "market"), rows["price"]))
    rows = rows.sort_values(["file", "symbol", "date", "line"], ignore_index=True)
    return rows[["file", *OBSERVATION, "line"]].astype({**OBSERVATION, "file": "int32"})


DAYS = st.lists(
    st.tuples(
        st.integers(0, 2),
        st.sampled_from(["A", "B"]),
        st.integers(0, 2),
        st.sampled_from([1.0, 1.0, 1.0, 2.0, 0.0, -0.0]),
        st.sampled_from([np.nan, np.nan, 3.0]),
    ),
    min_size=1,
    max_size=60,
).map(days)


@given(rows=DAYS, cuts=st.lists(st.integers(1, 60)))
def test_rows_are_settled_as_they_would_be_all_at_once_wherever_they_are_cut(
    rows: pd.DataFrame, cuts: list[int]
) -> None:
    expected = settled_at_once(rows)
    found = settled_in_pieces(rows, cuts, most_listed=100)
    accepted = joined(one.accepted for one in found).drop(columns="context")
    pd.testing.assert_frame_equal(accepted, expected.accepted[accepted.columns])
    refused = joined(one.refused for one in found).sort_values(["file", "line"])
    ordered = expected.refused.sort_values(["file", "line"])
    assert refused[["file", "line", "reason"]].values.tolist() == ordered[["file", "line", "reason"]].values.tolist()
    repeated = Counter[int]()
    for one in found:
        repeated.update(one.repeated)
    assert dict(repeated) == expected.repeated


@given(rows=DAYS, cuts=st.lists(st.integers(1, 60)), most=st.integers(1, 3))
def test_every_contradicting_row_is_counted_and_the_first_lines_of_its_day_are_named(
    rows: pd.DataFrame, cuts: list[int], most: int
) -> None:
    expected = settled_at_once(rows).refused
    found = settled_in_pieces(rows, cuts, most)
    counted = joined(one.contradictions for one in found)
    by_reason = expected.groupby(["file", "reason"])["line"]
    assert counted.set_index(["file", "reason"])["rows"].to_dict() == by_reason.size().to_dict()
    assert counted.set_index(["file", "reason"])["line"].to_dict() == by_reason.min().to_dict()
    named = joined(one.refused for one in found)
    assert not named.duplicated(["file", "line"]).any()
    first = expected.sort_values("line").groupby(["file", "reason"]).head(most)
    assert set(first["line"]) <= set(named["line"]) <= set(expected["line"])


def test_nothing_is_left_of_no_rows() -> None:
    assert Settling(10).rest() is None
