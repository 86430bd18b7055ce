"""How far numbers that were computed again are from those that were published."""

import csv
import io
import struct
from typing import Final

from crypto_ml.audit.differences import Differs
from crypto_ml.forecasting.answers import BESIDE

COMPUTED: Final = ("pred_open", *BESIDE.names)

MOST_ULP: Final = 16
"""The network's numbers are float32. Another processor may round them differently; more than this is another result."""


def float32_ulps(one: float, other: float) -> int:
    """How many float32 numbers lie between two numbers, both rounded to float32."""

    def place(value: float) -> int:
        bits: int = struct.unpack("<i", struct.pack("<f", value))[0]
        return bits if bits >= 0 else -(bits & 0x7FFFFFFF)

    return abs(place(one) - place(other))


def ulps_apart(made: str, published: str) -> int:
    """The largest difference of numbers that were computed in two texts of CSV that differ, in float32 ulp: 1 at least.

    Raises Differs beyond MOST_ULP, and where anything else is different.
    """
    largest = 0
    rows, others = (list(csv.DictReader(io.StringIO(text))) for text in (made, published))
    if len(rows) != len(others):
        raise Differs("predictions", f"{len(rows)} rows come out, and {len(others)} were published")
    for row, other in zip(rows, others, strict=True):
        numbers = [name for name in COMPUTED if row.get(name) and other.get(name)]
        if {**row, **dict.fromkeys(numbers)} != {**other, **dict.fromkeys(numbers)}:
            raise Differs("predictions", f"the row {other['prediction_id']} comes out otherwise")
        largest = max([largest, *(float32_ulps(float(row[name]), float(other[name])) for name in numbers)])
    if largest > MOST_ULP:
        raise Differs("predictions", f"the same features and model give numbers that differ by up to {largest:,} ulp")
    return max(largest, 1)
