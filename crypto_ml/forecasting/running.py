"""The statistics of a series' own rows as sums that go on, so that not all of its rows are needed to have them.

A series that the model's scaler does not know is scaled by its own earlier rows (see `scaling.own_statistics`): by sums
over all of them. Here the first rows of a series are **folded** into one row of numbers, its state, and the rows behind
it stay rows. What comes of state and rows is what comes of all rows, to the last bit.

The definition, `folded-1`:

- Of a series of n current rows, by date, the first m(n) are folded (`folded_rows`), the others stay rows. m depends on
  n alone, so one set of rows has one form, whoever folds it and in however many pieces.
- For each term t, which are the features that are standardised (`schema.SCALED`) and `gap` (open[t] − close[t−1]), the
  state has `first_t`, what sums are measured from: the value of the series' first row (of a change that is 0), and of
  the gap that of its second row, the first that has one; `sum_t` and `squares_t`, the sums over the folded rows of
  x − first_t and of its square. The gap of the first row counts as a difference of 0.
- Sums are IEEE float64, added one row after the other in date order, beginning with the first row. That is the order in
  which numpy's `cumsum` adds, so going on from a sum gives the bits that adding everything anew gives. NaN and infinity
  go on as they would there.
- `last_l`, for each level l, is the value of the last folded row: the first row behind it has its changes and its gap
  from there. No window reaches into the state: at least LOOK_BACK rows stay behind it.
- `folded_slugs` are the slugs that folded rows had, for the rule of the other coin (see `scaled_by`).

Another order of additions, another origin or another m is another definition, with another name: receipts say by which
an answer's earlier rows were fingerprinted, and what is kept elsewhere is kept under it.

Which terms a state has is said by its columns. A feature that a later release adds makes STATE wider, and what was kept
before lacks it: `lacks` says so, and whoever needs the series then folds its rows anew, as for a series of which
nothing is kept. No number of a state is ever filled in or guessed. What is taken from a state is by name, and only what
a bundle's columns need, so a wider state gives an older bundle the bits it had.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from crypto_ml.errors import CryptoMLError
from crypto_ml.forecasting.columns import Columns
from crypto_ml.forecasting.features import FloatArray, IntArray, add_levels, feature_block, gaps, series_starts
from crypto_ml.forecasting.schema import LEVELS, LOOK_BACK, OBSERVATION, SCALED

FOLDED_1: Final = "folded-1"
"""The name of the definition above."""

STEP: Final = 16
"""Rows are folded by so many."""

KEPT: Final = 32
"""Rows that stay rows, at least, where a series is folded to be kept: an answer about its last days is made from what
is kept alone, about the last ten where 22 rows before a row count (`stationary.LOOK_BACK`)."""

GAP: Final = "gap"

_ARROW: Final = {"str": pa.string(), "datetime64[s]": pa.date32(), "float64": pa.float64()}

STATE: Final = pa.schema(
    [
        pa.field("symbol", pa.string(), nullable=False),
        pa.field("folded", pa.int64(), nullable=False),
        ("first_day", pa.date32()),
        ("last_folded_day", pa.date32()),
        pa.field("folded_slugs", pa.list_(pa.string()), nullable=False),
        *((f"{what}_{term}", pa.float64()) for what in ("first", "sum", "squares") for term in (*SCALED, GAP)),
        *((f"last_{level}", pa.float64()) for level in LEVELS),
    ],
)
"""One row for each series: how many rows are folded and what they come to; null where none is. Currency units, their
squares, and dimensionless for `close_ratio`. first_day and last_folded_day are those of the first and the last folded
row."""

ROWS_KEPT: Final = pa.schema(
    [
        *((name, _ARROW[dtype]) for name, dtype in OBSERVATION.items()),
        ("known_at", pa.timestamp("us", "UTC")),
        ("upload_id", pa.string()),
        ("line", pa.int64()),
        ("cleaning", pa.int32()),
    ]
)
"""The rows behind the states: observations, and what says which of several rows for a day is the current one."""


class FoldedTooFar(CryptoMLError):  # noqa: N818 - reads as what happened
    """Series of which more rows are folded than their rows allow: they have to be folded anew, from all their rows."""

    def __init__(self, symbols: Sequence[str]) -> None:
        self.symbols = tuple(symbols)
        super().__init__(
            f"{len(symbols)} series ({', '.join(self.symbols[:3])}, …) have fewer rows than their states say: fold "
            "them from all of their rows"
        )


@dataclass(frozen=True)
class SeriesBook:
    """Series in their folded form. states: STATE, sorted by symbol, one row for each; rows: those behind the states,
    sorted by symbol and date, in the columns they came in (ROWS_KEPT where they are kept)."""

    states: pa.Table
    rows: pa.Table


def folded_rows(rows: npt.ArrayLike, kept: int = KEPT) -> IntArray:
    """m(n): how many of the first rows of series of n rows are folded, the shape of n; `kept` or more stay rows."""
    return np.maximum((np.asarray(rows, np.int64) - kept) // STEP, 0) * STEP


def lacks(states: pa.Table, columns: Sequence[str] = SCALED) -> list[str]:
    """The terms of the standardised features `columns` that states do not have; empty where one can go on from them."""
    return [term for term in (*columns, GAP) if f"sum_{term}" not in states.schema.names]


def fold(states: pa.Table | None, rows: pa.Table, *, kept: int = KEPT) -> SeriesBook:
    """Series with these states and the rows behind them, in the form in which `kept` rows or more stay rows.

    states: STATE, in any order, None for none; a series without one begins with its first row here. rows: all current
    rows of all of these series behind what their states have folded, in any order, with the columns of OBSERVATION (and
    any others, which stay), one for each series and day. Every series that is in either is in the result. In whatever
    pieces rows come, the result is the same, bit for bit. Memory is some 400 bytes a row that is folded: of long series
    give some at a time.
    Raises FoldedTooFar where rows would have to be taken out of a state, and ValueError where rows do not lie behind
    their state, days repeat, or states lack a column.
    """
    states = STATE.empty_table() if states is None else states
    if lacking := lacks(states):
        raise ValueError(f"states without {', '.join(lacking)}: fold their series from all rows")
    rows = rows.combine_chunks()
    symbols = pc.unique(pa.chunked_array([*states["symbol"].chunks, *rows["symbol"].chunks], pa.string()))
    symbols = symbols.take(pc.sort_indices(symbols))
    states = states.select(STATE.names).take(pc.index_in(symbols, value_set=states["symbol"].combine_chunks()))
    codes, rows = _sorted(symbols, rows)
    before = Seeds.of(states)
    starts = np.searchsorted(codes, np.arange(len(symbols)))
    counts = np.diff(np.append(starts, len(codes)))
    _check_days(states, rows, codes, starts[counts > 0])
    folded = folded_rows(before.folded + counts, kept)
    if (too_far := folded < before.folded).any():
        raise FoldedTooFar(symbols.filter(pa.array(too_far)).to_pylist())
    of_series = np.arange(len(codes)) - starts[codes]
    folds = of_series < (folded - before.folded)[codes]
    if folds.any():
        states = _folded(states, before, rows.filter(pa.array(folds)), codes[folds], folded)
        rows = rows.filter(pa.array(~folds))
    return SeriesBook(_named(states, symbols, folded), rows)


def _sorted(symbols: pa.Array, rows: pa.Table) -> tuple[IntArray, pa.Table]:
    """For each row the position of its series in `symbols`, and the rows, both sorted by series and date."""
    codes = pc.index_in(rows["symbol"], value_set=symbols).to_numpy().astype(np.int64)
    days = rows["date"].cast(pa.int32()).to_numpy()
    later = (codes[1:] > codes[:-1]) | ((codes[1:] == codes[:-1]) & (days[1:] > days[:-1]))
    if not later.all():
        order = np.lexsort((days, codes))
        codes, days, rows = codes[order], days[order], rows.take(pa.array(order))
        if ((codes[1:] == codes[:-1]) & (days[1:] == days[:-1])).any():
            raise ValueError("a series has two rows for a day: give its current rows")
    return codes, rows


def _check_days(states: pa.Table, rows: pa.Table, codes: IntArray, starts: IntArray) -> None:
    first = pa.chunked_array([rows["date"].take(pa.array(starts)).combine_chunks()])
    last = states["last_folded_day"].take(pa.array(codes[starts]))
    if pc.any(pc.less_equal(first, last)).as_py():
        raise ValueError("rows that do not lie behind the state of their series: fold it from all of its rows")


def _folded(states: pa.Table, before: "Seeds", rows: pa.Table, codes: IntArray, folded: IntArray) -> pa.Table:
    """The states of all series after these rows, which are theirs and come right behind. codes: whose they are."""
    at = np.unique(codes)
    last = np.append(np.flatnonzero(np.diff(codes)), len(codes) - 1)
    numbered = [name for name, dtype in OBSERVATION.items() if dtype == "float64"]
    frame = add_levels(Columns.of(rows.select(numbered)))
    starts = series_starts(codes)
    seeds = before.take(at)
    block = feature_block(frame, starts, SCALED, seeds.last)
    sums = RunningSums.of(block, gaps(frame, starts, seeds.last["close"]), starts, seeds)
    numbers = {
        "first": sums.origin[last],
        "sum": (sums.total + sums.shifted)[last],
        "squares": (sums.squares + sums.shifted**2)[last],
        "last": np.column_stack([frame[level][last] for level in LEVELS]),
    }
    changed = {
        f"{what}_{term}": values[:, number]
        for what, values in numbers.items()
        for number, term in enumerate(LEVELS if what == "last" else (*SCALED, GAP))
    }
    columns = {name: states[name].to_numpy().copy() for name in changed}
    for name, values in changed.items():
        columns[name][at] = values
    absent = folded == 0
    days = rows["date"].cast(pa.int32()).to_numpy()
    first_day, last_day = (states[name].cast(pa.int32()).fill_null(0).to_numpy().copy() for name in _DAYS)
    begins = at[before.folded[at] == 0]
    first_day[begins] = days[np.append(0, last[:-1] + 1)][before.folded[at] == 0]
    last_day[at] = days[last]
    made = {
        **{name: pa.array(values, mask=absent) for name, values in columns.items()},
        "first_day": pa.array(first_day, pa.int32(), mask=absent).cast(pa.date32()),
        "last_folded_day": pa.array(last_day, pa.int32(), mask=absent).cast(pa.date32()),
        "folded_slugs": _slugs(before, rows["slug"], codes),
    }
    return pa.table([made.get(name, states[name]) for name in STATE.names], schema=STATE)


_DAYS: Final = ("first_day", "last_folded_day")


def _slugs(before: "Seeds", slugs: pa.ChunkedArray, codes: IntArray) -> pa.Array:
    """The slugs of each series' folded rows after some more of them."""
    found = list(before.slugs)
    given = pa.table({"code": codes, "slug": slugs}).filter(pc.is_valid(slugs))
    for one in given.group_by(["code", "slug"], use_threads=False).aggregate([]).to_pylist() if len(given) else ():
        if one["slug"] not in found[one["code"]]:
            found[one["code"]] = tuple(sorted({*found[one["code"]], one["slug"]}))
    return pa.array(found, STATE.field("folded_slugs").type)


