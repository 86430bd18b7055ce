"""What is remembered of series is what was said of them, whatever is asked in whatever order, in bounded room."""

from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crypto_ml.forecasting.current import Order
from crypto_ml.forecasting.running import ROWS_KEPT, SeriesBook
from crypto_ml.stages import remembered_series
from crypto_ml.stages.remembered_series import RememberedSeries
from crypto_ml_tests.forecasting.markets import market
from crypto_ml_tests.stages.test_earlier_rows import InMemory

SYMBOLS = [f"S{number}" for number in range(9)]


class Said(InMemory):
    """A history that counts what it is asked."""

    def __init__(self) -> None:
        rows = market({name: 3 + 9 * number for number, name in enumerate(SYMBOLS[:-2])})
        rows = rows.assign(known_at=datetime(2026, 1, 1, tzinfo=UTC), upload_id="00000001.0", cleaning=1)
        super().__init__(pa.Table.from_pandas(rows, ROWS_KEPT, preserve_index=False))
        self.changed = frozenset(SYMBOLS[:2])
        self.asked = 0

    def at_hand(self, symbols: Collection[str], version: int) -> tuple[SeriesBook, dict[str, date]]:
        self.asked += 1
        return super().at_hand(symbols, version)

    def slugs(
        self, symbols: Collection[str] | None = None, version: int | None = None, order: Order = "delivered"
    ) -> dict[str, str]:
        assert order == "delivered"
        self.asked += 1
        return {symbol: f"{symbol}-{version}" for symbol in symbols or () if symbol in SYMBOLS[3:6]}


SAID = Said()


@pytest.mark.parametrize("most_bytes", [0, 130_000, 64 << 20])
@given(asked=st.lists(st.sets(st.sampled_from(SYMBOLS)), max_size=12), most=st.sampled_from([1, 3, 64]))
def test_any_series_asked_for_in_any_order_come_as_the_history_has_them(
    most_bytes: int, asked: list[set[str]], most: int
) -> None:
    remembered = RememberedSeries(SAID, SAID, 7, most_bytes)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(remembered_series, "MOST_BLOCKS", most)
        patch.setattr(remembered_series, "MOST_SERIES", 8)
        for symbols in asked:
            (book, changed), (expected, others) = (one.at_hand(symbols, 7) for one in (remembered, SAID))
            assert (book.states.to_pylist(), book.rows.to_pylist()) == (
                expected.states.to_pylist(),
                expected.rows.to_pylist(),
            )
            assert changed == others
            assert remembered.slugs(symbols, 7) == SAID.slugs(symbols, 7)
            assert sum(block.bytes for block in remembered._blocks.values()) <= most_bytes
            assert len(remembered._blocks) <= most


def test_what_is_known_of_a_version_is_asked_once_and_of_another_each_time() -> None:
    said = Said()
    remembered = RememberedSeries(said, said, 7)

    def ask(version: int) -> None:
        for symbols in (SYMBOLS[:4], SYMBOLS[2:7], SYMBOLS[3:4], SYMBOLS[-1:]):
            remembered.at_hand(symbols, version)
            remembered.slugs(symbols, version)

    for expected in (6, 6):
        ask(7)
        assert said.asked == expected
    ask(8)
    assert said.asked == 6 + 8
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(ask, [7] * 20))
    assert said.asked == 6 + 8
