"""What rows and features are, as one hash: the same for the same values, however they are cut into chunks."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from crypto_ml.forecasting.features import CHANGE, FloatArray
from crypto_ml.forecasting.running import GAP
from crypto_ml.forecasting.schema import FEATURES, LEVELS, OBSERVATION, SCALED, Earlier

if TYPE_CHECKING:
    import pandas as pd

ACCEPTED: Final[Mapping[str, str]] = {**OBSERVATION, "line": "int64"}
"""What is hashed of an accepted row: the observation, and the line of the upload it stood in."""

ALWAYS_HASHED: Final = frozenset({"symbol", "date", "open", "high", "low", "close", "market", "volume", "slug", "line"})
"""The columns of 0.1. One that came later counts where a row has a value in it, and rows without keep their hash."""


class RowsHash:
    """A sha256 over rows with given columns and dtypes (as in `schema.OBSERVATION`), added in any number of pieces.

    Each column is hashed by itself: float64 little-endian with one NaN, dates as days since 1970, integers as int64,
    texts as UTF-8 behind their lengths (−1 where missing).
    """

    def __init__(self, columns: Mapping[str, str]) -> None:
        self._columns = columns
        self._digests = {name: hashlib.sha256(name.encode()) for name in columns}
        self._texts = {name: hashlib.sha256() for name, dtype in columns.items() if dtype == "str"}
        self._counted = {name for name in columns if name in ALWAYS_HASHED}
        self.rows = 0

    def add(self, rows: "pd.DataFrame") -> None:
        """Add rows behind those added before."""
        self._add(_hashed_columns(_as_table(rows, self._columns), self._columns), slice(0, len(rows)))

    def _add(self, columns: "Mapping[str, _Hashed]", rows: slice) -> None:
        """Add some of the rows whose columns are at hand as they are hashed."""
        self.rows += rows.stop - rows.start
        for name, column in columns.items():
            if name not in self._counted and column.there[rows].any():
                self._counted.add(name)
            self._digests[name].update(column.words[rows].data)
            if column.texts is not None:
                self._texts[name].update(column.texts.of(rows))

    def hexdigest(self) -> str:
        """The hash of everything added so far."""
        whole = hashlib.sha256()
        for name, digest in self._digests.items():
            if name in self._counted:
                whole.update(digest.digest())
            if name in self._counted & self._texts.keys():
                whole.update(self._texts[name].digest())
        return whole.hexdigest()


@dataclass(frozen=True, eq=False)
class _Hashed:
    """A column as it is hashed: eight bytes of each value (of texts the lengths), whether there is one, the texts."""

    words: npt.NDArray[Any]
    there: npt.NDArray[np.bool_]
    texts: "_Texts | None" = None


@dataclass(frozen=True, eq=False)
class _Texts:
    """Texts in UTF-8, one behind the other; row i begins at begins[i]."""

    content: memoryview
    begins: npt.NDArray[np.int64]

    def of(self, rows: slice) -> memoryview:
        return self.content[int(self.begins[rows.start]) : int(self.begins[rows.stop])]


def _hashed_columns(rows: pa.Table, columns: Mapping[str, str]) -> dict[str, _Hashed]:
    return {name: _hashed(rows[name], dtype) for name, dtype in columns.items()}


def _hashed(values: pa.ChunkedArray, dtype: str) -> _Hashed:
    if dtype == "float64":
        numbers = np.ascontiguousarray(values.to_numpy(), "<f8")
        missing = np.isnan(numbers)
        return _Hashed(np.where(missing, np.nan, numbers) if missing.any() else numbers, ~missing)
    there = np.ones(len(values), bool) if not values.null_count else np.asarray(values.is_valid().to_numpy(), bool)
    if dtype == "str" and len(values) <= FEW_TEXTS:
        few = [(text or "").encode() for text in values.to_pylist()]
        sizes = np.array([len(text) for text in few], "<i8")
        begins = np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)])
        return _Hashed(np.where(there, sizes, -1), there, _Texts(memoryview(b"".join(few)), begins))
    if dtype == "str":
        content = pc.fill_null(values, "").cast(pa.large_binary()).combine_chunks()
        _, offsets, data = content.buffers()
        begins = np.zeros(1, np.int64)
        if len(content):
            begins = np.frombuffer(offsets, np.int64)[content.offset : content.offset + len(content) + 1]
        lengths = np.where(there, np.diff(begins), -1).astype("<i8")
        return _Hashed(lengths, there, _Texts(memoryview(data if data is not None else b"").cast("B"), begins))
    whole = values.cast(pa.int32() if dtype.startswith("datetime") else pa.int64())
    if values.null_count:
        whole = pc.fill_null(whole.cast(pa.int64()), _NO_DAY)
    return _Hashed(whole.to_numpy().astype("<i8"), there)


FEW_TEXTS: Final = 100
"""Texts that Python encodes sooner than Arrow is called."""

_NO_DAY: Final = np.iinfo(np.int64).min
"""What stands for a day that is missing: numpy's NaT."""

_ARROW: Final = {"str": pa.string(), "float64": pa.float64(), "int64": pa.int64(), "datetime64[s]": pa.date32()}


