"""The parts of the page that are text and tables, as HTML.

Symbols, reasons, names and whatever else comes from outside is text: every value is escaped, and what steers the
display is spelled out. There is no other way into the page.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Final, Literal
from urllib.parse import quote

import numpy as np

from crypto_ml.page.accuracy import Accuracy, Baselines, percent_off
from crypto_ml.page.predictions_file import SeriesRows
from crypto_ml.page.watching import Part, Scored, Shown
from crypto_ml.visible import visible

if TYPE_CHECKING:
    from jinja2 import Environment

PER_PAGE: Final = 10
AS_CLOSE: Final = 0.02
"""Mean errors that differ by no more than this part of each other are called alike."""

TEMPLATES: Final = {
    "notices": """
{%- for kind, text in notices %}<p class="notice {{ kind }}" role="{{ 'alert' if kind == 'wrong' else 'status' }}">
{{- text }}</p>{% endfor -%}""",
    "facts": """
<dl class="facts">
{%- for name, value, link in facts %}<div><dt>{{ name }}</dt><dd>
{%- if link %}<a href="{{ link }}" target="_blank" rel="noopener noreferrer">{{ value }}</a>
{%- else %}{{ value }}{% endif %}</dd></div>{% endfor -%}
</dl>""",
    "tiles": """
<div class="tiles">
{%- for tile in tiles %}<div class="tile {{ tile.kind }}"><h3>{{ tile.name }}</h3><p class="big">{{ tile.big }}</p>
<div class="bar" aria-hidden="true"><span style="width: {{ tile.width }}%"></span></div><p>{{ tile.small }}</p></div>
{%- endfor %}</div><p class="verdict">{{ sentence }}</p>""",
    "table": """
