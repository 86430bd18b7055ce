"""The simulated market that is dropped, and what is asked about it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from itertools import count
from typing import TYPE_CHECKING, Any, Final

from benchmarks.served.servers import Records
from crypto_ml.sample import COINS, FIRST_DAY, SAMPLE_DAYS, SEED, TRAINING_DAYS

if TYPE_CHECKING:
    import pandas as pd

LARGE: Final = 10_000
"""Records of a large call."""

EARLIER_DAYS: Final = 12
ENOUGH_EARLIER: Final = 10


@dataclass(frozen=True)
class Market:
    """What was dropped before, and what is asked: upload rows, in the order of their days."""

    known: "pd.DataFrame"
    unknown: "pd.DataFrame"

    @classmethod
    def simulated(cls) -> "Market":
        """The coins of the model, and as many symbols again as a large call has records."""
        from crypto_ml.forecasting.simulation import simulate_market

        known = simulate_market(COINS, TRAINING_DAYS + SAMPLE_DAYS, SEED, FIRST_DAY)
        begin = datetime.fromisoformat(str(known["date"].max())).date() - timedelta(days=EARLIER_DAYS)
        unknown = simulate_market(LARGE, EARLIER_DAYS + 1, SEED, begin)
        return cls(*(rows.drop(columns="name").sort_values(["date", "symbol"]) for rows in (known, unknown)))

    @property
    def history(self) -> "pd.DataFrame":
        """The rows of the model's coins before those that are asked about."""
        return self.known.head(-LARGE)

    @property
    def earlier_of_unknown(self) -> "pd.DataFrame":
        """The rows of the other symbols before the last day."""
        earlier: pd.DataFrame = self.unknown[self.unknown["date"] < self.unknown["date"].max()]
        return earlier

    @cached_property
    def records(self) -> Records:
        """The last rows of the model's coins, many days of each."""
        return _records(self.known.tail(LARGE))

    @cached_property
    def close(self) -> Records:
        """The last day of the other symbols."""
        return _records(self.unknown[self.unknown["date"] == self.unknown["date"].max()])

    @cached_property
    def _next(self) -> Records:
        counts = self.history["symbol"].value_counts()
        known = {symbol for symbol in counts.index if counts[symbol] >= ENOUGH_EARLIER}
        first = {str(record["symbol"]): record for record in reversed(self.records)}
        return [record for symbol, record in sorted(first.items()) if symbol in known]

    def ones(self) -> Iterator[Mapping[str, Any]]:
        """Single records without end, each the next day of some coin; no two are alike."""
        for number in count():
            record = self._next[number % len(self._next)]
            yield {**record, "volume": float(number)}


def _records(rows: "pd.DataFrame") -> Records:
    return [{str(name): value for name, value in row.items()} for row in rows.to_dict("records")]
