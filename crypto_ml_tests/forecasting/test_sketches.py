"""Small pictures are SVG whatever the numbers, and what is kept to draw them from is bounded."""

from typing import Any
from xml.dom.minidom import parseString

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crypto_ml.forecasting.looked_at import MOST_SERIES, LookedAt
from crypto_ml.forecasting.sketches import MOST_POINTS, OBSERVED, PREDICTED, Line, sketch

NUMBERS = st.floats(allow_nan=True, allow_infinity=True)
VALUES = st.integers(0, 120).flatmap(lambda n: st.tuples(*[st.lists(NUMBERS, min_size=n, max_size=n)] * 2))


def drawn(*lines: Line, points: int = MOST_POINTS) -> Any:
    return parseString(sketch(lines, points))  # noqa: S318 - it is ours


@given(values=VALUES, points=st.integers(1, 120))
def test_whatever_the_numbers_a_sketch_is_svg_with_as_many_values_as_there_is_room_for(
    values: tuple[list[float], list[float]], points: int
) -> None:
    picture = drawn(Line.of(values[0], OBSERVED, thick=True), Line.of(values[1], PREDICTED), points=points)
    for path in picture.getElementsByTagName("path"):
        path_data = path.getAttribute("d")
        assert path_data.count("M") + path_data.count("l") <= min(points, MOST_POINTS)
        assert "nan" not in path_data


def test_a_sketch_says_its_least_and_greatest_value_and_draws_them_at_its_ends() -> None:
    picture = drawn(Line.of([1.0, 3.0, 2.0], OBSERVED))
    assert [text.firstChild.data for text in picture.getElementsByTagName("text")] == ["3", "1"]
    (path,) = picture.getElementsByTagName("path")
    assert path.getAttribute("d") == "M4 76h0l146-72l146 36"


def test_a_value_without_neighbours_is_a_dot_and_a_missing_one_a_gap() -> None:
    picture = drawn(Line.of([1.0, 1.0, np.nan, 1.0], PREDICTED))
    line, dots = picture.getElementsByTagName("path")
    assert line.getAttribute("d") == "M4 40h0l97 0M295 40h0"
    assert (dots.getAttribute("d"), dots.getAttribute("stroke-width")) == ("M295 40h0", "5")


def rows(lengths: dict[str, int], file: int = 0) -> pa.Table:
    symbols = [symbol for symbol, count in lengths.items() for _ in range(count)]
    days = np.datetime64("2020-01-01") + np.concatenate([np.arange(count) for count in lengths.values()])
    files, twos, threes = (pa.repeat(value, len(symbols)) for value in (file, 2.0, 3.0))
    return pa.table({"file": files, "symbol": symbols, "date": days, "val_open": twos, "pred_open": threes})


def test_the_longest_series_are_kept_however_they_come_and_only_their_last_days() -> None:
    seen = LookedAt()
    seen.add(rows({"A": 5, "LONG": 300, "B": 1}))
    seen.add(rows({f"S{number}": 10 + number for number in range(MOST_SERIES)}, file=1))
    assert [series.symbol for series in seen.series] == ["LONG", "S5", "S4", "S3", "S2", "S1"]
    assert len(seen.series[0].days) == MOST_POINTS
    assert seen.series[0].days[-1] == np.datetime64("2020-10-26")
    assert seen.mean_relative_error == pytest.approx(0.5)


def test_series_of_one_row_are_not_drawn_and_how_far_off_they_are_is_kept() -> None:
    seen = LookedAt()
    seen.add(rows({f"S{number}": 1 for number in range(5000)}))
    assert not seen.series
    assert len(seen.off_by) == 2000
    assert LookedAt().mean_relative_error is None
