"""Computes predictions again from rows and the bytes of a model, with numpy and onnxruntime and nothing else.

What is here is the arithmetic of docs/models.md, written once more: features, scaling, windows, the network, what the
model serves with beside it. The same operations in the same order, so that numbers come out to the last bit where
processor and libraries are those that are said in the receipt.

Rows stand together by series, in order of days. A prediction for a row is made from the rows before it, and nothing
else.
"""

import hashlib
import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

try:
    import numpy as np
    import onnxruntime
except ImportError as _missing:
    _MISSING: ImportError | None = _missing
else:
    _MISSING = None

WINDOW = 5
BATCH = 1024
MINIMUM_OWN_ROWS = 10
ROWS_AT_ONCE = 100_000

LEVELS = ("open", "high", "low", "close", "close_ratio", "spread")
STATIONARY = ("log_gap", "body", "upper_shadow", "lower_shadow", "close_position")

GAP_ROWS, HALF_LIFE, MOST_GAP, LEAST_GAP, FEWEST_GAPS = 20, 15.0, 0.1, 0.5e-4, 10
LEAST_RANGE, CLIPPED = 1e-4, 10.0
RANGE_DAYS, LEAST_LOG_RANGE, RANGE_LEVEL = (1, 5, 22), 1e-4, "0.90"
PAUSE_ROWS, PAUSE_LONGER = 20, 1.5


class CannotComputeError(Exception):
    """A model that this script does not know how to apply."""


def require() -> None:
    """Raises ImportError where numpy or onnxruntime is not installed."""
    if _MISSING is not None:
        raise _MISSING


@dataclass
class Made:
    """The answered rows, each with what is published of it, and the sha256 of the features of all rows."""

    rows: list[dict[str, Any]]
    feature_block: str


@dataclass
class Model:
    """A bundle's documents, and its network in onnxruntime."""

    manifest: Mapping[str, Any]
    scaler: Mapping[str, Any]
    rule: Mapping[str, Any] | None
    session: Any

    @property
    def features(self) -> list[str]:
        return list(self.manifest["features"])

    def outputs(self, windows: Any) -> Any:
        """What the network says of windows (m, 5, k) float32: (m,) float64."""
        name, found = self.session.get_inputs()[0].name, np.empty(len(windows), np.float64)
        for first in range(0, len(windows), BATCH):
            batch = np.ascontiguousarray(windows[first : first + BATCH])
            found[first : first + BATCH] = self.session.run(None, {name: batch})[0][:, 0]
        return found


def answers(
    columns: Mapping[str, Sequence[Any]],
    context: Sequence[bool],
    states: Sequence[Mapping[str, Any]],
    *,
    manifest: Mapping[str, Any],
    scaler: Mapping[str, Any],
    rule: Mapping[str, Any] | None,
    network: bytes,
    recovery: str,
    level: float,
) -> Made:
    """Everything that is said of the rows that are not context. columns: of all rows; days since 1970; None where a
    text is missing, NaN where a number is. states: of series whose first rows came as sums. Raises CannotComputeError.
    """
    if manifest["format"] not in (1, 2) or manifest["window"] != WINDOW:
        raise CannotComputeError(f"the model is of format {manifest['format']}, which this script does not know")
    if manifest["target"] == "relative_gap" and (tuple(manifest["features"]) != STATIONARY or rule is None):
        raise CannotComputeError("the model has features or a serving rule that this script does not know")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(network, options, providers=["CPUExecutionProvider"])
    model = Model(manifest, scaler, rule, session)
    digest, made = hashlib.sha256(), []
    by_symbol = {one["symbol"]: one for one in states}
    with np.errstate(all="ignore"):
        for some in _chunks(columns["symbol"]):
            rows = _Rows.of(columns, context, some, by_symbol)
            say = _relatively if manifest["target"] == "relative_gap" else _by_series
            block, said = say(rows, model, recovery, level)
            digest.update(np.where(np.isnan(block), np.nan, block).astype("<f8").tobytes())
            made += _as_rows(rows, said)
    return Made(made, digest.hexdigest())


def _chunks(symbols: Sequence[str]) -> Iterator[slice]:
    """Whole series, some rows at once."""
    begin = 0
    for at in range(1, len(symbols) + 1):
        if at == len(symbols) or (symbols[at] != symbols[at - 1] and at - begin >= ROWS_AT_ONCE):
            yield slice(begin, at)
            begin = at