def _with(table: pa.Table, name: str, values: pa.Array) -> pa.Table:
    return table.set_column(table.schema.get_field_index(name), table.schema.field(name), values)


def _named(states: pa.Table, symbols: pa.Array, folded: IntArray) -> pa.Table:
    """States with the series' names and numbers of rows, those that have none yet among them."""
    named = _with(_with(states, "symbol", symbols), "folded", pa.array(folded))
    slugs = pc.fill_null(named["folded_slugs"].combine_chunks(), pa.scalar([], pa.list_(pa.string())))
    return _with(named, "folded_slugs", slugs).cast(STATE).combine_chunks()


@dataclass(frozen=True, eq=False)
class Seeds:
    """What sums over the rows of s series go on from.

    columns: the c standardised features. folded: (s,) rows that are folded, 0 where the series begins with its own
    first row; then the series' other numbers are NaN. first, total, squares: (s, c + 1), for each column and the gap.
    last: for each level the value of the last folded row, (s,). slugs: the folded rows'.
    """

    columns: tuple[str, ...]
    folded: IntArray
    first: FloatArray
    total: FloatArray
    squares: FloatArray
    last: Mapping[str, FloatArray]
    slugs: Sequence[tuple[str, ...]]

    @classmethod
    def of(cls, states: pa.Table, columns: Sequence[str] = SCALED) -> "Seeds":
        """Those of states in the order of the series; a series without one has a row of nulls. See `lacks`."""
        terms = (*columns, GAP)

        def numbers(what: str) -> FloatArray:
            found = [states[f"{what}_{term}"].to_numpy().astype(np.float64) for term in terms]
            return np.column_stack(found)

        levels = [name.removeprefix("last_") for name in states.schema.names if name.startswith("last_")]
        return cls(
            columns=tuple(columns),
            folded=states["folded"].fill_null(0).to_numpy().astype(np.int64),
            first=numbers("first"),
            total=numbers("sum"),
            squares=numbers("squares"),
            last={name: states[f"last_{name}"].to_numpy() for name in levels if name != "folded_day"},
            slugs=[tuple(slugs or ()) for slugs in states["folded_slugs"].to_pylist()],
        )

    def take(self, at: IntArray) -> "Seeds":
        """Those of some of the series."""
        return Seeds(
            self.columns,
            self.folded[at],
            self.first[at],
            self.total[at],
            self.squares[at],
            {name: values[at] for name, values in self.last.items()},
            [self.slugs[one] for one in at],
        )


