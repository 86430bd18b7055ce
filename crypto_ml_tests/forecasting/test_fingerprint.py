"""Equal rows have equal fingerprints, however they are cut; any changed value has another."""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from crypto_ml.forecasting.fingerprint import ACCEPTED, BlockHash, RowsHash, runs
from crypto_ml_tests.forecasting.markets import market


def slugs(*texts: str | None) -> pd.Series:
    return pd.Series(texts, dtype="str")


ROWS = market({"A": 8, "Ü": 5, "lon\ng": 4}).assign(slug=slugs(*["x", None, "", "xy"] * 4, None))


LATER = {**ACCEPTED, "trades": "float64", "venue": "str"}
"""What a later release hashes, whose uploads may carry two more columns."""


def fingerprint(rows: pd.DataFrame, *cuts: int, columns: Mapping[str, str] = ACCEPTED) -> str:
    made = RowsHash(columns)
    bounds = [0, *sorted(cuts), len(rows)]
    for begin, end in pairwise(bounds):
        made.add(rows[begin:end])
    assert made.rows == len(rows)
    return made.hexdigest()


@given(cuts=st.lists(st.integers(0, len(ROWS)), max_size=5))
def test_a_fingerprint_does_not_depend_on_how_rows_are_cut(cuts: list[int]) -> None:
    assert fingerprint(ROWS, *cuts) == fingerprint(ROWS)


@given(at=st.integers(0, len(ROWS) - 1), name=st.sampled_from(list(ACCEPTED)))
def test_any_changed_value_changes_the_fingerprint(at: int, name: str) -> None:
    values: Any = ROWS[name]
    new = {"str": "!", "float64": -0.5, "int64": 0}.get(ACCEPTED[name], pd.Timestamp("2017-01-01"))
    changed: Any = values.where(values.index != at, new)
    assert fingerprint(ROWS.assign(**{name: changed})) != fingerprint(ROWS)


def test_a_missing_text_is_not_an_empty_one_and_texts_do_not_run_into_each_other() -> None:
    two = ROWS[:2]
    given = (("a", "b"), ("ab", ""), ("", "ab"), ("ab", None))
    hashes = {fingerprint(two.assign(slug=slugs(*texts))) for texts in given}
    assert len(hashes) == 4


def test_every_nan_is_the_same_missing_number() -> None:
    odd = np.frombuffer(np.uint64(0x7FF8000000000123).tobytes(), np.float64)[0]
    assert fingerprint(ROWS.assign(volume=odd)) == fingerprint(ROWS.assign(volume=np.nan))


@given(cut=st.integers(0, len(ROWS)), at=st.integers(0, len(ROWS) - 1))
def test_a_column_that_came_later_counts_only_where_a_row_has_a_value_in_it(cut: int, at: int) -> None:
    later = ROWS.assign(trades=np.nan, venue=slugs(*[None] * len(ROWS)))
    assert fingerprint(later, cut, columns=LATER) == fingerprint(ROWS)
    numbered, named = later.copy(), later.copy()
    numbered.loc[at, "trades"], named.loc[at, "venue"] = 7.0, ""
    hashes = {fingerprint(rows, cut, columns=LATER) for rows in (later, numbered, named)}
    assert hashes == {fingerprint(rows, columns=LATER) for rows in (later, numbered, named)}
    assert len(hashes) == 3


@given(cut=st.integers(0, 10))
def test_a_block_is_hashed_in_any_pieces(cut: int) -> None:
    block = np.random.default_rng(1).normal(size=(10, 13))
    whole, parts = BlockHash(), BlockHash()
    whole.add(block)
    parts.add(block[:cut])
    parts.add(block[cut:])
    assert whole.hexdigest() == parts.hexdigest()


@given(values=st.lists(st.integers(0, 3)).map(sorted))
def test_runs_give_each_value_where_it_stands(values: list[int]) -> None:
    found = [(value, values[part]) for value, part in runs(values)]
    assert [value for value, _ in found] == sorted(set(values))
    assert all(set(part) == {value} for value, part in found)
    assert sum(len(part) for _, part in found) == len(values)
