"""What is asked of a store meanwhile, request by request."""

from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

from crypto_ml.storage.objects import ObjectStore


@contextmanager
def operations_of(store: ObjectStore) -> Iterator[list[str]]:
    """The operations of S3 that are asked through this store, by their names; all by the SDK, which tells of them."""
    asked: list[str] = []

    def note(event_name: str, **_: object) -> None:
        asked.append(event_name.rpartition(".")[2])

    with patch.object(store, "quick", None):
        store.client.meta.events.register("before-call.s3", note)
        try:
            yield asked
        finally:
            store.client.meta.events.unregister("before-call.s3", note)
