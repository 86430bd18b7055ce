"""The rows of history that predictions are made from: for each series, what stood before the rows asked about.

A series the model's scaler knows needs the rows that a prediction looks back at; one it has never seen, or that is
another coin of the same symbol, is scaled by all its own earlier rows. A scaler for any series knows every one. Rows
between the asked ones count too: an upload may have holes that history fills.

Of a series that is scaled by its own rows the first ones before the asked ones come as a state (`folded-1`, see
`forecasting.running`), with LOOK_BACK rows or more behind it. For the last days of a series that state is in its book,
or a few rows from it, and nothing else is read; for earlier days, the rows of those series are. Either gives the same
bits, and so does a history read from its beginning (`FromHistory`). What was answered before 0.4 had all rows
(`earlier_rows`), and has them again when it is replayed.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from crypto_ml.forecasting.current import ORDERING, Order, current_sql
from crypto_ml.forecasting.features import BoolArray, IntArray
from crypto_ml.forecasting.folded import FOLDED
from crypto_ml.forecasting.running import ROWS_KEPT, STATE, SeriesBook, fold, folded_rows
from crypto_ml.forecasting.scaled_by import is_other_coin, other_coin_sql
from crypto_ml.forecasting.schema import LOOK_BACK, Earlier
from crypto_ml.forecasting.sorting import ROWS
from crypto_ml.stages.series_by_name import Series, cut_before
from crypto_ml.storage.history import MarketHistory
from crypto_ml.storage.outofcore import queried

MOST_SYMBOLS_PUSHED_DOWN: Final = 1_000

Coins = Mapping[str, str | None] | None

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
    WHERE NOT known_to_scaler OR other_coin OR date >= first OR back <= {{look_back}}
"""  # noqa: S608 - the columns are ours


def earlier_rows(
    history: MarketHistory,
    spans: pa.Table,
    scaler_coins: Coins,
    version: int | None,
    order: Order = "delivered",
    *,
    look_back: int = LOOK_BACK,
    also: Collection[str] = (),
    seen: Callable[[Iterable[str]], None] | None = None,
) -> Iterator[pa.RecordBatch]:
    """Rows of history, marked as context, for each `file` and `symbol` of `spans` (see `RowSorter.span_tables`).

    scaler_coins: the symbols that the scaler knows, and the slug of the coin it knows under each, None where that was
    not recorded; None where it is for any series. look_back: how many rows before a row count where the scaler knows
    its series. version: the state of the history to read; None where there is none, which yields nothing. order: by
    which the current row of a day is chosen. also: symbols of which it is only of interest whether history has them.
    seen: is given the symbols that the history has, among others those.
    """
    if version is None or not spans.num_rows:
        return
    symbols = spans["symbol"].unique().to_pylist()
    known = history.scan(
        [*(name for name in ROWS.names if name not in {"file", "context", *ORDERING}), *ORDERING],
        symbols=[*symbols, *also] if len(symbols) <= MOST_SYMBOLS_PUSHED_DOWN else None,
        before=pc.max(spans["last"]).as_py(),
        version=version,
    )
    known = known if seen is None else _watched(known, seen)
    asked = _with_coins(spans, scaler_coins)
    yield from queried(NEEDED_SQL.format(current=current_sql(order), look_back=look_back), known, ROWS, spans=asked)


def _watched(known: pa.RecordBatchReader, seen: Callable[[Iterable[str]], None]) -> pa.RecordBatchReader:
    """The same rows, whose symbols `seen` is given as they come."""

    def batches() -> Iterator[pa.RecordBatch]:
        for batch in known:
            seen(batch["symbol"].unique().to_pylist())
            yield batch

    return pa.RecordBatchReader.from_batches(known.schema, batches())


_NO_UPLOADS: Final = pa.chunked_array([], pa.string())
_NO_STATES: Final = FOLDED.empty_table()


@dataclass(frozen=True)
class EarlierRows:
    """What of some series stood before the rows asked about. rows: ROWS, marked as context, in any order; states:
    FOLDED, of series of which rows are folded, sorted. uploads: what the rows came from (`<delivery>.<file>`)."""

    rows: pa.Table
    states: pa.Table
    uploads: pa.ChunkedArray


