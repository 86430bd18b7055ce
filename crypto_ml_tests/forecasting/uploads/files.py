"""Uploads written by hand, and what becomes of them on the road from bytes to sorted rows."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd
import pyarrow as pa

from crypto_ml.forecasting.intake import FileIntake, IntakeRules, Repeats, settled_chunks, take_in
from crypto_ml.forecasting.refusals import LISTED, REFUSED
from crypto_ml.forecasting.schema import OBSERVATION, DateOrder
from crypto_ml.forecasting.sorting import RowSorter

TODAY = date(2018, 3, 26)
HEADER = "symbol,date,open,high,low,close,market"
GOOD = {"symbol": "BTC", "date": "2018-03-01", "open": "10", "high": "12", "low": "9", "close": "11", "market": "500"}


def line(**values: str) -> str:
    """A good row with some of its values replaced, as a line without its end."""
    return ",".join((GOOD | values).values())


def csv(*lines: str, header: str = HEADER, end: str = "\n") -> bytes:
    """A file of these lines."""
    return "".join(f"{text}{end}" for text in (header, *lines)).encode()


@dataclass(frozen=True)
class Taken:
    """An intake, the rows that are left once repeats are settled, and what the settling brought to light."""

    intake: FileIntake
    rows: pd.DataFrame
    repeats: Repeats
    refused_rows: pa.Table

    @property
    def refused(self) -> list[tuple[int, str]]:
        """Line and reason of each refused row, in order of lines."""
        return [(row["line"], row["reason"]) for row in self.refused_rows.to_pylist()]

    @property
    def adds_up(self) -> bool:
        """received = accepted + refused + repeated, and no accepted row was lost on the way to the sorted rows."""
        intake, contradicting = self.intake, self.repeats.contradicting[0]
        settled = len(self.rows) + contradicting + self.repeats.repeated[0]
        return (
            len(self.refused_rows) == min(LISTED, intake.refused_rows + contradicting)
            and intake.received_rows == intake.accepted_rows + intake.refused_rows
            and intake.accepted_rows == settled
        )


def take(
    content: bytes,
    *,
    today: date = TODAY,
    date_order: DateOrder | None = None,
    max_bytes: int = 1 << 30,
    columns: Mapping[str, str] | None = None,
    called: str = "",
) -> Taken:
    """Take in a file of these bytes that is called so."""
    with TemporaryDirectory() as name, RowSorter(Path(name) / "sort") as sorter:
        path = Path(name) / "upload"
        path.write_bytes(content)
        intake = take_in(path, IntakeRules(today, date_order, max_bytes, columns or {}), sorter, name=called)
        repeats = Repeats()
        empty = pd.DataFrame({name: [] for name in (*OBSERVATION, "line")})
        chunks = list(settled_chunks(sorter, repeats))
        refused = pa.Table.from_batches(sorter.refusals.listed(0), REFUSED)
        return Taken(intake, pd.concat(chunks, ignore_index=True) if chunks else empty, repeats, refused)
