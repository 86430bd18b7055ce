"""Predictions files as the tests need them, and the page served to a browser."""

import asyncio
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from crypto_ml.page.server import Listening, address_of, page_server
from crypto_ml.page.sources import FileSource
from crypto_ml.page.watching import Watching

OFTEN = 0.1
"""Seconds between two looks, where somebody waits for what is seen."""


def predictions(symbols: Mapping[str, int], **more: Any) -> pd.DataFrame:
    """Rows of predictions: so many of each symbol, the first one a seed, each prediction 1 % above what is observed."""
    lengths = np.array(list(symbols.values()))
    number = np.repeat(np.arange(len(lengths)), lengths)
    index = np.arange(len(number)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    observed = (10.0 + number) * (1.0 + 0.1 * np.sin(index))
    days = pd.date_range("2023-01-01", periods=int(lengths.max())).strftime("%Y-%m-%d").to_numpy()
    made = pd.DataFrame({"symbol": np.array(list(symbols), object)[number], "index": index, "date": days[index]})
    made["pred_open"], made["val_open"] = np.where(index == 0, 1.0, 1.01) * observed, observed
    made["status"] = np.where(index == 0, "seed", "predicted")
    made["prediction_id"] = [f"0123456789abcdef-{line}" for line in range(2, len(made) + 2)]
    return made.assign(**more)


def as_csv(rows: pd.DataFrame) -> bytes:
    return rows.to_csv(index=False).encode()


@contextmanager
def served(watching: Watching, service: str | None = None) -> Iterator[str]:
    """The address of the page, served for as long as the context lasts."""
    ready, address, stop = threading.Event(), [], []

    def serve() -> None:
        loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)
        listening = Listening(port=0)
        server = page_server(watching, listening, service)
        address.append(address_of(server, listening))
        stop.append(lambda: server.io_loop.add_callback(server.io_loop.stop))
        ready.set()
        server.io_loop.start()
        server.stop(wait=False)
        loop.close()

    with watching:
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            assert ready.wait(60)
            yield address[0]
        finally:
            stop[0]()
            thread.join()


def of_file(path: Path) -> Watching:
    return Watching(lambda: FileSource(path), every=OFTEN)
