"""An application in this process, on a real store with a model and a history, shared by the tests of a module."""

import uuid
from collections.abc import Iterator

import pytest

from crypto_ml.storage.objects import connect
from crypto_ml_tests.service.asking import Asking


@pytest.fixture(scope="module")
def asking(bucket: str) -> Iterator[Asking]:
    """What anybody may ask, on a store of its own, which sees a new history or champion at once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("crypto_ml.service.watch.LOOK_EVERY", 0.2)
        patch.setattr("crypto_ml.service.watch.SETTLE_EVERY", 0.2)
        with Asking.on(connect(bucket, f"tests/{uuid.uuid4().hex}")) as made:
            yield made