@dataclass
class _Rows:
    """Columns of n rows of whole series. starts: (n,) the first row of the series of each. asked: (n,) which are
    answered. states: one for each series, or None."""

    of_name: dict[str, Any]
    symbols: list[str]
    slugs: list[str | None]
    lines: list[int]
    days: Any
    starts: Any
    asked: Any
    states: list[Mapping[str, Any] | None]

    @classmethod
    def of(
        cls, columns: Mapping[str, Sequence[Any]], context: Sequence[bool], some: slice, states: Mapping[str, Any]
    ) -> "_Rows":
        symbols = list(columns["symbol"][some])
        first = np.array([at == 0 or symbols[at] != symbols[at - 1] for at in range(len(symbols))], bool)
        numbers = {
            name: np.array(columns[name][some], np.float64) for name in ("open", "high", "low", "close", "market")
        }
        return cls(
            numbers,
            symbols,
            list(columns["slug"][some]),
            list(columns["line"][some]),
            np.array(columns["date"][some], np.int64),
            np.maximum.accumulate(np.where(first, np.arange(len(symbols)), 0)),
            ~np.array(context[some], bool),
            [states.get(symbols[at]) for at in np.flatnonzero(first)],
        )

    def __getitem__(self, name: str) -> Any:
        return self.of_name[name]

    def __len__(self) -> int:
        return len(self.symbols)

    @property
    def begins(self) -> Any:
        return np.flatnonzero(self.starts == np.arange(len(self)))


@dataclass
class _Said:
    """For the m asked rows: the open, whether it is a prediction, and what is said beside it."""

    price: Any
    made: Any
    beside: dict[str, Any]


def _as_rows(rows: _Rows, said: _Said) -> list[dict[str, Any]]:
    found, number, before = [], 0, None
    for place, at in enumerate(np.flatnonzero(rows.asked).tolist()):
        number = 0 if rows.symbols[at] != before else number + 1
        before = rows.symbols[at]
        found.append(
            {
                "symbol": before,
                "index": number,
                "date": int(rows.days[at]),
                "pred_open": float(said.price[place]),
                "val_open": float(rows["open"][at]),
                "status": "predicted" if said.made[place] else "seed",
                "line": rows.lines[at],
                "beside": {name: float(values[place]) for name, values in said.beside.items()},
            }
        )
    return found


def _as_input(values: Any) -> Any:
    narrowed = values.astype(np.float32)
    narrowed[~np.isfinite(narrowed)] = 0.0
    return narrowed


def _window_rows(starts: Any, at: Any) -> tuple[Any, Any]:
    index = at[:, None] + np.arange(-WINDOW, 0)[None, :]
    exists = index >= starts[at][:, None]
    return np.where(exists, index, at[:, None]), exists


def _cumulative(opens: Any, change: Any, made: Any, first: Any) -> Any:
    """The first open of a series and the running sum of its changes, observed ones where none was predicted."""
    observed = np.concatenate([[0.0], np.diff(opens)])
    steps, price = np.where(made, change, observed), np.empty_like(opens)
    bounds = np.append(np.flatnonzero(first == np.arange(len(first))), len(opens)).tolist()
    for begin, end in itertools.pairwise(bounds):
        price[begin] = opens[begin]
        price[begin + 1 : end] = opens[begin] + np.cumsum(steps[begin + 1 : end])
    return np.where(made, price, opens)


def _first_asked(rows: _Rows) -> Any:
    """For each asked row the first asked one of its series, by its place among them."""
    series = rows.starts[rows.asked]
    first = np.concatenate([[True], series[1:] != series[:-1]])[: len(series)]
    return np.maximum.accumulate(np.where(first, np.arange(len(series)), 0))


# models of the target relative_gap: one scaler for all series, and a serving rule


def _recent_mean(values: Any, starts: Any, at: Any) -> tuple[Any, Any]:
    """The weighted mean of the last GAP_ROWS values before each of the rows `at`, and of how many: (m,) each."""
    there = np.isfinite(values)
    known = np.where(there, values, 0.0)
    total, weight, count = np.zeros(len(at)), np.zeros(len(at)), np.zeros(len(at), np.int64)
    place = at - starts[at]
    for back in range(1, min(GAP_ROWS, int(place.max(initial=0))) + 1):
        weighs = 0.5 ** ((back - 1) / HALF_LIFE)
        before = np.maximum(at - back, 0)
        counts = there[before] & (place >= back)
        total += np.where(counts, weighs * known[before], 0.0)
        weight += np.where(counts, weighs, 0.0)
        count += counts
    return total / np.where(count > 0, weight, np.nan), count


