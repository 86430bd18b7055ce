"""The current rows of the market history read by ranges of symbols, each a shard: a range leaves out the files of other
symbols, where a list of symbols does not.

Put together in order, they are what `MarketHistory.current_rows` gives, row for row.
"""

from collections.abc import Collection, Iterator, Sequence
from datetime import date, datetime
from typing import Any, Final

import pyarrow as pa

from crypto_ml.deployment import Deployment
from crypto_ml.engine.mapping import Engine
from crypto_ml.engine.work import Asked, Shard, Work, name_of
from crypto_ml.forecasting.current import Order
from crypto_ml.forecasting.progress import Tell, tell_nobody
from crypto_ml.storage.history import SCHEMA, MarketHistory

ROWS_OF_A_RANGE: Final = 500_000
"""About as many rows has a range: each is a look at the whole table where that is not sorted by symbols."""


def ranges(symbols: Sequence[str], at_once: int) -> list[tuple[str, str]]:
    """The first and the last of every `at_once` of some sorted symbols."""
    parts = [symbols[begin : begin + at_once] for begin in range(0, len(symbols), at_once)]
    return [(part[0], part[-1]) for part in parts]


def as_shards(some: Sequence[tuple[str, str]]) -> tuple[Shard, ...]:
    """Ranges of symbols as shards."""
    return tuple(
        Shard({"between": list(ends)}, f"symbols {number} of {len(some)} ({ends[0]} to {ends[1]})")
        for number, ends in enumerate(some, 1)
    )


def current_rows(
    engine: Engine,
    history: MarketHistory,
    columns: Collection[str],
    *,
    before: date,
    version: int,
    known_by: datetime,
    order: Order,
    tell: Tell = tell_nobody,
    at_once: int | None = None,
) -> pa.Table:
    """`MarketHistory.current_rows`, by ranges of `at_once` symbols. Raises what `Engine.results` raises."""
    symbols = history.known.of(None, version)["symbol"].to_pylist()
    if at_once is None:
        at_once = max(1, len(symbols) * ROWS_OF_A_RANGE // max(history.count(version), 1))
    asked: dict[str, Any] = {
        "columns": list(columns),
        "before": before.isoformat(),
        "version": version,
        "known_by": known_by.isoformat(),
        "order": order,
    }
    work = Work(
        name_of(rows_of_range),
        asked,
        as_shards(ranges(symbols, at_once)),
        f"reading the history before {before}",
    )
    schema = pa.schema([SCHEMA.field(name) for name in columns])
    tables = [table.cast(schema) for _, found in engine.results(work, tell=tell) for table in found]
    return pa.concat_tables([schema.empty_table(), *tables])


def rows_of_range(asked: Asked, shard: Asked, deployment: Deployment) -> Iterator[pa.Table]:
    """The current rows of a range of symbols."""
    yield deployment.history.current_rows(
        asked["columns"],
        between=(shard["between"][0], shard["between"][1]),
        before=date.fromisoformat(asked["before"]),
        version=asked["version"],
        known_by=datetime.fromisoformat(asked["known_by"]),
        order=asked["order"],
    )