def read_earlier(
    series: Series,
    history: MarketHistory,
    spans: pa.Table,
    scaler_coins: Coins,
    version: int | None,
    *,
    order: Order,
    earlier: Earlier,
    look_back: int = LOOK_BACK,
    also: Collection[str] = (),
    seen: Callable[[Iterable[str]], None] | None = None,
) -> Iterator[EarlierRows]:
    """What of the history stood before the rows of `spans`, by the definition `earlier`; see `earlier_rows`."""
    if version is None or not spans.num_rows:
        return
    if not earlier:
        for batch in earlier_rows(
            history, spans, scaler_coins, version, order, look_back=look_back, also=also, seen=seen
        ):
            yield EarlierRows(pa.Table.from_batches([batch]), _NO_STATES, _NO_UPLOADS)
    else:
        yield from folded_earlier_rows(series, spans, scaler_coins, version, look_back=look_back, also=also, seen=seen)


def folded_earlier_rows(
    series: Series,
    spans: pa.Table,
    scaler_coins: Coins,
    version: int,
    *,
    look_back: int = LOOK_BACK,
    also: Collection[str] = (),
    seen: Callable[[Iterable[str]], None] | None = None,
) -> Iterator[EarlierRows]:
    """What of series stood before the rows of `spans` by `folded-1`: canonical, so that whatever the book or the files
    are cut into, a series has the same state and rows. Arguments as for `earlier_rows`."""
    spans = _with_coins(spans if scaler_coins else _without_outranked_days(spans), scaler_coins)
    symbols = sorted({*spans["symbol"].to_pylist(), *also})
    at_once = _series_at_once(len(symbols))
    for begin in range(0, len(symbols), at_once):
        some = symbols[begin : begin + at_once]
        book, changed = series.at_hand(some, version)
        if seen is not None:
            seen([*book.states["symbol"].to_pylist(), *changed])
        asked = _Asked.of(spans, book, scaler_coins, look_back)
        for first in range(0, asked.spans.num_rows, SPANS_AT_ONCE):
            yield asked.part(first, first + SPANS_AT_ONCE).from_book(book)
        yield from _from_rows(series, asked.elsewhere(), version, look_back)
        if changed:
            yield from _from_rows(series, _Elsewhere.of_changed(spans, changed, scaler_coins), version, look_back)


FEWEST_AT_ONCE: Final = 2_500
MOST_AT_ONCE: Final = 20_000
"""Series whose rows are in memory at once, some 30 of each."""

PIECES: Final = 8
"""At most so many, where MOST_AT_ONCE lets it: for each of them all is looked through that came since their book."""

SPANS_AT_ONCE: Final = 2_500
"""Spans of those series whose rows are taken from the book at once."""


