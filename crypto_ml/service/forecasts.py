"""The newest forecast, as it stands in `forecasts/latest.csv`, read again when it is another."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from threading import Lock
from typing import Any, Final

import pyarrow as pa
import pyarrow.csv as pa_csv

from crypto_ml.forecasting.answers import FORECAST_READ
from crypto_ml.ledger.layout import LATEST_FORECAST
from crypto_ml.service.problems import NOT_FOUND, Problem
from crypto_ml.service.rendering import RESULTS, as_json, rows_of
from crypto_ml.storage.failures import ObjectMissing
from crypto_ml.storage.objects import ObjectStore

FRESH: Final = 1.0
"""Seconds for which what was looked at is taken for what stands."""


@dataclass(frozen=True)
class Latest:
    """A forecast as it is sent, whole or of one symbol. etag: of the object, without quotes."""

    etag: str
    csv: bytes
    json: bytes
    by_symbol: Mapping[str, Mapping[str, Any]]


class LatestForecast:
    """The forecast that stands, kept as long as its object is the same; for any thread."""

    def __init__(self) -> None:
        self._kept: Latest | None = None
        self._looked = -FRESH
        self._looking = Lock()

    def get(self, store: ObjectStore) -> Latest:
        """What stands, at most a second ago. Raises Problem where there is none yet; Unavailable."""
        with self._looking:
            if self._kept is None or time.monotonic() - self._looked > FRESH:
                there = store.head(LATEST_FORECAST)
                if there is None:
                    self._kept = None
                elif self._kept is None or self._kept.etag != there.etag:
                    self._kept = _read(store)
                self._looked = time.monotonic()
            if self._kept is None:
                raise Problem(NOT_FOUND, "there is no forecast yet: the first one is made when a day's rows have come")
            return self._kept


def _read(store: ObjectStore) -> Latest | None:
    try:
        there, content = store.fetch(LATEST_FORECAST)
    except ObjectMissing:
        return None
    options = pa_csv.ConvertOptions(column_types=FORECAST_READ, strings_can_be_null=False)
    parse = pa_csv.ParseOptions(newlines_in_values=True)
    rows = rows_of(pa_csv.read_csv(pa.BufferReader(content), pa_csv.ReadOptions(use_threads=False), parse, options))
    for row in rows:
        if row.get("prediction_id"):
            row["links"] = {"trace": f"{RESULTS}/{row['prediction_id']}/trace"}
    first = rows[0] if rows else {}
    whole = {name: first.get(name) for name in ("target_date", "as_of", "model_version")}
    return Latest(there.etag, content, as_json({**whole, "forecasts": rows}), {str(row["symbol"]): row for row in rows})
