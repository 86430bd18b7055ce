"""One visitor's page: what is chosen, and what of it is shown. Only that travels to the browser."""

import logging
from collections.abc import Callable
from functools import cache
from math import expm1
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from crypto_ml.page.accuracy import Baselines, KnownRows, accuracy, baselines
from crypto_ml.page.beside import Listed
from crypto_ml.page.charts import THEMES, Charts
from crypto_ml.page.fragments import PER_PAGE, Column, facts, notices, price, rows_table, table, tiles
from crypto_ml.page.predictions_file import SeriesRows
from crypto_ml.page.watching import Part, Shown, Watching
from crypto_ml.visible import visible

if TYPE_CHECKING:
    from bokeh.document import Document
    from bokeh.models import Button, Div, Model

log = logging.getLogger(__name__)

HERE: Final = Path(__file__).resolve().parent

OFTEN_MS: Final = 400
"""How often a visitor's page asks whether there is something new, without a word to anybody else."""

MOST_ROWS: Final = 20_000
"""Rows of one symbol that travel; fifty years of days."""

SPANS: Final = {"All": None, "1 year": 365, "90 days": 90}
COMPLETIONS: Final = 12

FORECAST_COLUMNS: Final[tuple[Column, ...]] = (
    ("symbol", "text"),
    ("for", "day"),
    ("predicted open", "number"),
)
BESIDE_COLUMNS: Final[tuple[Column, ...]] = (("interval", "number wide"), ("high above low", "number wide"))
"""What there is where some row of the forecast has an interval or a range."""

FORECAST_COLUMNS_AFTER: Final[tuple[Column, ...]] = (
    ("from rows of", "day wide"),
    ("model", "text wide"),
    ("trace", "trace"),
)
REFUSED_COLUMNS: Final[tuple[Column, ...]] = (("line", "number"), ("reason", "text"), ("the line", "text wide"))


