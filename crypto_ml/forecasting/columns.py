"""Rows as plain numpy arrays, for what is computed without a frame: loading pandas takes longer than scoring a file.

What the domain computes of rows needs `rows[name]`, `len(rows)` and `rows.assign(...)`, which frames have as well.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

if TYPE_CHECKING:
    import pandas as pd

AnyArray = npt.NDArray[Any]
Rows: TypeAlias = "Columns | pd.DataFrame"
"""Rows that something is computed of."""


@dataclass(frozen=True, eq=False)
class Columns:
    """Columns of n rows by name, each of shape (n,)."""

    arrays: Mapping[str, AnyArray]

    @classmethod
    def of(cls, table: pa.Table) -> Self:
        """The columns of an Arrow table: texts as objects (None where missing), numbers that are null as NaN."""
        return cls({name: _array(table[name]) for name in table.column_names})

    def __len__(self) -> int:
        return len(next(iter(self.arrays.values()), ()))

    def __getitem__(self, name: str) -> AnyArray:
        return self.arrays[name]

    def assign(self, **columns: AnyArray) -> "Columns":
        """These columns and further ones."""
        return Columns({**self.arrays, **columns})


def _array(column: pa.ChunkedArray) -> AnyArray:
    if not pa.types.is_string(column.type):
        return np.asarray(column.to_numpy())
    # one object for each distinct text: rows of a series are told apart at the price of a pointer
    coded = pc.dictionary_encode(column, null_encoding="encode").combine_chunks()
    texts = np.empty(len(coded.dictionary), object)
    texts[:] = coded.dictionary.to_pylist()
    return np.asarray(texts[coded.indices.to_numpy()])