def _log_gaps(rows: _Rows) -> Any:
    before = np.concatenate([[np.nan], rows["close"][:-1]])
    found = np.log(rows["open"]) - np.log(before)
    found[rows.begins] = np.nan
    return found


def _stationary_block(rows: _Rows) -> Any:
    o, h, low, c = (np.log(rows[name]) for name in ("open", "high", "low", "close"))
    spread = rows["high"] - rows["low"]
    position = np.where(spread > 0.0, (rows["close"] - rows["low"]) / np.where(spread > 0.0, spread, 1.0) - 0.5, 0.0)
    gap = _log_gaps(rows)
    gap[rows.begins] = 0.0
    return np.column_stack([gap, c - o, h - np.maximum(o, c), np.minimum(o, c) - low, position])


def _range_terms(log_range: Any, starts: Any, at: Any) -> Any:
    """The logarithm of the range of the day before, and its means over 5 and 22 days, of the rows `at`: (m, 3)."""
    values = np.log(np.maximum(log_range, LEAST_LOG_RANGE))
    found = np.full((len(at), len(RANGE_DAYS)), np.nan)
    enough = at - starts[at] >= RANGE_DAYS[-1]
    total = np.zeros(int(enough.sum()))
    for back in range(1, RANGE_DAYS[-1] + 1):
        total += values[at[enough] - back]
        if back in RANGE_DAYS:
            found[enough, RANGE_DAYS.index(back)] = total / back
    found[~np.isfinite(found).all(axis=1)] = np.nan
    return found


def _expected_range(terms: Any, rule: Mapping[str, Any]) -> tuple[Any, Any]:
    model = rule["range"]
    most = math.log(math.log(float(np.finfo(np.float64).max)) - math.log(math.ulp(0.0)))
    made = model["intercept"] + model["last"] * terms[:, 0]
    made = made + model["mean_5"] * terms[:, 1]
    made = np.minimum(made + model["mean_22"] * terms[:, 2], most)
    bound = np.minimum(made + np.maximum(model["upper"].get(RANGE_LEVEL, np.nan), 0.0), most)
    return np.exp(made), np.exp(bound)


def _after_pause(rows: _Rows, at: Any) -> Any:
    """Which of the rows `at` come longer after the row before them than is usual in their series."""
    days, starts = rows.days, rows.starts
    since = days[at] - days[np.maximum(at - 1, starts[at])]
    found = np.zeros(len(at), bool)
    for place in np.flatnonzero(since > 1).tolist():
        row = int(at[place])
        before = days[max(int(starts[row]), row - PAUSE_ROWS - 1) : row]
        steps = np.diff(before) if len(before) > 1 else np.array([since[place]])
        found[place] = since[place] > PAUSE_LONGER * np.median(steps)
    return found


def _relatively(rows: _Rows, model: Model, recovery: str, level: float) -> tuple[Any, _Said]:
    rule, starts = dict(model.rule or {}), rows.starts
    at = np.flatnonzero(rows.asked)
    mean, count = _recent_mean(np.minimum(np.abs(_log_gaps(rows)), MOST_GAP), starts, at)
    size = np.maximum(np.where(count > 0, mean, LEAST_GAP), LEAST_GAP)
    log_range = np.log(rows["high"]) - np.log(rows["low"])
    mean, counted = _recent_mean(log_range, starts, at)
    unit = np.maximum(np.where(counted > 0, mean, LEAST_RANGE), LEAST_RANGE)
    block, terms = _stationary_block(rows), _range_terms(log_range, starts, at)
    measured = np.full((len(rows), 6), np.nan)
    measured[at] = np.column_stack([size, count.astype(np.float64), unit, terms])

    there, enough = at > starts[at], count >= FEWEST_GAPS
    close = np.where(there, rows["close"][np.maximum(at - 1, 0)], np.nan)
    served = np.zeros(len(at))
    if enough.any() and rule["lambda"] != 0.0 and rule["kappa"] != 0.0:
        index, exists = _window_rows(starts, at[enough])
        gathered = block[index]
        gathered[..., 0] /= size[enough][:, None]
        gathered[..., 1:4] /= unit[enough][:, None, None]
        gathered = np.clip(gathered, -CLIPPED, CLIPPED)
        scaled = (gathered - np.asarray(model.scaler["mean"])) / np.asarray(model.scaler["scale"])
        scaled[~exists] = 0.0
        served[enough] = np.clip(model.outputs(_as_input(scaled)), -rule["kappa"], rule["kappa"])

    least, most = float(np.nextafter(0.0, 1.0)), float(np.finfo(np.float64).max)
    price = np.clip(close * (1.0 + size * served), least, most)
    low = high = np.full(len(at), np.nan)
    quantile = rule["interval_quantiles"].get(f"{level:.2f}")
    if quantile is not None:
        wide = np.where(enough & ~_after_pause(rows, at), size, np.nan)
        low = np.nextafter(close * np.exp(-quantile * wide), 0.0)
        high = np.nextafter(close * np.exp(quantile * wide), np.inf)
        low, high = np.minimum(np.maximum(low, least), price), np.minimum(np.maximum(high, price), most)
    expected, upper = _expected_range(terms, rule)
    beside = {"pred_low": low, "pred_high": high, "expected_range": expected, "range_high": upper}
    made, opens = np.isfinite(price), rows["open"]
    price = np.where(made, price, opens[at])
    if recovery == "cumulative":
        price = _cumulative(opens[at], price - opens[np.maximum(at - 1, 0)], made, _first_asked(rows))
        beside |= dict.fromkeys(("pred_low", "pred_high"), np.full(len(at), np.nan))
    return np.column_stack([block, measured]), _Said(price, made, beside)


