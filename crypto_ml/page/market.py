"""The rows that a market history has of one symbol, which the free predictions are taken from.

Read when somebody looks at the symbol, one after the other and beside everything else, and kept for a while: a page
never waits for it.
"""

from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date
from threading import Lock
from typing import TYPE_CHECKING, Final

import numpy as np

from crypto_ml.errors import CryptoMLError
from crypto_ml.page.accuracy import KnownRows

if TYPE_CHECKING:
    from crypto_ml.storage.objects import ObjectStore
    from crypto_ml.storage.series.cache import SeriesCache

MOST_KEPT: Final = 64


@dataclass(frozen=True, eq=False)
class Known:
    """What was found of a symbol: rows is None where nothing was; trouble: why it could not be read."""

    rows: KnownRows | None = None
    trouble: str | None = None


class Market:
    """The market history of one deployment, asked for one symbol at a time."""

    def __init__(self, store: "ObjectStore") -> None:
        self.address = store.uri("")
        self._store = store
        self._asking = Lock()
        self._one_at_a_time = ThreadPoolExecutor(1, thread_name_prefix="market-history")
        self._kept: OrderedDict[tuple[str, str], Future[Known]] = OrderedDict()
        self._series: SeriesCache | None = None

    def known(self, symbol: str, stamp: str) -> "Future[Known]":
        """The rows of a symbol as they were when a version of the predictions (its stamp) was first asked about.

        What failed is tried again for who asks next.
        """
        with self._asking:
            found = self._kept.get((symbol, stamp))
            if found is None or (found.done() and (found.cancelled() or found.result().trouble)):
                found = self._kept[symbol, stamp] = self._one_at_a_time.submit(self._read, symbol)
            self._kept.move_to_end((symbol, stamp))
            while len(self._kept) > MOST_KEPT:
                self._kept.popitem(last=False)[1].cancel()
            return found

    def close(self) -> None:
        """Ask no more."""
        self._one_at_a_time.shutdown(wait=False, cancel_futures=True)

    def _read(self, symbol: str) -> Known:
        from crypto_ml.stages.earlier_rows import current_of
        from crypto_ml.storage.history import MarketHistory
        from crypto_ml.storage.series.cache import SeriesCache

        try:
            if self._series is None:
                self._series = SeriesCache(self._store, MarketHistory(self._store))
            version = self._series.history.version()
            if version is None:
                return Known()
            rows = current_of(self._series, [symbol], date.max, version, "delivered")
        except CryptoMLError as error:
            return Known(trouble=str(error))
        except Exception as error:  # noqa: BLE001 - of a table that somebody else may have damaged; the page goes on
            return Known(trouble=f"The market history cannot be read ({type(error).__name__}).")
        numbers = (rows[name].to_numpy().astype(np.float64) for name in ("open", "close"))
        return Known(KnownRows(rows["date"].to_numpy().astype("datetime64[D]"), *numbers) if rows.num_rows else None)
