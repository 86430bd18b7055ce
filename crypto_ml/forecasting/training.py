"""From market history to a model bundle: split by time, fit the scaler, train, prove the export, evaluate.

Three spans of time, in this order: the scaler and the network are fitted on the first, the number of epochs is chosen
on the second, and on the third, the holdout, nothing is fitted at all.
"""

import hashlib
import json
import platform
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from crypto_ml.errors import Refused
from crypto_ml.extras import can_draw, require_training
from crypto_ml.forecasting.bundle import TRAINING_MANIFEST, ModelBundle, make_bundle
from crypto_ml.forecasting.evaluation import (
    Evaluation,
    Verdict,
    beats_baseline_verdict,
    evaluate,
    holdout_size_verdict,
    onnx_verdict,
)
from crypto_ml.forecasting.features import BoolArray, FloatArray, IntArray, add_levels, feature_block, gaps
from crypto_ml.forecasting.features import series_starts as starts_of
from crypto_ml.forecasting.model_card import model_card
from crypto_ml.forecasting.network import ONNX_TOLERANCE, agreement, export_onnx, fit, save_keras, weights_sha256
from crypto_ml.forecasting.pictures import holdout_by_symbol, loss_curve, predicted_against_actual
from crypto_ml.forecasting.progress import Tell, tell_nobody
from crypto_ml.forecasting.scaling import V_OPEN, SeriesStatistics
from crypto_ml.forecasting.schema import FEATURES, MINIMUM_OWN_ROWS, PRICES, SCALED, Target
from crypto_ml.forecasting.scoring import PREDICTED, score_rows
from crypto_ml.forecasting.sketches import Series
from crypto_ml.forecasting.windows import DrawnWindows, WindowArray, as_input, cut

SHARES: Final = (0.7, 0.15)
"""Shares of the rows that end the training span, and the validation span behind it; no day is cut in two."""

ROWS_AT_ONCE: Final = 100_000
"""Rows whose features are computed at once."""

METRICS: Final = "metrics.json"
LIBRARIES: Final = (
    *("tensorflow-cpu", "tensorflow"),  # the same library, under the name that its build has for this machine
    *("keras", "onnx", "onnxruntime", "scikit-learn", "numpy", "pandas"),
)


class TooLittleHistory(Refused):
    """A history from which no model can be trained."""


@dataclass(frozen=True)
class Split:
    """First days of the validation span and of the holdout; training rows are those before both."""

    validation_from: date
    holdout_from: date


@dataclass(frozen=True)
class Plan:
    """What a training run may vary.

    most_windows: so many windows an epoch takes at most. drawn: where there are more, whether a seeded sample is drawn
    once, which every epoch takes (as up to 0.3), or each epoch takes others, until all were taken.
    """

    target: Target = "gap"
    seed: int = 20180325
    epochs: int = 10
    batch_size: int = 512
    learning_rate: float = 1e-3
    most_windows: int = 1_000_000
    drawn: Literal["once", "each epoch"] = "once"


@dataclass(frozen=True)
class Trained:
    """A bundle, and the verdicts on it; `onnx` must pass before anything may serve it.

    loss: `loss` and `val_loss`, one number for each epoch. longest: the series with most rows in the holdout.
    """

    bundle: ModelBundle
    evaluation: Evaluation
    onnx: Verdict
    baseline: Verdict
    loss: Mapping[str, Sequence[float]]
    longest: Series
    holdout_size: Verdict


def split_by_time(dates: pd.Series) -> Split:
    """Where the spans begin, chosen so that they hold about SHARES of the rows. Raises TooLittleHistory."""
    return _split(np.sort(dates.to_numpy("datetime64[D]")))


def first_trainable(rows: pd.DataFrame, ends: Iterable[date]) -> date | None:
    """The first of `ends` (ascending) with rows enough before it for a split and a scaler; None where none has.

    rows: symbol and date, sorted by both; as `split_by_time` and `fit_scaler` would be given those before that day.
    """
    days = rows["date"].to_numpy("datetime64[D]")
    ordered = np.sort(days)
    place = rows.groupby("symbol", sort=False).cumcount().to_numpy()
    enough = days[place == MINIMUM_OWN_ROWS - 1]  # when each series had the rows that a scaler needs
    for end in ends if len(enough) else ():
        try:
            split = _split(ordered[: np.searchsorted(ordered, np.datetime64(end))])
        except TooLittleHistory:
            continue
        if enough.min() < np.datetime64(split.validation_from):
            return end
    return None


