"""What a series is called: by its symbol, or by `symbol:slug` where two coins share a symbol.

`btc` and `BTC` are two series. As that is seldom what was meant, whoever drops one beside the other is told.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Set
from functools import cached_property
from typing import Final

import pyarrow as pa

MOST_TOLD: Final = 20
"""Series of a file that are told of."""


def series_names(
    coins: Iterable[tuple[str, str | None]], known: Mapping[str, str]
) -> dict[tuple[str, str | None], str]:
    """Name each (symbol, slug) of an upload.

    coins: in the order in which they first appear; slug is None where the upload gives none. known: symbol → slug of
    the coin that history or the champion already knows under it. The known coin keeps the symbol; where none is known,
    the first to appear does. Rows without a slug belong to whoever keeps the symbol.
    """
    holder = dict(known)
    names: dict[tuple[str, str | None], str] = {}
    for symbol, slug in coins:
        if slug is None:
            names[symbol, slug] = symbol
        else:
            kept = holder.setdefault(symbol, slug) == slug
            names[symbol, slug] = symbol if kept else f"{symbol}:{slug}"
    return names


class LookAlikes:
    """Finds series of an upload whose symbol differs from a known one in nothing but capitals. known: to the model."""

    def __init__(self, known: Collection[str]) -> None:
        self._given = known
        self._trusted = known if isinstance(known, Set | Mapping) else frozenset(known)
        self._seen: dict[str, str] = {}
        self._asked: dict[str, list[tuple[int, str]]] = {}
        self._found: dict[int, dict[str, str]] = {}

    @cached_property
    def _known(self) -> dict[str, str]:
        """casefolded → symbol, which only symbols ask for that are none of these."""
        return {symbol.casefold(): symbol for symbol in self._given}

    def ask(self, spans: pa.Table) -> set[str]:
        """Other spellings of the symbols of an upload (`file` and `symbol`), to look for among those that are known."""
        self._asked = {}
        for file, symbol in zip(spans["file"].to_pylist(), spans["symbol"].to_pylist(), strict=True):
            if symbol not in self._trusted:
                self._asked.setdefault(symbol.casefold(), []).append((file, symbol))
        symbols = {symbol for asked in self._asked.values() for _, symbol in asked}
        return {
            other for symbol in symbols for other in (symbol.upper(), symbol.lower(), symbol.capitalize())
        } - symbols

    def see(self, symbols: Iterable[str]) -> None:
        """Take note of symbols that the history has."""
        for symbol in symbols:
            folded = symbol.casefold()
            if any(own != symbol for _, own in self._asked.get(folded, ())):
                self._seen.setdefault(folded, symbol)

    def answer(self) -> None:
        """Find those of the symbols that were asked about last."""
        if not self._asked:
            return
        for folded, asked in self._asked.items():
            known = self._known.get(folded) or self._seen.get(folded)
            for file, symbol in asked:
                if known and known != symbol:
                    self._tell(file, symbol, known)
        self._asked, self._seen = {}, {}

    def add(self, file: int, symbols: Iterable[str]) -> None:
        """Note symbols of one upload that differ in nothing but capitals."""
        first, *others = sorted(symbols)
        for other in others:
            self._tell(file, other, first)

    def notes(self, file: int) -> Iterator[str]:
        """What to tell whoever dropped a file."""
        for symbol, known in list(self._found.get(file, {}).items())[:MOST_TOLD]:
            yield (
                f"{symbol} is a series of its own beside {known}, and nothing was taken from that one; if {known} is "
                "meant, upload it under that name"
            )

    def _tell(self, file: int, symbol: str, known: str) -> None:
        found = self._found.setdefault(file, {})
        if len(found) < MOST_TOLD:
            found.setdefault(symbol, known)
