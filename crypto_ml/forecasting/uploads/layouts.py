"""Which column of an upload is which, by the names that people and sites give them.

Where the names are the ones that are asked for, they are all there is. Only where one is missing are others looked at:
the same names written otherwise, then other names, then the layouts of sites that are known. What could be two things
is refused.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from crypto_ml.forecasting.schema import PRICES
from crypto_ml.forecasting.uploads.unreadable import UnreadableUpload

REQUIRED: Final = ("symbol", "date", *PRICES, "market")
ALIASES: Final = {"marketcap": "market", "market_cap": "market"}
RECOMPUTED: Final = frozenset({"close_ratio", "spread"})
KNOWN_UNUSED: Final = frozenset({"name", "ranknow", "index", ""}) | RECOMPUTED
MOST_COLUMNS: Final = 4_096
"""More than a table has in any of the usual databases."""

SHOWN_NAME: Final = 100
"""Characters of an ignored column's name that are repeated."""

SHOWN_NAMES: Final = 200
COLUMNS_SETTING: Final = "CRYPTO_ML_COLUMNS"

_OTHER_NAMES: Final[Mapping[str, frozenset[str]]] = {
    "date": frozenset({"date", "datetime", "timestamp", "time", "opentime", "unix", "unixtimestamp"}),
    **{name: frozenset({name, f"{name}price", f"price{name}"}) for name in PRICES},
    "symbol": frozenset({"symbol"}),
    "market": frozenset({"market", "marketcap", "marketcapitalization", "marketcapitalisation", "mktcap"}),
    "volume": frozenset({"volume", "vol"}),
    "slug": frozenset({"slug"}),
}
"""What a column may be called where it has not its own name, as `_simple` has it."""

_UNITS: Final = "usd|us\\$|\\$|usdt|usdc|eur|€|gbp|£|jpy|¥|chf|cny|krw|inr|aud|cad|brl|rub|try"
_UNIT: Final = re.compile(rf"\s*[(\[]\s*(?:in\s+)?({_UNITS})\s*[)\]]\s*")
_DOLLARS: Final = frozenset({"usd", "us$", "$"})


@dataclass(frozen=True)
class _Known:
    """A layout known by name: the columns that it has, as `_simple` has them, and which of them is which of ours, where
    their names do not say it. unused: of our names those that mean something else there."""

    name: str
    has: frozenset[str]
    columns: Mapping[str, Sequence[str]]
    unused: frozenset[str] = frozenset()


_OHLC: Final = frozenset(PRICES)
_KNOWN: Final = (
    _Known(
        "Binance klines",
        _OHLC | {"opentime", "closetime", "volume"},
        {"date": ("opentime",), "volume": ("quotevolume", "quoteassetvolume")},
        frozenset({"volume"}),  # counted in coins
    ),
    _Known("CoinMarketCap download", _OHLC | {"timeopen", "timeclose", "timehigh", "timelow"}, {"date": ("timeopen",)}),
    _Known(
        "Investing.com download",
        (_OHLC - {"close"}) | {"date", "price", "vol", "change%"},
        {"close": ("price",)},
        frozenset({"volume"}),
    ),
    _Known("CryptoDataDownload", _OHLC | {"unix", "date", "symbol"}, {"date": ("date",)}, frozenset({"volume"})),
    _Known("Yahoo Finance download", _OHLC | {"date", "adjclose", "volume"}, {}),
)
KLINES: Final = (
    *("open_time", "open", "high", "low", "close", "volume", "close_time", "quote_volume"),
    *("count", "taker_buy_volume", "taker_buy_quote_volume", "ignore"),
)
"""The columns of Binance's klines, which come with a header and without."""

_COINS: Final = frozenset(
    {"name", "slug", "ticker", "coin", "coinname", "coinid", "asset", "base", "baseasset", "pair", "tradingpair"}
    | {"currency", "crypto", "cryptocurrency", "instrument", "instrumentid", "product", "productid", "token"}
)
"""Columns that may say which coin a row is of, as `_simple` has them."""

