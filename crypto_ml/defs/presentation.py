"""How rows, objects and pictures look in the Dagster UI, and how text from outside is kept from looking like more."""

import base64
import re
from collections.abc import Mapping, Sequence
from datetime import date, datetime, time
from itertools import accumulate
from math import isfinite
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import dagster as dg

from crypto_ml.storage.objects import ObjectStore
from crypto_ml.visible import visible

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

    from crypto_ml.forecasting.evaluation import Verdict
    from crypto_ml.forecasting.looked_at import LookedAt
    from crypto_ml.forecasting.sketches import Line, Series

SHOWN_AT_ONCE: Final = 1_000
"""Characters from which on Dagster shows Markdown and JSON only when asked to."""

MOST_LINKS: Final = 20
LONGEST_NAME: Final = 40
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
    "pred_low": "lower end of the interval of the open, upload's currency",
    "pred_high": "upper end of the interval of the open, upload's currency",
    "expected_range": "expected ln(high / low) of the day",
    "range_high": "upper bound of ln(high / low) of the day, at 90 %",
    "prediction_id": "the answer and the line of the upload, or the forecast and the number of its row",
    "file": "number of the upload in its delivery",
    "line": "line of the upload",
    "known_at": "when the observation became known",
    "upload_id": "delivery and file it came from",
    "cleaning": "which cleaning of its delivery took it in, 1 for the first",
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


def table(rows: "pd.DataFrame") -> dg.TableMetadataValue:
    """Rows as a table."""
    return records([dict(zip(rows.columns, row, strict=True)) for row in rows.itertuples(index=False, name=None)])


def records(rows: Sequence[Mapping[str, Any]]) -> dg.TableMetadataValue:
    """Plain records, all with the same fields, as a table, which Dagster shows wherever it shows anything at all.

    Its cells are text to Dagster and never Markdown.
    """
    names = list(rows[0]) if rows else []
    columns = [dg.TableColumn(visible(name), _kind([row[name] for row in rows])) for name in names]
    shown = [dg.TableRecord({visible(name): _cell(row[name]) for name in names}) for row in rows]
    return dg.MetadataValue.table(shown, dg.TableSchema(columns))


def _kind(values: Sequence[Any]) -> str:
    if all(isinstance(value, Integral) for value in values):
        return "int"
    return "float" if all(isinstance(value, Real) for value in values) else "string"


def _cell(value: Any) -> str | int | float:
    """A value as a cell: numbers with as many digits as say something, days without a time of day."""
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        return float(f"{value:.6g}") if isfinite(value) else ""
    if isinstance(value, datetime) and value.time() == time():
        return str(value.date())
    return "" if value is None else visible(str(value))


def days(ends: tuple[date | str | None, date | str | None] | None, suffix: str = "") -> dict[str, str]:
    """The first and the last day of rows, where there are any."""
    first, last = ends or (None, None)
    return {f"first_day{suffix}": str(first), f"last_day{suffix}": str(last)} if first and last else {}


def looked_at(seen: "LookedAt") -> dict[str, Any]:
    """Predictions to look at: their opens beside the observed; where each series has one row, how far off each is."""
    from crypto_ml.forecasting.sketches import PREDICTED, Line

    shown: dict[str, Any] = opens(seen.series)
    if not shown and len(seen.off_by) > 1:
        caption = f"off by, % of the observed open: {len(seen.off_by):,} predictions, from the lowest to the highest"
        shown = {
            "off_by": dg.MetadataValue.md(
                _sketched([Line.of([100 * one for one in sorted(seen.off_by)], PREDICTED)], caption)
            )
        }
    error = seen.mean_relative_error
    return shown | ({} if error is None else {"mean_relative_error": error})


def loss_curve(training: "Sequence[float]", validation: "Sequence[float]") -> dg.MarkdownMetadataValue:
    """The loss after each epoch, on training and on validation rows."""
    from crypto_ml.forecasting.sketches import OTHER, PREDICTED, Line

    lines = [Line.of(training, OTHER), Line.of(validation, PREDICTED)]
    caption = f"loss by epoch, of {len(training)}: training (orange, with dropout) and validation (blue)"
    return dg.MetadataValue.md(_sketched(lines, caption))


