"""A predictions file, read once for all who look at it.

What is asked of it is what the charts of the team's first page ask: `symbol`, `date`, `pred_open`, `val_open`; the rest
is used where it is there. So a file of any release is read, and one that somebody else wrote.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

from crypto_ml.errors import Refused
from crypto_ml.forecasting.scoring import SEED
from crypto_ml.page.header import column_names
from crypto_ml.visible import visible

FloatArray = npt.NDArray[np.float64]
DayArray = npt.NDArray[np.datetime64]

NEEDED: Final = ("symbol", "date", "pred_open", "val_open")
NUMBERS: Final = ("pred_open", "val_open", "pred_low", "pred_high", "expected_range", "range_high")
TEXTS: Final = ("symbol", "date", "status", "prediction_id")
UPLOAD: Final = frozenset({"open", "high", "low", "close"})
LONGEST_SHOWN: Final = 40
NO_NUMBER: Final = ("", "NaN", "nan", "NA", "null", "NULL", "None")


class NotPredictions(Refused):
    """A file that is no predictions file, or a damaged one."""


@dataclass(frozen=True, eq=False)
class SeriesRows:
    """The n rows of one symbol in the order of their days; prices in the upload's currency, NaN where there is none.

    predicted: NaN for a seed row, which was not predicted. last_open: the observed open of the row before in this file.
    low, high: the interval of the prediction. range, range_high: what ln(high / low) of the day was expected to be, and
    its upper bound. ids: the prediction_id of each row, "" where the file has none.
    """

    symbol: str
    days: DayArray
    observed: FloatArray
    predicted: FloatArray
    low: FloatArray
    high: FloatArray
    range: FloatArray
    range_high: FloatArray
    last_open: FloatArray
    ids: Sequence[str]
    seeds: int

    def last(self, most: int) -> "SeriesRows":
        """The last `most` rows."""
        cut = slice(max(0, len(self.days) - most), None)
        numbers = ("observed", "predicted", "low", "high", "range", "range_high", "last_open")
        kept = {name: getattr(self, name)[cut] for name in numbers}
        return replace(self, days=self.days[cut], ids=self.ids[cut], **kept)


class Predictions:
    """All rows of a file, sorted by symbol and day, of which one symbol at a time is looked at."""

    def __init__(self, table: pa.Table) -> None:
        rows = table.num_rows
        symbols = table["symbol"].combine_chunks().dictionary_encode()
        days = table["date"].to_numpy().astype("datetime64[D]")
        order = np.lexsort((days, symbols.indices.to_numpy()))
        codes = symbols.indices.to_numpy()[order]
        begins = np.flatnonzero(np.diff(codes, prepend=-1))
        ends = np.append(begins[1:], rows)
        names = symbols.dictionary.to_pylist()
        self._slices: Mapping[str, slice] = {
            names[codes[begin]]: slice(int(begin), int(end)) for begin, end in zip(begins, ends, strict=True)
        }
        taken = pa.array(order)
        self._days = days[order]
        self._numbers = {
            name: _finite(table[name].to_numpy()[order]) if name in table.schema.names else np.full(rows, np.nan)
            for name in NUMBERS
        }
        self._ids = (
            table["prediction_id"].take(taken).combine_chunks() if "prediction_id" in table.schema.names else None
        )
        seeds = np.zeros(rows, bool)
        if "status" in table.schema.names:
            seeds = pc.equal(table["status"], SEED).to_numpy()[order].astype(bool)
        self._seeds = seeds
        observed = self._numbers["val_open"]
        observed[~(observed > 0)] = np.nan
        before = np.full(rows, np.nan)
        before[1:] = observed[:-1]
        before[begins] = np.nan
        self._last_open = before
        self._predicted = np.where(seeds, np.nan, self._numbers["pred_open"])
        self._codes = codes

    @property
    def rows(self) -> int:
        return len(self._days)

    @property
    def symbols(self) -> list[str]:
        """Sorted as people look for them, in whatever letter case."""
        return sorted(self._slices, key=lambda name: (name.casefold(), name))

    @property
    def first_and_last_day(self) -> tuple[str, str]:
        return str(self._days.min()), str(self._days.max())

    @property
    def answer(self) -> str | None:
        """The id of the answer that these predictions are; None where the file does not say."""
        found = str(self._ids[0]).rpartition("-")[0] if self._ids is not None else ""
        return found or None

    def count(self, symbol: str) -> int:
        """How many rows a symbol has. Raises KeyError."""
        cut = self._slices[symbol]
        return int(cut.stop - cut.start)

    def of(self, symbol: str) -> SeriesRows:
        """The rows of a symbol. Raises KeyError."""
        cut = self._slices[symbol]
        ids = [""] * (cut.stop - cut.start) if self._ids is None else self._ids[cut].to_pylist()
        return SeriesRows(
            symbol=symbol,
            days=self._days[cut],
            observed=self._numbers["val_open"][cut],
            predicted=self._predicted[cut],
            low=self._numbers["pred_low"][cut],
            high=self._numbers["pred_high"][cut],
            range=self._numbers["expected_range"][cut],
            range_high=self._numbers["range_high"][cut],
            last_open=self._last_open[cut],
            ids=ids,
            seeds=int(self._seeds[cut].sum()),
        )

    def columns(self) -> tuple[npt.NDArray[Any], FloatArray, FloatArray, FloatArray]:
        """Of all rows: a number for each symbol, observed, predicted, last open."""
        return self._codes, self._numbers["val_open"], self._predicted, self._last_open


def read_predictions(content: bytes) -> Predictions:
    """Read the bytes of a predictions file. Raises NotPredictions, whose sentence says what is wrong, and where."""
    names = _header(content)
    try:
        table = _table(content, names)
    except pa.ArrowInvalid as error:
        raise NotPredictions(_where_it_is_wrong(content, names)) from error
    if not table.num_rows:
        raise NotPredictions("It has a header and no rows yet.")
    if pc.any(pc.equal(table["symbol"], "")).as_py():
        raise NotPredictions("It has rows without a symbol.")
    return Predictions(table)


def is_ended(content: bytes) -> bool:
    """Whether the last line is a whole one: who writes a file in place may be in the middle of a number."""
    return content.endswith(b"\n")


def _header(content: bytes) -> list[str]:
    if not content.strip():
        raise NotPredictions("It is empty.")
    if content.startswith((b"\x1f\x8b", b"PAR1", b"PK\x03\x04")):
        raise NotPredictions("It is a packed file and no CSV: unpack it, or name the …_preds.csv itself.")
    if content.lstrip().startswith((b"<", b"{", b"[")):
        raise NotPredictions(
            "It is a web page or JSON and no CSV: check the address, and whether one has to log in there."
        )
    names = column_names(content)
    if names is None:
        raise NotPredictions("It is no CSV in UTF-8.")
    missing = [name for name in NEEDED if name not in names]
    if missing and UPLOAD.issubset(name.strip().lower() for name in names):
        raise NotPredictions(
            "It is an upload, and not the answer to one: name its …_preds.csv, or score it with `crypto-ml score`."
        )
    if missing:
        has = ", ".join(_cut(name) for name in names[:8]) or "nothing"
        raise NotPredictions(f"It is no predictions file: the header lacks {', '.join(missing)}; it has {has}.")
    twice = [name for name in (*NUMBERS, *TEXTS) if names.count(name) > 1]
    if twice:
        raise NotPredictions(f"It has two columns {', '.join(twice)}: which one counts is not known.")
    return names


def _table(content: bytes, names: Sequence[str]) -> pa.Table:
    types = {name: pa.float64() for name in NUMBERS} | {name: pa.string() for name in TEXTS}
    table = pa_csv.read_csv(
        pa.BufferReader(content),
        convert_options=pa_csv.ConvertOptions(
            column_types=types,
            include_columns=[name for name in names if name in types],
            null_values=list(NO_NUMBER),
            strings_can_be_null=False,
        ),
    )
    return table.set_column(table.schema.names.index("date"), "date", _days(table["date"]))


def _days(texts: pa.ChunkedArray) -> pa.ChunkedArray:
    try:
        return texts.cast(pa.date32())
    except pa.ArrowInvalid:  # with a time of day, as pandas may write it
        return texts.cast(pa.timestamp("s")).cast(pa.date32(), safe=False)


def _where_it_is_wrong(content: bytes, names: Sequence[str]) -> str:
    """The first line that cannot be read, in a sentence; read slowly, since it is wrong anyway."""
    wrong: list[str] = []
    try:
        content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        return f"Line {line:,} is no text in UTF-8: it is no CSV in UTF-8, or damaged."

    def note(row: pa_csv.InvalidRow) -> str:
        if not wrong:
            wrong.append(
                f"Line {row.number:,} has {row.actual_columns} values where the header has {row.expected_columns}: the "
                "file is damaged, or only half written."
            )
        return "skip"

    try:
        table = pa_csv.read_csv(
            pa.BufferReader(content),
            read_options=pa_csv.ReadOptions(use_threads=False),
            parse_options=pa_csv.ParseOptions(invalid_row_handler=note),
            convert_options=pa_csv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False, include_columns=list(NEEDED)
            ),
        )
    except pa.ArrowInvalid:
        return "It is no CSV in UTF-8 that could be read: it is damaged, or another kind of file."
    if wrong:
        return wrong[0]
    for line, values in enumerate(zip(*(table[name].to_pylist() for name in NEEDED), strict=True), start=2):
        for name, value in zip(NEEDED, values, strict=True):
            if name != "symbol" and not _means_something(name, value):
                kind = "date such as 2018-03-25" if name == "date" else "number"
                return f"Line {line:,} has “{_cut(value)}” under {name}, which is no {kind}."
    return "Some value in it is no number."


def _means_something(name: str, value: str) -> bool:
    if name == "date":
        try:
            _days(pa.chunked_array([[value]]))
        except pa.ArrowInvalid:
            return False
        return True
    try:
        return value in NO_NUMBER or float(value) is not None
    except ValueError:
        return False


def _cut(text: str) -> str:
    shown = visible(text)
    return shown if len(shown) <= LONGEST_SHOWN else shown[:LONGEST_SHOWN] + "…"


def _finite(values: npt.NDArray[Any]) -> FloatArray:
    numbers = np.array(values, np.float64)
    numbers[~np.isfinite(numbers)] = np.nan
    return numbers
