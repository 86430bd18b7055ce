"""Work done on several threads, a few pieces ahead of whoever takes the results, which come in order.

Arrow, DuckDB, onnxruntime and most of numpy release the interpreter while they work, so threads use all cores.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from typing import Final, TypeVar

THREADS: Final = 2
"""Threads of a pool: with more, pieces wait for the interpreter, and each piece on its way takes memory."""

Given = TypeVar("Given")
Made = TypeVar("Made")


def ahead(
    work: Callable[[Given], Made], pieces: Iterable[Given], pool: Executor, most: int = THREADS + 1
) -> Iterator[Made]:
    """What `work` makes of each piece, in the order of the pieces, with at most `most` of them on their way.

    What `work` or `pieces` raises is raised where its result would come, or earlier. Whoever stops before the end
    leaves nothing running behind.
    """
    waiting = deque[Future[Made]]()
    try:
        for piece in pieces:
            waiting.append(pool.submit(work, piece))
            if len(waiting) >= most:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()
