"""Whose statistics scale a row: the model's, or those of the series' own earlier rows. The one rule, as Python and SQL.

The model's scaler knows a series by its symbol. It scales a series unless a row of it says, by its slug, that it is
another coin than the one the scaler learnt under that symbol; where either says nothing, they are taken for the same.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Final

import numpy as np

from crypto_ml.forecasting.columns import Rows
from crypto_ml.forecasting.features import BoolArray, IntArray

BY_MODEL: Final = "model"
BY_OWN_ROWS: Final = "own rows"
UNSCALED: Final = ""
"""What scaled a prediction; a seed is not scaled by anything."""

OWN_SCALED_NAMED: Final = 20
"""Series that are named where it is told which were scaled by their own rows."""


def own_scaled_note(first: Sequence[str], count: int) -> str:
    """What is told of `count` series, `first` the first OWN_SCALED_NAMED of them, that the model does not scale."""
    more = count - len(first)
    named = ", ".join(first) + (f" and {more} more" if more > 0 else "")
    return f"{named}: not known to the model's scaler, scaled by the series' own earlier rows"


def is_other_coin(learnt: str | None, slug: str | None) -> bool:
    """Whether a row's slug says that this is not the coin the scaler learnt; None where either is not known."""
    return learnt is not None and slug is not None and learnt != slug


def other_coin_sql(learnt: str, slug: str, series: str) -> str:
    """`is_other_coin` of any row of a series, for each of its rows. All three are SQL: two texts, and columns."""
    return f"coalesce(bool_or({slug} <> {learnt}) OVER (PARTITION BY {series}), false)"


def other_coins(
    rows: Rows, starts: IntArray, learnt: Mapping[str, str], folded: Sequence[Collection[str]] = ()
) -> BoolArray:
    """Of n rows, those whose series has a row that is of another coin, shape (n,).

    rows: `symbol` and `slug`; starts: from `features.series_starts`. learnt: symbol → slug, where that is known.
    folded: for each of the series the slugs of its rows that are not here (see `running`).
    """
    other = np.zeros(len(rows), bool)
    if not learnt or not len(rows):
        return other
    begins = np.flatnonzero(starts == np.arange(len(starts)))
    ends = np.append(begins[1:], len(starts))
    slugs, symbols = np.asarray(rows["slug"], object), np.asarray(rows["symbol"], object)[begins].tolist()
    for number, (symbol, begin, end) in enumerate(zip(symbols, begins.tolist(), ends.tolist(), strict=True)):
        if (expected := learnt.get(symbol)) is not None:
            given = {*slugs[begin:end].tolist(), *(folded[number] if folded else ())}
            other[begin:end] = any(isinstance(slug, str) and is_other_coin(expected, slug) for slug in given)
    return other