def _begins(starts: IntArray) -> IntArray:
    """Where series begin, of which each row has its first one's position."""
    begins: IntArray = np.flatnonzero(starts == np.arange(len(starts)))
    return begins


def rows_before(starts: IntArray, seeds: Seeds | None) -> IntArray:
    """How many rows of its series stand before each of n rows, (n,), those that are folded among them."""
    before: IntArray = np.arange(len(starts)) - starts
    if seeds is not None:
        before += seeds.folded[np.cumsum(before == 0) - 1]
    return before


@dataclass(frozen=True, eq=False)
class RunningSums:
    """Sums over the rows strictly before each of n rows, from the first row of its series on.

    count: (n,) rows before, folded ones among them. origin, shifted, total, squares: (n, c + 1), for each of c columns
    and the gap: what is measured from, the row's difference from it, and the sums of such differences and of their
    squares.
    """

    count: IntArray
    origin: FloatArray
    shifted: FloatArray
    total: FloatArray
    squares: FloatArray

    @classmethod
    def of(cls, block: FloatArray, gap: FloatArray, starts: IntArray, seeds: Seeds | None) -> "RunningSums":
        """block: (n, c); gap: (n,), NaN on first rows; starts: from `series_starts`; seeds: of these series, in order.

        Differences from the series' first row keep the textbook formula E[x²] − E[x]² from cancelling (Chan, Golub,
        LeVeque 1983).
        """
        n, begins = len(block), _begins(starts)
        values = np.column_stack([block, np.nan_to_num(gap)])
        origins = values[begins]
        origins[:, -1] = values[np.minimum(begins + 1, n - 1), -1]
        begun = np.zeros(len(begins), bool)
        total = squares = np.zeros_like(origins)
        series = np.searchsorted(begins, starts)
        if seeds is not None:
            begun = seeds.folded > 0
            origins = np.where(begun[:, None], seeds.first, origins)
            total = np.where(begun[:, None], seeds.total, 0.0)
            squares = np.where(begun[:, None], seeds.squares, 0.0)
        origin = origins[series]
        shifted = values - origin
        shifted[begins[~begun], -1] = 0.0
        count = rows_before(starts, seeds)
        return cls(count, origin, shifted, _before(shifted, begins, total), _before(shifted**2, begins, squares))


def _before(values: FloatArray, begins: IntArray, seeds: FloatArray) -> FloatArray:
    """Sums of what is before each of n rows of a series and its seed, (n, k), one row added after the other.

    Each series is summed by itself: a sum must not depend, in its last bits, on the series that stand beside it. Many
    short series go side by side, a few long ones one after the other; the additions are the same.
    """
    total = np.zeros_like(values)
    total[begins] = seeds
    bounds = np.append(begins, len(values))
    lengths = np.diff(bounds)
    if lengths.max(initial=0) <= len(begins):
        for behind in range(1, int(lengths.max(initial=0))):
            at = begins[lengths > behind] + behind
            total[at] = total[at - 1] + values[at - 1]
        return total
    for begin, end in pairwise(bounds):
        total[begin + 1 : end] = values[begin : end - 1]
        np.cumsum(total[begin:end], axis=0, out=total[begin:end])
    return total


assert KEPT >= LOOK_BACK  # noqa: S101 - windows do not reach into what is folded
