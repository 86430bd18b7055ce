"""How often a worker looks what serves."""

import time
import uuid

import pytest

from crypto_ml.storage.objects import connect
from crypto_ml_tests.dropbox.site import until
from crypto_ml_tests.forecasting.markets import market
from crypto_ml_tests.service.asking import Asking
from crypto_ml_tests.stages.road import upload

RECORD = {"symbol": "K001", "date": "2018-03-25", "open": 1, "high": 1, "low": 1, "close": 1, "market": 1}


def test_a_worker_that_nobody_asks_looks_less_often_and_at_once_when_somebody_does(
    bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("crypto_ml.service.watch.LOOK_EVERY", 0.2)
    monkeypatch.setattr("crypto_ml.service.watch.IDLE_AFTER", 1.0)
    monkeypatch.setattr("crypto_ml.service.watch.LOOK_WHEN_IDLE", 600.0)
    with Asking.on(connect(bucket, f"tests/{uuid.uuid4().hex}")) as asking:
        until(lambda: time.time() - looked(asking) > 5 * 0.2, "it goes on looking")
        before = looked(asking)
        asking.road.drop(prices=upload(market({"K001": 5})))
        asking.road.answer_new()
        assert looked(asking) == before
        asking.predict([RECORD])
        version = asking.road.history.version()
        until(lambda: asking.get("/v1/model")["history_version"] == version, "the new history is not seen")


def looked(asking: Asking) -> float:
    """When it looked last, in seconds since 1970."""
    lines = asking.client.get("/metrics").text.splitlines()
    return float(next(line for line in lines if line.startswith("crypto_ml_looked_at_timestamp_seconds")).split()[-1])
