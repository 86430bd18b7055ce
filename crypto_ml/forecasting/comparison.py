"""Models side by side: how far off each of them is on the same rows, beside the two predictions that cost nothing.

On its own holdout every model is measured on other days, and days differ more than models do. The rows here are the
same for all: those of the last DAYS days of a history, or of as many of them as none of the models was fitted on, where
that is FEWEST_DAYS at least. Where it is less, the models that were fitted on some of the rows are marked.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import date, timedelta
from typing import Any, Final, Literal

import numpy as np
import pandas as pd

from crypto_ml.errors import Refused
from crypto_ml.forecasting.bundle import TRAINING_MANIFEST, ModelBundle
from crypto_ml.forecasting.evaluation import Comparison, Errors, evaluate
from crypto_ml.forecasting.schema import MINIMUM_OWN_ROWS
from crypto_ml.forecasting.scoring import PREDICTED, score_rows

DAYS: Final = 28
FEWEST_DAYS: Final = 7

Fitted = Literal["no", "yes", "unknown"]
"""Whether a model was fitted on some of the rows that it is measured on."""


class NothingToCompareOn(Refused):
    """A history without rows that models could be measured on."""


@dataclass(frozen=True)
class Measured:
    """One model on the common rows. errors: None where it could not be measured, for the reason in `why`."""

    version: str
    fitted: Fitted
    errors: Errors | None
    why: str = ""


@dataclass(frozen=True)
class SideBySide:
    """Models measured on the same rows, in the order they were given, and the two baselines on them."""

    first_day: date
    last_day: date
    rows: int
    series: int
    models: tuple[Measured, ...]
    last_close: Errors
    last_open: Errors

    @property
    def measured_on(self) -> str:
        """Which rows these are, in words."""
        rows, series = (f"{count:,} {word}" for count, word in ((self.rows, "rows"), (self.series, "series")))
        return f"{rows} of {series}, {self.first_day} to {self.last_day}"

    def of(self, version: str) -> Measured | None:
        """What was found of a model, None where it was not among them."""
        return next((one for one in self.models if one.version == version), None)

    def to_dict(self) -> dict[str, Any]:
        """Plain dicts, texts, numbers and None, for JSON."""
        return {**asdict(self), "first_day": str(self.first_day), "last_day": str(self.last_day)}


def first_common_day(last_day: date, fitted_before: Iterable[date]) -> date:
    """From which day on models are compared, in a history that ends with `last_day`.

    fitted_before: of each model that was trained on this history the day before which it was fitted.
    """
    first, nobody_before = last_day - timedelta(DAYS - 1), max(fitted_before, default=date.min)
    enough = nobody_before <= last_day - timedelta(FEWEST_DAYS - 1)
    return max(first, nobody_before) if enough else first


def fitted_before(bundle: ModelBundle) -> date | None:
    """The day before which all rows are that a model was fitted on; None where its manifest does not say."""
    manifest = bundle.document(TRAINING_MANIFEST)
    split = manifest.get("split") or {}
    told = split.get("holdout_from") or manifest.get("as_of")
    return date.fromisoformat(told) if told else None


def fitted_on(bundle: ModelBundle, first_day: date, source: str) -> Fitted:
    """Whether a model was fitted on rows of a history since `first_day`; source: what manifests call that history."""
    before = fitted_before(bundle)
    if before is not None and before <= first_day:
        return "no"
    return "yes" if bundle.document(TRAINING_MANIFEST).get("source") == source else "unknown"


def side_by_side(
    rows: pd.DataFrame, first_day: date, bundles: Mapping[str, ModelBundle | str], source: str
) -> SideBySide:
    """Measure models on the rows since `first_day` that have MINIMUM_OWN_ROWS rows before them: every model that works
    predicts each of those, whatever series its scaler knows.

    rows: OBSERVATION columns, whole series, sorted by symbol and date. bundles: by version, or why there is none.
    Raises NothingToCompareOn.
    """
    earlier = rows.groupby("symbol", sort=False).cumcount().to_numpy()
    asked = (rows["date"].to_numpy("datetime64[D]") >= np.datetime64(first_day)) & (earlier >= MINIMUM_OWN_ROWS)
    if not asked.any():
        raise NothingToCompareOn(
            f"no series has {MINIMUM_OWN_ROWS} rows and another one since {first_day}; models can be compared when the "
            "history has more days"
        )
    chosen = rows.assign(file=0, line=0, context=~asked)
    before = chosen.groupby("symbol", sort=False)[["open", "close"]].shift(1)[asked]
    baselines = tuple(before[name].to_numpy(np.float64) for name in ("open", "close"))
    found = [(version, bundle, _measured(chosen, bundle, baselines)) for version, bundle in bundles.items()]
    naive = _evaluated(chosen.loc[asked, "symbol"], chosen.loc[asked, "open"], baselines[1], baselines)
    return SideBySide(
        first_day=chosen.loc[asked, "date"].min().date(),
        last_day=chosen.loc[asked, "date"].max().date(),
        rows=naive.rows,
        series=int(chosen.loc[asked, "symbol"].nunique()),
        models=tuple(
            Measured(
                version,
                "unknown" if isinstance(bundle, str) else fitted_on(bundle, first_day, source),
                None if isinstance(errors, str) else errors,
                errors if isinstance(errors, str) else "",
            )
            for version, bundle, errors in found
        ),
        last_close=naive.last_close,
        last_open=naive.last_open,
    )


def _measured(rows: pd.DataFrame, bundle: ModelBundle | str, baselines: tuple[Any, ...]) -> Errors | str:
    if isinstance(bundle, str):
        return bundle
    scored = score_rows(rows, bundle, "one_step")
    missing = int((scored["status"] != PREDICTED).sum())
    if missing:
        return f"it cannot predict {missing:,} of the {len(scored):,} rows"
    with np.errstate(over="ignore"):
        errors = _evaluated(scored["symbol"], scored["val_open"], scored["pred_open"], baselines).network
    return errors if np.isfinite([errors.mae, errors.rmse, errors.mre]).all() else "it is off beyond all numbers"


def _evaluated(symbols: pd.Series, observed: pd.Series, predicted: Any, baselines: tuple[Any, ...]) -> Comparison:
    columns = (observed.to_numpy(np.float64), np.asarray(predicted, np.float64), *baselines)
    return evaluate(symbols.to_numpy(), *columns).overall
