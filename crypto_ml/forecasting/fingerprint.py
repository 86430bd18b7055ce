"""What rows and features are, as one hash: the same for the same values, however they are cut into chunks."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from crypto_ml.forecasting.features import FloatArray
from crypto_ml.forecasting.schema import OBSERVATION

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
        self.rows += len(rows)
        for name, dtype in self._columns.items():
            values = rows[name]
            if name not in self._counted and values.notna().any():
                self._counted.add(name)
            if dtype == "str":
                missing = values.isna().to_numpy()
                texts = [b"" if gone else str(text).encode() for text, gone in zip(values, missing, strict=True)]
                lengths = np.fromiter(map(len, texts), np.int64, len(texts))
                self._digests[name].update(np.where(missing, -1, lengths).astype("<i8").tobytes())
                self._texts[name].update(b"".join(texts))
            elif dtype == "float64":
                self._digests[name].update(_float_bytes(values.to_numpy(np.float64)))
            else:
                plain = values.to_numpy("datetime64[D]") if dtype.startswith("datetime") else values.to_numpy()
                self._digests[name].update(plain.astype("<i8").tobytes())

    def hexdigest(self) -> str:
        """The hash of everything added so far."""
        whole = hashlib.sha256()
        for name, digest in self._digests.items():
            if name in self._counted:
                whole.update(digest.digest())
            if name in self._counted & self._texts.keys():
                whole.update(self._texts[name].digest())
        return whole.hexdigest()


class BlockHash:
    """A sha256 over a float64 block of shape (n, k), added in pieces of rows."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()

    def add(self, block: FloatArray) -> None:
        """Add rows behind those added before."""
        self._digest.update(_float_bytes(block))

    def hexdigest(self) -> str:
        """The hash of everything added so far."""
        return self._digest.hexdigest()


class Witness:
    """Sees what predictions are made from, file by file: the rows that came from history, and the features."""

    def __init__(self) -> None:
        self.earlier_rows: dict[int, RowsHash] = {}
        self.feature_block: dict[int, BlockHash] = {}

    def see(self, rows: "pd.DataFrame", block: FloatArray) -> None:
        """Take note of one chunk as it is scored: rows (`file`, `context`, OBSERVATION) and features (n, 13)."""
        context = rows["context"].to_numpy(bool)
        for file, part in runs(rows["file"].to_numpy()):
            self.feature_block.setdefault(file, BlockHash()).add(block[part])
            earlier = self.earlier_rows.setdefault(file, RowsHash(OBSERVATION))
            if context[part].any():
                earlier.add(rows[part][context[part]])


def runs(values: npt.NDArray[Any] | Sequence[int]) -> Iterator[tuple[int, slice]]:
    """Each value of a sorted array of integers, and where it stands."""
    numbers = np.asarray(values)
    bounds = [0, *(np.flatnonzero(numbers[1:] != numbers[:-1]) + 1), len(numbers)]
    for begin, end in pairwise(bounds):
        if end > begin:
            yield int(numbers[begin]), slice(int(begin), int(end))


def _float_bytes(values: FloatArray) -> bytes:
    canonical = np.ascontiguousarray(values, "<f8")
    missing = np.isnan(canonical)
    if missing.any():
        canonical = np.where(missing, np.nan, canonical)
    return canonical.tobytes()
