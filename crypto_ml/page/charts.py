"""The two charts of a symbol: observed and predicted opens with their interval, and how far off each day was.

Colours are those of Okabe and Ito, told apart by everybody, and no line is told by its colour alone: lines differ in
width and dashes too. What is light or dark is decided in the browser (`THEMES`), which alone knows.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from crypto_ml.page.accuracy import Baselines, percent_off, rolling_mean
from crypto_ml.page.predictions_file import DayArray, FloatArray, SeriesRows

if TYPE_CHECKING:
    from bokeh.models import ColumnDataSource, CustomJSTickFormatter, HoverTool, Plot, Range1d

Columns = dict[str, Any]

DAY: Final = 86_400_000.0
"""Milliseconds, in which bokeh counts time."""

MEAN_OF: Final = 30
"""Rows that errors are averaged over: single days hide what is usual."""

FEW: Final = 60
"""Rows up to which each is marked; a single one has no line."""

THEMES: Final = {
    "light": {
        "text": "#4a5361",
        "grid": "#e4e8ee",
        "observed": "#1c2330",
        "predicted": "#0072b2",
        "band": "#0072b2",
        "model": "#0072b2",
        "model_day": "#0072b2",
        "last_close": "#d55e00",
        "last_open": "#8a8f98",
    },
    "dark": {
        "text": "#aab4c3",
        "grid": "#2a313d",
        "observed": "#f2f4f8",
        "predicted": "#56b4e9",
        "band": "#56b4e9",
        "model": "#56b4e9",
        "model_day": "#56b4e9",
        "last_close": "#e69f00",
        "last_open": "#858e9c",
    },
}
"""Colours of everything that is drawn; the first is what is drawn before the browser has said which it wants."""

NUMBER: Final = "return Number.isFinite(value) ? value.toLocaleString('en', {maximumSignificantDigits: 6}) : '–'"
TICK: Final = "return tick.toLocaleString('en', {maximumSignificantDigits: 6})"
PERCENT: Final = (
    "return Number.isFinite(value) ? value.toLocaleString('en', {maximumSignificantDigits: 3}) + ' %' : '–'"
)

PRICES_SHOWN: Final = (
    ("day", "@day{%F}"),
    ("observed", "@observed{custom}"),
    ("predicted", "@predicted{custom}"),
    ("off by", "@off{custom}"),
)
INTERVAL_SHOWN: Final = (("from", "@low{custom}"), ("to", "@high{custom}"))
RANGE_SHOWN: Final = (("high above low, expected", "@range{custom}"), ("at most, in 9 of 10", "@range_high{custom}"))


@dataclass(frozen=True, eq=False)
class Drawn:
    """The columns of one symbol that travel to the browser: `lines` by day, `band` where there is an interval."""

    lines: Columns
    band: Columns


def drawn(rows: SeriesRows, beside: Baselines) -> Drawn:
    """What is drawn of a symbol.

    `off` is the model's error with its sign, in percent of the observed open. Of each way of predicting there is the
    error of each day without its sign (`…_day`), and its mean of MEAN_OF rows.
    """
    off = percent_off(rows.predicted, rows.observed)
    inside = np.isfinite(rows.low) & np.isfinite(rows.high)
    days = _milliseconds(rows.days)
    ways = {"model": rows.predicted, "last_close": beside.last_close, "last_open": beside.last_open}
    each_day = {name: np.abs(percent_off(way, rows.observed)) for name, way in ways.items()}
    return Drawn(
        lines={
            "day": days,
            "observed": rows.observed,
            "predicted": rows.predicted,
            "low": rows.low,
            "high": rows.high,
            "off": off,
            "range": percent_of_range(rows.range),
            "range_high": percent_of_range(rows.range_high),
            **{f"{name}_day": day for name, day in each_day.items()},
            **{name: rolling_mean(day, MEAN_OF) for name, day in each_day.items()},
        },
        band={"day": days[inside], "low": rows.low[inside], "high": rows.high[inside]},
    )


def percent_of_range(log_range: FloatArray) -> FloatArray:
    """How far the high is above the low, in percent of it, where ln(high / low) is this."""
    with np.errstate(over="ignore"):
        return 100.0 * np.expm1(log_range)


def _milliseconds(days: DayArray) -> FloatArray:
    return days.astype("datetime64[ms]").astype(np.float64)


class Charts:
    """Both charts, over the same days, and the sources that they are drawn from."""

    def __init__(self) -> None:
        from bokeh.models import ColumnDataSource as Source
        from bokeh.models import Range1d as Range
        from bokeh.plotting import figure

        nothing = drawn(_NO_ROWS, Baselines(_NO_NUMBERS, _NO_NUMBERS, from_history=False))
        self.lines: ColumnDataSource = Source(nothing.lines)
        self.band: ColumnDataSource = Source(nothing.band)
        self.days: Range1d = Range(0.0, DAY)
        light = THEMES["light"]

        self.prices: Plot = figure(**_usual(self.days, 340), name="prices")
        self.prices.varea(
            x="day", y1="low", y2="high", source=self.band, fill_color=light["band"], fill_alpha=0.28,
            legend_label="interval", name="band",
        )  # fmt: skip
        # wide below narrow: where the two agree, both are still seen
        observed = self.prices.line(
            x="day", y="observed", source=self.lines, color=light["observed"], line_width=5, line_alpha=0.35,
            legend_label="observed", name="observed",
        )  # fmt: skip
        self.prices.line(
            x="day", y="predicted", source=self.lines, color=light["predicted"], line_width=1.5,
            legend_label="predicted", name="predicted",
        )  # fmt: skip
        self._marks = [
            self.prices.scatter(
                x="day", y=name, source=self.lines, color=light[name], size=size, alpha=alpha, name=name
            )
            for name, size, alpha in (("observed", 9, 0.35), ("predicted", 5, 1.0))
        ]
        self.prices.yaxis.formatter = _ticks(TICK)
        self._hover = _hover([*PRICES_SHOWN, *INTERVAL_SHOWN, *RANGE_SHOWN], observed)
        self.prices.add_tools(self._hover)

        # a factor of ten between two ways is as far at the bottom as at the top
        self.errors: Plot = figure(**_usual(self.days, 260), name="errors", y_axis_type="log")
        self.errors.scatter(
            x="day", y="model_day", source=self.lines, color=light["model"], size=3, alpha=0.35, name="model_day"
        )
        for name, words, dash, width in (
            ("last_open", "last open", "dotted", 2.0),
            ("last_close", "last close", "dashed", 2.0),
            ("model", "model", "solid", 2.2),
        ):
            line = self.errors.line(
                x="day", y=name, source=self.lines, color=light[name], line_dash=dash, line_width=width,
                legend_label=words, name=name,
            )  # fmt: skip
        self.errors.yaxis.formatter = _ticks(f"{TICK} + ' %'")
        self.errors.add_tools(
            _hover(
                [
                    ("day", "@day{%F}"),
                    ("model", "@model_day{custom}"),
                    ("last close", "@last_close_day{custom}"),
                    ("last open", "@last_open_day{custom}"),
                ],
                line,
            )
        )
        self._interval_item = self.prices.legend[0].items[0]
        for item in self.errors.legend[0].items:
            item.name = item.renderers[0].name
        for chart in (self.prices, self.errors):
            _plain(chart)

    def draw(self, rows: SeriesRows, beside: Baselines) -> None:
        """Show another symbol, or other rows of it."""
        new = drawn(rows, beside)
        self.lines.data, self.band.data = new.lines, new.band
        self._hover.tooltips = [
            *PRICES_SHOWN,
            *(INTERVAL_SHOWN if len(new.band["day"]) else ()),
            *(RANGE_SHOWN if np.isfinite(rows.range).any() else ()),
        ]
        for marks in self._marks:
            marks.visible = len(rows.days) <= FEW
        self._interval_item.visible = bool(len(new.band["day"]))
        for item in self.errors.legend[0].items:
            item.visible = bool(np.isfinite(new.lines[item.name]).any())
        self.show_last(None)

    def show_last(self, days: int | None) -> None:
        """Show the last days alone; None: all."""
        shown = self.lines.data["day"]
        if not len(shown):
            return
        first, last = float(shown[0]), float(shown[-1])
        first = first if days is None else max(first, last - days * DAY)
        room = max(DAY, 0.01 * (last - first))
        begin, end = first - room, last + room
        self.days.update(start=begin, end=end, reset_start=begin, reset_end=end)


_NO_NUMBERS: Final = np.zeros(0)
_NO_ROWS: Final = SeriesRows("", np.zeros(0, "datetime64[D]"), *(np.zeros(0),) * 7, ids=(), seeds=0)


def _usual(days: "Range1d", height: int) -> dict[str, Any]:
    return {
        "height": height,
        "sizing_mode": "stretch_width",
        "x_axis_type": "datetime",
        "x_range": days,
        "window_axis": "x",
        "tools": "xbox_zoom,xpan,xwheel_zoom,reset,save",
        # nothing takes a finger that wants to scroll the page; where there is a mouse, the browser chooses (`ready.js`)
        "active_drag": None,
        "active_scroll": None,
        "toolbar_location": "above",
        "background_fill_alpha": 0.0,
        "border_fill_alpha": 0.0,
        "min_border_left": 64,
        "margin": 0,
        "min_border_right": 12,
        "output_backend": "canvas",
    }


def _plain(chart: "Plot") -> None:
    colours = THEMES["light"]
    chart.outline_line_color = None
    chart.toolbar.logo = None
    chart.legend.location = "top_left"
    chart.legend.orientation = "horizontal"
    chart.legend.background_fill_alpha = 0.0
    chart.legend.border_line_color = None
    chart.legend.label_text_color = colours["text"]
    chart.legend.label_text_font_size = "13px"
    chart.legend.padding = 2
    legend = chart.legend[0]
    chart.center.remove(legend)
    chart.add_layout(legend, "above")
    for axis in chart.axis:
        axis.axis_line_color = None
        axis.major_tick_line_color = None
        axis.minor_tick_line_color = None
        axis.major_label_text_color = colours["text"]
        axis.major_label_text_font_size = "12px"
    chart.xgrid.grid_line_color = None
    chart.ygrid.grid_line_color = colours["grid"]


def _ticks(code: str) -> "CustomJSTickFormatter":
    from bokeh.models import CustomJSTickFormatter

    return CustomJSTickFormatter(code=code)


def _hover(tooltips: list[tuple[str, str]], on: Any) -> "HoverTool":
    from bokeh.models import CustomJSHover, HoverTool

    number, percent = CustomJSHover(code=NUMBER), CustomJSHover(code=PERCENT)
    percents = {"@off", "@range", "@range_high", "@model_day", "@last_close_day", "@last_open_day"}
    named = {value.partition("{")[0] for _, value in tooltips} - {"@day"}
    formatters = {name: percent if name in percents else number for name in named} | {"@day": "datetime"}
    return HoverTool(
        tooltips=tooltips, formatters=formatters, renderers=[on], mode="vline", line_policy="nearest", visible=False
    )
