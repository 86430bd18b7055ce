"""Requests on a road: asked as a service asks them, without a service."""

import json
from collections.abc import Iterable
from datetime import UTC, datetime

import pandas as pd

from crypto_ml.stages.requests import Asked, Reply, Serving, answer_requests
from crypto_ml.stages.settled_requests import Settling
from crypto_ml_tests.stages.road import COLUMNS, Road, upload


def in_json(rows: pd.DataFrame, columns: Iterable[str] = COLUMNS) -> bytes:
    """A market (see `markets.market`) as a list of records, with the digits that it has as a file."""
    header, *lines = upload(rows, columns=columns).decode().splitlines()
    names = header.split(",")
    return f"[{', '.join(_record(names, line.split(',')) for line in lines)}]".encode()


def _record(names: list[str], values: list[str]) -> str:
    texts = {"symbol", "date", "slug", "name"}
    pairs = (
        (name, json.dumps(value) if name in texts else value or "null")
        for name, value in zip(names, values, strict=True)
    )
    return "{" + ", ".join(f'"{name}": {value}' for name, value in pairs) + "}"


def csv(body: bytes, name: str = "r") -> Asked:
    return Asked(body, "csv", name)


def records(body: bytes, name: str = "r") -> Asked:
    return Asked(body, "json", name)


def ask(
    road: Road, *asked: Asked, delivery: str | None = None, now: datetime | None = None, record: bool = True
) -> list[Reply]:
    """Ask with whatever serves now."""
    road.serving()
    serving = Serving.of(road.deployment)
    return answer_requests(
        asked, serving, road.deployment, now=now or datetime.now(UTC), delivery=delivery, record=record
    )


def settle(road: Road, *replies: list[Reply], now: datetime | None = None) -> int:
    """Settle what was answered, as its process does."""
    settling = Settling(road.deployment)
    for some in replies:
        settling.note(some)
    return settling.settle(now or datetime.now(UTC))
