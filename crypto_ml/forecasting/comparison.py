"""Models side by side: how far off each of them is on the same rows, beside the two predictions that cost nothing.

On its own holdout every model is measured on other days, and days differ more than models do. The rows here are the
same for all: those of the last DAYS days of a history, or of as many of them as none of the models was fitted on, where
that is FEWEST_DAYS at least. Where it is less, the models that were fitted on some of the rows are marked. What is said
of each on these rows is a word (see `verdicts`), against the last close and against the champion.
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
from crypto_ml.forecasting.holdout_verdicts import Judged, against_last_close, against_model
from crypto_ml.forecasting.schema import MINIMUM_OWN_ROWS
from crypto_ml.forecasting.scoring import PREDICTED, score_rows
from crypto_ml.forecasting.verdicts import ADVISED_DAYS

DAYS: Final = ADVISED_DAYS
FEWEST_DAYS: Final = 7

Fitted = Literal["no", "yes", "unknown"]
"""Whether a model was fitted on some of the rows that it is measured on."""


class NothingToCompareOn(Refused):
    """A history without rows that models could be measured on."""


@dataclass(frozen=True)
class Measured:
    """One model on the common rows. errors: None where it could not be measured, for the reason in `why`.

    last_close, champion: the word against either; the second is None for the champion itself, and where it could not
    be measured.
    """

    version: str
    fitted: Fitted
    errors: Errors | None
    why: str = ""
    last_close: Judged | None = None
    champion: Judged | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain dicts, texts, numbers and None, for JSON."""
        said = {"last_close": self.last_close, "champion": self.champion}
        return {
            "version": self.version,
            "fitted": self.fitted,
            "errors": self.errors and asdict(self.errors),
            "why": self.why,
            "verdicts": {name: judged and judged.judgement.to_dict() for name, judged in said.items()},
        }


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
        return {
            "first_day": str(self.first_day),
            "last_day": str(self.last_day),
            "rows": self.rows,
            "series": self.series,
            "models": [one.to_dict() for one in self.models],
            "last_close": asdict(self.last_close),
            "last_open": asdict(self.last_open),
        }


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
    rows: pd.DataFrame,
    first_day: date,
    bundles: Mapping[str, ModelBundle | str],
    source: str,
    champion: str | None = None,
) -> SideBySide:
    """Measure models on the rows since `first_day` that have MINIMUM_OWN_ROWS rows before them: every model that works
    predicts each of those, whatever series its scaler knows.

    rows: OBSERVATION columns, whole series, sorted by symbol and date. bundles: by version, or why there is none.
    champion: the version that the others are judged against. Raises NothingToCompareOn.
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
    last_open, last_close = (before[name].to_numpy(np.float64) for name in ("open", "close"))
    naive = chosen.loc[asked, ["symbol", "date"]].assign(val_open=chosen.loc[asked, "open"], pred_open=last_close)
    naive = naive.assign(last_open=last_open, last_close=last_close)
    found = {version: _predicted(chosen, bundle, naive) for version, bundle in bundles.items()}
    of_champion = found.get(champion) if champion else None
    baseline = _evaluated(naive)
    return SideBySide(
        first_day=naive["date"].min().date(),
        last_day=naive["date"].max().date(),
        rows=baseline.rows,
        series=int(naive["symbol"].nunique()),
        models=tuple(
            _measured(
                version,
                "unknown" if isinstance(bundle, str) else fitted_on(bundle, first_day, source),
                found[version],
                None if version == champion or isinstance(of_champion, str) else of_champion,
            )
            for version, bundle in bundles.items()
        ),
        last_close=baseline.last_close,
        last_open=baseline.last_open,
    )


def _predicted(rows: pd.DataFrame, bundle: ModelBundle | str, naive: pd.DataFrame) -> pd.DataFrame | str:
    """The rows of `naive` with what a model predicts of them; or why there is no saying."""
    if isinstance(bundle, str):
        return bundle
    scored = score_rows(rows, bundle, "one_step")
    missing = int((scored["status"] != PREDICTED).sum())
    if missing:
        return f"it cannot predict {missing:,} of the {len(scored):,} rows"
    return naive.assign(pred_open=scored["pred_open"].to_numpy(np.float64))


def _measured(
    version: str, fitted: Fitted, predicted: pd.DataFrame | str, of_champion: pd.DataFrame | None
) -> Measured:
    if isinstance(predicted, str):
        return Measured(version, fitted, None, predicted)
    with np.errstate(over="ignore"):
        errors = _evaluated(predicted).network
    if not np.isfinite([errors.mae, errors.rmse, errors.mre]).all():
        return Measured(version, fitted, None, "it is off beyond all numbers")
    champion = None if of_champion is None else against_model(predicted, of_champion, "the champion")
    return Measured(version, fitted, errors, "", against_last_close(predicted), champion)


def _evaluated(rows: pd.DataFrame) -> Comparison:
    columns = (rows[name].to_numpy(np.float64) for name in ("val_open", "pred_open", "last_open", "last_close"))
    return evaluate(rows["symbol"].to_numpy(), *columns).overall
