"""Whose statistics scale a row: the model's, or those of the series' own earlier rows. The one rule, as Python and SQL.

The model's scaler knows a series by its symbol. It scales a series unless a row of it says, by its slug, that it is
another coin than the one the scaler learnt under that symbol; where either says nothing, they are taken for the same.
"""

from collections.abc import Mapping
from typing import Final

import numpy as np
import pandas as pd

from crypto_ml.forecasting.features import BoolArray, IntArray

BY_MODEL: Final = "model"
BY_OWN_ROWS: Final = "own rows"
UNSCALED: Final = ""
"""What scaled a prediction; a seed is not scaled by anything."""


def is_other_coin(learnt: str | None, slug: str | None) -> bool:
    """Whether a row's slug says that this is not the coin the scaler learnt; None where either is not known."""
    return learnt is not None and slug is not None and learnt != slug


def other_coin_sql(learnt: str, slug: str, series: str) -> str:
    """`is_other_coin` of any row of a series, for each of its rows. All three are SQL: two texts, and columns."""
    return f"coalesce(bool_or({slug} <> {learnt}) OVER (PARTITION BY {series}), false)"


def other_coins(rows: pd.DataFrame, starts: IntArray, learnt: Mapping[str, str]) -> BoolArray:
    """Of n rows, those whose series has a row that is of another coin, shape (n,).

    rows: `symbol` and `slug`; starts: from `features.series_starts`. learnt: symbol → slug, where that is known.
    """
    if not learnt:
        return np.zeros(len(rows), bool)
    expected = rows["symbol"].map(dict(learnt))
    other = (expected.notna() & rows["slug"].notna() & (expected != rows["slug"])).to_numpy(bool)
    return np.isin(starts, starts[other])
