"""A model bundle applied to rows: the one path for files, forecasts, evaluation and replay.

A prediction for row t is made from the rows before t of the same series and from nothing else.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from crypto_ml.forecasting.answers import BESIDE, PREDICTIONS
from crypto_ml.forecasting.bundle import ModelBundle
from crypto_ml.forecasting.columns import Columns, Rows
from crypto_ml.forecasting.features import (
    BoolArray,
    FloatArray,
    IntArray,
    RowsT,
    add_levels,
    feature_block,
    gaps,
    series_starts,
)
from crypto_ml.forecasting.fingerprint import Sees, Witness
from crypto_ml.forecasting.folded import FoldedSeries
from crypto_ml.forecasting.intervals import DEFAULT_LEVEL
from crypto_ml.forecasting.relative_answers import WITHOUT_BOUNDS, Measured, RelativeAnswers, predicted
from crypto_ml.forecasting.running import Seeds, rows_before
from crypto_ml.forecasting.scaled_by import BY_MODEL, BY_OWN_ROWS, UNSCALED, other_coins
from crypto_ml.forecasting.scaling import OwnStatistics, SeriesStatistics, own_statistics
from crypto_ml.forecasting.schema import MINIMUM_OWN_ROWS, PRICES, Recovery
from crypto_ml.forecasting.windows import WindowArray, as_input, window_rows, windows

if TYPE_CHECKING:
    import pandas as pd

PREDICTED, SEED = "predicted", "seed"


SCORED: Final = pa.schema(
    [
        ("file", pa.int32()),
        ("symbol", pa.string()),
        ("index", pa.int64()),
        ("date", pa.date32()),
        ("pred_open", pa.float64()),
        ("val_open", pa.float64()),
        ("status", pa.string()),
        ("scaled_by", pa.string()),
        ("line", pa.int64()),
    ]
)
"""An answered row: its series of its file, its number (0, 1, 2 …) there, what was predicted and what was observed (the
upload's currency), `predicted` or `seed` (too few earlier rows exist: pred_open = open), what scaled it, its line."""


def scored_by(bundle: ModelBundle) -> pa.Schema:
    """SCORED, and BESIDE where the bundle has a serving rule."""
    return SCORED if bundle.rule is None else pa.schema([*SCORED, *BESIDE])


def predictions_of(bundle: ModelBundle) -> pa.Schema:
    """The columns of a file of predictions by a bundle."""
    return PREDICTIONS if bundle.rule is None else pa.schema([*PREDICTIONS, *BESIDE])


def witness_of(bundle: ModelBundle) -> Witness:
    """Who sees what predictions of a bundle are made from."""
    return Witness((), ()) if bundle.pooled else Witness(bundle.statistics.columns, bundle.features)


def score_tables(
    chunks: Iterable[pa.Table],
    bundle: ModelBundle,
    recovery: Recovery,
    witness: Sees | None = None,
    folded: FoldedSeries | None = None,
    *,
    level: float = DEFAULT_LEVEL,
) -> Iterator[pa.Table]:
    """Predict the open of every row that is not context.

    chunks: sorted rows as from `sorting.RowSorter.chunk_tables`, whole series, with the OBSERVATION columns, `file`,
    `line` and `context`. Rows marked `context` only help to predict the others; a row whose prices are missing stands
    for a day that is still to come. Yields, for each chunk, its answered rows in the same order, in the columns that
    `scored_by` names. A `witness` sees what the predictions are made from. folded: the states of series of which the
    chunks do not have the first rows, but LOOK_BACK or more before the first row that is not context. level: of the
    intervals.
    """
    for rows in chunks:
        columns = _with_levels(Columns.of(rows.select(_READ)), bundle)
        asked = ~np.asarray(rows["context"].to_numpy(), bool)
        see = None if witness is None else partial(witness.see, rows)
        made = _answered(columns, asked, bundle, recovery, level, see=see, folded=folded)
        of_asked = rows if asked.all() else rows.filter(pa.array(asked))
        if not of_asked.num_rows:
            continue
        status = pc.if_else(pa.array(made.made), PREDICTED, SEED)
        opens = pa.array(columns["open"][asked])
        where = (of_asked[name] for name in ("file", "symbol"))
        scaled_by = pa.array(made.scaled_by, pa.string())
        values = [*where, made.index, of_asked["date"], made.price, opens, status, scaled_by, of_asked["line"]]
        yield pa.table([*values, *made.beside_columns()], schema=scored_by(bundle))


_READ: Final = ("file", "symbol", "date", *PRICES, "market", "slug")


def features_of(rows: pa.Table, bundle: ModelBundle, states: pa.Table | None) -> FloatArray:
    """What a witness of `score_tables` is shown of a chunk, for who has its rows and the states of its series: the
    features that its predictions are made from."""
    columns = _with_levels(Columns.of(rows.select(_READ)), bundle)
    starts = series_starts(_series_numbers(columns))
    if bundle.rule is not None:
        return Measured.of(columns, starts, np.flatnonzero(~np.asarray(rows["context"].to_numpy(), bool))).seen()
    return _block(columns, starts, bundle, None if states is None else Seeds.of(states, bundle.statistics.columns))


def score(
    chunks: Iterable["pd.DataFrame"], bundle: ModelBundle, recovery: Recovery, level: float = DEFAULT_LEVEL
) -> Iterator["pd.DataFrame"]:
    """`score_tables` for frames, in frames."""
    for chunk in chunks:
        answered = score_rows(chunk, bundle, recovery, level)
        if len(answered):
            yield answered


def score_rows(
    rows: "pd.DataFrame", bundle: ModelBundle, recovery: Recovery, level: float = DEFAULT_LEVEL
) -> "pd.DataFrame":
    """`score` for one chunk."""
    asked = ~np.asarray(rows["context"], bool)
    made = _answered(_with_levels(rows, bundle), asked, bundle, recovery, level)
    answers = rows.loc[asked, ["file", "symbol", "date"]].reset_index(drop=True)
    answers.insert(2, "index", made.index)
    return answers.assign(
        pred_open=made.price,
        val_open=rows["open"].to_numpy(np.float64)[asked],
        status=np.where(made.made, PREDICTED, SEED),
        scaled_by=made.scaled_by,
        line=rows.loc[asked, "line"].to_numpy(),
        **made.beside,
    )


@dataclass(frozen=True, eq=False)
class Answered:
    """For each of m rows: its number within its series, the predicted open (the open, where there is no prediction),
    whether there is one, who scaled it; where the bundle has a serving rule what is said beside it, by the names of
    BESIDE, NaN where there is nothing to say."""

    index: IntArray
    price: FloatArray
    made: BoolArray
    scaled_by: np.ndarray
    beside: Mapping[str, FloatArray] = field(default_factory=dict)

    def beside_columns(self) -> list[pa.Array]:
        """What is said beside the opens as columns of a table, null where there is nothing to say."""
        return [pa.array(values, from_pandas=True) for values in self.beside.values()]


def score_columns(rows: Columns, bundle: ModelBundle, recovery: Recovery, level: float = DEFAULT_LEVEL) -> Answered:
    """`score` for one chunk without context, as arrays."""
    return _answered(_with_levels(rows, bundle), np.ones(len(rows), bool), bundle, recovery, level)


def _with_levels(rows: RowsT, bundle: ModelBundle) -> RowsT:
    return rows if bundle.pooled else add_levels(rows)


See = Callable[[FloatArray, pa.Table | None], None]


def _answered(
    rows: Rows,
    asked: BoolArray,
    bundle: ModelBundle,
    recovery: Recovery,
    level: float,
    *,
    see: See | None = None,
    folded: FoldedSeries | None = None,
) -> Answered:
    numbers = _series_numbers(rows)
    starts = series_starts(numbers)
    first = series_starts(numbers[asked])
    if bundle.rule is not None:
        measured = Measured.of(rows, starts, np.flatnonzero(asked), np.asarray(rows["date"]))
        if see:
            see(measured.seen(), None)
        return _relatively_answered(predicted(measured, bundle, bundle.rule, level), measured, first, recovery)
    states = None if folded is None else folded.of(rows, starts)
    seeds = None if states is None else Seeds.of(states, bundle.statistics.columns)
    block = _block(rows, starts, bundle, seeds)
    if see:
        see(block, states)
    prediction = _predict_changes(rows, block, starts, asked, bundle, seeds=seeds)
    opens = np.asarray(rows["open"], np.float64)
    previous = np.concatenate([[np.nan], opens[:-1]])
    one_step = np.where(prediction.made, previous + prediction.change, opens)
    price = one_step[asked]
    if recovery == "cumulative":
        price = _cumulative(opens[asked], (one_step - previous)[asked], prediction.made[asked], first)
    return Answered(np.arange(len(first)) - first, price, prediction.made[asked], prediction.scaled_by[asked])


def _block(rows: Rows, starts: IntArray, bundle: ModelBundle, seeds: Seeds | None) -> FloatArray:
    return feature_block(rows, starts, bundle.features, None if seeds is None else seeds.last)


def _relatively_answered(said: RelativeAnswers, measured: Measured, first: IntArray, recovery: Recovery) -> Answered:
    """`_answered` by a bundle with a serving rule. first: for each asked row the first one of its series."""
    at, opens = measured.at, measured.rows["open"]
    made = np.isfinite(said.price)
    price, beside = np.where(made, said.price, opens[at]), said.beside
    if recovery == "cumulative":
        price = _cumulative(opens[at], price - opens[np.maximum(at - 1, 0)], made, first)
        beside = {**beside, **dict.fromkeys(WITHOUT_BOUNDS, np.full(len(at), np.nan))}
    scaled_by = np.full(len(at), UNSCALED, dtype=object)
    scaled_by[made] = BY_MODEL
    return Answered(np.arange(len(first)) - first, price, made, scaled_by, beside)


def _series_numbers(rows: Rows) -> IntArray:
    """A number for each run of equal file and symbol, shape (n,)."""
    changed = np.ones(len(rows), bool)
    for name in ("file", "symbol"):
        values = np.asarray(rows[name])
        changed[1:] &= values[1:] == values[:-1]
    changed[1:] = ~changed[1:]
    return np.cumsum(changed)


@dataclass(frozen=True, eq=False)
class _Prediction:
    """For each of n rows: whether a prediction was made, the predicted change of the open (currency), who scaled it."""

    made: BoolArray
    change: FloatArray
    scaled_by: np.ndarray


def _predict_changes(
    rows: Rows,
    block: FloatArray,
    starts: IntArray,
    asked: BoolArray,
    bundle: ModelBundle,
    *,
    seeds: Seeds | None,
) -> _Prediction:
    n = len(rows)
    codes = _codes(rows, starts, bundle, seeds)
    earlier = rows_before(starts, seeds)
    by_model = np.flatnonzero(asked & (codes >= 0) & (earlier >= 1))
    by_own = np.flatnonzero(asked & (codes < 0) & (earlier >= MINIMUM_OWN_ROWS))
    change = np.full(n, np.nan)
    if len(by_model):
        statistics = bundle.statistics
        scaled = windows(statistics.scale_block(block, codes), starts, by_model)
        change[by_model] = _to_currency(bundle, rows, by_model, scaled, _Inverse.of(statistics, codes[by_model]))
    if len(by_own):
        gap = gaps(rows, starts, None if seeds is None else seeds.last["close"])
        own = own_statistics(block, gap, starts, bundle.statistics.columns, seeds)
        scaled = _own_windows(block, own, starts, by_own)
        change[by_own] = _to_currency(bundle, rows, by_own, scaled, _Inverse.of(own, by_own))
    scaled_by = np.full(n, UNSCALED, dtype=object)
    scaled_by[by_model] = BY_MODEL
    scaled_by[by_own] = BY_OWN_ROWS
    return _Prediction(np.isfinite(change), change, scaled_by)


def _codes(rows: Rows, starts: IntArray, bundle: ModelBundle, seeds: Seeds | None) -> IntArray:
    """Position of each row's series in the scaler, −1 where the model does not scale it (see `scaled_by`)."""
    begins = starts == np.arange(len(starts))
    codes = bundle.statistics.codes(np.asarray(rows["symbol"], object)[begins])[np.cumsum(begins) - 1]
    other = other_coins(rows, starts, bundle.slugs, () if seeds is None else seeds.slugs)
    return np.where(other, -1, codes)


def _to_currency(bundle: ModelBundle, rows: Rows, at: IntArray, scaled: WindowArray, inverse: "_Inverse") -> FloatArray:
    """The predicted change of the open of the rows `at`, shape (m,), from the network's output (see schema.Target)."""
    output: FloatArray = bundle.network.predict(scaled)
    if bundle.target == "change":
        return output * inverse.scale + inverse.mean
    last_close = np.asarray(rows["close"], np.float64)[at - 1]
    last_open = np.asarray(rows["open"], np.float64)[at - 1]
    return np.asarray(last_close + output * inverse.gap_scale - last_open, np.float64)


@dataclass(frozen=True, eq=False)
class _Inverse:
    """What undoes the scaling of each of m targets: mean and scale of `v_open`, and of the gap, (m,), currency."""

    mean: FloatArray
    scale: FloatArray
    gap_scale: FloatArray

    @classmethod
    def of(cls, statistics: SeriesStatistics | OwnStatistics, at: IntArray) -> "_Inverse":
        v_open = statistics.v_open
        return cls(statistics.mean[at, v_open], statistics.scale[at, v_open], statistics.gap_scale[at])


def _own_windows(block: FloatArray, own: OwnStatistics, starts: IntArray, at: IntArray) -> WindowArray:
    """Windows of rows `at`, each scaled by the statistics of the rows before that row: shape (m, 5, k), float32."""
    index, exists = window_rows(starts, at)
    gathered = block[index]
    width = len(own.columns)
    gathered[..., :width] = (gathered[..., :width] - own.mean[at][:, None]) / own.scale[at][:, None]
    gathered[~exists] = 0.0
    return as_input(gathered)


def _cumulative(opens: FloatArray, change: FloatArray, made: BoolArray, first: IntArray) -> FloatArray:
    """First open of the series in the file + running sum of predicted changes; the first row's change counts as 0.

    Where no prediction could be made the observed change stands in, so that such rows show their open. Each series is
    summed by itself, so that its last bits do not depend on its neighbours.
    """
    observed = np.concatenate([[0.0], np.diff(opens)])
    steps = np.where(made, change, observed)
    price = np.empty_like(opens)
    bounds = np.append(np.flatnonzero(first == np.arange(len(first))), len(opens))
    for begin, end in pairwise(bounds):
        price[begin] = opens[begin]
        price[begin + 1 : end] = opens[begin] + np.cumsum(steps[begin + 1 : end])
    return np.where(made, price, opens)
