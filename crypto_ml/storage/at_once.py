"""Requests to a store, several on their way at once where that is worth threads of their own."""

from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Final, ParamSpec, TypeVar

from crypto_ml.storage.objects import ObjectStore

MOST: Final = 8

P = ParamSpec("P")
T = TypeVar("T")


class InTurn(Executor):
    """Does each piece of work when it is submitted. An exception is the future's, as with any executor."""

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Do it."""
        done: Future[T] = Future()
        try:
            done.set_result(fn(*args, **kwargs))
        except Exception as error:  # noqa: BLE001 - whoever asks the future has it raised
            done.set_exception(error)
        return done


def at_once(pieces: int, store: ObjectStore) -> Executor:
    """Who does so many pieces of work that mostly wait for a store; starting a thread takes longer than one that does
    not have to wait."""
    return ThreadPoolExecutor(min(MOST, pieces)) if pieces > 1 and store.waits else InTurn()