def _split(ordered: npt.NDArray[np.datetime64]) -> Split:
    if not len(ordered):
        raise TooLittleHistory("there is no market history to train on; drop files into uploads/ first")
    cuts = [ordered[min(int(len(ordered) * share), len(ordered) - 1)] for share in (SHARES[0], sum(SHARES))]
    if not ordered[0] < cuts[0] < cuts[1] <= ordered[-1]:
        raise TooLittleHistory(
            f"the market history reaches from {ordered[0]} to {ordered[-1]}, which cannot be split into training, "
            "validation and holdout; a model needs some weeks of it"
        )
    return Split(*(cut.astype(date) for cut in cuts))


def rows_sha256(rows: pd.DataFrame) -> str:
    """The identity of a training set: sha256 over symbols, dates, prices and market, in order."""
    digest = hashlib.sha256()
    symbols = rows["symbol"]
    for begin in range(0, len(symbols), ROWS_AT_ONCE):
        digest.update((("\n" if begin else "") + "\n".join(symbols.iloc[begin : begin + ROWS_AT_ONCE])).encode())
    digest.update(b"\0" + rows["date"].to_numpy("datetime64[D]").astype("<i8").tobytes())
    for name in (*PRICES, "market"):
        digest.update(b"\0" + rows[name].to_numpy("<f8").tobytes())
    return digest.hexdigest()


def groups_of_series(rows: pd.DataFrame) -> Iterator[pd.DataFrame]:
    """Rows sorted by symbol in pieces of whole series, about ROWS_AT_ONCE rows each: what is computed of a series does
    not change a bit with those beside it, and what it is computed in takes several times the memory of its rows."""
    begins = _begins(rows)
    wanted = np.searchsorted(begins, np.arange(0, max(len(rows), 1), ROWS_AT_ONCE))
    cuts = [*dict.fromkeys(begins[wanted[wanted < len(begins)]].tolist()), len(rows)]
    for begin, end in pairwise(cuts):
        yield rows.iloc[begin:end]


def _begins(rows: pd.DataFrame) -> IntArray:
    """Where the series of sorted rows begin."""
    codes = pd.factorize(rows["symbol"])[0]
    return np.flatnonzero(np.append(True, codes[1:] != codes[:-1])) if len(rows) else np.zeros(0, np.int64)


def fit_scaler(rows: pd.DataFrame, split: Split) -> SeriesStatistics:
    """Statistics of each series' training rows, and of no others.

    rows: OBSERVATION columns, sorted by symbol and date. Series with fewer than MINIMUM_OWN_ROWS training rows get
    none; when scored they count as never seen. Raises TooLittleHistory where that leaves no series, NotInstalled where
    the libraries of training are missing.
    """
    require_training("Training")
    from crypto_ml.forecasting.scaler_estimator import SeriesStandardScaler

    fitted: list[SeriesStatistics] = []
    for group in groups_of_series(rows):
        levels = add_levels(group)
        starts = starts_of(levels["symbol"])
        features = pd.DataFrame(feature_block(levels, starts)[:, : len(SCALED)], columns=list(SCALED))
        features = features.assign(symbol=levels["symbol"].to_numpy(), gap=gaps(levels, starts))
        training = features[_before(levels, split.validation_from)]
        enough = training["symbol"].map(training["symbol"].value_counts()) >= MINIMUM_OWN_ROWS
        if enough.any():
            fitted.append(SeriesStandardScaler().fit(training[enough]).statistics_)
    if not fitted:
        raise TooLittleHistory(f"no series has {MINIMUM_OWN_ROWS} rows before {split.validation_from} to train on")
    symbols = [symbol for one in fitted for symbol in one.symbols]
    order = sorted(range(len(symbols)), key=symbols.__getitem__)
    mean, scale, gap_scale = (
        np.concatenate([getattr(one, name) for one in fitted])[order] for name in ("mean", "scale", "gap_scale")
    )
    return SeriesStatistics(tuple(symbols[at] for at in order), mean, scale, gap_scale)