_QUOTES: Final = ("USDT", "USDC", "BUSD", "FDUSD", "TUSD", "USD")
_PAIR: Final = re.compile(r"([A-Z0-9]{2,20})[-_/]([A-Z]{3,5})")
_NAME: Final = re.compile(
    r"(?P<pair>[A-Z0-9]{2,20}?)(?:(?P<sep>[-_])(?P<quote>[A-Z]{3,5}))?(?:[-_](?P<every>\d{1,2}(?:[smhdwM]|mo)|d|daily))?"
    r"(?:[-_]\d{4}(?:-\d\d){0,2})*(?: ?\(\d+\))?"
)
_DAILY: Final = frozenset({"1d", "d", "daily", "24h"})
_ENDINGS: Final = re.compile(r"(?:\.csv|\.csv\.gz|\.parquet)$", re.IGNORECASE)
_WORDS: Final = frozenset(
    {
        "ALL",
        "COIN",
        "COINS",
        "CRYPTO",
        "CRYPTOS",
        "DAILY",
        "DATA",
        "EXPORT",
        "HISTORICAL",
        "HISTORY",
        "MARKET",
        "MARKETS",
    }
    | {"OHLC", "OHLCV", "OUT", "PREDICTIONS", "PRICE", "PRICES", "QUOTES", "RATES", "TABLE", "TEST", "TOP", "TRAIN"}
)
"""Words that files are called by and that are no symbol, whatever coin may have them for one."""


@dataclass(frozen=True)
class Layout:
    """Which column is which.

    names: of each column in order, ours for those that are used. ignored: those that mean nothing here. columns: ours →
    theirs, where it was not its own name that said so. symbol: that of every row, from the name of the file. alike:
    positions of columns that must say the same in every row, so that the file's name can speak for all. market: whether
    there is a column of market capitalisation. currency: what their names say that columns are in.
    """

    names: tuple[str, ...]
    ignored: tuple[str, ...] = ()
    known_as: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    symbol: str | None = None
    alike: tuple[int, ...] = ()
    market: bool = True
    currency: str | None = None


def is_another(value: str, symbol: str) -> bool:
    """Whether a value that may name a coin is a pair, and not this symbol with a dollar: `ETH-USD`, `BTC/EUR`."""
    if value in _QUOTES or not value.isupper():  # a currency, or a name such as TrueUSD
        return False
    if pair := _PAIR.fullmatch(value):
        return pair[1] != symbol or pair[2] not in _QUOTES
    coin = next((value.removesuffix(quote) for quote in _QUOTES if value.endswith(quote) and value != quote), symbol)
    return value.isalnum() and coin != symbol and value.removeprefix(symbol) not in _QUOTES


class NoLayout(UnreadableUpload):
    """A header that does not say enough. known: how many of the columns that are asked for it has."""

    def __init__(self, sentence: str, known: int) -> None:
        super().__init__(sentence)
        self.known = known


def columns_given(text: str) -> dict[str, str]:
    """`open=Apertura,high=Massimo` as our name → the file's. Raises ValueError, which says what it must be."""
    wanted = f"like open=Apertura,high=Massimo, with names from {', '.join((*REQUIRED, *OTHERS))}, each once"
    pairs = [part.partition("=") for part in text.split(",") if part.strip()]
    names = [ours.strip().lower() for ours, _, _ in pairs]
    good = all(
        ours in _OTHER_NAMES and sep and theirs.strip() for ours, (_, sep, theirs) in zip(names, pairs, strict=True)
    )
    theirs = [given.strip() for _, _, given in pairs]
    if not good or len(set(names)) < len(names) or len({given.casefold() for given in theirs}) < len(theirs):
        raise ValueError(wanted)
    return dict(zip(names, theirs, strict=True))


OTHERS: Final = tuple(name for name in _OTHER_NAMES if name not in REQUIRED)


