"""Rows scored from what the history had before them: the one way for a delivery in one piece, and for parts of one.

Belongs here: what decides a prediction beside the rows, and how earlier rows come to them. Does not belong here: which
rows, and what becomes of what is predicted.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from crypto_ml.deployment import Deployment
from crypto_ml.errors import Blocked
from crypto_ml.forecasting.bundle import ModelBundle
from crypto_ml.forecasting.current import Order
from crypto_ml.forecasting.fingerprint import Sees
from crypto_ml.forecasting.folded import FoldedSeries
from crypto_ml.forecasting.running import FOLDED_1
from crypto_ml.forecasting.scaled_by import is_other_coin
from crypto_ml.forecasting.schema import Earlier, Recovery
from crypto_ml.forecasting.scoring import score_tables
from crypto_ml.forecasting.series import LookAlikes
from crypto_ml.forecasting.sorting import RowSorter
from crypto_ml.stages.earlier_rows import Coins, read_earlier
from crypto_ml.stages.series_by_name import Series
from crypto_ml.storage.history import MarketHistory


class OtherBundle(Blocked):
    """A model that is stored under a version, and is not the one that was meant."""


@dataclass(frozen=True)
class Scoring:
    """What rows are scored with. series: where series are read by their names."""

    bundle: ModelBundle
    history: MarketHistory
    history_version: int | None
    series: Series
    recovery: Recovery
    level: float
    current: Order = "delivered"
    earlier: Earlier = FOLDED_1

    def asked(self) -> dict[str, Any]:
        """All of it that decides, in words; `of` makes the same of it elsewhere."""
        return {
            "model": self.bundle.version,
            "bundle_sha256": self.bundle.sha256,
            "history_version": self.history_version,
            "recovery": self.recovery,
            "level": self.level,
            "current": self.current,
            "earlier": self.earlier,
        }

    @classmethod
    def of(cls, asked: Mapping[str, Any], deployment: Deployment) -> "Scoring":
        """What `asked` told. Raises UnknownModel, BundleDamaged, OtherBundle."""
        bundle = deployment.bundle(asked["model"])
        if bundle.sha256 != asked["bundle_sha256"]:
            raise OtherBundle(
                f"the model {bundle.version} of {deployment.store.uri('')} is not the one that was asked for: "
                "is the worker on the same bucket?"
            )
        return cls(
            bundle,
            deployment.history,
            asked["history_version"],
            deployment.series,
            asked["recovery"],
            asked["level"],
            asked["current"],
            asked["earlier"],
        )

    def scored(
        self, chunks: Iterable[pa.Table], folded: FoldedSeries, witness: Sees | None = None
    ) -> Iterator[pa.Table]:
        """See `forecasting.scoring.score_tables`."""
        return score_tables(chunks, self.bundle, self.recovery, witness, folded, level=self.level)

    def coins(self, other: Collection[str]) -> Coins:
        """The coins that the model scales; other: symbols of which a row says that it is of another coin."""
        coins = self.bundle.scaled_coins
        if other and coins is not None:
            return {symbol: slug for symbol, slug in coins.items() if symbol not in other}
        return coins

    def read_into(
        self,
        sorter: RowSorter,
        folded: FoldedSeries,
        spans: pa.Table,
        coins: Coins,
        *,
        also: Collection[str],
        seen: Callable[[Iterable[str]], None],
        uploads: set[str] | None = None,
    ) -> None:
        """Add to rows what the history had before these spans of them. also, seen: see `earlier_rows`. uploads: gets
        the names of those that it came from."""
        for earlier in read_earlier(
            self.series,
            self.history,
            spans,
            coins,
            self.history_version,
            order=self.current,
            earlier=self.earlier,
            look_back=self.bundle.look_back,
            also=also,
            seen=seen,
        ):
            sorter.add(earlier.rows)
            folded.add(earlier.states)
            if uploads is not None:
                uploads.update(earlier.uploads.unique().to_pylist())

    def add_earlier_rows(self, sorter: RowSorter, folded: FoldedSeries, uploads: set[str] | None = None) -> LookAlikes:
        """Add to rows what the history had before them. Returns the series that look like others.

        uploads: gets the names of those that these rows came from.
        """
        coins = self.coins({name for some in sorter.coins() for name in other_coins(some, self.bundle)})
        alike = LookAlikes(self.bundle.coins)
        for spans in sorter.span_tables():
            others = alike.ask(spans)
            self.read_into(sorter, folded, spans, coins, also=others, seen=alike.see, uploads=uploads)
            alike.answer()
        for file, symbols in sorter.alike():
            alike.add(file, symbols)
        return alike


def other_coins(coins: Iterable[tuple[str, str]], bundle: ModelBundle) -> set[str]:
    """Those symbols of some (symbol, slug) of which the model learnt another coin."""
    slugs = bundle.slugs
    return {name for name, slug in coins if is_other_coin(slugs.get(name), slug)}
