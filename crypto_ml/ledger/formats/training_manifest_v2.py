"""The manifest of a training set since 0.2: what names its rows, its split and its scaler.

It says by which order the current row of a day was chosen; 0.1, whose manifests have no `format`, went by the time at
which a row became known.
"""

from collections.abc import Mapping
from typing import Any, Final

from crypto_ml.forecasting.current import Order

FORMAT: Final = 2
CURRENT: Final[Order] = "delivered"


def order_of(manifest: Mapping[str, Any]) -> Order:
    """By which order the rows of a manifest were chosen, of whichever release."""
    order: Order = manifest.get("current", "known")
    return order
