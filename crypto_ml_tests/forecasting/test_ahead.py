"""Work on several threads comes out as if it were done piece by piece."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import pytest

from crypto_ml.forecasting.ahead import ahead


def test_results_come_in_order_and_only_so_many_pieces_are_on_their_way() -> None:
    asked = 0

    def pieces() -> Iterator[int]:
        nonlocal asked
        for piece in range(20):
            asked += 1
            yield piece

    done = [Event() for _ in range(20)]

    def work(piece: int) -> int:
        if piece % 2 == 0:  # every other one is done after the one behind it
            assert done[piece + 1].wait(60)
        done[piece].set()
        return piece

    with ThreadPoolExecutor(3) as pool:
        for taken, made in enumerate(ahead(work, pieces(), pool, 4)):
            assert made == taken
            assert asked <= taken + 4
    assert asked == 20


def test_a_failure_comes_to_whoever_takes_the_results_and_nothing_is_begun_behind_it() -> None:
    begun: list[int] = []

    def work(piece: int) -> int:
        begun.append(piece)
        return 1 // (piece - 2)

    with ThreadPoolExecutor(1) as pool, pytest.raises(ZeroDivisionError):
        list(ahead(work, iter(range(100)), pool, 3))
    assert len(begun) <= 2 + 3