def opens(series: "Sequence[Series]") -> dict[str, dg.MarkdownMetadataValue]:
    """Predicted and observed opens: the first of the series in the page, and all of them behind a link."""
    drawn = [_sketched(one.lines, _caption(one)) for one in series]
    shown = {"opens": dg.MetadataValue.md(drawn[0])} if drawn else {}
    return shown | ({"more_opens": dg.MetadataValue.md("\n\n".join(drawn))} if len(drawn) > 1 else {})


def _caption(series: "Series") -> str:
    name = series.symbol if len(series.symbol) <= LONGEST_NAME else f"{series.symbol[: LONGEST_NAME - 1]}…"
    first, last = (str(day) for day in series.days[[0, -1]].astype("datetime64[D]"))
    return f"{in_markdown(name)}, {first} to {last}: predicted (blue) and observed (grey) open"


def drawn(lines: "Sequence[Line]", caption: str) -> dg.MarkdownMetadataValue:
    """Lines in a small picture, and what they are."""
    return dg.MetadataValue.md(_sketched(lines, caption))


def _sketched(lines: "Sequence[Line]", caption: str) -> str:
    from crypto_ml.forecasting.sketches import MOST_POINTS, sketch

    for points in range(MOST_POINTS, 0, -5):
        shown = embedded(sketch(lines, points), caption)
        if len(shown) < SHOWN_AT_ONCE:
            break
    return shown


def embedded(svg: str, caption: str) -> str:
    """A small picture as Markdown, with what it shows below."""
    drawn = quote(svg, safe=" /:='.,-+()")
    return f"![](<data:image/svg+xml,{drawn}>)\n\n{caption}"


def picture(png: bytes, what: str) -> dg.MarkdownMetadataValue:
    """A picture, embedded: it is still there when the object it came from is out of reach."""
    return dg.MetadataValue.md(f"![{in_markdown(what)}](data:image/png;base64,{base64.b64encode(png).decode()})")


def address(key: str, store: ObjectStore) -> str:
    """An object's address on the server it is kept by."""
    return f"{store.client.meta.endpoint_url}/{store.bucket}/{quote(store.physical(key))}"


def link(key: str, store: ObjectStore) -> dg.MarkdownMetadataValue:
    """A link to an object, by a name that is short enough for a narrow column."""
    name = key.rpartition("/")[2]
    shown = name if len(name) <= LONGEST_NAME else f"{name[:LONGEST_NAME]}…"
    return dg.MetadataValue.md(f"[{in_markdown(shown)}]({address(key, store)})")


def mlflow_metadata(told: Mapping[str, str]) -> dict[str, dg.MarkdownMetadataValue | dg.TextMetadataValue]:
    """Where a model is in MLflow, as `stages.experiments` tells: an address to follow, or why there is none."""
    return {
        name: dg.MetadataValue.md(f"[{in_markdown(said)}]({said})")
        if said.startswith(("http://", "https://"))
        else dg.MetadataValue.text(visible(said))
        for name, said in told.items()
    }


def links(keys: Sequence[str], store: ObjectStore) -> dg.MarkdownMetadataValue:
    """The addresses of several objects, as a list: of the first ones, as many as Dagster shows at once."""
    lines = [f"- [{in_markdown(store.uri(key))}]({address(key, store)})" for key in keys[:MOST_LINKS]]
    room = SHOWN_AT_ONCE - len(f"\n- and {len(keys)} more")
    ends = accumulate(len(line) + 1 for line in lines)
    shown = lines[: max(sum(end <= room for end in ends), 1)]
    more = [f"- and {len(keys) - len(shown)} more"] if len(keys) > len(shown) else []
    return dg.MetadataValue.md("\n".join(shown + more) or "none")


def check_result(
    name: str, verdict: "Verdict", severity: dg.AssetCheckSeverity, **shown: dg.MetadataValue
) -> dg.AssetCheckResult:
    """A verdict as the result of a check: its sentence, and its numbers as numbers, so that they plot over time.

    Dagster renders the sentence as Markdown, and symbols and names of files in it are somebody else's.
    """
    numbers = {key: value for key, value in verdict.numbers.items() if value is not None}
    if verdict.threshold:
        numbers["threshold"] = verdict.threshold
    return dg.AssetCheckResult(
        check_name=name,
        passed=verdict.passed,
        severity=severity,
        description=in_markdown(verdict.explanation),
        metadata={**numbers, **shown},
    )
