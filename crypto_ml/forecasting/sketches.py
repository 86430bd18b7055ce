"""Small pictures as SVG text, drawn without a library: a scoring run has no time to import one, and may not have it.

Belongs here: a few lines in less than a thousand characters, which is what a page shows without being asked to.
Pictures to look at for longer are drawn in `pictures`, where matplotlib is.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

WIDTH, HEIGHT, MARGIN, LABELS = 292, 72, 4, 44
"""Of what is drawn, and round it, in the units of the picture; the numbers stand to the right."""

SHORTEST_STEP: Final = 4
MOST_POINTS: Final = 90
OBSERVED, PREDICTED, OTHER = "silver", "steelblue", "darkorange"


@dataclass(frozen=True, eq=False)
class Line:
    """Values at equal distances, (n,) float64; not finite where there is none. colour: a name that SVG knows."""

    values: FloatArray
    colour: str
    thick: bool = False

    @classmethod
    def of(cls, values: Sequence[float], colour: str, *, thick: bool = False) -> "Line":
        """A line through these values."""
        return cls(np.asarray(values, np.float64), colour, thick)


@dataclass(frozen=True, eq=False)
class Series:
    """What one symbol's opens were and what was predicted for them, by day, in currency.

    days: (n,) datetime64, ascending. observed, predicted: (n,) float64, NaN where there is none.
    """

    symbol: str
    days: npt.NDArray[np.datetime64]
    observed: FloatArray
    predicted: FloatArray

    def last(self, count: int) -> "Series":
        """The last `count` days."""
        return Series(self.symbol, self.days[-count:], self.observed[-count:], self.predicted[-count:])

    @property
    def lines(self) -> list[Line]:
        """The two lines: wide and pale below narrow and dark, so that both are seen where they agree."""
        return [Line(self.observed, OBSERVED, thick=True), Line(self.predicted, PREDICTED)]


def sketch(lines: Sequence[Line], points: int = MOST_POINTS) -> str:
    """The lines in one picture, with its least and its greatest value beside it.

    All lines have the same length; of more than `points` values (or MOST_POINTS) as many are drawn, evenly chosen. A
    value without neighbours is a dot.
    """
    length = len(lines[0].values)
    count = min(length, points, MOST_POINTS)
    at = np.unique(np.linspace(0, length - 1, count).round().astype(int)) if count else np.zeros(0, int)
    chosen = [np.where(np.isfinite(line.values[at]), line.values[at], np.nan) for line in lines]
    known = np.concatenate(chosen)
    known = known[~np.isnan(known)]
    low, high = (float(known.min()), float(known.max())) if len(known) else (0.0, 0.0)
    step = max(WIDTH // max(len(at) - 1, 1), SHORTEST_STEP)
    right = 2 * MARGIN + step * max(len(at) - 1, 1)
    drawn = "".join(_drawn(line, _heights(values, low, high), step) for line, values in zip(lines, chosen, strict=True))
    said = [
        f"<text x='{right}' y='{y}'>{value:,.5g}</text>"
        for y, value in ((2 * MARGIN, high), (HEIGHT + 2 * MARGIN, low))
        if len(known)
    ]
    return (
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {right + LABELS} {HEIGHT + 3 * MARGIN}' width='440' "
        f"fill='none' stroke-linecap='round'>{drawn}<g fill='gray' font-size='8'>{''.join(said)}</g></svg>"
    )


def _drawn(line: Line, heights: Sequence[int | None], step: int) -> str:
    """A line, and the values in it that would hardly be seen because there is none beside them."""
    wide = " stroke-width='3'" if line.thick else ""
    path = f"<path stroke='{line.colour}'{wide} d='{''.join(_runs(heights, step))}'/>"
    dots = "".join(_dots(heights, step))
    return path + (f"<path stroke='{line.colour}' stroke-width='5' d='{dots}'/>" if dots else "")


def _heights(values: FloatArray, low: float, high: float) -> list[int | None]:
    """Where each value stands, in whole units from the top; None where there is none."""
    with np.errstate(over="ignore", invalid="ignore"):
        share = (values / 2 - low / 2) / (high / 2 - low / 2) if high > low else np.full(len(values), 0.5)
    places = MARGIN + HEIGHT * (1 - np.clip(np.nan_to_num(share, nan=0.5), 0, 1))
    rounded = places.round().astype(int).tolist()
    return [None if missing else place for place, missing in zip(rounded, np.isnan(values), strict=True)]


def _runs(heights: Sequence[int | None], step: int) -> Iterator[str]:
    """A path through each run of values: the relative moves between them are the shortest way to say it."""
    before: int | None = None
    for number, height in enumerate(heights):
        if height is not None and before is not None:
            yield f"l{step}{height - before:+d}".replace("+", " ")
        elif height is not None:
            yield f"M{MARGIN + number * step} {height}h0"
        before = height


def _dots(heights: Sequence[int | None], step: int) -> Iterator[str]:
    """A move to each value that has no neighbour."""
    around = [None, *heights, None]
    for number, (before, height, after) in enumerate(zip(around, heights, around[2:], strict=False)):
        if before is None and height is not None and after is None:
            yield f"M{MARGIN + number * step} {height}h0"
