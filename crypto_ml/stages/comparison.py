"""The champion and the newest models, measured on the same rows of the history as it is now.

What it costs is bounded: MOST_MODELS models, and MOST_ROWS rows of history. Of more series than those rows are, as many
are chosen by a hash of their names, which are the same series every time.
"""

from collections.abc import Mapping
from datetime import date
from typing import Final

import pandas as pd
import pyarrow as pa

from crypto_ml.digest import sha256_of
from crypto_ml.errors import CryptoMLError
from crypto_ml.forecasting.bundle import TRAINING_MANIFEST, ModelBundle
from crypto_ml.forecasting.comparison import (
    NothingToCompareOn,
    SideBySide,
    first_common_day,
    fitted_before,
    side_by_side,
)
from crypto_ml.forecasting.current import VALID
from crypto_ml.forecasting.schema import OBSERVATION
from crypto_ml.forecasting.sorting import as_frame
from crypto_ml.ledger.registry import Registry
from crypto_ml.stages.scaler import SOURCE
from crypto_ml.storage.history import MarketHistory
from crypto_ml.storage.outofcore import queried

MOST_MODELS: Final = 6
MOST_ROWS: Final = 100_000

LENGTHS: Final = pa.schema([("symbol", pa.string()), ("rows", pa.int64()), ("last_day", pa.date32())])
LENGTHS_SQL: Final = f"""
    WITH {VALID} SELECT symbol, count(*) AS rows, max(date) AS last_day FROM valid GROUP BY symbol ORDER BY symbol
"""  # noqa: S608 - terms of ours


def compare_models(registry: Registry, history: MarketHistory) -> SideBySide:
    """Measure the champion first, then the newest others. Raises NothingToCompareOn, and what store and history do."""
    version = history.version()
    if version is None:
        raise NothingToCompareOn("the market history has no rows yet; drop files into uploads/ first")
    bundles = {one: _loaded(registry, one) for one in chosen_models(registry)}
    known = history.scan(["symbol", "date", "upload_id", "void"], version=version)
    lengths = pa.Table.from_batches(queried(LENGTHS_SQL, known, LENGTHS), LENGTHS).to_pandas()
    if lengths.empty:
        raise NothingToCompareOn("all rows of the market history were retracted; drop files into uploads/ first")
    first = first_common_day(lengths["last_day"].max(), _days_fitted_before(bundles))
    symbols = chosen_series(lengths[lengths["last_day"] >= first], MOST_ROWS)
    rows = as_frame(history.current_rows(list(OBSERVATION), symbols=symbols, version=version))
    champion = registry.champion()
    return side_by_side(rows, first, bundles, SOURCE, champion.version if champion else None)


def chosen_models(registry: Registry) -> list[str]:
    """The champion, and then the newest others: MOST_MODELS at most."""
    champion = registry.champion()
    serving = [champion.version] if champion else []
    newest = [version for version in registry.newest_first() if version not in serving]
    return [*serving, *newest][:MOST_MODELS]


def chosen_series(lengths: pd.DataFrame, most_rows: int) -> list[str]:
    """Series (`symbol`, `rows`) of `most_rows` rows together at most, but one at least; by a hash of their names."""
    order = sorted(range(len(lengths)), key=lambda at: sha256_of(lengths["symbol"].iloc[at].encode()))
    ends = lengths["rows"].iloc[order].cumsum().to_numpy()
    count = max(int((ends <= most_rows).sum()), 1)
    return sorted(lengths["symbol"].iloc[order[:count]])


def _loaded(registry: Registry, version: str) -> ModelBundle | str:
    """A model, or why it cannot be had: the others are compared all the same."""
    try:
        return registry.load(version)
    except CryptoMLError as error:
        return str(error)


def _days_fitted_before(bundles: Mapping[str, ModelBundle | str]) -> list[date]:
    loaded = [bundle for bundle in bundles.values() if isinstance(bundle, ModelBundle)]
    ours = [bundle for bundle in loaded if bundle.document(TRAINING_MANIFEST).get("source") == SOURCE]
    return [day for bundle in ours if (day := fitted_before(bundle))]
