"""Pictures of a training run, as PNG bytes: the same numbers give the same bytes.

Belongs here: drawing what evaluation and network have worked out. Nothing here computes an error. Each raises
NotInstalled where there is no matplotlib; whoever can do without a picture asks `extras.can_draw` first.
"""

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from crypto_ml.errors import Refused
from crypto_ml.extras import require_drawing
from crypto_ml.forecasting.evaluation import Evaluation
from crypto_ml.forecasting.verdicts import DailyLoss, Judgement, running_mean

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FloatArray = npt.NDArray[np.float64]

NETWORK: Final = "#1f6fb4"
OBSERVED: Final = "#222222"
LAST_CLOSE: Final = "#e08a1e"
LAST_OPEN: Final = "#b8b8b8"


def loss_curve(
    history: Mapping[str, Sequence[float]], unit: str = "Huber loss, deviations of the target", step: str = "epoch"
) -> bytes:
    """Loss per epoch on training and validation rows; `history` has the lists `loss` and `val_loss`, one per epoch.

    step: what there is one number for. Raises Refused where there is no epoch.
    """
    if not history["val_loss"]:
        raise Refused("There is no epoch to draw; train for at least one.")
    require_drawing("A picture")
    from matplotlib.ticker import MaxNLocator

    figure, axes = _figure(7.0, 3.6, f"Loss by {step}")
    epochs = range(1, len(history["loss"]) + 1)
    best = int(np.argmin(history["val_loss"]))
    axes.plot(epochs, history["loss"], color=LAST_CLOSE, marker="o", markersize=3, label="training (with dropout)")
    axes.plot(epochs, history["val_loss"], color=NETWORK, marker="o", markersize=3, label="validation")
    axes.axvline(best + 1, color=LAST_OPEN, linestyle="--", linewidth=1, zorder=0)
    axes.plot(
        [best + 1], [history["val_loss"][best]], "o", color=NETWORK, markersize=8, label=f"kept: {step} {best + 1}"
    )
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel(step)
    axes.set_ylabel(unit)
    axes.legend(frameon=False)
    return _png(figure)


def predicted_against_actual(dates: npt.ArrayLike, observed: FloatArray, predicted: FloatArray, title: str) -> bytes:
    """Observed and predicted opening price of one symbol by day, and their difference below in percent of observed.

    dates: (n,) datetime64 or ISO strings, ascending; observed and predicted: (n,) in the same currency. Raises
    Refused where there is no row.
    """
    days = np.asarray(dates).astype("datetime64[D]")
    if not len(days):
        raise Refused("There is no row to draw; choose a symbol with rows in the holdout.")
    figure, axes = _figure(7.0, 4.4, title, rows=2)
    below = figure.axes[1]
    # wide and pale below narrow and dark: where the two agree, both are still seen
    axes.plot(days, observed, color=LAST_OPEN, linewidth=3.2, label="observed")
    axes.plot(days, predicted, color=NETWORK, linewidth=1.0, label="predicted")
    axes.set_ylabel("opening price")
    axes.legend(frameon=False)
    below.axhline(0, color=OBSERVED, linewidth=0.8)
    below.plot(days, 100 * (predicted - observed) / observed, color=NETWORK, linewidth=0.9)
    below.set_ylabel("off by, %")
    _date_ticks(below)
    return _png(figure)


def holdout_by_symbol(evaluation: Evaluation, *, most: int = 20) -> bytes:
    """Mean relative error on the holdout of network, last close and last open, for the `most` symbols with most rows.

    One line for each symbol of `evaluation.by_symbol`, in percent on a logarithmic axis (the last open is some ten
    times as far off as the others, and a bar has no length there: dots); the network's best symbol stands on top.
    """
    require_drawing("A picture")
    from matplotlib.ticker import LogLocator, NullFormatter

    largest = sorted(evaluation.by_symbol.items(), key=lambda item: (-item[1].rows, item[0]))[:most]
    shown = sorted(largest, key=lambda item: (item[1].network.mre, item[0]))
    left_out = len(evaluation.by_symbol) - len(shown)
    title = "Mean relative error on the holdout" + (f" ({len(shown)} longest series)" if left_out else "")
    figure, axes = _figure(7.0, 1.5 + 0.23 * len(shown), title)
    places = np.arange(len(shown))
    ways = (
        ("network", NETWORK, [100 * comparison.network.mre for _, comparison in shown]),
        ("last close", LAST_CLOSE, [100 * comparison.last_close.mre for _, comparison in shown]),
        ("last open", LAST_OPEN, [100 * comparison.last_open.mre for _, comparison in shown]),
    )
    for marker, (label, colour, values) in zip("oDs", reversed(ways), strict=True):
        axes.plot(values, places, marker, color=colour, markersize=6, label=label)
    axes.set_yticks(places, [_short(name) for name, _ in shown])
    axes.set_ylim(len(shown) - 0.4, -0.6)
    if all(value > 0 for _, _, values in ways for value in values):
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("percent of the observed open")
    # outside: inside, it covers a dot whichever corner it takes
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    return _png(figure)