def lay_out(given: Sequence[str], optional: Sequence[str], asked: Mapping[str, str], file_name: str) -> Layout:
    """The layout of a header. asked: our name → theirs, as somebody said. Raises NoLayout with every mismatch."""
    if len(given) > MOST_COLUMNS:
        raise UnreadableUpload(
            f"the header has {len(given):,} columns, more than the {MOST_COLUMNS:,} that are read; leave out those "
            "that are not needed"
        )
    own = [ALIASES.get(name, name) for name in (column.strip().lower() for column in given)]
    used = (*REQUIRED, *optional)
    said = _as_asked(given, asked)
    twice = [name for name in used if own.count(name) > 1 and name not in said]
    if not said and not twice and all(name in own for name in REQUIRED):
        return Layout(tuple(own), _ignored(given, own, used))
    missing = [name for name in REQUIRED if name not in own and name not in said]
    if twice:
        raise _refused(given, own, missing, twice, used)
    return _other_layout(given, own, used, said, file_name)


def _other_layout(
    given: Sequence[str], own: Sequence[str], used: Sequence[str], said: Mapping[str, int], file_name: str
) -> Layout:
    """The layout of a header in which not every column has its own name."""
    simple, units = zip(*map(_simple, given), strict=True) if given else ((), ())
    known = next((one for one in _KNOWN if one.has <= set(simple)), None)
    places: dict[str, int] = {}
    twice = []
    for name in used:
        found = [said[name]] if name in said else _candidates(name, own, simple, known, set(said.values()))
        if len(found) > 1:
            twice.append(name)
        elif found:
            places[name] = found[0]
    missing = [name for name in REQUIRED if name not in places]
    if "snappedat" in simple and "price" in simple:
        raise NoLayout(
            "the file is a CoinGecko export, which has one price for each day and no open, high, low and close; upload "
            "a file that has them",
            len(places),
        )
    if twice or not set(missing) <= {"symbol", "market"}:
        raise _refused(given, own, missing, twice, used)
    currencies = {("usd" if units[at] in _DOLLARS else units[at]) for name, at in places.items() if units[at]}
    if len(currencies) > 1:
        raise NoLayout(
            f"its columns are in several currencies: {', '.join(sorted(currencies))}; upload one", len(places)
        )
    symbol = None if "symbol" in places else _symbol_of(file_name, given)
    names = [next((name for name, at in places.items() if at == place), f"#{place}") for place in range(len(given))]
    coins = [at for at, name in enumerate(simple) if name in _COINS and at not in places.values()]
    return Layout(
        names=tuple(names),
        ignored=_ignored(given, _as_used(own, names, used), used),
        known_as=known.name if known else None,
        columns={
            name: given[at].strip()[:SHOWN_NAME] for name, at in places.items() if given[at].strip().lower() != name
        },
        symbol=symbol,
        alike=tuple(coins) if symbol else (),
        market="market" in places,
        currency=next((one.upper() for one in currencies if not one.startswith("usd")), None),
    )


def _as_used(own: Sequence[str], names: Sequence[str], used: Sequence[str]) -> list[str]:
    """What each column is used as; one that has a name of ours and is not used is no exception."""
    return [name if name in used or other in used else other for name, other in zip(names, own, strict=True)]


def _candidates(
    name: str, own: Sequence[str], simple: Sequence[str], known: _Known | None, taken: set[int]
) -> list[int]:
    """The places of the columns that may be ours of this name; the most literal reading that has any counts."""
    free = [at for at in range(len(own)) if at not in taken]
    if known and name in known.columns and (found := [at for at in free if simple[at] in known.columns[name]]):
        return found
    if known and name in known.unused:
        return []
    literal, spelled = [at for at in free if own[at] == name], [at for at in free if simple[at] == name]
    return literal or spelled or [at for at in free if simple[at] in _OTHER_NAMES.get(name, ())]


