"""What a series is called: by its symbol, or by `symbol:slug` where two coins share a symbol."""

from collections.abc import Iterable, Mapping


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