def _as_table(rows: "pd.DataFrame", columns: Mapping[str, str]) -> pa.Table:
    schema = pa.schema([(name, _ARROW[dtype]) for name, dtype in columns.items()])
    return pa.Table.from_pandas(rows[list(columns)], schema=schema, preserve_index=False)


def hash_by_file(hashes: dict[int, RowsHash], rows: pa.Table, columns: Mapping[str, str]) -> None:
    """Add rows, sorted by `file`, to the hash of each file, which is made where there is none; of a thousand files with
    a row each the columns are turned into what is hashed once."""
    hashed = _hashed_columns(rows, columns)
    for file, part in runs(rows["file"].to_numpy()):
        if file not in hashes:
            hashes[file] = RowsHash(columns)
        hashes[file]._add(hashed, part)


class BlockHash:
    """A sha256 over a float64 block of shape (n, k), added in pieces of rows."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()

    def add(self, block: FloatArray) -> None:
        """Add rows behind those added before."""
        self._digest.update(_canonical(block).data)

    def hexdigest(self) -> str:
        """The hash of everything added so far."""
        return self._digest.hexdigest()


class Sees(Protocol):
    """Who is shown what predictions are made from."""

    def see(self, rows: pa.Table, block: FloatArray, states: pa.Table | None = None) -> None:
        """See `Witness.see`."""


class Witness:
    """Sees what predictions are made from, file by file: what came from history, and the features."""

    def __init__(self, columns: Sequence[str] = SCALED, features: Sequence[str] = FEATURES) -> None:
        """columns, features: those of the bundle, which say what of a state counts."""
        self.feature_block: dict[int, BlockHash] = {}
        self._earlier: dict[int, RowsHash] = {}
        self._states: dict[int, RowsHash] = {}
        self._columns = hashed_of_state(columns, features)

    def see(self, rows: pa.Table, block: FloatArray, states: pa.Table | None = None) -> None:
        """Take note of one chunk as it is scored: rows (`file`, `context`, OBSERVATION), features (n, 13), and the
        states of its series (`folded.FOLDED`)."""
        context = rows.filter(rows["context"]) if pc.any(rows["context"]).as_py() else None
        self.take(rows["file"].to_numpy(), block, context, states)

    def take(
        self, files: npt.NDArray[Any], block: FloatArray, context: pa.Table | None, states: pa.Table | None
    ) -> None:
        """`see` for who has of a chunk the file of each row (n,), the features, and the rows that are context alone."""
        for file, part in runs(files):
            self.feature_block.setdefault(file, BlockHash()).add(block[part])
            if file not in self._earlier:
                self._earlier[file] = RowsHash(OBSERVATION)
        if context is not None:
            hash_by_file(self._earlier, context, OBSERVATION)
        if states is not None:
            hash_by_file(self._states, hashed_states(states), self._columns)

    def earlier_rows(self, file: int, earlier: Earlier) -> str:
        """The hash of what came from history for a file, by one of the definitions."""
        rows, states = self._earlier[file], self._states.get(file, RowsHash(self._columns))
        if not earlier:
            return rows.hexdigest()
        return hashlib.sha256(f"{earlier} {rows.hexdigest()} {states.hexdigest()}".encode()).hexdigest()

    def folded_series(self, file: int) -> int:
        """Of how many series of a file the first rows were not seen, but their sums."""
        return self._states[file].rows if file in self._states else 0

    def saw_earlier_rows(self, file: int) -> bool:
        """Whether anything came from history for a file."""
        return self._earlier[file].rows > 0 or file in self._states


def hashed_of_state(columns: Sequence[str], features: Sequence[str]) -> dict[str, str]:
    """The columns of a state that count where a bundle standardises `columns` of its `features`, and their dtypes: what
    a later release adds to states does not change the hash of an answer."""
    levels = [name for name in LEVELS if name == "close" or {name, f"{CHANGE}{name}"} & set(features)]
    sums = [f"{what}_{term}" for what in ("first", "sum", "squares") for term in (*columns, GAP)]
    days = dict.fromkeys(("first_day", "last_folded_day"), "datetime64[s]")
    numbers = dict.fromkeys([*sums, *(f"last_{name}" for name in levels)], "float64")
    return {"symbol": "str", "folded": "int64", **days, "folded_slugs": "str", **numbers}


def hashed_states(states: pa.Table) -> pa.Table:
    """The states of those series that have one, as they are hashed."""
    there = states.filter(pc.is_valid(states["symbol"])) if states["symbol"].null_count else states
    slugs = pa.array([json.dumps(slugs) for slugs in there["folded_slugs"].to_pylist()], pa.string())
    return there.set_column(there.schema.get_field_index("folded_slugs"), "folded_slugs", slugs)


def runs(values: npt.NDArray[Any] | Sequence[int]) -> Iterator[tuple[int, slice]]:
    """Each value of a sorted array of integers, and where it stands."""
    numbers = np.asarray(values)
    bounds = [0, *(np.flatnonzero(numbers[1:] != numbers[:-1]) + 1), len(numbers)]
    for begin, end in pairwise(bounds):
        if end > begin:
            yield int(numbers[begin]), slice(int(begin), int(end))


def _canonical(values: FloatArray) -> FloatArray:
    canonical = np.ascontiguousarray(values, "<f8")
    missing = np.isnan(canonical)
    return np.where(missing, np.nan, canonical) if missing.any() else canonical
