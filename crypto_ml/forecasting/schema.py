"""The one list of columns, dtypes and units, used by training, scoring and tests."""

from collections.abc import Mapping
from typing import Final, Literal

PRICES: Final = ("open", "high", "low", "close")
"""Prices of one day, float64, in the upload's currency; always positive and finite in an accepted row."""

LEVELS: Final = (*PRICES, "close_ratio", "spread")
"""What a row holds by itself; each of them also has a change since the row before (`v_…`)."""

SCALED: Final = (*LEVELS, *(f"v_{name}" for name in LEVELS))
"""The twelve features that are standardised with the series' own mean and deviation."""

FEATURES: Final = (*SCALED, "log_shares")
"""What the network sees of one row, in this order; `log_shares` is not scaled."""

STATIONARY: Final = ("log_gap", "body", "upper_shadow", "lower_shadow", "close_position")
"""What a network of the target `relative_gap` sees of a row instead, in this order (see `stationary`). A name is its
definition, for ever."""

WINDOW: Final = 5
"""Rows before the predicted one that the network sees."""

LOOK_BACK: Final = WINDOW + 1
"""Earlier rows a prediction needs: the window, and the row before it that its changes are measured from."""

MINIMUM_OWN_ROWS: Final = 10
"""Earlier rows from which a series the scaler has never seen is scaled by its own statistics."""

Target = Literal["change", "gap", "relative_gap"]
"""What a network predicts. `change`: standardised open[t] − open[t−1]. `gap`: open[t] − close[t−1] in units of the
series' own gap deviation. `relative_gap`: ln(open[t] / close[t−1]) in units of what it was lately (see `recent_gaps`),
from features without a unit, shrunk and capped."""

Recovery = Literal["one_step", "cumulative"]
"""How a price is recovered from a predicted change: from the observed row before it, or by a running sum."""

IntervalLevel = Literal["0.80", "0.90", "0.95"]
"""How often the next open is to lie in its interval (see `intervals.LEVELS`)."""

Earlier = Literal["", "folded-1"]
"""How what came of the history was put together and hashed for an answer. Nothing: all rows that were read. `folded-1`:
the states and rows of that definition (see `running`)."""

DateOrder = Literal["dmy", "mdy"]
"""How an upload writes dates with slashes: day or month first."""

OBSERVATION: Final[Mapping[str, str]] = {
    "symbol": "str",  # name of the series: the upload's symbol, or symbol:slug where two coins share one
    "date": "datetime64[s]",  # UTC day of the observation
    "open": "float64",
    "high": "float64",
    "low": "float64",
    "close": "float64",
    "market": "float64",  # market capitalisation, same currency; 0 where unknown
    "volume": "float64",  # traded volume of the day, same currency; NaN where not given
    "slug": "str",  # the coin's unique name; missing where not given
}
"""An accepted row, in this order and with these pandas dtypes, everywhere after cleaning."""
