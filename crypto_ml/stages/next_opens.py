"""A forecast as numbers: the next open of every current symbol, from one state of the history and one model.

The newest day of the history is what counts (UTC): the forecast is for the day after it, of the symbols that have a row
for it, also where those rows are a part of a day that is not over. Every other symbol is left out, and listed.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import numpy as np
import pandas as pd
import pyarrow as pa

from crypto_ml.forecasting.answers import BESIDE
from crypto_ml.forecasting.bundle import ModelBundle
from crypto_ml.forecasting.current import Order
from crypto_ml.forecasting.evaluation import Verdict
from crypto_ml.forecasting.fingerprint import Sees
from crypto_ml.forecasting.folded import FoldedSeries
from crypto_ml.forecasting.running import FOLDED_1
from crypto_ml.forecasting.schema import OBSERVATION, Earlier
from crypto_ml.forecasting.scoring import PREDICTED, score_tables, witness_of
from crypto_ml.forecasting.sorting import RowSorter, as_frame, as_rows
from crypto_ml.ledger.formats.forecast_v1 import Fingerprints, SymbolCounts
from crypto_ml.ledger.registry import Champion
from crypto_ml.settings import Settings
from crypto_ml.stages.earlier_rows import read_earlier
from crypto_ml.stages.series_by_name import FromHistory, Series
from crypto_ml.storage.history import MarketHistory
from crypto_ml.storage.objects import ObjectStore

ONE_DAY: Final = pd.Timedelta(days=1)
NO_ROW: Final = "no row for the newest day"
TOO_FEW_ROWS: Final = "too few rows"
RETRACTED: Final = "all its rows were retracted"
MOST_NAMED: Final = 5


@dataclass(frozen=True)
class ForecastSources:
    """What a forecast is made from, read once for the whole of it."""

    store: ObjectStore
    history: MarketHistory
    history_version: int
    bundle: ModelBundle
    champion: Champion
    settings: Settings
    run_id: str
    current: Order = "delivered"
    earlier: Earlier = FOLDED_1
    series: Series | None = None

    @property
    def read_from(self) -> Series:
        """Where series are read by their names; the history itself where nothing faster is at hand."""
        return self.series or FromHistory(self.history)


@dataclass(frozen=True)
class Forecast:
    """The next open of every current symbol, and who is left out.

    rows: the columns of `answers.FORECAST` but for `prediction_id`, `scaled_by`, and of a model with a serving rule
    those of `prediction_log.LOGGED_BESIDE`. left_out: the columns of
    `answers.LEFT_OUT` but for `forecast_id`. Both are sorted by symbol. folded_series: of how many
    series the first rows came as a state.
    """

    newest_day: date
    rows: pd.DataFrame
    left_out: pd.DataFrame
    fingerprints: Fingerprints
    folded_series: int = 0

    @property
    def target_date(self) -> date:
        return (pd.Timestamp(self.newest_day) + ONE_DAY).date()

    @property
    def counts(self) -> SymbolCounts:
        reasons = self.left_out["reason"]
        without, few = int(reasons.isin([NO_ROW, RETRACTED]).sum()), int((reasons == TOO_FEW_ROWS).sum())
        return SymbolCounts(len(self.rows), without, few)


def last_days_of(history: MarketHistory, version: int) -> pd.DataFrame:
    """Each symbol's last day: `symbol`, `date` (datetime64[s]), `retracted`, sorted by symbol.

    Where all rows of a symbol were retracted it is the last of those. Memory is bounded by the symbols.
    """
    days: pd.DataFrame = history.last_days(version).to_pandas(date_as_object=False)
    return days.astype({"date": "datetime64[s]"})


def newest_of(last_days: pd.DataFrame) -> pd.Timestamp:
    """The newest day of the history that counts, of last days of which one does."""
    newest: pd.Timestamp = last_days.loc[~last_days["retracted"], "date"].max()
    return newest


def forecast(
    sources: ForecastSources, last_days: pd.DataFrame, directory: Path, uploads: set[str] | None = None
) -> Forecast:
    """The next open of every symbol that has a row for the newest of the last days (see `last_days_of`).

    uploads: gets the names of those that rows read from the history came from.
    """
    newest = newest_of(last_days)
    current = (last_days["date"] == newest) & ~last_days["retracted"]
    witness = witness_of(sources.bundle)
    scored = next_opens(sources, last_days.loc[current, "symbol"], newest, directory, witness, uploads=uploads)
    made = (scored["status"] == PREDICTED).to_numpy()
    rows = pd.DataFrame(
        {
            "symbol": scored.loc[made, "symbol"],
            "as_of": newest,
            "target_date": newest + ONE_DAY,
            "pred_open": scored.loc[made, "pred_open"],
            "model_version": sources.bundle.version,
            "scaled_by": scored.loc[made, "scaled_by"],
            **{name: scored.loc[made, name] for name in BESIDE.names if name in scored},
        }
    )
    if "pred_low" in rows:
        rows["interval_level"] = np.where(rows["pred_low"].isna(), np.nan, sources.settings.level)
    gone = last_days[~current].assign(reason=np.where(last_days.loc[~current, "retracted"], RETRACTED, NO_ROW))
    seeds = scored.loc[~made, ["symbol"]].assign(date=newest, reason=TOO_FEW_ROWS)
    left_out = pd.concat([gone, seeds]).rename(columns={"date": "last_day"}).sort_values("symbol")
    return Forecast(
        newest.date(),
        rows.reset_index(drop=True),
        left_out[["symbol", "last_day", "reason"]].reset_index(drop=True),
        Fingerprints(witness.earlier_rows(0, sources.earlier), witness.feature_block[0].hexdigest()),
        witness.folded_series(0),
    )


def every_current_symbol(counts: SymbolCounts, missed: pd.DataFrame, newest_day: str) -> Verdict:
    """Whether no symbol that is still current was left out; missed: those that were (`symbol`, `reason`)."""
    left_out = counts.without_newest_day + counts.too_few_rows
    named = [f"{symbol}: {reason}" for symbol, reason in missed[["symbol", "reason"]].head(MOST_NAMED).to_numpy()]
    more = [f"and {len(missed) - MOST_NAMED:,} more"] if len(missed) > MOST_NAMED else []
    forecast = f"{counts.forecast:,} symbols forecast from the rows up to {newest_day}"
    gone = f"others that stopped earlier: {left_out - len(missed):,}"
    said = [f"{len(missed):,} current symbol{'s' * (len(missed) > 1)} left out: {'; '.join([*named, *more])}"]
    return Verdict(
        passed=missed.empty,
        numbers={"forecast": counts.forecast, "missed": len(missed), "left_out": left_out},
        threshold=0,
        explanation="; ".join(
            said * (not missed.empty) + [forecast] + [gone] * (left_out > len(missed)),
        ),
    )


def next_opens(
    sources: ForecastSources,
    symbols: Collection[str],
    newest: pd.Timestamp,
    directory: Path,
    witness: Sees | None = None,
    *,
    uploads: set[str] | None = None,
) -> pd.DataFrame:
    """The day after `newest`, which is still to come, of some symbols, scored (see `scoring.SCORED`)."""
    to_come = pd.DataFrame({"symbol": list(symbols)}, dtype="str")
    unknown = {name: None if dtype == "str" else np.nan for name, dtype in OBSERVATION.items() if name != "symbol"}
    to_come = to_come.assign(**unknown).assign(date=newest + ONE_DAY, line=0, market=0.0)
    with TemporaryDirectory(dir=directory) as name, RowSorter(Path(name)) as sorter:
        sorter.add(as_rows(to_come, file=0))
        folded = FoldedSeries(Path(name) / "folded")
        for spans in sorter.span_tables():
            for earlier in read_earlier(
                sources.read_from,
                sources.history,
                spans,
                sources.bundle.scaled_coins,
                sources.history_version,
                order=sources.current,
                earlier=sources.earlier,
                look_back=sources.bundle.look_back,
            ):
                sorter.add(earlier.rows)
                folded.add(earlier.states)
                if uploads is not None:
                    uploads.update(earlier.uploads.unique().to_pylist())
        chunks = sorter.chunk_tables()
        scored = score_tables(chunks, sources.bundle, "one_step", witness, folded, level=sources.settings.level)
        return as_frame(pa.concat_tables(scored))
