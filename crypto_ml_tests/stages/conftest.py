"""A road for each test, which is looked over once the test is through."""

from collections.abc import Iterator

import pytest

from crypto_ml.storage.objects import ObjectStore
from crypto_ml_tests.stages.road import PREFIXES, Road


@pytest.fixture
def road(store: ObjectStore) -> Iterator[Road]:
    """A store with nothing in it. Whatever a test did, nothing may stand outside the contract's prefixes in the end."""
    made = Road(store)
    yield made
    assert [key for key in made.objects() if not key.startswith(PREFIXES)] == []