# models of the targets change and gap: each series by statistics of its own


def _by_series(rows: _Rows, model: Model, recovery: str, level: float) -> tuple[Any, _Said]:  # noqa: ARG001
    starts, opens = rows.starts, rows["open"]
    _add_levels(rows)
    block = _block(rows, model.features)
    gap = _gaps(rows)
    codes = _codes(rows, model)
    earlier = np.arange(len(rows)) - starts + _of_states(rows, "folded", 0.0).astype(np.int64)
    change, width = np.full(len(rows), np.nan), len(model.scaler["columns"])
    v_open = model.scaler["columns"].index("v_open")
    by_model = np.flatnonzero(rows.asked & (codes >= 0) & (earlier >= 1))
    if len(by_model):
        mean, scale = (np.asarray(model.scaler[name], np.float64).reshape(-1, width) for name in ("mean", "scale"))
        gap_scale = np.asarray(model.scaler["gap_scale"], np.float64)
        scaled = block.copy()
        scaled[:, :width] = (block[:, :width] - mean[codes]) / scale[codes]
        scaled[codes < 0, :width] = np.nan
        index, exists = _window_rows(starts, by_model)
        windows = _as_input(scaled)[index]
        windows[~exists] = 0.0
        own = codes[by_model]
        undone = mean[own, v_open], scale[own, v_open], gap_scale[own]
        change[by_model] = _in_currency(model, rows, by_model, windows, undone)
    by_own = np.flatnonzero(rows.asked & (codes < 0) & (earlier >= MINIMUM_OWN_ROWS))
    if len(by_own):
        mean, scale, gap_scale = _own_statistics(rows, block[:, :width], gap, earlier, model)
        index, exists = _window_rows(starts, by_own)
        gathered = block[index]
        gathered[..., :width] = (gathered[..., :width] - mean[by_own][:, None]) / scale[by_own][:, None]
        gathered[~exists] = 0.0
        undone = mean[by_own, v_open], scale[by_own, v_open], gap_scale[by_own]
        change[by_own] = _in_currency(model, rows, by_own, _as_input(gathered), undone)
    made, previous = np.isfinite(change), np.concatenate([[np.nan], opens[:-1]])
    one_step, asked = np.where(made, previous + change, opens), rows.asked
    price = one_step[asked]
    if recovery == "cumulative":
        price = _cumulative(opens[asked], (one_step - previous)[asked], made[asked], _first_asked(rows))
    return block, _Said(price, made[asked], {})


def _add_levels(rows: _Rows) -> None:
    high, low, close = rows["high"], rows["low"], rows["close"]
    spread = high - low
    log_shares = np.log(np.ceil(rows["market"] / close))
    rows.of_name |= {
        "spread": spread,
        "close_ratio": np.where(spread == 0.0, 0.0, (close - low) / spread),
        "log_shares": np.where(np.isfinite(log_shares), log_shares, 0.0),
    }


def _of_states(rows: _Rows, name: str, otherwise: float) -> Any:
    """A number of the state of each row's series, (n,)."""
    of_series = [otherwise if state is None else float(state[name]) for state in rows.states]
    return np.array(of_series, np.float64)[np.searchsorted(rows.begins, rows.starts)]


