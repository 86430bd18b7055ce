"""The rule of `current`, in its order `delivered`, for tables in memory."""

from collections.abc import Collection

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from crypto_ml.forecasting.features import BoolArray, IntArray


def are_current(rows: pa.Table, days: IntArray) -> BoolArray:
    """Which rows are the current ones of their series and day, as `current_sql("delivered")` says of the same rows.

    rows: all of their series and days, with `upload_id`, `line`, `cleaning` and `void`. days: of each row a number that
    it shares with the others of its series and day alone.
    """
    valid = ~_are_void(rows, days)
    current = np.zeros(rows.num_rows, bool)
    given = np.flatnonzero(valid)
    current[given[~_are_outranked(rows.filter(pa.array(valid)), days[valid])]] = True
    return current


def are_outranked(rows: pa.Table, days: IntArray, retracted: Collection[str]) -> BoolArray:
    """Which rows are not the current ones, and will not be before something more is retracted: of their series and day
    another of these rows is delivered later, and none of either's upload is void.

    rows, days: as for `are_current`, but not all of their series and days need be there. retracted: the uploads that
    have void rows, wherever these stand. (A retracted upload that is cleaned again has rows that are void from the
    start.)
    """
    apart = pc.is_in(rows["upload_id"], value_set=pa.array(list(retracted), pa.string()))
    asked = ~pc.or_(apart, pc.fill_null(rows["void"], False)).to_numpy()
    outranked = np.zeros(rows.num_rows, bool)
    outranked[asked] = _are_outranked(rows.filter(pa.array(asked)), days[asked])
    return outranked


def _are_outranked(rows: pa.Table, days: IntArray) -> BoolArray:
    """Which rows have one of their series and day that is delivered later; of those that are alike, one counts."""
    outranked = np.zeros(rows.num_rows, bool)
    order = np.argsort(days, kind="stable")
    same = days[order][1:] == days[order][:-1]
    several = np.zeros(rows.num_rows, bool)
    several[order[1:][same]] = several[order[:-1][same]] = True
    if not (among := np.flatnonzero(several)).size:
        return outranked
    some = rows.take(pa.array(among))
    cleanings = pc.fill_null(some["cleaning"], 1).to_numpy()
    ranked = np.lexsort((cleanings, some["line"].to_numpy(), _delivered(some["upload_id"]), days[among]))
    day = days[among][ranked]
    outranked[among[ranked[:-1][day[1:] == day[:-1]]]] = True
    return outranked


def _delivered(uploads: pa.ChunkedArray) -> IntArray:
    """Of each upload a number that is greater the later it was delivered."""
    names = pc.unique(uploads)
    by_number = sorted(range(len(names)), key=lambda at: [int(part) for part in names[at].as_py().split(".")])
    number = np.empty(len(names), np.int64)
    number[by_number] = np.arange(len(names))
    delivered: IntArray = number[pc.index_in(uploads, value_set=names).to_numpy()]
    return delivered


def _are_void(rows: pa.Table, days: IntArray) -> BoolArray:
    """Which rows are void, or of an upload that has a void row for their series and day."""
    void = pc.fill_null(rows["void"], False).to_numpy()
    if not void.any():
        return np.zeros(rows.num_rows, bool)
    names = pc.unique(rows["upload_id"])
    upload = pc.index_in(rows["upload_id"], value_set=names).to_numpy().astype(np.int64)
    _, day = np.unique(days, return_inverse=True)
    said = day * len(names) + upload
    return np.isin(said, said[void])