def train(
    rows: pd.DataFrame,
    split: Split,
    statistics: SeriesStatistics,
    plan: Plan,
    *,
    label: str,
    manifest: Mapping[str, Any],
    created_at: str,
    tell: Tell = tell_nobody,
) -> Trained:
    """Train a network on `rows` (as for `fit_scaler`) and put the bundle together.

    manifest: what identifies the training set, kept in the bundle. label: what the version starts with. created_at:
    ISO 8601, shown. tell: who is told how far the fit is. The same rows, split, statistics and plan give the same
    weights. Where pictures cannot be drawn the bundle has none. Raises TooLittleHistory, NotInstalled.
    """
    require_training("Training")
    examples = _examples(rows, statistics, plan.target)
    learnt_from = examples.between(None, split.validation_from)
    train_x: WindowArray | DrawnWindows
    train_y: npt.NDArray[np.float32] | None
    if plan.drawn == "each epoch" and len(learnt_from.at) > plan.most_windows:
        train_x, train_y = learnt_from.drawn(plan), None
    else:
        train_x, train_y = learnt_from.arrays(plan)
    valid_x, valid_y = examples.between(split.validation_from, split.holdout_from).arrays(plan)
    if not len(learnt_from.at) or not len(valid_y):
        raise TooLittleHistory("no training or no validation row has an earlier row of its series")
    fitted = fit(
        train_x, train_y, valid_x, valid_y, seed=plan.seed, target=plan.target, epochs=plan.epochs,
        batch_size=plan.batch_size, learning_rate=plan.learning_rate, tell=tell,
    )  # fmt: skip
    with TemporaryDirectory(prefix="crypto_ml-train-") as name:
        onnx, keras = Path(name) / "network.onnx", Path(name) / "network.keras"
        export_onnx(fitted.model, onnx)
        save_keras(fitted.model, keras)
        difference = agreement(fitted.model, onnx, valid_x)
        network, trainable = onnx.read_bytes(), keras.read_bytes()
    onnx_equal = onnx_verdict(difference, ONNX_TOLERANCE)
    parts: dict[str, Any] = {
        "label": label,
        "target": plan.target,
        "scaler": statistics,
        "slugs": _slugs(rows),
        "network_onnx": network,
        "weights_sha256": weights_sha256(fitted.model),
        "about": {
            "origin": "trained",
            "created_at": created_at,
            "plan": asdict(plan),
            "libraries": _libraries(),
            "python": platform.python_version(),
        },
    }
    kept_manifest = json.dumps(dict(manifest), indent=2).encode() + b"\n"
    unproven = make_bundle(**parts, documents={TRAINING_MANIFEST: kept_manifest})
    holdout = holdout_predictions(rows, split, unproven)
    evaluation, longest = _evaluate(holdout), _longest(holdout)
    baseline, size = beats_baseline_verdict(evaluation), holdout_size_verdict(evaluation.overall.rows)
    metrics = {
        "holdout": evaluation.to_dict(),
        "loss": fitted.history,
        "best_epoch": fitted.best_epoch,
        "checks": {
            "onnx_equals_keras": asdict(onnx_equal),
            "enough_holdout_rows": asdict(size),
            "no_worse_than_last_close": asdict(baseline),
        },
    }
    documents = {
        TRAINING_MANIFEST: kept_manifest,
        METRICS: json.dumps(metrics, indent=2).encode() + b"\n",
        "network.keras": trainable,
        "MODEL_CARD.md": model_card(unproven, evaluation, baseline).encode(),
    }
    if can_draw():
        documents |= {
            "pictures/loss.png": loss_curve(fitted.history),
            "pictures/holdout.png": holdout_by_symbol(evaluation),
            "pictures/predictions.png": _picture(longest),
        }
    bundle = make_bundle(**parts, documents=documents)
    return Trained(bundle, evaluation, onnx_equal, baseline, fitted.history, longest, size)


def _libraries() -> dict[str, str]:
    found = {}
    for name in LIBRARIES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def holdout_predictions(rows: pd.DataFrame, split: Split, bundle: ModelBundle) -> pd.DataFrame:
    """What the bundle predicts for the holdout, on the road every upload takes.

    Columns of `scoring.score`, and the baselines `last_open` and `last_close` (currency).
    """
    found = []
    for group in groups_of_series(rows):
        asked = group.assign(file=0, line=0, context=_before(group, split.holdout_from))
        before = group.groupby("symbol", sort=False)[["open", "close"]].shift(1)[~asked["context"]]
        scored = score_rows(asked, bundle, "one_step")
        scored = scored.assign(last_open=before["open"].to_numpy(), last_close=before["close"].to_numpy())
        found.append(scored[scored["status"] == PREDICTED])
    predicted = pd.concat(found, ignore_index=True) if found else rows
    if predicted.empty:
        raise TooLittleHistory(f"no row from {split.holdout_from} on can be predicted, so nothing can be evaluated")
    return predicted


def compare_on_holdout(
    rows: pd.DataFrame, split: Split, one: ModelBundle, other: ModelBundle
) -> tuple[Evaluation, Evaluation]:
    """Both bundles on the holdout rows that both can predict. Raises TooLittleHistory where there is none."""
    keys = ["symbol", "date"]
    ours, theirs = (holdout_predictions(rows, split, bundle) for bundle in (one, other))
    both = ours[keys].merge(theirs[keys], on=keys)
    if both.empty:
        raise TooLittleHistory(f"{one.version} and {other.version} can predict no row of the holdout in common")
    evaluations = [_evaluate(made.merge(both, on=keys, how="right")) for made in (ours, theirs)]
    return evaluations[0], evaluations[1]


