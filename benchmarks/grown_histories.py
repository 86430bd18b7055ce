"""Market histories of many deliveries, made once and kept under .crypto_ml/bench, each on an S3 server of its own.

The first delivery is appended as the product does it; the others are written as commits like that one, which is some
ten times faster. A checkpoint at the end is what the product's own commits leave every now and then.
"""

import json
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final

FOLDER: Final = Path(".crypto_ml/bench/history")
BUCKET: Final = "bench"
SYMBOLS: Final = 10_000
FIRST_DAY: Final = date(2010, 1, 1)


@dataclass(frozen=True)
class Grown:
    """A history: so many deliveries of so many rows each, which go through the symbols day by day."""

    deliveries: int
    rows: int
    symbols: int = SYMBOLS

    @property
    def folder(self) -> Path:
        """Where its server keeps it."""
        return FOLDER / f"{self.deliveries}x{self.rows}"

    @property
    def last_day(self) -> date:
        """The day of its last delivery."""
        return FIRST_DAY + timedelta(days=(self.deliveries - 1) * self.rows // self.symbols)

    def name(self) -> str:
        """For tables."""
        return f"{self.deliveries:,} deliveries of {self.rows:,} rows"


def fill(grown: Grown, environment: dict[str, str]) -> None:
    """Make a history on the server that the AWS variables lead to, unless it is there; in a process of its own."""
    filling = get_context("spawn").Process(target=_fill, args=(grown, environment))
    filling.start()
    filling.join()
    if filling.exitcode:
        raise SystemExit(f"the history of {grown.name()} could not be made")


def deliveries(grown: Grown) -> Iterator[Any]:
    """Each delivery's rows, as a table of the history's columns; the last of them as of a day at random."""
    import numpy as np
    import pyarrow as pa

    from crypto_ml.storage.history import SCHEMA

    random = np.random.default_rng(0)
    close = 10 ** random.uniform(-3, 4, grown.symbols)
    names = np.array([f"B{number:06d}" for number in range(grown.symbols)])
    for number in range(grown.deliveries):
        begin = number * grown.rows
        at = np.arange(begin, begin + grown.rows) % grown.symbols
        day = FIRST_DAY + timedelta(days=begin // grown.symbols)
        open_ = close[at] * np.exp(0.002 * random.standard_normal(grown.rows))
        close[at] = open_ * np.exp(0.03 * random.standard_normal(grown.rows))
        columns = {
            "symbol": names[at],
            "date": pa.repeat(day, grown.rows),
            "open": open_,
            "high": np.maximum(open_, close[at]) * 1.01,
            "low": np.minimum(open_, close[at]) * 0.99,
            "close": close[at],
            "market": np.round(close[at] * 1e7),
            "known_at": pa.repeat(known_at(number), grown.rows),
            "upload_id": pa.repeat(f"{number + 1:08d}.0", grown.rows),
            "line": np.arange(2, grown.rows + 2),
            "cleaning": pa.repeat(pa.scalar(1, pa.int32()), grown.rows),
        }
        yield pa.table(
            [
                pa.array(columns[field.name]).cast(field.type)
                if field.name in columns
                else pa.nulls(grown.rows, field.type)
                for field in SCHEMA
            ],
            SCHEMA,
        )


def known_at(number: int) -> datetime:
    """When a delivery became known."""
    return datetime(2020, 1, 1, tzinfo=UTC) + timedelta(seconds=number)


def _fill(grown: Grown, environment: dict[str, str]) -> None:
    import os

    import pyarrow as pa
    import pyarrow.parquet as pq
    from deltalake import DeltaTable

    from crypto_ml.storage.embedded import ensure_bucket
    from crypto_ml.storage.history import MarketHistory
    from crypto_ml.storage.objects import connect

    os.environ |= environment
    store = connect(BUCKET)
    ensure_bucket(store.client, BUCKET)
    history = MarketHistory(store)
    if (grown.folder / "made").exists():
        return
    first = 0
    like: list[dict[str, Any]] = []

    def commit(number: int, rows: pa.Table) -> None:
        path = f"part-{number:05d}-{uuid.uuid4()}-c000.zstd.parquet"
        sink = pa.BufferOutputStream()
        pq.write_table(rows, sink, compression="zstd")
        body = sink.getvalue().to_pybytes()
        store.replace(f"market_history/{path}", body)
        actions = [_alike(action, number, rows, path, len(body)) for action in like]
        text = "\n".join(json.dumps(action) for action in actions)
        store.replace(f"market_history/_delta_log/{first + number:020d}.json", text.encode())

    with ThreadPoolExecutor(4) as pool:
        waiting = []
        for number, rows in enumerate(deliveries(grown)):
            if not number:
                version = history.append(rows, append_id="00000001-bench", known_at=known_at(0))
                first = version
                log = store.read(f"market_history/_delta_log/{version:020d}.json")
                like = [json.loads(line) for line in log.splitlines()]
                continue
            waiting.append(pool.submit(commit, number, rows))
            if len(waiting) >= 16:
                waiting.pop(0).result()
        for one in waiting:
            one.result()
    DeltaTable(history.uri, storage_options=store.delta_options()).create_checkpoint()
    (grown.folder / "made").touch()


def _alike(action: dict[str, Any], number: int, rows: Any, path: str, size: int) -> dict[str, Any]:
    """What an action of one append is in the commit of another."""
    import pyarrow.compute as pc

    append_id = f"{number + 1:08d}-bench"
    if "txn" in action:
        return {"txn": {**action["txn"], "appId": append_id}}
    if "commitInfo" in action:
        said = {"append_id": append_id, "known_at": known_at(number).isoformat()}
        return {"commitInfo": {**action["commitInfo"], **said}}
    if "add" not in action:
        return action
    statistics = json.loads(action["add"]["stats"])
    statistics["numRecords"] = rows.num_rows
    for which, bound in (("minValues", pc.min), ("maxValues", pc.max)):
        for name in statistics[which]:
            found = bound(rows[name]).as_py()
            if isinstance(found, datetime):
                found = found.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
            statistics[which][name] = found.isoformat() if isinstance(found, date) else found
    return {"add": {**action["add"], "path": path, "size": size, "stats": json.dumps(statistics)}}
