"""The rows of history that predictions are made from: for each series, what stood before the rows asked about.

A series the model's scaler knows needs the rows of its window; a series it has never seen, or that is another coin of
the same symbol, is scaled by all its own earlier rows. Rows between the asked ones count too: an upload may have holes
that history fills.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Final

import pandas as pd
import pyarrow as pa

from crypto_ml.forecasting.current import ORDERING, Order, current_sql
from crypto_ml.forecasting.scaled_by import other_coin_sql
from crypto_ml.forecasting.schema import LOOK_BACK
from crypto_ml.forecasting.sorting import ROWS
from crypto_ml.storage.history import MarketHistory
from crypto_ml.storage.outofcore import queried

MOST_SYMBOLS_PUSHED_DOWN: Final = 1_000

SPANS: Final = pa.schema(
    [
        ("file", pa.int32()),
        ("symbol", pa.string()),
        ("first", pa.date32()),
        ("last", pa.date32()),
        ("known_to_scaler", pa.bool_()),
        ("scalers_slug", pa.string()),
    ]
)

NEEDED_SQL: Final = f"""
    WITH current AS (
        {{current}}
    ), before AS (
        SELECT spans.file, current.*, spans.first, spans.known_to_scaler,
               {other_coin_sql("spans.scalers_slug", "current.slug", "spans.file, current.symbol")} AS other_coin,
               row_number() OVER (PARTITION BY spans.file, current.symbol, current.date < spans.first
                                  ORDER BY current.date DESC) AS back
        FROM current JOIN spans ON current.symbol = spans.symbol AND current.date < spans.last
    )
    SELECT {", ".join(name for name in ROWS.names if name != "context")}, true AS context FROM before
    WHERE NOT known_to_scaler OR other_coin OR date >= first OR back <= {LOOK_BACK}
"""  # noqa: S608 - the columns are ours


def earlier_rows(
    history: MarketHistory,
    spans: pd.DataFrame,
    scaler_coins: Mapping[str, str | None],
    version: int | None,
    order: Order = "delivered",
    *,
    also: Collection[str] = (),
    seen: Callable[[Iterable[str]], None] | None = None,
) -> Iterator[pa.RecordBatch]:
    """Rows of history, marked as context, for each `file` and `symbol` of `spans` (see `RowSorter.spans`).

    scaler_coins: the symbols that the scaler knows, and the slug of the coin it knows under each, None where that was
    not recorded. version: the state of the history to read; None where there is none, which yields nothing. order: by
    which the current row of a day is chosen. also: symbols of which it is only of interest whether history has them.
    seen: is given the symbols that the history has, among others those.
    """
    if version is None or spans.empty:
        return
    symbols = spans["symbol"].unique()
    known = history.scan(
        [*(name for name in ROWS.names if name not in {"file", "context", *ORDERING}), *ORDERING],
        symbols=[*symbols, *also] if len(symbols) <= MOST_SYMBOLS_PUSHED_DOWN else None,
        before=pd.Timestamp(spans["last"].max()).date(),
        version=version,
    )
    known = known if seen is None else _watched(known, seen)
    asked = spans.assign(
        known_to_scaler=spans["symbol"].isin(set(scaler_coins)),
        scalers_slug=spans["symbol"].map(dict(scaler_coins)),
    )
    table = pa.Table.from_pandas(asked[SPANS.names], schema=SPANS, preserve_index=False)
    yield from queried(NEEDED_SQL.format(current=current_sql(order)), known, ROWS, spans=table)


def _watched(known: pa.RecordBatchReader, seen: Callable[[Iterable[str]], None]) -> pa.RecordBatchReader:
    """The same rows, whose symbols `seen` is given as they come."""

    def batches() -> Iterator[pa.RecordBatch]:
        for batch in known:
            seen(batch["symbol"].unique().to_pylist())
            yield batch

    return pa.RecordBatchReader.from_batches(known.schema, batches())
