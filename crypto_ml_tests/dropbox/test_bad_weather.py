"""A store that answers 500 or 503 in the middle costs time: nothing is lost, doubled, or taken for an empty box."""

import io
import random
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import pytest
from botocore.awsrequest import AWSResponse

from crypto_ml.errors import Unavailable
from crypto_ml.storage.objects import ObjectStore, connect
from crypto_ml_tests.dropbox.histories import Box, bodies


class Body(io.BytesIO):
    """The body of an answer, as the SDK reads it."""

    def stream(self, *_: Any, **__: Any) -> Iterator[bytes]:
        yield self.read()


@contextmanager
def failing(store: ObjectStore, after: int, status: int) -> Iterator[None]:
    """From its request number `after` on, the store answers with this status instead of doing anything."""
    seen = 0

    def answer(request: Any, **_: Any) -> Any:
        nonlocal seen
        seen += 1
        return AWSResponse(request.url, status, {}, Body(b"")) if seen > after else None  # type: ignore[arg-type]

    store.client.meta.events.register("before-send.s3", answer)
    try:
        with patch.object(store, "quick", None):
            yield
    finally:
        store.client.meta.events.unregister("before-send.s3", answer)


@pytest.fixture
def box(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> Box:
    """Two files, dropped through a client that tries once."""
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    made = Box(connect(store.bucket, f"{store.prefix}{uuid.uuid4().hex}"))
    made.put("a.csv", bodies()[0])
    made.put("in/c.csv", bodies()[3])
    return made


@pytest.mark.parametrize("status", [500, 503])
def test_a_look_that_fails_anywhere_says_so_and_the_next_one_finds_everything(box: Box, status: int) -> None:
    for after in range(3):
        with failing(box.store, after, status), pytest.raises(Unavailable):
            box.log.assign_new(box.road.now, box.listing.look())
    box.settle(random.Random(1))  # noqa: S311
    box.check()


@pytest.mark.parametrize("status", [500, 503])
def test_a_run_that_fails_at_any_request_is_made_good_by_the_next_one(box: Box, status: int) -> None:
    box.tick()
    failed = 0
    for after in range(0, 60, 6):
        try:
            with failing(box.store, after, status):
                box.answer(1)
        except Unavailable:
            failed += 1
        box.put("a.csv", bodies()[after % 6])
        box.tick()
    assert failed >= 3
    box.settle(random.Random(1))  # noqa: S311
    box.check()
