"""How a file was read, in words and for programs: whatever decided what its bytes mean beside the settings."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from crypto_ml.forecasting.uploads.layouts import Layout
from crypto_ml.forecasting.uploads.numbers import NumberStyle
from crypto_ml.forecasting.uploads.reading import Header

_DELIMITERS: Final = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}
_IN_DOLLARS: Final = frozenset({"$", "US$", "USD", "USDT", "USDC", "BUSD", "FDUSD", "TUSD"})
_MARKS: Final = {",": "commas", ".": "points", " ": "spaces", "'": "apostrophes"}


@dataclass(frozen=True)
class ReadAs:
    """How one file was read; every default is what a plain CSV file has.

    dates: the ways in which days are written, where not all are ISO 8601. columns: our name → the file's, where a
    column has not its own name. symbol: that of every row, from the file's name. market: whether it has the column.
    """

    format: str = "csv"
    encoding: str = "utf-8"
    delimiter: str = ","
    header_line: int = 1
    decimal: str = "."
    thousands: str = ""
    currency: str | None = None
    scaled_numbers: bool = False
    dates: Sequence[str] = field(default_factory=list)
    layout: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    symbol: str | None = None
    market: bool = True

    def recorded(self) -> dict[str, Any]:
        """What is not as in plain CSV, as JSON has it; nothing where all is."""
        return {} if self == _PLAIN else {n: value for n, value in asdict(self).items() if value != getattr(_PLAIN, n)}

    def document(self) -> dict[str, Any]:
        """All of it, and in words, in the order in which a stored receipt gives it back: a report repeats it."""
        said: dict[str, Any] = json.loads(json.dumps({"in_words": self.in_words(), **asdict(self)}, sort_keys=True))
        return said

    def in_words(self) -> str:
        """One sentence about it."""
        if self.format == "parquet":
            parts = ["Parquet"]
        elif self.format == "json":
            parts = ["records in JSON", *(["a decimal comma"] if self.decimal == "," else [])]
        else:
            parts = [f"CSV in {self.encoding.upper()}, {_DELIMITERS[self.delimiter]} between values"]
            parts.append(f"a decimal {'comma' if self.decimal == ',' else 'point'}")
        if self.header_line == 0:
            parts.append("no header")
        if self.thousands:
            parts.append(f"{' or '.join(_MARKS[mark] for mark in self.thousands)} between thousands")
        if self.currency:
            parts.append(f"prices in {self.currency}")
        if self.scaled_numbers:
            parts.append("K, M, B and T as thousands, millions, billions and trillions")
        if self.dates:
            parts.append(f"dates as {', '.join(self.dates)}")
        if self.layout:
            parts.append(f"laid out as {self.layout}")
        if self.columns:
            parts.append("; ".join(f"{ours} is its column {theirs}" for ours, theirs in self.columns.items()))
        if self.symbol:
            parts.append(f"the symbol {self.symbol} from the name of the file")
        return "; ".join(parts)

    def notes(self) -> list[str]:
        """What whoever dropped the file should know of how it was read."""
        notes = []
        if self.symbol:
            notes.append(f"no column says the symbol: every row is {self.symbol}, by the name of the file")
        if not self.market:
            notes.append("no column has the market capitalisation: it counts as unknown, as 0 does")
        if self.currency and self.currency not in _IN_DOLLARS:
            notes.append(
                f"prices are in {self.currency}: each is compared with the earlier rows of its symbol, so keep a "
                "symbol in one currency, or give it another name in each (BTC-EUR, say)"
            )
        return notes


_PLAIN: Final = ReadAs()


def read_as_recorded(recorded: Mapping[str, Any] | None) -> ReadAs:
    """How a file was read, from what was recorded of it; plain CSV where nothing was."""
    return ReadAs(**{name: value for name, value in (recorded or {}).items() if name in ReadAs.__annotations__})


def read_as(header: Header | None, encoding: str, layout: Layout, numbers: NumberStyle, dates: Sequence[str]) -> ReadAs:
    """How a file was read. header: None for Parquet."""
    return ReadAs(
        format="csv" if header else "parquet",
        encoding=encoding,
        delimiter=header.delimiter if header else ",",
        header_line=header.line if header else 1,
        decimal=numbers.decimal,
        thousands=numbers.grouping,
        currency=numbers.currency or layout.currency,
        scaled_numbers=numbers.scaled,
        dates=list(dates),
        layout=layout.known_as,
        columns=dict(layout.columns),
        symbol=layout.symbol,
        market=layout.market,
    )
