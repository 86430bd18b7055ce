"""How rows, objects and pictures look in the Dagster UI, and how text from outside is kept from looking like more."""

import base64
import re
from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import dagster as dg

from crypto_ml.storage.objects import ObjectStore
from crypto_ml.visible import visible

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

MOST_LINKS: Final = 20
ACTIVE: Final = re.compile(r"[\\`*_{}\[\]()#+!<>~|&$:@]|(?<=[wW]{3})\.")
"""Characters that may mean something to Markdown as GitHub has it, the marks of a bare address among them."""

DESCRIPTIONS: Final = {
    "symbol": "name of the series",
    "index": "0, 1, 2 … within a series of the upload",
    "date": "UTC day",
    "open": "opening price, upload's currency",
    "high": "highest price, upload's currency",
    "low": "lowest price, upload's currency",
    "close": "closing price, upload's currency",
    "market": "market capitalisation, upload's currency; 0 where unknown",
    "volume": "traded volume of the day, upload's currency",
    "slug": "the coin's unique name",
    "close_ratio": "(close − low) / (high − low)",
    "spread": "high − low, upload's currency",
    "log_shares": "ln(ceil(market / close))",
    "pred_open": "predicted opening price, upload's currency",
    "val_open": "observed opening price, upload's currency",
    "status": "predicted, or seed where too few earlier rows exist",
    "prediction_id": "the answer and the line of the upload, or the forecast and the number of its row",
    "file": "number of the upload in its delivery",
    "line": "line of the upload",
    "known_at": "when the observation became known",
    "upload_id": "delivery and file it came from",
    "cleaning": "which cleaning of its delivery took it in",
    "void": "true where the row takes back what its upload said of the day",
    "as_of": "last observed day",
    "target_date": "day whose open is predicted",
    "model_version": "the model that predicted",
}


def column_schema(schema: "pa.Schema") -> dg.TableSchema:
    """The columns of a file or table, with what each means."""
    columns = [dg.TableColumn(field.name, str(field.type), DESCRIPTIONS.get(field.name)) for field in schema]
    return dg.TableSchema(columns)


def in_markdown(text: str) -> str:
    """Text from outside as Markdown that shows exactly it: one line, with no picture, link, tag, row or emphasis in it.

    Dagster renders Markdown without scripts, but fetches the pictures it names and believes its rows.
    """
    return ACTIVE.sub(r"\\\g<0>", visible(text))


def table(rows: "pd.DataFrame") -> dg.MarkdownMetadataValue:
    """Rows as a table."""
    return _table([str(column) for column in rows.columns], list(rows.itertuples(index=False, name=None)))


def records(rows: Sequence[Mapping[str, Any]]) -> dg.MarkdownMetadataValue:
    """Plain records, all with the same fields, as a table."""
    return _table(list(rows[0]) if rows else [], [list(row.values()) for row in rows])


def _table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> dg.MarkdownMetadataValue:
    if not rows:
        return dg.MetadataValue.md("no rows")
    sides = ["--:" if all(isinstance(cell, Real) for cell in column) else ":--" for column in zip(*rows, strict=True)]
    lines = [[in_markdown(column) for column in columns], sides, *([_cell(cell) for cell in row] for row in rows)]
    return dg.MetadataValue.md("\n".join(f"| {' | '.join(line)} |" for line in lines))


def _cell(value: Any) -> str:
    if isinstance(value, Real) and not isinstance(value, Integral):
        return f"{value:g}"
    return "" if value is None else in_markdown(str(value))


def picture(png: bytes, what: str) -> dg.MarkdownMetadataValue:
    """A picture, embedded: it is still there when the object it came from is out of reach."""
    return dg.MetadataValue.md(f"![{in_markdown(what)}](data:image/png;base64,{base64.b64encode(png).decode()})")


def link(key: str, store: ObjectStore) -> dg.UrlMetadataValue:
    """An object's address on the server it is kept by."""
    return dg.MetadataValue.url(f"{store.client.meta.endpoint_url}/{store.bucket}/{quote(store.physical(key))}")


def links(keys: Sequence[str], store: ObjectStore) -> dg.MarkdownMetadataValue:
    """The addresses of several objects, as a list."""
    shown = [f"- [{in_markdown(store.uri(key))}]({link(key, store).url})" for key in keys[:MOST_LINKS]]
    more = [f"- and {len(keys) - MOST_LINKS} more"] if len(keys) > MOST_LINKS else []
    return dg.MetadataValue.md("\n".join(shown + more) or "none")
