"""The simulated market of a fresh clone: its first part made the model in `model_out/`, its last part is the sample.

Its days are fixed and past, so that the sample has the same bytes on every day and machine: dropped again under another
name it repeats its rows in the history and never contradicts them.
"""

from datetime import date, timedelta
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import pandas as pd

COINS: Final = 24
SEED: Final = 20180325
FIRST_DAY: Final = date(2022, 1, 1)
TRAINING_DAYS: Final = 500
SAMPLE_COINS: Final = 5
SAMPLE_DAYS: Final = 200


def training_market() -> "pd.DataFrame":
    """What the model of `model_out/` is made from: upload rows of COINS coins, TRAINING_DAYS days from FIRST_DAY on."""
    market = _market()
    return market[market["date"] < _sample_begins()].reset_index(drop=True)


def sample_upload() -> bytes:
    """The sample as an upload: CSV of SAMPLE_COINS of the coins for the SAMPLE_DAYS days after the training days."""
    market = _market()
    coins = market["symbol"].unique()[:SAMPLE_COINS]
    sample = market[(market["date"] >= _sample_begins()) & market["symbol"].isin(coins)]
    text: str = sample.to_csv(index=False, lineterminator="\n")
    return text.encode()


def _market() -> "pd.DataFrame":
    from crypto_ml.forecasting.simulation import simulate_market

    return simulate_market(COINS, TRAINING_DAYS + SAMPLE_DAYS, SEED, FIRST_DAY)


def _sample_begins() -> str:
    return (FIRST_DAY + timedelta(days=TRAINING_DAYS)).isoformat()