def _as_asked(given: Sequence[str], asked: Mapping[str, str]) -> dict[str, int]:
    """Our name → place, for those of the columns that somebody named and that are there."""
    places: dict[str, list[int]] = {}
    for at, column in enumerate(given):
        places.setdefault(column.strip().casefold(), []).append(at)
    found = {name: places[theirs.casefold()] for name, theirs in asked.items() if theirs.casefold() in places}
    if doubled := [asked[name] for name, at in found.items() if len(at) > 1]:
        raise UnreadableUpload(
            f"the header has more than one column {', '.join(doubled)}, which {COLUMNS_SETTING} names"
        )
    return {name: at[0] for name, at in found.items()}


def _simple(column: str) -> tuple[str, str]:
    """A column's name without what says nothing (letter case, spaces, `-`, `_`, `*`), and the currency it is in."""
    text = column.strip().strip("\ufeff").casefold()
    unit = _UNIT.search(text)
    if unit:
        text = text[: unit.start()] + text[unit.end() :]
    return re.sub(r"[\s_\-.*]+", "", text), unit[1] if unit else ""


def _refused(
    given: Sequence[str], own: Sequence[str], missing: Sequence[str], twice: Sequence[str], used: Sequence[str]
) -> NoLayout:
    complaints = [f"the required column{'s' * (len(missing) > 1)} {', '.join(missing)} missing"] if missing else []
    complaints += [f"more than one column for {', '.join(twice)}"] if twice else []
    shown = ", ".join(given)
    others = [name for name in own if name not in {*used, *KNOWN_UNUSED}]
    todo = ""
    if missing and others and len(missing) < len(REQUIRED):
        todo = f"; where they have other names, say so: {COLUMNS_SETTING}={missing[0]}=NAME,…"
    return NoLayout(
        f"the header has {' and '.join(complaints)}; its columns are: {shown[:SHOWN_NAMES]}"
        f"{'…' * (len(shown) > SHOWN_NAMES)}{todo}",
        len(REQUIRED) - len(missing),
    )


def _ignored(given: Sequence[str], own: Sequence[str], used: Sequence[str]) -> tuple[str, ...]:
    ignored = [column.strip() for column, name in zip(given, own, strict=True) if name not in {*used, *KNOWN_UNUSED}]
    return tuple(f"{name[:SHOWN_NAME]}…" if len(name) > SHOWN_NAME else name for name in ignored)


def _symbol_of(file_name: str, given: Sequence[str]) -> str:
    """The symbol that the name of a file says all its rows are of: `BTC-USD.csv`, `BTCUSDT-1d-2024-01.csv`.

    It is what stands before a dollar, or a coin that is worth one; in capitals, so that no word is taken for a symbol.
    """
    stem = _ENDINGS.sub("", file_name.rpartition("/")[2])
    todo = f"add a column symbol, or name the file as BTC-USD.csv is; its columns are: {', '.join(given)[:SHOWN_NAMES]}"
    known = len(REQUIRED) - 1
    match = _NAME.fullmatch(stem)
    shown = file_name.rpartition("/")[2][:SHOWN_NAME]
    if match and match["every"] and match["every"] not in _DAILY:
        raise NoLayout(f"by its name {shown} has a row for every {match['every']}, and not for every day", known)
    symbols = set(_before_quote(match)) if match else set()
    if len(symbols) > 1:
        raise NoLayout(
            f"the header has the required column symbol missing, and the name {shown} may mean "
            f"{' or '.join(sorted(symbols))}; {todo}",
            known,
        )
    if not symbols or symbols & _WORDS:
        told = f", and the name {shown} says none" if shown else ""
        raise NoLayout(f"the header has the required column symbol missing{told}; {todo}", known)
    return symbols.pop()


def _before_quote(match: re.Match[str]) -> Iterator[str]:
    pair, quote = match["pair"], match["quote"]
    if quote:
        yield from [pair] if quote in _QUOTES else []
        return
    yield from (pair.removesuffix(quote) for quote in _QUOTES if pair.endswith(quote) and pair != quote)
