"""The log of predictions joined with the opens that came later: what was told, and what it was.

A prediction for a day counts once: the first that was made of it is what people acted on. Days that a model was fitted
on do not count for it, however its predictions came into the log. What it costs is bounded by days and MOST_ROWS: of
more series as many are chosen by a hash of their names, which are the same series every time.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from crypto_ml.deployment import Deployment
from crypto_ml.errors import CryptoMLError
from crypto_ml.forecasting.bundle import TRAINING_MANIFEST, ModelBundle
from crypto_ml.forecasting.comparison import fitted_before
from crypto_ml.forecasting.features import BoolArray, FloatArray, series_starts
from crypto_ml.forecasting.recent_gaps import recent_gaps
from crypto_ml.stages.comparison import chosen_series
from crypto_ml.stages.scaler import SOURCE
from crypto_ml.storage.history import MarketHistory
from crypto_ml.storage.prediction_log import PredictionLog

MOST_ROWS: Final = 1_000_000
LONGEST_GAP: Final = 40
"""Days before the first one in which the row before it is looked for."""


@dataclass(frozen=True, eq=False)
class LivePredictions:
    """n predictions whose opens have come, sorted by symbol and day; all (n,).

    opens: observed. closes, opens_before: of the series' row before, the two predictions that cost nothing. low, high:
    the interval, NaN where none was given; levels: how often it is to hold the open. Prices are in the currency of the
    upload. size: the recent gap size of the series (`recent_gaps`), NaN where there are too few gaps. newest_day: of
    the history. series_of: how many series there are, where not all were read.
    """

    days: npt.NDArray[np.datetime64]
    symbols: npt.NDArray[np.object_]
    models: npt.NDArray[np.object_]
    predicted: FloatArray
    low: FloatArray
    high: FloatArray
    opens: FloatArray
    closes: FloatArray
    opens_before: FloatArray
    size: FloatArray
    levels: FloatArray
    newest_day: date
    series_of: int | None = None

    def __len__(self) -> int:
        return len(self.days)

    def where(self, chosen: BoolArray) -> "LivePredictions":
        """Some of them."""
        names = (
            "days",
            "symbols",
            "models",
            "predicted",
            "low",
            "high",
            "opens",
            "closes",
            "opens_before",
            "size",
            "levels",
        )
        return LivePredictions(
            **{name: getattr(self, name)[chosen] for name in names},
            newest_day=self.newest_day,
            series_of=self.series_of,
        )

    def last(self, days: int) -> "LivePredictions":
        """Those of the last days of the history."""
        return self.where(self.days > np.datetime64(self.newest_day) - np.timedelta64(days, "D"))


def live_predictions(deployment: Deployment, days: int, model: str | None = None) -> LivePredictions | None:
    """Of the last so many days of the history, of all models or of one; None where the history has no rows.

    A model is its network: one whose serving rule was made anew goes on as the same. Raises what store,
    tables and registry do.
    """
    history = deployment.history
    ends = history.days()
    if ends is None:
        return None
    newest = ends[1]
    first = newest - timedelta(days - 1)
    symbols, series_of = read_series(history, days)
    made = PredictionLog(deployment.store).about_days(first, newest, symbols).to_pandas()
    bundles = _bundles({*made["model_version"].unique(), *([model] if model else [])}, deployment)
    if model is not None:
        same = [version for version in bundles if _weights(bundles, version) == _weights(bundles, model)]
        made = made[made["model_version"].isin(same)]
    made = made[_never_fitted_on(made, bundles)]
    made = made.sort_values(["made_at", "answer_id", "line"]).drop_duplicates(["symbol", "date"])
    observed = history.current_rows(
        ["symbol", "date", "open", "close"], symbols=symbols, since=first - timedelta(LONGEST_GAP)
    ).to_pandas()
    before = observed.groupby("symbol", sort=False)[["open", "close"]].shift(1)
    size = recent_gaps(observed, series_starts(observed["symbol"].to_numpy(object)))
    observed = observed.assign(
        open_before=before["open"], close_before=before["close"], size=np.where(size.enough, size.size, np.nan)
    ).dropna(subset=["close_before"])
    rows = made.merge(observed, on=["symbol", "date"]).sort_values(["symbol", "date"])
    return LivePredictions(
        days=rows["date"].to_numpy("datetime64[D]"),
        symbols=rows["symbol"].to_numpy(object),
        models=rows["model_version"].to_numpy(object),
        predicted=rows["pred_open"].to_numpy(np.float64),
        low=rows["pred_low"].to_numpy(np.float64),
        high=rows["pred_high"].to_numpy(np.float64),
        opens=rows["open"].to_numpy(np.float64),
        closes=rows["close_before"].to_numpy(np.float64),
        opens_before=rows["open_before"].to_numpy(np.float64),
        size=rows["size"].to_numpy(np.float64),
        levels=rows["interval_level"].to_numpy(np.float64),
        newest_day=newest,
        series_of=series_of,
    )


def read_series(history: MarketHistory, days: int) -> tuple[Collection[str] | None, int | None]:
    """Which series are read of so many days: None, which is all, or some of them, and of how many."""
    known = history.last_days().to_pandas()
    if len(known) * days <= MOST_ROWS:
        return None, None
    return chosen_series(known.assign(rows=days), MOST_ROWS), len(known)


def _bundles(versions: Iterable[str], deployment: Deployment) -> dict[str, ModelBundle | None]:
    """The models of some versions; None for one that cannot be read any more."""
    found: dict[str, ModelBundle | None] = {}
    for version in versions:
        try:
            found[version] = deployment.registry.load(version)
        except CryptoMLError:
            found[version] = None
    return found


def _weights(bundles: Mapping[str, ModelBundle | None], version: str) -> str:
    """What tells a network from others; the version where it is not known."""
    bundle = bundles.get(version)
    return version if bundle is None else str(bundle.manifest["weights_sha256"])


def _never_fitted_on(made: pd.DataFrame, bundles: Mapping[str, ModelBundle | None]) -> BoolArray:
    """Which predictions are of days that their model was not fitted on, as far as its manifest tells; of one that was
    trained elsewhere, or cannot be read, all are."""
    first = {
        version: np.datetime64((never_seen_from(bundle) if bundle else None) or "1970-01-01", "D")
        for version, bundle in bundles.items()
    }
    days = made["date"].to_numpy("datetime64[D]")
    begins = made["model_version"].map(first).to_numpy("datetime64[D]") if len(made) else days
    return np.asarray(days >= begins)


def never_seen_from(bundle: ModelBundle) -> date | None:
    """The first day of the history that a model was not fitted on; None where it was trained elsewhere."""
    ours = bundle.document(TRAINING_MANIFEST).get("source") == SOURCE
    return fitted_before(bundle) if ours else None
