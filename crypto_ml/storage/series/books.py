"""The folded form of series, brought forward by rows that came later: the same bits as folding all rows anew.

Only series whose past changed are folded anew: a row came on or before the last day that is folded, or something was
retracted, by which rows that are kept nowhere count again.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import date
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from crypto_ml.forecasting.current_rows import are_current
from crypto_ml.forecasting.running import ROWS_KEPT, STATE, SeriesBook, fold
from crypto_ml.storage.history import SCHEMA
from crypto_ml.storage.series.sorted_parts import by_series, of_series, series_and_days

EMPTY = SeriesBook(STATE.empty_table(), ROWS_KEPT.empty_table())


def current_of(rows: pa.Table) -> pa.Table:
    """The current rows of series, all of whose rows of some days these are, in the columns of ROWS_KEPT, sorted.

    rows: the columns of ROWS_KEPT, and `void`. Which row is current says `forecasting.current`.
    """
    rows = by_series(rows.combine_chunks())
    _, days = series_and_days(rows)
    current = are_current(rows, days)
    chosen = rows if current.all() else rows.filter(pa.array(current))
    return chosen.select(ROWS_KEPT.names).cast(ROWS_KEPT)


def joined(books: Iterable[SeriesBook]) -> SeriesBook:
    """Books of different series as one."""
    some = [book for book in books if book.states.num_rows]
    if len(some) < 2:
        return some[0] if some else EMPTY
    states = pa.concat_tables([book.states for book in some]).combine_chunks()
    names = states["symbol"]
    if not pc.all(pc.less(names[:-1], names[1:])).as_py():
        states = states.take(pc.sort_indices(names))
    return SeriesBook(states, by_series(pa.concat_tables([book.rows for book in some]).combine_chunks()))


def only(book: SeriesBook, symbols: Collection[str] | None) -> SeriesBook:
    """Of a book some series; None: all."""
    return SeriesBook(of_series(book.states, symbols), of_series(book.rows, symbols))


def pieces_of(book: SeriesBook, most: int) -> Sequence[SeriesBook]:
    """A book in pieces of about so many series; a single one where it has not half as many again."""
    names = book.states["symbol"]
    if len(names) <= most * 3 // 2:
        return [book] if len(names) else []
    bounds = np.linspace(0, len(names), -(-len(names) // most) + 1).astype(int)
    pieces = []
    for begin, end in pairwise(bounds.tolist()):
        first, last = names[begin], names[end - 1]
        within = pc.and_(pc.greater_equal(book.rows["symbol"], first), pc.less_equal(book.rows["symbol"], last))
        pieces.append(SeriesBook(book.states.slice(begin, end - begin), book.rows.filter(within)))
    return pieces


def first_days(book: SeriesBook, later: pa.Table, symbols: Collection[str]) -> Mapping[str, date]:
    """Of series the day before which none of their rows counts, by a book of them and the rows that came later. (What
    was void once stays so: a retraction brings no row back of a day that had none.)"""
    if not symbols:
        return {}
    days = [
        pa.table({"symbol": table["symbol"].cast(pa.string()), "day": table[column]})
        for table, column in ((book.states, "first_day"), (book.rows, "date"), (later, "date"))
    ]
    first = of_series(pa.concat_tables(days), sorted(symbols)).group_by("symbol").aggregate([("day", "min")])
    return dict(sorted(zip(first["symbol"].to_pylist(), first["day_min"].to_pylist(), strict=True)))


def advanced(
    book: SeriesBook, later: pa.Table, retracted: Collection[str], anew: Callable[[Sequence[str]], SeriesBook]
) -> SeriesBook:
    """A book after some more rows of the history, of its series or new ones.

    later: SCHEMA, void rows included. retracted: uploads of which rows were void before. anew: folds series from all
    their rows, these among them; it is asked for those whose past changed.
    """
    if not later.num_rows:
        return book
    later = later.combine_chunks()
    changed = pc.unique(later["symbol"])
    state = pc.index_in(later["symbol"], value_set=book.states["symbol"].combine_chunks())
    folded = pc.less_equal(later["date"], book.states["last_folded_day"].take(state))
    taken_back = pc.or_(
        pc.fill_null(later["void"], False),
        pc.is_in(later["upload_id"], value_set=pa.array(list(retracted), pa.string())),
    )
    past = pc.unique(later["symbol"].filter(pc.or_(pc.fill_null(folded, False), taken_back)))
    forward = later.filter(pc.invert(pc.is_in(later["symbol"], value_set=past)))
    moved = pc.unique(forward["symbol"])

    untouched = pc.invert(pc.is_in(book.states["symbol"], value_set=changed))
    rows_untouched = pc.invert(pc.is_in(book.rows["symbol"], value_set=changed))
    books = [SeriesBook(book.states.filter(untouched), book.rows.filter(rows_untouched))]
    if len(moved):
        before = only(book, moved)
        kept = before.rows.append_column(SCHEMA.field("void"), pa.nulls(before.rows.num_rows, pa.bool_()))
        names = [*ROWS_KEPT.names, "void"]
        rows = pa.concat_tables([kept.select(names), forward.select(names)], promote_options="permissive")
        books.append(fold(before.states, current_of(rows)))
    if len(past):
        books.append(anew(sorted(past.to_pylist())))
    return joined(books)