def _block(rows: _Rows, names: Sequence[str]) -> Any:
    """The features: levels, and changes since the row before, 0 on a series' first row."""
    columns = []
    for name in names:
        values = np.asarray(rows[name.removeprefix("v_")], np.float64)
        if name.startswith("v_"):
            difference = np.zeros_like(values)
            difference[1:] = values[1:] - values[:-1]
            before = _of_states(rows, f"last_{name.removeprefix('v_')}", np.nan)[rows.begins]
            difference[rows.begins] = np.where(np.isnan(before), 0.0, values[rows.begins] - before)
            values = difference
        columns.append(values)
    return np.column_stack(columns)


def _gaps(rows: _Rows) -> Any:
    gap = np.full(len(rows), np.nan)
    gap[1:] = rows["open"][1:] - rows["close"][:-1]
    gap[rows.begins] = rows["open"][rows.begins] - _of_states(rows, "last_close", np.nan)[rows.begins]
    return gap


def _codes(rows: _Rows, model: Model) -> Any:
    """The place of each row's series in the scaler, −1 where it does not know it or a row is of another coin."""
    places = {symbol: place for place, symbol in enumerate(model.scaler["symbols"])}
    learnt, codes = model.manifest["slugs"], np.full(len(rows), -1, np.int64)
    bounds = [*rows.begins.tolist(), len(rows)]
    for number, (begin, end) in enumerate(itertools.pairwise(bounds)):
        symbol, state = rows.symbols[begin], rows.states[number]
        folded = json.loads(state["folded_slugs"]) if state else []
        given = {slug for slug in (*rows.slugs[begin:end], *folded) if slug is not None}
        other = learnt.get(symbol) is not None and any(slug != learnt[symbol] for slug in given)
        codes[begin:end] = -1 if other else places.get(symbol, -1)
    return codes


def _in_currency(model: Model, rows: _Rows, at: Any, windows: Any, undone: tuple[Any, Any, Any]) -> Any:
    """The predicted change of the open, from what the network says of scaled windows."""
    mean, scale, gap_scale = undone
    output = model.outputs(windows)
    if model.manifest["target"] == "change":
        return output * scale + mean
    return rows["close"][at - 1] + output * gap_scale - rows["open"][at - 1]


def _own_statistics(rows: _Rows, block: Any, gap: Any, earlier: Any, model: Model) -> tuple[Any, Any, Any]:
    """Mean and population deviation of the rows before each row, as sums that go on row by row, from the state on."""
    terms = [*model.scaler["columns"], "gap"]
    values = np.column_stack([block, np.nan_to_num(gap)])
    total, squares, origin = (np.zeros_like(values) for _ in range(3))
    bounds = [*rows.begins.tolist(), len(rows)]
    for number, (begin, end) in enumerate(itertools.pairwise(bounds)):
        state = rows.states[number]
        first = values[begin].copy()
        first[-1] = values[min(begin + 1, len(values) - 1), -1]
        seeds = np.zeros((2, len(terms)))
        if state is not None:
            first, *sums = (
                np.array([state[f"{what}_{term}"] for term in terms], np.float64)
                for what in ("first", "sum", "squares")
            )
            seeds = np.array(sums)
        shifted = values[begin:end] - first
        if state is None:
            shifted[0, -1] = 0.0
        origin[begin:end] = first
        for running, seed, added in ((total, seeds[0], shifted), (squares, seeds[1], shifted**2)):
            running[begin] = seed
            running[begin + 1 : end] = added[:-1]
            np.cumsum(running[begin:end], axis=0, out=running[begin:end])
    mean, scale = _expanding(origin[:, :-1], total[:, :-1], squares[:, :-1], earlier)
    _, gap_scale = _expanding(origin[:, -1:], total[:, -1:], squares[:, -1:], np.maximum(earlier - 1, 0))
    return mean, scale, gap_scale[:, 0]


def _expanding(origin: Any, total: Any, squares: Any, count: Any) -> tuple[Any, Any]:
    divisor = np.maximum(count, 1)[:, None]
    first, second = total / divisor, squares / divisor
    mean, variance = origin + first, second - first**2
    resolution = divisor * np.finfo(np.float64).eps
    constant = variance <= resolution * second + (resolution * mean) ** 2
    return mean, np.where(constant, 1.0, np.sqrt(np.where(constant, 1.0, variance)))