def _evaluate(holdout: pd.DataFrame) -> Evaluation:
    columns = [holdout[name].to_numpy(np.float64) for name in ("val_open", "pred_open", "last_open", "last_close")]
    return evaluate(holdout["symbol"].to_numpy(), *columns)


def _longest(holdout: pd.DataFrame) -> Series:
    symbol = holdout["symbol"].value_counts(sort=True).index[0]
    rows = holdout[holdout["symbol"] == symbol]
    observed, predicted = (rows[name].to_numpy(np.float64) for name in ("val_open", "pred_open"))
    return Series(str(symbol), rows["date"].to_numpy("datetime64[D]"), observed, predicted)


def _picture(series: Series) -> bytes:
    return predicted_against_actual(series.days, series.observed, series.predicted, f"{series.symbol}, holdout")


@dataclass(frozen=True, eq=False)
class _Examples:
    """Rows that can be learnt from: their position `at`, date and target, and what their windows are cut from."""

    inputs: WindowArray
    starts: IntArray
    at: IntArray
    dates: npt.NDArray[np.datetime64]
    target: FloatArray

    def between(self, first: date | None, end: date) -> "_Examples":
        inside = self.dates < np.datetime64(end)
        if first:
            inside &= self.dates >= np.datetime64(first)
        return _Examples(self.inputs, self.starts, self.at[inside], self.dates[inside], self.target[inside])

    def arrays(self, plan: Plan) -> tuple[WindowArray, npt.NDArray[np.float32]]:
        """Windows (n, 5, 13) and targets (n,), float32; a seeded sample where there are more than the plan takes."""
        chosen = np.arange(len(self.at))
        if len(chosen) > plan.most_windows:
            sample = np.random.default_rng(plan.seed).choice(len(chosen), plan.most_windows, replace=False)
            chosen = np.sort(sample)
        return cut(self.inputs, self.starts, self.at[chosen]), self.target[chosen].astype(np.float32)

    def drawn(self, plan: Plan) -> DrawnWindows:
        """Windows and targets, to be drawn anew for each epoch."""
        targets = self.target.astype(np.float32)
        return DrawnWindows(self.inputs, self.starts, self.at, targets, plan.most_windows, plan.seed)


def _examples(rows: pd.DataFrame, statistics: SeriesStatistics, target: Target) -> _Examples:
    inputs = np.empty((len(rows), len(FEATURES)), np.float32)
    starts = np.empty(len(rows), np.int64)
    at, dates, values = [np.zeros(0, np.int64)], [np.zeros(0, "datetime64[D]")], [np.zeros(0)]
    begin = 0
    for group in groups_of_series(rows):
        some = _examples_of(add_levels(group), statistics, target)
        end = begin + len(group)
        inputs[begin:end], starts[begin:end] = some.inputs, some.starts + begin
        at.append(some.at + begin)
        dates.append(some.dates)
        values.append(some.target)
        begin = end
    return _Examples(inputs, starts, *(np.concatenate(parts) for parts in (at, dates, values)))


def _examples_of(rows: pd.DataFrame, statistics: SeriesStatistics, target: Target) -> _Examples:
    starts = starts_of(rows["symbol"])
    block = feature_block(rows, starts)
    codes = statistics.codes(rows["symbol"])
    at = np.flatnonzero((codes >= 0) & (np.arange(len(rows)) > starts))
    known = codes[at]
    if target == "change":
        moved, v_open = block[at, FEATURES.index(V_OPEN)], statistics.v_open
        values = (moved - statistics.mean[known, v_open]) / statistics.scale[known, v_open]
    else:
        values = gaps(rows, starts)[at] / statistics.gap_scale[known]
    dates = rows["date"].to_numpy("datetime64[D]")[at]
    return _Examples(as_input(statistics.scale_block(block, codes)), starts, at, dates, values)


def _before(rows: pd.DataFrame, day: date) -> BoolArray:
    return np.asarray(rows["date"].to_numpy("datetime64[D]") < np.datetime64(day))


def _slugs(rows: pd.DataFrame) -> dict[str, str]:
    """symbol → slug where the history knows it, so that a colliding symbol is noticed when the bundle serves."""
    given = rows.loc[rows["slug"].notna(), ["symbol", "slug"]].drop_duplicates("symbol")
    return dict(zip(given["symbol"], given["slug"], strict=True))