def _series_at_once(series: int) -> int:
    """How many of so many series are read at once: few, and in few pieces."""
    return min(MOST_AT_ONCE, max(FEWEST_AT_ONCE, -(-series // PIECES)))


MARGIN: Final = timedelta(days=45)
"""How far before a day the rows that are looked back at are looked for first; of series with holes all rows are."""


@dataclass(frozen=True, eq=False)
class _Asked:
    """Spans, and where in a book their rows stand; each array has a value for each span.

    spans: those whose series are in the book, in the columns of SPANS. begin, first, last: positions among the rows of
    the book: of the first row of the series, and the first ones that are not before the span's first and last day.
    folded, first_day: of the series. own: whether the series is scaled by its own rows. in_book: whether the book has
    what is needed; where not, `own` says what the whole series up to the version suggests. look_back: how many rows
    count that stand before a row of a series that is not.
    """

    spans: pa.Table
    look_back: int
    series: IntArray
    begin: IntArray
    first: IntArray
    last: IntArray
    folded: IntArray
    first_day: IntArray
    own: BoolArray
    in_book: BoolArray

    @classmethod
    def of(cls, spans: pa.Table, book: SeriesBook, coins: Coins, look_back: int) -> "_Asked":
        names = book.states["symbol"].combine_chunks()
        series = pc.index_in(spans["symbol"], value_set=names)
        if series.null_count:
            spans = spans.filter(series.is_valid())
        code = series.drop_null().to_numpy().astype(np.int64)
        of_row = pc.index_in(book.rows["symbol"], value_set=names).to_numpy().astype(np.int64)
        keys = (of_row << DAY_BITS) + book.rows["date"].cast(pa.int32()).to_numpy()
        begins = np.searchsorted(of_row, np.arange(len(names) + 1))
        first, last = (np.searchsorted(keys, (code << DAY_BITS) + _days(spans[name])) for name in ("first", "last"))
        begin, end = begins[code], begins[code + 1]
        folded = book.states["folded"].to_numpy()[code]
        last_folded = book.states["last_folded_day"].cast(pa.int32()).fill_null(-1).to_numpy()[code]
        behind = last_folded < _days(spans["first"])
        others, in_state = _others(book, of_row, coins)
        before = np.append(0, np.cumsum(others))
        other = in_state[code] | (before[np.where(behind, last, end)] > before[begin])
        own = ~spans["known_to_scaler"].to_numpy() | other
        enough = np.where(own, folded_rows(folded + first - begin, LOOK_BACK) >= folded, first - begin >= look_back)
        return cls(
            spans=spans,
            look_back=look_back,
            series=code,
            begin=begin,
            first=first,
            last=last,
            folded=folded,
            first_day=book.states["first_day"].cast(pa.int32()).fill_null(-1).to_numpy()[code],
            own=own,
            in_book=(folded == 0) | (behind & enough),
        )

    def take(self, which: slice | BoolArray) -> "_Asked":
        """Some of the spans."""
        found = {name: values[which] for name, values in vars(self).items() if name not in {"spans", "look_back"}}
        if isinstance(which, slice):
            return _Asked(self.spans.slice(which.start, which.stop - which.start), self.look_back, **found)
        return self if which.all() else _Asked(self.spans.filter(pa.array(which)), self.look_back, **found)

    def part(self, begin: int, end: int) -> "_Asked":
        """Spans by their position, those that the book has what is needed of."""
        part = self.take(slice(begin, min(end, self.spans.num_rows)))
        return part.take(part.in_book)

    def elsewhere(self) -> "_Elsewhere":
        """The spans for which the book does not have what is needed."""
        left = self.take(~self.in_book)
        return _Elsewhere(left.spans, left.first_day, left.own)

    def from_book(self, book: SeriesBook) -> EarlierRows:
        """What stood before the spans, all of it from the book."""
        target = np.where(self.own, folded_rows(self.folded + self.first - self.begin, LOOK_BACK), 0)
        kept_from = np.where(
            self.own, self.begin + target - self.folded, np.maximum(self.begin, self.first - self.look_back)
        )
        span, at = _ranges(kept_from, self.last)
        found = book.rows.take(pa.array(at))
        rows = _named(found, self.spans, span)
        has_state = self.own & (target > 0)
        if not has_state.any():
            return EarlierRows(rows, _NO_STATES, found["upload_id"])
        states = _keyed(book.states.take(pa.array(self.series[has_state])), np.flatnonzero(has_state))
        if (further := self.own & (target > self.folded)).any():
            span, at = _ranges(np.where(further, self.begin, 0), np.where(further, self.first, 0))
            behind = _keyed(book.rows.take(pa.array(at)), span)
            on = np.isin(np.flatnonzero(has_state), np.flatnonzero(further))
            if on.all():
                states = fold(states, behind, kept=LOOK_BACK).states
            else:
                went_on = fold(states.filter(pa.array(on)), behind, kept=LOOK_BACK).states
                states = pa.concat_tables([states.filter(pa.array(~on)), went_on]).sort_by("symbol")
        return EarlierRows(rows, _states_of(states, self.spans, _spans_of(states)), found["upload_id"])


@dataclass(frozen=True, eq=False)
class _Elsewhere:
    """Spans that no book has what is needed of; each array has a value for each span. first_day: before which the
    series has no row. own: whether it is, or may be, scaled by its own rows."""

    spans: pa.Table
    first_day: IntArray
    own: BoolArray

    @classmethod
    def of_changed(cls, spans: pa.Table, changed: Mapping[str, date], coins: Coins) -> "_Elsewhere":
        """The spans of series that no book serves, as their past has changed. changed: see `Series.at_hand`.

        Which coin a series' rows are of is not known before they are read.
        """
        spans = spans.filter(pc.is_in(spans["symbol"], value_set=pa.array(list(changed), pa.string())))
        first_days = pa.chunked_array([pa.array([changed[name] for name in spans["symbol"].to_pylist()], pa.date32())])
        own = np.full(spans.num_rows, True) if coins else ~spans["known_to_scaler"].to_numpy()
        return cls(spans, _days(first_days), own)

    def take(self, which: BoolArray) -> "_Elsewhere":
        """Some of the spans."""
        return _Elsewhere(self.spans.filter(pa.array(which)), self.first_day[which], self.own[which])


def _without_outranked_days(spans: pa.Table) -> pa.Table:
    """Spans whose own rows leave no day out as spans of their first day: what else history has of them is outranked by
    these rows. (Whether a series is another coin than the scaler knows is asked of the outranked ones too.)"""
    first, last = spans["first"], spans["last"]
    whole = _days(last) - _days(first) + 1 == spans["rows"].to_numpy()
    return spans.set_column(spans.schema.get_field_index("last"), "last", pc.if_else(pa.array(whole), first, last))


def _with_coins(spans: pa.Table, coins: Coins) -> pa.Table:
    """Spans (SPANS), with whether the scaler knows the series, and the slug of the coin that it knows."""
    symbols = spans["symbol"].to_pylist()
    known = [coins is None or symbol in coins for symbol in symbols]
    slugs = [coins.get(symbol) if coins else None for symbol in symbols]
    given = [spans[name] for name in ("file", "symbol", "first", "last")]
    return pa.table([*given, pa.array(known, pa.bool_()), pa.array(slugs, pa.string())], schema=SPANS)


DAY_BITS: Final = 32
KEY_DIGITS: Final = 9


def _days(dates: pa.ChunkedArray) -> IntArray:
    days: IntArray = dates.cast(pa.int32()).to_numpy().astype(np.int64)
    return days


def _others(book: SeriesBook, of_row: IntArray, coins: Coins) -> tuple[IntArray, BoolArray]:
    """Of each row of a book, and of each series' folded rows, whether it is of another coin than the scaler knows."""
    if not coins:
        return np.zeros(len(of_row), np.int64), np.zeros(book.states.num_rows, bool)
    names = book.states["symbol"].to_pylist()
    learnt = [coins.get(name) for name in names]
    in_state = np.array(
        [
            any(is_other_coin(slug, one) for one in slugs)
            for slug, slugs in zip(learnt, book.states["folded_slugs"].to_pylist(), strict=True)
        ],
        bool,
    )
    expected = pa.array(learnt, pa.string()).take(pa.array(of_row))
    other = pc.fill_null(pc.not_equal(book.rows["slug"], expected), False)
    return other.to_numpy().astype(np.int64), in_state


def _ranges(begin: IntArray, end: IntArray) -> tuple[IntArray, IntArray]:
    """All positions of some ranges, one after the other, and for each which range it is of."""
    lengths = np.maximum(end - begin, 0)
    which = np.repeat(np.arange(len(lengths)), lengths)
    before = np.cumsum(lengths) - lengths
    return which, np.arange(lengths.sum()) - np.repeat(before - begin, lengths)


def _keyed(table: pa.Table, span: IntArray) -> pa.Table:
    """States or rows under the number of their span instead of their symbol, which several files may have."""
    keys = pc.utf8_lpad(pc.cast(pa.array(span), pa.string()), KEY_DIGITS, "0")
    at = table.schema.get_field_index("symbol")
    return table.set_column(at, table.schema.field(at), keys)


def _spans_of(table: pa.Table) -> IntArray:
    numbers: IntArray = pc.cast(table["symbol"], pa.int64()).to_numpy()
    return numbers


def _named(rows: pa.Table, spans: pa.Table, of: IntArray) -> pa.Table:
    """Rows as context of the files and series of spans; of: for each row the position of its span."""
    at = pa.array(of)
    columns = {name: rows[name] for name in ROWS.names if name in rows.schema.names}
    columns["symbol"], columns["file"] = spans["symbol"].take(at), spans["file"].take(at)
    columns["context"] = pa.repeat(True, len(of))
    return pa.table({name: columns[name] for name in ROWS.names}, ROWS)


def _states_of(states: pa.Table, spans: pa.Table, of: IntArray) -> pa.Table:
    """States as those of the files and series of spans; of: for each state the position of its span."""
    at = pa.array(of)
    named = states.set_column(0, "symbol", spans["symbol"].take(at)).add_column(0, "file", spans["file"].take(at))
    return named.select(FOLDED.names).cast(FOLDED)


ASKED: Final = pa.schema([("span", pa.int64()), *(SPANS.field(name) for name in SPANS.names if name != "file")])
FOUND: Final = pa.schema([("folds", pa.bool_()), ("span", pa.int64()), ("before", pa.bool_()), *ROWS_KEPT])
FOUND_SQL: Final = f"""
    WITH current AS (
        {current_sql("delivered")}
    ), found AS (
        SELECT spans.span, current.*, current.date < spans.first AS before,
               NOT spans.known_to_scaler OR
               {other_coin_sql("spans.scalers_slug", "current.slug", "spans.span")} AS own,
               row_number() OVER (PARTITION BY spans.span, current.date < spans.first
                                  ORDER BY current.date DESC) AS back
        FROM current JOIN spans ON current.symbol = spans.symbol AND current.date < spans.last
    )
    SELECT own AND before AS folds, {", ".join(name for name in FOUND.names if name != "folds")} FROM found
    WHERE own OR NOT before OR back <= {{look_back}} ORDER BY span, date
"""  # noqa: S608 - the columns are ours


def _from_rows(series: Series, asked: _Elsewhere, version: int, look_back: int) -> Iterator[EarlierRows]:
    """What stood before spans, from the rows of their series.

    Those of which nothing stood before, or a window alone counts, need the last days before them, and all others are
    read from their beginning.
    """
    asked = asked.take(_days(asked.spans["last"]) > asked.first_day)
    if not asked.spans.num_rows:
        return
    first = _days(asked.spans["first"])
    none_before = first <= asked.first_day
    late = none_before | ~asked.own
    needed = np.where(none_before, first, first - MARGIN.days)
    short = np.zeros(len(first), bool)
    if late.any():
        since = int(needed[late].min())
        found = np.zeros(len(first), np.int64)
        numbered = _numbered(asked.spans, late)
        since_day = _EPOCH + timedelta(days=since)
        yield from _folded(series, numbered, version, found, look_back=look_back, since=since_day)
        short = late & ~none_before & (found < look_back) & (asked.first_day < since)
    if (whole := ~late | short).any():
        found = np.zeros(len(first), np.int64)
        yield from _folded(series, _numbered(asked.spans, whole), version, found, look_back=look_back)


_EPOCH: Final = date(1970, 1, 1)


def _numbered(spans: pa.Table, which: BoolArray) -> tuple[pa.Table, IntArray]:
    """All spans, and the numbers of some of them."""
    return spans, np.flatnonzero(which)


def _folded(
    series: Series,
    numbered: tuple[pa.Table, IntArray],
    version: int,
    found: IntArray,
    *,
    look_back: int,
    since: date | None = None,
) -> Iterator[EarlierRows]:
    """The rows since a day of some spans, folded where they are scaled by them. found: gets how many stood before each,
    by its number."""
    spans, numbers = numbered
    some = spans.take(pa.array(numbers))
    rows = series.rows(
        [*(name for name in ROWS_KEPT.names if name not in ORDERING), *ORDERING],
        symbols=some["symbol"].unique().to_pylist(),
        since=since,
        before=pc.max(some["last"]).as_py(),
        version=version,
        outranked=False,
    )
    table = some.append_column("span", pa.array(numbers)).select(ASKED.names).cast(ASKED)
    going_on = SeriesBook(STATE.empty_table(), ROWS_KEPT.empty_table())
    for batch in queried(FOUND_SQL.format(look_back=look_back), rows, FOUND, spans=table):
        part = pa.Table.from_batches([batch])
        np.add.at(found, part["span"].filter(part["before"]).to_numpy(), 1)
        plain = part.filter(pc.invert(part["folds"]))
        named = _named(plain, spans, plain["span"].to_numpy())
        yield EarlierRows(named, _NO_STATES, plain["upload_id"])
        folding = part.filter(part["folds"])
        if folding.num_rows:
            keyed = _keyed(folding.select(ROWS_KEPT.names), folding["span"].to_numpy())
            book = fold(going_on.states, pa.concat_tables([going_on.rows, keyed]), kept=LOOK_BACK)
            done, going_on = cut_before(book, book.states["symbol"][-1].as_py())
            yield _as_earlier(done, spans)
    yield _as_earlier(going_on, spans)


def _as_earlier(keyed: SeriesBook, spans: pa.Table) -> EarlierRows:
    states = keyed.states.filter(pc.greater(keyed.states["folded"], 0))
    rows = _named(keyed.rows, spans, _spans_of(keyed.rows))
    return EarlierRows(rows, _states_of(states, spans, _spans_of(states)), keyed.rows["upload_id"])


def current_of(series: Series, symbols: Collection[str], before: date, version: int, order: Order) -> pa.Table:
    """The current rows of series before a day, sorted by both, in the columns of ROWS_KEPT, as
    `MarketHistory.current_rows` has them."""
    columns = [*(name for name in ROWS_KEPT.names if name not in ORDERING), *ORDERING]
    rows = series.rows(columns, symbols=symbols, before=before, version=version, outranked=order != "delivered")
    query = f"SELECT {', '.join(ROWS_KEPT.names)} FROM ({current_sql(order)}) ORDER BY symbol, date"  # noqa: S608
    return pa.Table.from_batches(queried(query, rows, ROWS_KEPT), ROWS_KEPT)
