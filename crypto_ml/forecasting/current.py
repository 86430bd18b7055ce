"""Which of several rows for a series and a day is the current one: the one rule, as SQL and as a sort key; for tables
in memory see `current_rows`.

A later delivery counts before an earlier one, in a delivery a later file, in a file a later line, all compared as
numbers; it is the order in which answers replace each other, and no clock has a say in it. Where a delivery was cleaned
again by other code, the later cleaning of a line counts.

An upload that was retracted has each of its rows once more, as a void row: what an upload said of a series and a day
does not count where the same upload has a void row for them. So whole series and days of the history are read as they
would be among all the others.

0.1 went by the time at which a row became known (`known`), and compared uploads as text. What it answered and trained
is read in that order for ever; everything else goes by `delivered`.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final, Literal

Order = Literal["delivered", "known"]
"""The order in which rows for one day outrank each other; what was made by it records it."""

ORDERING: Final = ("known_at", "upload_id", "line", "cleaning", "void")
"""The columns of the history by which its current rows are found. `upload_id` is `<delivery>.<file>`."""

_TERMS: Final[Mapping[Order, tuple[str, ...]]] = {
    "delivered": (
        "CAST(split_part(upload_id, '.', 1) AS BIGINT)",
        "CAST(split_part(upload_id, '.', 2) AS BIGINT)",
        "line",
        "coalesce(cleaning, 1)",
    ),
    "known": ("known_at", "upload_id", "line"),
}


def order_sql(order: Order) -> str:
    """An SQL value that is greater the later a row comes in an order."""
    return f"row({', '.join(_TERMS[order])})"


VALID: Final = """
    received AS MATERIALIZED (SELECT * FROM known),
    retracted AS (SELECT DISTINCT symbol, date, upload_id FROM received WHERE void),
    valid AS (SELECT * FROM received ANTI JOIN retracted USING (symbol, date, upload_id))
"""
"""For a WITH: `valid`, the rows of the table `known` that were not retracted. `known` may be a stream, read once."""


def current_sql(order: Order) -> str:
    """A query for the current row of each series and day of the table `known`, which has the columns of ORDERING."""
    greatest_first = ", ".join(f"{term} DESC" for term in _TERMS[order])
    return f"""
        WITH {VALID} SELECT * FROM valid
        QUALIFY row_number() OVER (PARTITION BY symbol, date ORDER BY {greatest_first}) = 1
    """  # noqa: S608


def valid_rows(rows: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Rows of the history that were not retracted, in their order; they have `symbol`, `date`, `upload_id`, `void`."""
    given = list(rows)
    void = {_said_of(row) for row in given if row["void"]}
    return [row for row in given if _said_of(row) not in void]


def _said_of(row: Mapping[str, Any]) -> tuple[Any, Any, Any]:
    return row["symbol"], row["date"], row["upload_id"]


def rank(row: Mapping[str, Any], order: Order) -> tuple[Any, ...]:
    """A sort key of rows for one series and day: the current one has the greatest."""
    if order == "known":
        return row["known_at"], row["upload_id"], row["line"]
    delivery, _, file = str(row["upload_id"]).partition(".")
    return int(delivery), int(file), row["line"], row["cleaning"] or 1