def coverage_by_month(months: Mapping[str, Mapping[str, float]], level: float) -> bytes:
    """Share of the observed opens within their interval, by month of the holdout, beside the level that was meant.

    months: by `YYYY-MM` `coverage` (0 to 1) and `rows`.
    """
    figure, axes = _figure(7.0, 3.2, f"Opens within their {100 * level:g} % interval, by month of the holdout")
    places, names = np.arange(len(months)), sorted(months)
    axes.bar(places, [100 * months[name]["coverage"] for name in names], color=NETWORK, width=0.6)
    axes.axhline(100 * level, color=LAST_CLOSE, linestyle="--", linewidth=1.2, label=f"meant: {100 * level:g} %")
    axes.set_xticks(places, [f"{name}\n{months[name]['rows']:,.0f} rows" for name in names], fontsize=8)
    axes.set_ylim(0, 105)
    axes.set_ylabel("percent of the opens")
    axes.legend(frameon=False, loc="lower right")
    return _png(figure)


def importances(importance: Mapping[str, float]) -> bytes:
    """By how much the loss grows, in percent, when a part of the windows is shuffled over the rows of the holdout."""
    figure, axes = _figure(7.0, 1.2 + 0.26 * len(importance), "What the output rests on: loss added by shuffling")
    places = np.arange(len(importance))
    axes.barh(places, [100 * value for value in importance.values()], color=NETWORK, height=0.6)
    axes.axvline(0, color=OBSERVED, linewidth=0.8)
    axes.set_yticks(places, [name.replace("_", " ") for name in importance])
    axes.set_ylim(len(importance) - 0.4, -0.6)
    axes.set_xlabel("percent of the loss, before the output is shrunk")
    return _png(figure)


def excess_loss(loss: DailyLoss, judgement: Judgement, who: str) -> bytes:
    """What each day added to the mean excess of loss that a word was decided by, with the word in the title.

    The line ends at the mean, the band there at its interval; 0 is as good as what `who` is compared with.
    """
    added, half = running_mean(loss, judgement.level)
    title = f"{who} against {judgement.against}: {judgement.word}"
    figure, axes = _figure(7.0, 3.6, title)
    axes.fill_between(loss.days, 100 * (added - half), 100 * (added + half), color=NETWORK, alpha=0.18, linewidth=0)
    axes.plot(loss.days, 100 * added, color=NETWORK, linewidth=1.4)
    axes.axhline(0, color=OBSERVED, linewidth=0.8)
    axes.axhline(100 * judgement.delta, color=LAST_CLOSE, linestyle="--", linewidth=1, label="an excess that matters")
    axes.set_ylabel("excess, % of the last close's loss")
    axes.legend(frameon=False)
    _date_ticks(axes)
    return _png(figure)


def _figure(width: float, height: float, title: str, rows: int = 1) -> "tuple[Figure, Axes]":
    """A figure of `width` × `height` inches with one axes, or two above each other that share days; returns the top."""
    require_drawing("A picture")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=90, layout="constrained")
    ratios = [1.0] if rows == 1 else [3.0, 1.0]
    all_axes = figure.subplots(rows, 1, sharex=True, squeeze=False, height_ratios=ratios)[:, 0]
    for axes in all_axes:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(visible=True, color="#e6e6e6", linewidth=0.8)
        axes.set_axisbelow(True)
        axes.tick_params(labelsize=9)
    # a dollar sign in a title would start a formula
    all_axes[0].set_title(title.replace("$", r"\$"), loc="left", fontsize=11)
    return figure, all_axes[0]


def _date_ticks(axes: "Axes") -> None:
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    locator = AutoDateLocator()  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]


def _short(name: str, most: int = 14) -> str:
    shortened = name if len(name) <= most else name[: most - 1] + "…"
    return shortened.replace("$", r"\$")


def _png(figure: "Figure") -> bytes:
    """The figure as a PNG of 64 colours: a third of the size of true colour, and no difference to see in lines."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # type: ignore[no-untyped-call]
    pixels = np.asarray(canvas.buffer_rgba())  # type: ignore[no-untyped-call]
    image = Image.fromarray(pixels).convert("RGB").quantize(64, dither=Image.Dither.NONE)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
