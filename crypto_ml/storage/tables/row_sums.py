"""What rows are as one word, in whatever order they come: two multisets of rows have the same sum where they are equal.

Each row is hashed to 128 bits, and the hashes are added. That tells rows that were lost, doubled or changed by mistake;
against somebody who means harm stands the sha256 of each file, beside it.
"""

import hashlib
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Words = npt.NDArray[np.uint64]

STEP: Final = 0x9E3779B97F4A7C15
LANES: Final = (0xD6E8FEB86659FD93, 0xA0761D6478BD642F)


class RowSum:
    """Rows, added in any pieces and order. A column that a row lacks counts like a missing value in it."""

    def __init__(self) -> None:
        self.rows = 0
        self._sums = [0 for _ in LANES]

    def add(self, batch: pa.RecordBatch) -> None:
        """Add rows with numbers, texts, days, times and truth values."""
        self.rows += batch.num_rows
        if not batch.num_rows:
            return
        lanes = [np.full(batch.num_rows, seed, np.uint64) for seed in LANES]
        for name, column in sorted(zip(batch.schema.names, batch.columns, strict=True)):
            if column.null_count == batch.num_rows:
                continue
            words = _words(column)
            for lane, seed in enumerate(LANES):
                of_column = int.from_bytes(hashlib.sha256(f"{seed}{name}".encode()).digest()[:8], "little")
                cell = _mixed(words ^ np.uint64(of_column))
                cell[_missing(column)] = 0
                lanes[lane] += cell
        for lane, values in enumerate(lanes):
            self._sums[lane] = (self._sums[lane] + int(np.add.reduce(_mixed(values), dtype=np.uint64))) % 2**64

    def hexdigest(self) -> str:
        """32 hexadecimal digits for everything added so far."""
        return "".join(f"{one:016x}" for one in self._sums)


def _words(column: pa.Array) -> Words:
    """One word for each value; equal values have equal words, whatever array they stand in."""
    words: Words
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        encoded = pc.dictionary_encode(column)
        digests = [hashlib.sha256((text or "").encode()).digest()[:8] for text in encoded.dictionary.to_pylist()]
        of_text = np.array([int.from_bytes(one, "little") for one in digests], np.uint64)
        words = of_text[encoded.indices.fill_null(0).to_numpy(zero_copy_only=False)]
    elif pa.types.is_floating(column.type):
        words = column.fill_null(0.0).to_numpy(zero_copy_only=False).astype(np.float64).view(np.uint64)
    else:
        if pa.types.is_timestamp(column.type):
            column = column.cast(pa.timestamp("us", column.type.tz))
        elif pa.types.is_date32(column.type):
            column = column.cast(pa.int32())
        words = column.cast(pa.int64()).fill_null(0).to_numpy(zero_copy_only=False).view(np.uint64)
    return words


def _missing(column: pa.Array) -> npt.NDArray[np.bool_]:
    found: npt.NDArray[np.bool_] = column.is_null().to_numpy(zero_copy_only=False)
    return found


def _mixed(words: Words) -> Words:
    """The finaliser of SplitMix64 (Steele, Lea, Flood 2014): each bit of a word moves each bit of the result."""
    mixed = words + np.uint64(STEP)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    out: Words = mixed ^ (mixed >> np.uint64(31))
    return out