<div class="table"><table><caption class="unseen">{{ caption }}</caption><thead><tr>
{%- for name, kind in columns %}<th scope="col" class="{{ kind }}">{{ name }}</th>{% endfor %}</tr></thead><tbody>
{%- for row in rows %}<tr>{% for cell in row %}{% set kind = columns[loop.index0][1] %}<td class="{{ kind }}">
{%- if kind == 'trace' and cell %}{% if service %}<a href="{{ service }}/v1/predictions/{{ cell | quoted }}/trace"
 target="_blank" rel="noopener noreferrer" title="{{ cell }}">trace</a>{% else %}<button type="button"
 data-copy="crypto-ml trace {{ cell }}" title="crypto-ml trace {{ cell }}">copy</button>{% endif %}
{%- else %}{{ cell }}{% endif %}</td>{% endfor %}</tr>
{%- else %}<tr><td colspan="{{ columns | length }}">{{ nothing }}</td></tr>{% endfor -%}
</tbody></table></div><p class="of">{{ counted }}</p>""",
}

Kind = Literal["wrong", "note"]
Column = tuple[str, str]
"""The heading of a column, and its class: `text`, `number`, `trace`, `wide` (what a narrow display leaves out)."""


@dataclass(frozen=True)
class Tile:
    """One way of predicting, and how far it is off."""

    kind: str
    name: str
    big: str
    small: str
    width: float


def notices(shown: Shown) -> str:
    """What is wrong, and what to know."""
    found: list[tuple[Kind, str]] = []
    part = shown.predictions
    if part.trouble and part.value:
        found.append(("wrong", f"{part.trouble} What you see was read at {_time(part)}; the page goes on looking."))
    elif part.trouble:
        found.append(
            ("wrong", f"{_named(part)}{part.trouble} The page looks again by itself, and shows it when it can.")
        )
    elif not part.value:
        found.append(("note", "Reading …"))
    report = shown.report.value
    if report and report.outcome == "REJECTED":
        found.append(("wrong", f"The newest upload was rejected: {report.reason or 'the report does not say why'}"))
    elif report and report.outcome == "SKIPPED" and report.reason:
        found.append(("note", f"The newest upload was skipped: {report.reason}"))
    retraction = shown.retraction.value
    if retraction and report and retraction.delivery == report.delivery:
        found.append(("wrong", f"The upload was retracted by {retraction.by}: {retraction.why}"))
    beside = (shown.report, shown.retraction, shown.refused, shown.forecasts)
    found += [("note", f"{said.address}: {said.trouble}") for said in beside if said.trouble and not said.missing]
    if report and not is_of(shown):
        found.append(
            ("note", "The report beside the predictions is about another answer: one of them is being replaced.")
        )
    found += [("note", note) for note in (report.notes if report else ())]
    return _rendered("notices", notices=found)


def is_of(shown: Shown) -> bool:
    """Whether the report is about the predictions that are shown, as far as can be told."""
    report, scored = shown.report.value, shown.predictions.value
    answer = scored.predictions.answer if scored else None
    return report is None or answer is None or report.answer_id in (None, answer)


def facts(shown: Shown, service: str | None) -> str:
    """Which file this is, of which model, read when."""
    part, report = shown.predictions, shown.report.value
    found: list[tuple[str, str, str | None]] = [("file", part.address or "", None)]
    if part.value:
        predictions = part.value.predictions
        first, last = predictions.first_and_last_day
        many = f"{predictions.rows:,} rows of {len(predictions.symbols):,} symbols"
        found.append(("rows", f"{many}, {first} to {last}", None))
        if report and report.model_version and is_of(shown):
            found.append(("model", report.model_version, f"{service}/v1/model" if service else None))
        else:
            found.append(("model", "not known: there is no report beside the file that says which", None))
        found.append(("read", _time(part), None))
    return _rendered("facts", facts=found)


def tiles(symbol: str, measured: Accuracy | None, whole: Accuracy | None, beside: Baselines, waits: str | None) -> str:
    """How far off the model is, beside the two predictions that cost nothing. waits: why no close is known."""
    if measured is None:
        return _rendered(
            "tiles", tiles=[], sentence=f"No row of {symbol} can be compared with an observed open before."
        )
    ways = [("model", "model", measured.model), ("last_close", "last close", measured.last_close)]
    ways.append(("last_open", "last open", measured.last_open))
    largest = max(errors.mre for _, _, errors in ways if errors) or 1.0
    found = [
        Tile(
            kind,
            name,
            f"{100 * errors.mre:.3g} %",
            f"{price(errors.mae, 3)} on average"
            + (
                f" · direction right {100 * errors.directional_accuracy:.0f} %"
                if errors.directional_accuracy and kind == "model"
                else ""
            ),
            round(100 * errors.mre / largest, 1),
        )
        if errors
        else Tile(kind, name, "–", waits or "no close before these days is known", 0)
        for kind, name, errors in ways
    ]
    return _rendered("tiles", tiles=found, sentence=_sentence(symbol, measured, whole, beside))


def _sentence(symbol: str, measured: Accuracy, whole: Accuracy | None, beside: Baselines) -> str:
    best = measured.last_close or measured.last_open
    name = "the last close" if measured.last_close else "the last open"
    close = abs(measured.model.mre - best.mre) <= AS_CLOSE * best.mre
    word = "about as close as" if close else "closer than" if measured.model.mre < best.mre else "further off than"
    where = "in the market history" if beside.from_history else "in this file"
    all_rows = ""
    if whole:
        all_rows = (
            f" Over the whole file ({whole.rows:,} rows) the model is {100 * whole.model.mre:.3g} % off, "
            f"the last open {100 * whole.last_open.mre:.3g} %."
        )
    what = "open and close" if measured.last_close else "open"
    closes = "" if measured.last_close else " No predictions file has closes: they come from a deployment's history."
    return (
        f"On {measured.rows:,} rows of {symbol} the model is {word} {name}: mean distance from the observed open, in "
        f"percent of it. Compared with the {what} of the row before, {where}; seed rows do not count.{closes}{all_rows}"
    )


def rows_table(rows: SeriesRows, page: int, service: str | None) -> str:
    """Some rows of a symbol, the newest first, each with what leads to its trace."""
    numbers = range(len(rows.days) - 1 - page * PER_PAGE, max(-1, len(rows.days) - 1 - (page + 1) * PER_PAGE), -1)
    with_interval = bool(np.isfinite(rows.low).any())
    off = percent_off(rows.predicted, rows.observed)
    cells = [
        [
            str(rows.days[n]),
            price(rows.observed[n]),
            price(rows.predicted[n]) if np.isfinite(rows.predicted[n]) else "–",
            *([f"{price(rows.low[n])} to {price(rows.high[n])}"] if with_interval else []),
            f"{off[n]:+.2f} %" if np.isfinite(off[n]) else "–",
            rows.ids[n],
        ]
        for n in numbers
    ]
    columns: list[Column] = [("day", "day"), ("observed", "number"), ("predicted", "number")]
    columns += [("interval", "number wide")] if with_interval else []
    columns += [("off by", "number"), ("trace", "trace")]
    return table(f"Predictions of {rows.symbol}", columns, cells, page, len(rows.days), service=service)


def table(
    caption: str,
    columns: Sequence[Column],
    cells: Sequence[Sequence[str]],
    page: int,
    total: int,
    *,
    service: str | None = None,
    nothing: str = "none",
) -> str:
    """A page of a table."""
    begin = page * PER_PAGE
    counted = f"{begin + 1:,} to {begin + len(cells):,} of {total:,}" if cells else ""
    return _rendered(
        "table", caption=caption, columns=columns, rows=cells, counted=counted, service=service, nothing=nothing
    )


def price(value: float, digits: int = 6) -> str:
    """A price with that many digits that count, as people write it; – where there is none."""
    if not np.isfinite(value):
        return "–"
    if abs(value) >= 1000:
        return f"{value:,.2f}"
    return np.format_float_positional(value, precision=digits, unique=False, fractional=False, trim="-")


def _named(part: Part[Scored]) -> str:
    return "" if not part.address or part.address in (part.trouble or "") else f"{part.address}: "


def _time(part: Part[Any]) -> str:
    return f"{part.read_at:%H:%M:%S} UTC" if part.read_at else "–"


def _rendered(name: str, **values: Any) -> str:
    return _environment().get_template(name).render(**values)


@cache
def _environment() -> "Environment":
    from jinja2 import DictLoader, Environment

    environment = Environment(
        loader=DictLoader(TEMPLATES),
        autoescape=True,
        finalize=lambda value: visible(value) if type(value) is str else value,
    )
    environment.filters["quoted"] = lambda text: quote(text, safe="")
    return environment