class Pages:
    """A table of which one page at a time is shown, with buttons, and a field that filters it where `filtered`."""

    def __init__(self, name: str, filtered: str | None, draw: Callable[[], None]) -> None:
        from bokeh.layouts import column, row
        from bokeh.models import TextInput

        self.page = 0
        self._draw = draw
        self.shown: Div = text_part()
        self._back: Button = button("‹ Back", f"{name}_back")
        self._on: Button = button("More ›", f"{name}_on")
        self._back.on_click(lambda: self._turn(-1))
        self._on.on_click(lambda: self._turn(1))
        self.filter: TextInput | None = None
        if filtered:
            self.filter = TextInput(
                title=filtered, name=f"{name}_filter", width=220, stylesheets=[components()], margin=0
            )
            self.filter.on_change("value_input", lambda _attr, _old, _new: self.first())
        turning = row(self._back, self._on, spacing=8, margin=0)
        parts = [self.filter, self.shown, turning] if self.filter else [self.shown, turning]
        self.root: Model = column(*parts, name=name, sizing_mode="stretch_width", spacing=8, margin=0)

    @property
    def wanted(self) -> str:
        """What the rows are filtered by."""
        return self.filter.value_input.strip().casefold() if self.filter else ""

    def show(self, html: str, total: int) -> None:
        """Show a page of `total` rows."""
        if self.shown.text != html:
            self.shown.text = html
        self._back.disabled = self.page == 0
        self._on.disabled = (self.page + 1) * PER_PAGE >= total
        self._back.visible = self._on.visible = total > PER_PAGE
        if self.filter:
            self.filter.visible = total > PER_PAGE or bool(self.wanted)

    def fitting(self, total: int) -> int:
        """The page that is shown, at most the last one of `total` rows."""
        self.page = max(0, min(self.page, (total - 1) // PER_PAGE))
        return self.page

    def first(self) -> None:
        """Back to the first page."""
        self.page = 0
        self._draw()

    def _turn(self, by: int) -> None:
        self.page += by
        self._draw()


class Visit:
    """The document of one visitor. service: the address of the service that answers with traces, where there is one."""

    def __init__(self, document: "Document", watching: Watching, service: str | None, wanted: str | None) -> None:
        from bokeh.models import AutocompleteInput, RadioButtonGroup

        self._watching = watching
        self._service = service
        self._wanted = wanted
        self._names: dict[str, str] = {}
        self._shown: Shown | None = None
        self._rows: SeriesRows | None = None
        self._known: KnownRows | None = None
        self._waits: str | None = None
        self._asked: Any = None

        self._facts, self._notices = text_part("facts"), text_part("notices")
        self._name, self._tiles = text_part("name"), text_part("tiles")
        self._charts = Charts()
        self._symbol: Any = AutocompleteInput(
            name="symbol", title="Symbol", min_characters=1, max_completions=COMPLETIONS, case_sensitive=False,
            restrict=True, search_strategy="starts_with", width=180, css_classes=["symbol"], margin=0,
            placeholder="type to search", stylesheets=[components()],
        )  # fmt: skip
        self._symbol.on_change("value", lambda _attr, _old, new: self._safely(lambda: self._choose(new)))
        self._before, self._after = button("‹ Previous", "before"), button("Next ›", "after")
        self._before.on_click(lambda: self._safely(lambda: self._step(-1)))
        self._after.on_click(lambda: self._safely(lambda: self._step(1)))
        self._span: Any = RadioButtonGroup(
            name="span", labels=list(SPANS), active=1, stylesheets=[components()], margin=0, css_classes=["span"]
        )
        self._span.on_change("active", lambda _attr, _old, _new: self._safely(self._show_span))
        self._rows_table = Pages("rows", None, lambda: self._safely(self._draw_rows))
        self._forecasts = Pages("forecasts", "Find a symbol", lambda: self._safely(self._draw_forecasts))
        self._refused = Pages("refused", "Find in reasons", lambda: self._safely(self._draw_refused))
        for root in self._roots():
            document.add_root(root)
        self._prepare(document)
        self.refresh()
        document.add_periodic_callback(self.refresh, OFTEN_MS)

    def refresh(self) -> None:
        """Show what is new, if anything is."""
        self._safely(self._show_what_is_new)

    def _show_what_is_new(self) -> None:
        shown = self._watching.shown()
        if self._shown is None or shown.number != self._shown.number:
            before, self._shown = self._shown, shown
            self._draw(shown, before)
        if self._asked is not None and self._asked.done():
            self._take_known()

    def _safely(self, act: Callable[[], None]) -> None:
        """Whatever goes wrong is said on the page, and in the log."""
        try:
            act()
        except Exception:
            log.exception("the page could not be drawn")
            self._notices.visible = True
            self._notices.text = (
                '<p class="notice wrong" role="alert">Something unexpected went wrong while this was drawn; '
                "the log of the page has it. Loading the page again may help.</p>"
            )

    def _roots(self) -> "list[Model]":
        parts = [self._facts, self._notices, self._symbol, self._before, self._after, self._span, self._name]
        tables = [self._rows_table.root, self._forecasts.root, self._refused.root]
        return [*parts, self._tiles, self._charts.prices, self._charts.errors, *tables]

    def _prepare(self, document: "Document") -> None:
        from bokeh.models import CustomJS
        from jinja2 import Template

        charts = [self._charts.prices, self._charts.errors]
        document.title = "Predictions"
        document.template = Template(_text("page.html"))
        document.template_variables["page_css"] = _text("page.css")
        document.js_on_event(
            "document_ready", CustomJS(args={"charts": charts, "themes": dict(THEMES)}, code=_text("ready.js"))
        )
        document.js_on_event("connection_lost", CustomJS(code=_text("lost.js")))
        self._symbol.js_on_change(
            "value",
            CustomJS(code="history.replaceState(null, '', '?symbol=' + encodeURIComponent(cb_obj.value))"),
        )

    def _draw(self, shown: Shown, before: Shown | None) -> None:
        self._notices.text = notices(shown)
        self._notices.visible = bool(self._notices.text)
        self._facts.text = facts(shown, self._service)
        if before is None or before.predictions.value is not shown.predictions.value:
            self._draw_symbols()
        if before is None or before.forecasts is not shown.forecasts:
            self._draw_forecasts()
        if before is None or before.refused is not shown.refused or before.report is not shown.report:
            self._draw_refused()

    def _draw_symbols(self) -> None:
        """Another version of the file: the same symbol stays chosen where it is still there."""
        scored = self._shown.predictions.value if self._shown else None
        there = scored is not None
        for part in (self._symbol, self._before, self._after, self._span):
            part.disabled = not there
        if scored is None:
            self._symbol.value = ""
            self._rows = None
            self._name.text = "Nothing to show yet"
            self._tiles.text = ""
            self._rows_table.show(table("Rows", [("day", "text")], [], 0, 0, nothing="no rows yet"), 0)
            return
        self._names = _names(scored.predictions.symbols)
        names = list(self._names)
        if self._symbol.completions != names:
            self._symbol.completions = names
        chosen = self._wanted if self._wanted in self._names else self._symbol.value
        if chosen not in self._names:
            chosen = max(names, key=lambda name: scored.predictions.count(self._names[name]))
        self._wanted = None
        if self._symbol.value == chosen:
            self._choose(chosen)
        else:
            self._symbol.value = chosen  # which chooses it

    def _choose(self, name: str) -> None:
        scored = self._shown.predictions.value if self._shown else None
        symbol = self._names.get(name)
        if scored is None or symbol is None or self._shown is None:
            return
        part = self._shown.predictions
        rows = scored.predictions.of(symbol)
        self._rows = rows.last(MOST_ROWS)
        cut = f" (the last {MOST_ROWS:,} of {len(rows.days):,} rows)" if len(rows.days) > MOST_ROWS else ""
        self._name.text = _as_text(f"{symbol}{cut}")
        self._known, self._asked, self._waits = None, None, None
        if self._shown.market:
            self._waits = "looking …"
            self._asked = self._shown.market.known(symbol, part.stamp)
        else:
            self._waits = "not in this file"
        self._rows_table.page = 0
        if self._asked is not None and self._asked.done():
            self._take_known()
        else:
            self._draw_symbol()

    def _take_known(self) -> None:
        found = self._asked.result()
        self._asked = None
        self._known = found.rows
        self._waits = found.trouble or (None if found.rows else "not in the market history")
        self._draw_symbol()

    def _draw_symbol(self) -> None:
        if self._rows is None or self._shown is None:
            return
        beside: Baselines = baselines(self._rows, self._known)
        scored = self._shown.predictions.value
        whole = scored.accuracy if scored else None
        self._tiles.text = tiles(self._rows.symbol, accuracy(self._rows, beside), whole, beside, self._waits)
        self._charts.draw(self._rows, beside)
        self._show_span()
        self._draw_rows()

    def _show_span(self) -> None:
        self._charts.show_last(list(SPANS.values())[self._span.active or 0])

    def _step(self, by: int) -> None:
        names = list(self._names)
        if self._symbol.value in self._names:
            self._symbol.value = names[(names.index(self._symbol.value) + by) % len(names)]

    def _draw_rows(self) -> None:
        if self._rows is not None:
            total = len(self._rows.days)
            page = self._rows_table.fitting(total)
            self._rows_table.show(rows_table(self._rows, page, self._service), total)

    def _draw_forecasts(self) -> None:
        part = self._shown.forecasts if self._shown else Part[Listed]()
        wanted = self._forecasts.wanted
        found = [row for row in (part.value.rows if part.value else ()) if wanted in row[0].casefold()]
        page = self._forecasts.fitting(len(found))
        beside = any(any(row[6:]) for row in (part.value.rows if part.value else ()))
        cells = [
            [symbol, target, _price(predicted), *(_beside(*said) if beside else ()), as_of, model, trace]
            for symbol, as_of, target, predicted, model, trace, *said in found[page * PER_PAGE : (page + 1) * PER_PAGE]
        ]
        columns = [*FORECAST_COLUMNS, *(BESIDE_COLUMNS if beside else ()), *FORECAST_COLUMNS_AFTER]
        if part.value:
            nothing = "no symbol like this" if wanted else "no symbol can be forecast"
        elif part.address:
            nothing = f"{part.address} is not there yet" if part.missing else f"{part.address} is not read yet"
        else:
            nothing = "no forecasts are known; --forecasts says where they are"
        html = table("Forecasts", columns, cells, page, len(found), service=self._service, nothing=nothing)
        self._forecasts.show(html, len(found))

    def _draw_refused(self) -> None:
        part = self._shown.refused if self._shown else Part[Listed]()
        report = self._shown.report.value if self._shown else None
        wanted = self._refused.wanted
        rows = part.value.rows if part.value else ()
        found = [row for row in rows if wanted in row[1].casefold() or wanted in row[2].casefold()]
        page = self._refused.fitting(len(found))
        if wanted and rows:
            nothing = "no reason like this"
        elif report and report.refused == 0:
            nothing = "no row was refused"
        else:
            nothing = "no list of refused rows stands beside the file"
        cells = found[page * PER_PAGE : (page + 1) * PER_PAGE]
        self._refused.show(table("Refused rows", REFUSED_COLUMNS, cells, page, len(found), nothing=nothing), len(found))


def text_part(name: str | None = None) -> "Div":
    """A part that shows a fragment; what looks like mathematics in it stays what it is."""
    from bokeh.models import Div

    return Div(
        name=name,
        disable_math=True,
        sizing_mode="stretch_width",
        stylesheets=[components()],
        margin=0,
        css_classes=[name or "table"],
    )


def button(label: str, name: str) -> "Button":
    """A button."""
    from bokeh.models import Button

    return Button(label=label, name=name, stylesheets=[components()], width=112, css_classes=["half"], margin=0)


def components() -> str:
    """The style of bokeh's parts, each of which has one of its own."""
    return _text("components.css")


def _names(symbols: list[str]) -> dict[str, str]:
    """What each symbol is shown as, by which it is chosen."""
    names: dict[str, str] = {}
    for symbol in symbols:
        name = visible(symbol)
        while name in names:  # two that differ in what is not seen
            name += "'"
        names[name] = symbol
    return names


def _as_text(text: str) -> str:
    from html import escape

    return escape(visible(text))


def _beside(low: str, high: str, expected: str, most: str) -> tuple[str, str]:
    """The interval, and the expected range with its upper bound, of a forecast; – where there is none."""
    return f"{_price(low)} to {_price(high)}" if low and high else "–", _percent_of_range(expected, most)


def _percent_of_range(expected: str, most: str) -> str:
    try:
        shown, above = (100 * expm1(float(text)) if text else None for text in (expected, most))
    except (ValueError, OverflowError):
        return expected
    if shown is None:
        return "–"
    return f"{shown:.3g} %" + ("" if above is None else f", at most {above:.3g} %")


def _price(text: str) -> str:
    try:
        return price(float(text))
    except ValueError:
        return text


@cache
def _text(name: str) -> str:
    return (HERE / name).read_text(encoding="utf-8")
